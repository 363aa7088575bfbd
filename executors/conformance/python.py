"""Scenarios: Python tasks run as a script would, and say clearly what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from executors.conformance.bench import Bench


@scenario(1)
async def python_call_returns_its_output(bench: Bench) -> None:
    """A function in a module of the code folder, dotted or async, is called; what it returns is the output."""
    folder = bench.harness.code_dir / "house"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "load.py").write_text(
        "import asyncio, house\n"
        "class Loader:\n    @staticmethod\n    def run(rows, factor=1):\n        return {'rows': rows * factor}\n"
        "async def later(n):\n    await asyncio.sleep(0.01)\n    return [n]\n"
    )
    row = await bench.run(call="house.load:Loader.run", args=[2], kwargs={"factor": 3})
    bench.expect((row.state, row.output()), ("success", {"rows": 6}))
    row = await bench.run(call="house.load:later", args=[4])
    bench.expect((row.state, row.output()), ("success", [4]))
    row = await bench.run(source="import os\ndef main():\n    os.makedirs('x/y')\n    return os.getcwd()\n")
    bench.check(row.attempt_id in str(row.output()), "it runs in its own folder")


@scenario(1)
async def user_modules_win_over_ours(bench: Bench) -> None:
    """A user's own module of any name is the one that a task imports, not one of the same name beside the worker."""
    for name in ("worker", "logs", "runner", "executors"):
        (bench.harness.code_dir / f"{name}.py").write_text("def run():\n    return __name__ + ' of the user'\n")
        row = await bench.run(call=f"{name}:run")
        bench.expect((row.state, row.output()), ("success", f"{name} of the user"))


@scenario(21)
async def python_failure_says_where_and_what(bench: Bench) -> None:
    """An exception is a traceback of the user's frames in the log and one line in the error."""
    (bench.harness.code_dir / "bad.py").write_text(
        "def inner():\n    raise ValueError('no way\\nat all')\n\n\ndef run():\n    inner()\n"
    )
    row = await bench.run(call="bad:run")
    bench.expect((row.state, row.ending["exit_code"], row.ending["error"]), ("failed", 1, "ValueError: no way"))
    log = bench.log(row.attempt_id).decode()
    bench.check(log.startswith("Traceback") and "inner()" in log and "at all" in log, log)
    bench.check("zygote" not in log and "runner" not in log, f"no frame of ours in {log}")
    row = await bench.run(source="def main():\n    x = 1\n    raise KeyError('gone')\n")
    bench.expect(row.ending["error"], "KeyError: 'gone'")
    hostile = await bench.run(source="def main():\n    raise ValueError('a\\0b \\x1b[31m \\ud800')\n")
    bench.expect((hostile.state, hostile.ending["error"]), ("failed", r"ValueError: a\x00b \x1b[31m \ud800"))
    bench.check("raise KeyError('gone')" in bench.log(row.attempt_id).decode(), "the source's own line")


@scenario(21)
async def python_that_cannot_be_called_says_the_way_out(bench: Bench) -> None:
    """A missing module, a missing function, a broken import and a value that is no JSON each say what to do."""
    code = bench.harness.code_dir
    (code / "there.py").write_text("CONSTANT = 1\n")
    (code / "broken.py").write_text("import a_module_that_is_not_there\n")
    (code / "wrong.py").write_text("def run(:\n")
    for body, words in (
        ({"call": "nowhere.at_all:run"}, ("nowhere", str(code))),
        ({"call": "there:run"}, ("there", "run", "there.py")),
        ({"call": "there:CONSTANT"}, ("CONSTANT", "int")),
        ({"call": "broken:run"}, ("a_module_that_is_not_there",)),
        ({"call": "wrong:run"}, ("SyntaxError",)),
        ({"source": "x = 1\n"}, ("main",)),
        ({"source": "def main(:\n"}, ("SyntaxError",)),
        ({"source": "def main():\n    return {1, 2}\n"}, ("set", "JSON")),
        ({"source": "def main():\n    a = []\n    for _ in range(10**5): a = [a]\n    return a\n"}, ("deeper", "64")),
        ({"source": "def main():\n    a = []\n    for _ in range(64): a = [a]\n    return a\n"}, ("deeper", "64")),
        ({"source": "def main():\n    return float('nan')\n"}, ("float", "JSON")),
        ({"source": "def main():\n    return '\\ud800'\n"}, ("surrogate",)),
        ({"source": "def main(a):\n    pass\n"}, ("TypeError", "main()")),
    ):
        row = await bench.run(**body)
        bench.expect((body, row.state, row.ending["exit_code"]), (body, "failed", 1))
        for word in words:
            bench.check(word in row.ending["error"], f"{body}: {row.ending['error']!r} says {word!r}")
        bench.check(bench.log(row.attempt_id), f"{body}: the log says why")


@scenario(21)
async def python_exits_as_a_script_does(bench: Bench) -> None:
    """sys.exit, exit hooks, threads and buffered output work as in a script."""
    for code, state, exit_code in (("0", "success", 0), ("", "success", 0), ("3", "failed", 3), ("'no'", "failed", 1)):
        row = await bench.run(source=f"import sys\ndef main():\n    sys.exit({code})\n")
        bench.expect((code, row.state, row.ending["exit_code"]), (code, state, exit_code))
    bench.expect(bench.log(row.attempt_id), b"no\n")
    row = await bench.run(
        source="import atexit, threading, time, sys\n"
        "def late():\n    time.sleep(0.1)\n    print('thread')\n"
        "def main():\n    atexit.register(print, 'hook')\n    threading.Thread(target=late).start()\n"
        "    sys.stdout.write('main')\n    print()\n    return True\n"
    )
    bench.expect((row.output(), bench.log(row.attempt_id)), (True, b"main\nthread\nhook\n"))


@scenario(57)
async def python_tasks_share_no_state(bench: Bench) -> None:
    """What one Python task changes in its interpreter the next one does not see; chance differs from task to task."""
    await bench.run(source="import json, os, sys\ndef main():\n    json.marked = True\n    os.environ['LEFT'] = 'x'\n")
    source = "import json, os\ndef main():\n    return [hasattr(json, 'marked'), 'LEFT' in os.environ]\n"
    bench.expect((await bench.run(source=source)).output(), [False, False])
    chance = "import random, uuid\ndef main():\n    return [random.random(), str(uuid.uuid4())]\n"
    first, second = (await bench.run(source=chance)).output(), (await bench.run(source=chance)).output()
    bench.check(first != second, "two draws differ")
    names = "import sys\ndef main():\n    return [sys.modules['__main__'].__dict__.get('_Zygote') is None, sys.argv]\n"
    bench.expect((await bench.run(source=names)).output(), [True, ["<python.source>"]])
