"""Scenarios: logs and outputs arrive in order, unmixed, whole up to their cap."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from executors.conformance.bench import Bench

_MIB = 1024 * 1024
_CAP = 64 * _MIB


@scenario(50, "peak_memory")
async def huge_log_is_capped_in_bounded_memory(bench: Bench) -> None:
    """Of 200 MB of output the first 64 MiB are kept; the log and the finish say how much was dropped."""
    await bench.run(argv=["true"])
    before = bench.hooks.peak_memory()
    row = await bench.run(shell="head -c 200000000 /dev/zero | tr '\\0' x")
    dropped = 200_000_000 - _CAP
    bench.expect((row.state, row.ending["log_dropped"]), ("success", dropped))
    log = bench.log(row.attempt_id)
    bench.expect(log[:_CAP].count(b"x"), _CAP)
    bench.check(b"%s bytes of output were dropped" % f"{dropped:,}".encode() in log[_CAP:], "the log says it")
    bench.check(bench.hooks.peak_memory() - before < 20 * _MIB, "the supervisor's memory is bounded")


@scenario(51)
async def long_line_without_an_end_is_whole(bench: Bench) -> None:
    """A line of 10 MB, and a last line without its end, arrive as they are."""
    row = await bench.run(shell="head -c 10000000 /dev/zero | tr '\\0' y; printf '\\nlast'")
    log = bench.log(row.attempt_id)
    bench.expect((len(log), hashlib.sha256(log).hexdigest()), _digest(b"y" * 10_000_000 + b"\nlast"))


@scenario(51)
async def both_streams_keep_their_order(bench: Bench) -> None:
    """What a task writes to its two streams stands in the log in the order of the writes."""
    shell = "i=0; while [ $i -lt 200 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    row = await bench.run(shell=shell)
    bench.expect(bench.log(row.attempt_id), b"".join(b"out %d\nerr %d\n" % (n, n) for n in range(200)))


@scenario(51)
async def log_is_readable_while_it_grows(bench: Bench) -> None:
    """A line is in the log as soon as the task has written it, from Python without a flush too."""
    source = (
        "def main(go):\n    import os, time\n    print('first')\n"
        "    while not os.path.exists(go):\n        time.sleep(0.02)\n    print('second')\n"
    )
    attempt = await bench.start(source=source, args=[str(bench.file("go"))])
    await bench.until(lambda: bench.log(attempt) == b"first\n", "the first line is there")
    bench.file("go").touch()
    await bench.end_of(attempt)
    bench.expect(bench.log(attempt), b"first\nsecond\n")
    shell = "python -c 'import time; print(\"now\"); time.sleep(60)'"
    attempt = await bench.start(shell=shell, kill_grace=0.0)
    await bench.until(lambda: bench.log(attempt) == b"now\n", "the line is there")
    await bench.cancel(attempt)


@scenario(52)
async def any_bytes_survive_the_log(bench: Bench) -> None:
    """Invalid UTF-8, NUL, colours and other scripts come out as they went in."""
    wanted = b"\xff\xfe\x00\x1b[31mred\x1b[0m\xc3\x28 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x9a\x82\r\n\x00end"
    source = f"def main():\n    import sys\n    sys.stdout.buffer.write({wanted!r})\n"
    row = await bench.run(source=source)
    bench.expect((row.state, bench.log(row.attempt_id)), ("success", wanted))
    row = await bench.run(source="def main():\n    return {'text': '日本 \\x00 🚂'}\n")
    bench.expect(row.output(), {"text": "日本 \0 🚂"})


@scenario(53)
async def outputs_are_whole_up_to_their_cap(bench: Bench) -> None:
    """An output of exactly 1 MiB arrives; one byte more fails the task and says both numbers."""
    shell = "(printf '\"'; head -c $SIZE /dev/zero | tr '\\0' z; printf '\"') > $RUNYARD_OUTPUT"
    row = await bench.run(shell=shell, env={"SIZE": str(_MIB - 2)})
    bench.expect((row.state, len(str(row.output()))), ("success", _MIB - 2))
    row = await bench.run(shell=shell, env={"SIZE": str(_MIB - 1)})
    bench.expect((row.state, row.ending["exit_code"], row.ending["output"]), ("failed", 0, None))
    bench.expect(row.ending["error"], "output of 1,048,577 bytes; at most 1,048,576 are taken")
    row = await bench.run(source="def main():\n    return 'z' * 1048575\n")
    bench.expect((row.state, row.ending["error"]), ("failed", "output of 1,048,577 bytes; at most 1,048,576 are taken"))


@scenario(53)
async def output_that_is_not_json_fails_the_task(bench: Bench) -> None:
    """An exit code of 0 with an output that is no JSON is a failure that says what is wrong."""
    for text, why in (
        ("{oops", "not JSON"),
        ("NaN", "NaN"),
        ("[1e999]", "too large"),
        ("", "empty"),
        ('"\\ud800"', "surrogate"),
        ("[" * 100_000, "nests deeper than 64 levels"),
        ("[" * 65 + "]" * 65, "nests deeper than 64 levels"),
    ):
        row = await bench.run(argv=["sh", "-c", 'cat "$1" > $RUNYARD_OUTPUT', "sh", str(_put(bench, text.encode()))])
        bench.expect((row.state, row.ending["exit_code"], row.ending["output"]), ("failed", 0, None))
        bench.check(why in row.ending["error"], f"{row.ending['error']!r} says {why!r}")
    row = await bench.run(argv=["sh", "-c", 'cat "$1" > $RUNYARD_OUTPUT', "sh", str(_put(bench, b'"\xff"'))])
    bench.check("UTF-8" in row.ending["error"], row.ending["error"])
    row = await bench.run(shell="ln -s /etc/hostname $RUNYARD_OUTPUT")
    bench.expect(row.state, "failed")
    row = await bench.run(shell="mkfifo $RUNYARD_OUTPUT")
    bench.expect(row.state, "failed")
    row = await bench.run(shell=": no output at all")
    bench.expect((row.state, row.output()), ("success", None))


@scenario(55, "break_logs")
async def unwritable_log_never_fails_the_task(bench: Bench) -> None:
    """Where the log cannot be written the task runs on, and what was dropped is counted."""
    bench.hooks.break_logs()
    row = await bench.run(shell="head -c 1000000 /dev/zero; echo 3 > $RUNYARD_OUTPUT")
    bench.expect((row.state, row.output()), ("success", 3))
    bench.expect((row.ending["log_size"], row.ending["log_dropped"]), (0, 1_000_000))


@scenario(55)
async def failure_before_user_code_is_in_the_log(bench: Bench) -> None:
    """Why a task could not be started stands in its log and in its error."""
    row = await bench.run(argv=["pwd"], cwd="no/such/folder")
    bench.expect(row.state, "failed")
    bench.check("no/such/folder" in row.ending["error"], row.ending["error"])
    bench.check(b"no/such/folder" in bench.log(row.attempt_id), "the log says it")
    bench.file("plain").write_text("true\n")
    row = await bench.run(argv=[str(bench.file("plain"))])
    bench.expect((row.state, row.ending["exit_code"]), ("failed", 126))
    bench.check("Permission denied" in row.ending["error"], row.ending["error"])
    row = await bench.run(argv=["true"], env={"A": "a\0b"})
    bench.check(row.state == "failed" and "null" in row.ending["error"], row.ending["error"])


@scenario(56)
async def unusual_ids_and_large_inputs_are_passed_on(bench: Bench) -> None:
    """The longest and oddest ids, and arguments of a megabyte, reach the task as they are."""
    dag, run = "d~:+.-" * 41, "r" * 250
    keys = ("DAG_ID", "RUN_ID", "TASK_ID", "MAP_INDEX", "TRY_NUMBER", "FENCE", "LOGICAL_DATE", "ATTEMPT_ID")
    source = "def main(keys):\n    import os\n    return [os.environ['RUNYARD_' + key] for key in keys]\n"
    row = await bench.run(
        source=source, args=[keys], dag_id=dag, run_id=run, task_id="t" * 250, map_index=7, try_number=3
    )
    wanted = [dag, run, "t" * 250, "7", "3", "3", "2026-01-02T03:04:05Z", row.attempt_id]
    bench.expect(row.output(), wanted)
    row = await bench.run(source="def main(x):\n    return len(x)\n", args=["ü" * 1_000_000])
    bench.expect(row.output(), 1_000_000)
    row = await bench.run(argv=["printf", "%s", "日本"])
    bench.expect(bench.log(row.attempt_id), "日本".encode())


@scenario(57)
async def environment_is_the_tasks_own(bench: Bench) -> None:
    """A task sees its own variables and an allow-list, no secret of the service, and nothing of its neighbours."""
    name, value = bench.harness.secret
    row = await bench.run(shell="env; echo DONE", env={"MINE": "first", "RUNYARD_RUN_ID": "forged", "PATH": "/bin"})
    log = bench.log(row.attempt_id).decode()
    bench.check(name not in log and value not in log, "no secret of the service")
    for line in ("MINE=first", "RUNYARD_RUN_ID=manual", "PATH=/bin", "DONE"):
        bench.check(line in log.splitlines(), f"{line} in {log}")
    row = await bench.run(shell="env; cat /proc/$PPID/environ")
    log = bench.log(row.attempt_id).decode("utf-8", "replace")
    bench.check("MINE" not in log and value not in log, "nothing of a neighbour, and no secret beside it either")


@scenario(57)
async def process_is_the_tasks_own(bench: Bench) -> None:
    """A task leads its own session, in a private folder, without input, descriptors, privileges or core dumps."""
    shell = (
        "pwd; umask; ls /proc/self/fd | wc -l; wc -c < /dev/stdin; ps -o sid= -p $$ | tr -d ' '; echo $$; "
        "ulimit -c; grep -E '^(NoNewPrivs|SigBlk|SigIgn)' /proc/self/status; stat -c %a ."
    )
    row = await bench.run(shell=shell)
    work, umask, fds, given, session, pid, core, blocked, ignored, no_new, mode = (
        bench.log(row.attempt_id).decode().split("\n")[:-1]
    )
    bench.check(row.attempt_id in work, work)
    bench.expect((umask, fds, given, core, mode), ("0077", "4", "0", "0", "700"))
    bench.expect(session, pid)
    classic = 0x7FFFFFFF  # 32 and 33 are the C library's own; no program can set them
    bench.expect((int(blocked.split()[1], 16), int(ignored.split()[1], 16) & classic, no_new.split()[1]), (0, 0, "1"))


def _digest(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


def _put(bench: Bench, data: bytes) -> object:
    bench.file("given").write_bytes(data)
    return bench.file("given")
