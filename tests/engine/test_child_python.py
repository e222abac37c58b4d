"""The interpreter of engine processes: what is spawned with it runs as with Python's own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.engine import child_python

COMMAND = Path(sys.executable).with_name(child_python.COMMAND)
SPAWNING = """
import gc, multiprocessing, os, sys
from serving.engine import child_python

def told(pipe, word):
    pipe.send((word, gc.get_threshold()[0], sys.argv, os.environ["FOR_CHILDREN"]))

if __name__ == "__main__":
    child_python.use()
    os.environ["FOR_CHILDREN"] = "inherited"
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=told, args=(there, "hello"))
    child.start()
    there.close()
    import json
    print(json.dumps(here.recv()))
    child.join()
    killed = context.Process(target=__import__("time").sleep, args=(60,))
    killed.start()
    killed.kill()
    killed.join()
    print(json.dumps([child.exitcode, killed.exitcode]))
"""


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_is_installed_beside_python() -> None:
    assert os.access(COMMAND, os.X_OK)


def test_a_spawned_process_collects_seldom_and_is_otherwise_the_same(tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(SPAWNING)
    done = _run(sys.executable, str(script), "an-argument")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    word, threshold, argv, inherited = first
    assert (word, threshold, inherited) == ("hello", child_python.SELDOM, "inherited")
    assert argv == [str(script), "an-argument"]
    assert second == [0, -9]


def test_options_of_the_interpreter_do_no_harm() -> None:
    done = _run(str(COMMAND), "-X", "utf8", "-c", "import sys; print(sys.argv)", "one", "-c")
    assert done.stdout == "['-c', 'one', '-c']\n", done.stderr


@pytest.mark.parametrize("args", [(), ("-c",), ("script.py",)])
def test_a_person_who_calls_it_is_told_what_it_is_for(args: tuple[str, ...]) -> None:
    done = _run(str(COMMAND), *args)
    assert done.returncode == 1
    assert (
        done.stderr
        == "comptoir-engine-python is for Python's multiprocessing: it needs -c PROGRAM\n"
    )


def test_where_it_is_not_installed_children_get_pythons_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    monkeypatch.setattr(child_python.multiprocessing, "set_executable", told.append)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    child_python.use()
    assert told == []


def _import_nothing() -> None:
    with child_python.no_collections():
        assert not gc.isenabled()
        raise ImportError


def test_collections_come_back_whatever_happens() -> None:
    with pytest.raises(ImportError):
        _import_nothing()
    assert gc.isenabled()
    gc.unfreeze()
