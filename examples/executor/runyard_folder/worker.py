"""``python -m runyard_folder.worker WORKER QUEUE…``: takes messages of a folder and has them run on this host.

All that is hard about running tasks is behind ``Feeder.run``: it talks to the API, runs the task in a process tree of
its own, ships its log, and returns when the message may go.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from executors.feed import Dropped, Feeder, Worker
from runyard.world import SystemEntropy

SLOTS = int(os.environ.get("RUNYARD_WORKER_CONCURRENCY", "4"))
DRAIN = float(os.environ.get("RUNYARD_WORKER_DRAIN", "30"))


#: What this process has in hand: a message that comes twice must not take a second slot.
AT_WORK: set[str] = set()
TAKING = threading.Lock()


def take(folder: Path, queues: list[str], name: str) -> Path | None:
    """Take one message, the oldest first: of all who try to rename a file one succeeds."""
    found = [file for queue in queues for file in (folder / queue / "new").glob("*")]
    for file in sorted(found):  # attempt ids begin with the time
        if file.name in AT_WORK:
            continue
        taken = file.parent.parent / "taken"
        with suppress(FileNotFoundError):
            for place in (taken, taken / name):
                place.mkdir(mode=0o700, exist_ok=True)
            mine = file.rename(taken / name / file.name)
            AT_WORK.add(mine.name)
            return mine
    return None


def work(feeder: Feeder, folder: Path, queues: list[str], name: str, stopping: threading.Event) -> None:
    """Be one slot."""
    while not stopping.is_set():
        with TAKING:
            message = take(folder, queues, name) if feeder.status[0] == "serving" else None
        if message is None:
            stopping.wait(0.05)
            continue
        try:
            feeder.run(message.name, message.read_text())
        except Dropped:
            give_back(message)
        else:
            message.unlink(missing_ok=True)
        AT_WORK.discard(message.name)


def give_back(message: Path) -> None:
    """Let another worker have a message that was not started here."""
    with suppress(FileNotFoundError):
        message.rename(message.parents[2] / "new" / message.name)


def main() -> None:
    name, *queues = sys.argv[1:]
    home, folder = Path(os.environ["RUNYARD_HOME"]), Path(os.environ["RUNYARD_FOLDER"])
    worker = Worker(
        api_url=os.environ["RUNYARD_API_URL"],
        api_key=os.environ["RUNYARD_API_KEY"],
        name=name,
        executor="folder",
        queues=tuple(queues),
        slots=SLOTS,
    )
    code = Path(os.environ.get("RUNYARD_CODE_DIR", home / "code"))
    feeder = Feeder(home, worker, code_dir=code, task_python=sys.executable, entropy=SystemEntropy())
    for left in folder.glob(f"*/taken/{name}/*"):  # by the process that was here before
        give_back(left)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    slots = [threading.Thread(target=work, args=(feeder, folder, queues, name, stopping)) for _ in range(SLOTS)]
    for slot in slots:
        slot.start()
    stopping.wait()
    feeder.drain(DRAIN)
    feeder.close()
    for slot in slots:
        slot.join()


if __name__ == "__main__":
    main()
