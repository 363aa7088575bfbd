"""A worker in plain Python: the protocol of docs/reference/worker-protocol.md with the standard library only.

It reads offers from its standard input, a line each: {"attempt_id": …, "ticket": …}.  It runs one command at a time and
keeps nothing on disk; `runyard worker` writes down how a task ended before it tells, for it may crash in between.

    RUNYARD_API_URL=http://127.0.0.1:8080 RUNYARD_API_KEY=runyard_… python worker.py dramatiq default <offers
"""
# ruff: noqa: ANN001, ANN201, S310, S603  # one screen; types would be a third of it; it calls and runs what it is told

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib import error, request

URL, KEY = os.environ["RUNYARD_API_URL"], os.environ["RUNYARD_API_KEY"]
WORKER, BOOT, TOKEN = secrets.token_hex(16), secrets.token_hex(16), secrets.token_urlsafe(32)
PIECE, TAIL = 1024 * 1024, 64 * 1024


class Refused(Exception):
    """An answer that does not get better by asking again."""


class Now:
    """The attempt of the moment: its id, why it has to stop; and until when the lease holds."""

    attempt = stop = None
    lease_ends = 0.0


def call(method, path, bearer, body=None, *, raw=None, tries=10**9):
    """Send a request until it is answered; every call of the protocol may be repeated."""
    media = "application/json" if raw is None else "application/octet-stream"
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": media}
    for _ in range(tries):
        sent = request.Request(f"{URL}/worker/v1{path}", raw or json.dumps(body).encode(), headers, method=method)
        try:
            with request.urlopen(sent, timeout=3 if tries == 1 else 30) as answer:
                return json.loads(answer.read() or "null")
        except error.HTTPError as refusal:
            if refusal.code < 500 and refusal.code != 429:
                raise Refused(f"{method} {path}: {refusal.read().decode()}") from None
        except OSError as wrong:
            print(f"no answer yet: {wrong}", file=sys.stderr)
        time.sleep(1)
    return None


def beat(sent, answer):
    """Renew the lease for ever; take up what is asked of the task."""
    while True:
        Now.lease_ends = sent + answer["lease"]  # counted from before the request, by a clock that nobody sets
        sent = time.monotonic()
        held = [{"attempt_id": Now.attempt, "phase": "running", "stopping": Now.stop}] if Now.attempt else []
        try:
            answer = call("POST", f"/workers/{WORKER}/heartbeat?wait=20", TOKEN, {"boot_id": BOOT, "attempts": held})
        except Refused as refusal:  # this process is not the worker any more, so the lease of its task is over
            Now.lease_ends = 0
            return print(refusal, file=sys.stderr)
        for one in answer["directives"]:
            if one["attempt_id"] == Now.attempt:
                Now.stop = one["reason"]


def execute(task, path, key, env, folder, log):
    """Run the command to its end, whoever ends it; return what to tell of it, and how much of the log was sent."""
    argv, offset, began, asked_at = task.get("argv") or ["/bin/sh", "-c", task["shell"]], 0, time.monotonic(), None
    try:
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log, process_group=0)
    except OSError as wrong:
        return {"outcome": "failed", "error": f"{argv[0]}: {wrong.strerror}"}, 0
    while process.poll() is None:
        time.sleep(0.1)
        now, grace = time.monotonic(), task["kill_grace"]
        if now > Now.lease_ends:
            Now.stop, grace = "fenced", 0
        elif task["timeout"] and now - began > task["timeout"]:
            Now.stop = Now.stop or "timeout"
        if Now.stop and asked_at is None:
            asked_at = now
            os.killpg(process.pid, signal.SIGTERM)
        if asked_at is not None and now - asked_at >= grace:
            os.killpg(process.pid, signal.SIGKILL)
        if piece := os.pread(log.fileno(), PIECE, offset):
            told = call("PUT", f"{path}/logs?offset={offset}", key, raw=piece, tries=1)
            offset = told["next_offset"] if told else offset
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it left behind
    code = process.returncode
    ends = {None: "failed" if code else "success", "timeout": "timed_out", "drain": "drained"}
    end = {"outcome": ends.get(Now.stop, "cancelled"), "error": f"it ended with {code}" if code else ""}
    return end | ({"signal": -code} if code < 0 else {"exit_code": code}), offset


def run(attempt, ticket):
    """Start an attempt, run it, send its log, tell how it ended."""
    key, path = secrets.token_urlsafe(32), f"/attempts/{attempt}"
    try:
        answer = call(
            "POST", f"{path}/start", ticket, {"protocol": 1, "boot_id": BOOT, "key": key, "worker_id": WORKER}
        )
    except Refused as refusal:  # somebody else has it, or it is over: leave it alone
        return print(refusal, file=sys.stderr)
    task, began, end, offset = answer["task"], time.time(), {"outcome": "cancelled"}, 0
    Now.stop, Now.attempt = answer["stop"] and answer["stop"]["reason"], attempt
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        # Not our own environment: the key is in it.
        env = {"PATH": os.environ["PATH"]} | task["env"] | {"RUNYARD_OUTPUT": f"{folder}/output"}
        if task["kind"] != "command":
            end = {"outcome": "failed", "error": f"this worker runs commands, not {task['kind']} tasks"}
        elif not Now.stop:
            end, offset = execute(task, path, key, env | {"RUNYARD_ATTEMPT_ID": attempt}, folder, log)
        size = os.fstat(log.fileno()).st_size
        while size - offset > TAIL:
            piece = os.pread(log.fileno(), PIECE, offset)
            offset = call("PUT", f"{path}/logs?offset={offset}", key, raw=piece)["next_offset"]
        tail = {"offset": offset, "data": base64.b64encode(os.pread(log.fileno(), TAIL, offset)).decode()}
        if end["outcome"] == "success" and (output := Path(folder, "output")).exists():
            end["output"] = output.read_text()
    end = {"boot_id": BOOT, "exit_code": None, "signal": None, "error": "", "log_size": size, "log": tail} | end
    Now.attempt = None
    if Now.stop == "fenced":  # another one has it, or will
        return None
    for told in (end, end | {"outcome": "failed", "output": None, "error": "its output was refused"}):
        with suppress(Refused):
            call(
                "POST",
                f"{path}/finish",
                key,
                told | {"started_at": began, "ended_at": time.time(), "sent_at": time.time()},
            )
            return print(attempt, told["outcome"], flush=True)
    return None


def main(executor, queues):
    """Register, run what is offered, leave."""
    says = {"protocol": 1, "version": "1", "worker_id": WORKER, "boot_id": BOOT, "token": TOKEN, "name": "example"}
    says |= {"host": socket.gethostname(), "pid": os.getpid(), "executor": executor, "queues": queues.split(",")}
    sent = time.monotonic()
    answer = call("POST", "/workers", KEY, says | {"slots": 1})
    threading.Thread(target=beat, args=[sent, answer], daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        offer = json.loads(line)
        run(offer["attempt_id"], offer["ticket"])
    call("DELETE", f"/workers/{WORKER}?boot_id={BOOT}", TOKEN)


main(*sys.argv[1:])
