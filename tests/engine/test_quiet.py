"""Nothing of a request or an answer is in what an engine's processes write, whoever writes it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CANARY = "canary-88e1"
HEAD = f"""
import asyncio, logging, os, sys, threading, warnings
from serving.engine import quiet
CANARY = {CANARY!r}
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s %(message)s")
"""
SILENT = HEAD + "quiet.silence()\n"


# Runs each program in a child of its own, so that importing costs once; they come and go as JSON.
DRIVER = """
import json, os, sys
{imports}
said = {{}}
for name, program in json.load(sys.stdin).items():
    read, write = os.pipe()
    if os.fork() == 0:
        os.dup2(write, 1), os.dup2(write, 2)
        os.close(read), os.close(write)
        try:
            exec(compile(program, "<string>", "exec"), {{"__name__": "__main__", "SAY": os.dup(2)}})
        except BaseException:
            sys.excepthook(*sys.exc_info())
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read, errors="replace") as pipe:
        said[name] = pipe.read()
    os.wait()
json.dump(said, sys.stdout)
"""


def written(programs: dict[str, str], imports: str = "") -> dict[str, str]:
    """What each of them writes."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER.format(imports=imports)],
        input=json.dumps(programs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


# What others do, and what of it an operator still sees.
LEAKS = {
    "an argument": (
        "logging.getLogger('vllm.x').error('rejected %s', CANARY)",
        "ERROR vllm.x [withheld]",
    ),
    "an f-string": (
        "logging.getLogger('xgrammar').error(f'rejected {CANARY}')",
        "ERROR xgrammar [withheld]",
    ),
    "a traceback": (
        "try:\n    raise KeyError(CANARY)\nexcept KeyError:\n"
        "    logging.getLogger('vllm.x').exception('it failed')",
        "KeyError at <string>:",
    ),
    "a known message": (
        "try:\n    raise KeyError(CANARY)\nexcept KeyError:\n    logging.getLogger('vllm.v1.engine.core')"
        ".exception('EngineCore encountered a fatal error.')",
        "EngineCore encountered a fatal error. KeyError at <string>:",
    ),
    "a stack": (
        "def f(canary):\n    logging.getLogger('v').error('x', stack_info=True)\nf(CANARY)",
        "withheld",
    ),
    "extra fields": (
        "form = logging.Formatter('%(message)s %(said)s', defaults={'said': '-'})\n"
        "logging.root.handlers[0].setFormatter(form)\n"
        "logging.getLogger('vllm.x').error('x', extra={'said': CANARY})",
        "[withheld]",
    ),
    "the root logger": ("logging.error(CANARY)", "ERROR root [withheld]"),
    "a handler of their own": (
        "logger = logging.getLogger('vllm.x')\nlogger.propagate = False\n"
        "logger.addHandler(logging.StreamHandler(sys.__stderr__))\nlogger.error(CANARY)",
        "",
    ),
    "what a library in C prints": (
        "os.write(1, CANARY.encode())\nos.write(2, CANARY.encode())",
        "",
    ),
    "a child": ("import subprocess\nsubprocess.run(['echo', CANARY])", ""),
    "arguments that do not fit": ("logging.getLogger('ray.x').error('%d and %d', CANARY)", ""),
    "a uvicorn traceback": (
        "try:\n    raise ValueError(CANARY)\nexcept ValueError as error:\n"
        "    logging.getLogger('uvicorn.error').error('Exception in ASGI application', exc_info=error)",
        "ValueError at",
    ),
    "a traceback under Ray": (
        "try:\n    raise ValueError(CANARY)\nexcept ValueError:\n"
        "    logging.getLogger('ray.serve').exception('a call')",
        "a call ValueError at",
    ),
    "a print": ("print(CANARY)\nprint(CANARY, file=sys.stderr)", ""),
    "a printed traceback": (
        "import traceback\ntry:\n    raise ValueError(CANARY)\nexcept ValueError:\n    traceback.print_exc()",
        "",
    ),
    "a warning": ("warnings.warn(CANARY)", "UserWarning at <string>:"),
    "an exception that nobody caught": (
        "raise ValueError(CANARY)",
        "uncaught ValueError at <string>:",
    ),
    "one in a thread": (
        "def f():\n    raise ValueError(CANARY)\n"
        "t = threading.Thread(target=f, name=CANARY)\nt.start()\nt.join()",
        "uncaught in a thread: ValueError at <string>:",
    ),
    "one in a destructor": (
        "class A:\n    def __del__(self):\n        raise ValueError(CANARY)\nA()",
        "ignored: ValueError",
    ),
    "a task that nobody awaits": (
        "async def f(text):\n    raise ValueError(text)\n"
        "async def main():\n    task = asyncio.create_task(f(CANARY), name=CANARY)\n"
        "    await asyncio.sleep(0)\n"
        "    del task\nasyncio.run(main())",
        "ERROR asyncio [withheld]",
    ),
    "a callback of the loop": (
        "async def main():\n"
        "    asyncio.get_running_loop().call_soon(int, CANARY)\n    await asyncio.sleep(0.01)\n"
        "asyncio.run(main())",
        "ValueError",
    ),
}


@pytest.fixture(scope="module")
def silent() -> dict[str, str]:
    return written({name: SILENT + program for name, (program, _) in LEAKS.items()})


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    return written({name: HEAD + program for name, (program, _) in LEAKS.items()})


@pytest.mark.parametrize("name", LEAKS)
def test_what_others_write_holds_no_text_and_says_where_it_was(
    name: str, silent: dict[str, str]
) -> None:
    assert CANARY not in silent[name]
    assert LEAKS[name][1] in silent[name]


@pytest.mark.parametrize("name", [name for name in LEAKS if name != "a stack"])
def test_without_it_the_text_would_be_there(name: str, plain: dict[str, str]) -> None:
    assert CANARY in plain[name]


FAILS_TO_START = """
try:
    raise ValueError("the KV cache needs 3.1 GiB, try a smaller max_model_len")
except ValueError:
    logging.getLogger("vllm.v1.engine.core").exception("EngineCore failed to start.")
"""


OUT_OF_MEMORY = """
class OutOfMemoryError(RuntimeError):
    __module__ = "torch"
try:
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
except RuntimeError:
    logging.getLogger("vllm.v1.engine.core").exception("EngineCore encountered a fatal error.")
"""
STARTS = """
quiet.starting()
quiet.silence()
logging.getLogger("vllm.x").error("loading %s", "shard 3")
print("printed while starting", flush=True)
quiet.serving()
logging.getLogger("vllm.x").error(CANARY)
print(CANARY)
"""
FORKS = """
quiet.starting()
if os.fork() == 0:
    quiet.silence()
    logging.getLogger("vllm.x").error(CANARY)
    print(CANARY)
    os._exit(0)
os.wait()
"""
OURS = "logging.getLogger('ray.serve.comptoir').warning('the model %s stops', 'qwen3')"
BARE = "logging.root.handlers.clear()\nquiet.silence()\nlogging.getLogger('vllm.x').error(CANARY)"


@pytest.fixture(scope="module")
def seen() -> dict[str, str]:
    programs = {"ours": SILENT + OURS, "fails": SILENT + FAILS_TO_START}
    programs |= {"memory": SILENT + OUT_OF_MEMORY, "starts": HEAD + STARTS}
    programs |= {"forks": HEAD + FORKS, "bare": HEAD + BARE}
    return written(programs)


def test_our_own_records_are_written_as_they_are(seen: dict[str, str]) -> None:
    assert "WARNING ray.serve.comptoir the model qwen3 stops" in seen["ours"]


def test_without_handlers_errors_are_still_seen(seen: dict[str, str]) -> None:
    assert "[withheld]" in seen["bare"]
    assert CANARY not in seen["bare"]


def test_why_an_engine_does_not_start_is_written_whole(seen: dict[str, str]) -> None:
    assert "EngineCore failed to start." in seen["fails"]
    assert "try a smaller max_model_len" in seen["fails"]


def test_the_devices_errors_say_how_much_was_missing(seen: dict[str, str]) -> None:
    assert "Tried to allocate 20.00 MiB" in seen["memory"]


def test_a_replica_writes_everything_until_it_serves(seen: dict[str, str]) -> None:
    for text in ("loading shard 3", "printed while starting", "[withheld]"):
        assert text in seen["starts"]
    assert CANARY not in seen["starts"]


def test_a_child_of_a_replica_that_starts_is_silent(seen: dict[str, str]) -> None:
    assert "[withheld]" in seen["forks"]
    assert CANARY not in seen["forks"]


# Each of vLLM's tool parsers that logs what it could not read, with such an answer.
ANSWERS = {
    "pythonic_tool_parser": f"[f(a={CANARY!r}+1)]",
    "llama4_pythonic_tool_parser": f"[f(a={CANARY!r}+1)]",
    "olmo3_tool_parser": f"f(a={CANARY!r}+1)",
}
PARSES = """
from vllm.tool_parsers import {module} as module
parser = next(
    one for name, one in vars(module).items()
    if name.endswith("ToolParser") and one.__module__ == module.__name__
)
found = parser.__new__(parser).extract_tool_calls({text!r}, None)
assert not found.tools_called, found
os.write(SAY, b"parsed")
"""
REJECTS = """
from vllm.v1.core.sched import scheduler
text = "Unexpected: grammar rejected tokens %s for request %s. Terminating request."
scheduler.logger.error(text, CANARY, 1)
os.write(SAY, b"parsed")
"""


COMPILES = """
import xgrammar
xgrammar.Grammar.from_json_schema('{{"type": "object", "$ref": "{canary}"}}')
os.write(SAY, b"parsed")
"""


@pytest.mark.engine
def test_what_vllm_cannot_read_of_an_answer_it_does_not_write() -> None:
    programs = {
        name: SILENT + PARSES.format(module=name, text=text) for name, text in ANSWERS.items()
    }
    programs["scheduler"] = SILENT + REJECTS
    programs["xgrammar"] = SILENT + COMPILES.format(canary=CANARY)
    for name, out in written(programs, "import vllm.tool_parsers.pythonic_tool_parser").items():
        assert CANARY not in out
        assert "parsed" in out, (name, out)
