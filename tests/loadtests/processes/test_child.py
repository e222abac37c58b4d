from __future__ import annotations

import os
import time

import psutil
import pytest

from loadtests.processes.child import Child, ProcessError, cpu_s, is_alive


def shell(script: str, *, talks: bool = True) -> Child:
    return Child("the shell", ["sh", "-c", script], talks=talks)


def test_stopping_ends_the_whole_tree() -> None:
    child = shell("sleep 60 & echo $!; wait")
    with child:
        grandchild = psutil.Process(int(child.read_line(5)))
        assert {process.pid for process in child.tree()} == {child.pid, grandchild.pid}
    assert not psutil.pid_exists(child.pid)
    assert not is_alive(grandchild)


def test_a_process_that_has_lost_its_parent_is_still_found() -> None:
    # The subshell in between ends, so that `sleep` gets another parent.
    script = "(sleep 0.2; exec sleep 60) & echo $!; read line"
    with shell(script) as child:
        orphan = psutil.Process(int(child.read_line(5)))
        assert orphan in child.tree()
        os.kill(child.pid, 9)
        time.sleep(0.05)
        assert orphan in child.tree()
    assert not is_alive(orphan)


def test_a_process_that_says_nothing_is_reported_with_the_end_of_its_log() -> None:
    complaint = pytest.raises(ProcessError, match=r"the shell did not answer(.|\n)*of all things")
    with shell("echo of all things >&2; exit 3") as child, complaint:
        child.read_line(5)


def test_questions_are_answered_line_by_line() -> None:
    with shell('while read line; do echo "got $line"; done') as child:
        assert [child.ask(word, 5) for word in ("one", "two")] == ["got one", "got two"]


def test_what_a_process_prints_goes_to_its_log_when_nobody_reads_it() -> None:
    with shell("echo hello; exec sleep 60", talks=False) as child:
        for _ in range(100):
            if child.log_tail:
                break
            time.sleep(0.01)
        assert child.log_tail == "hello"


def test_a_process_that_is_gone_has_used_nothing() -> None:
    with shell("echo; read line") as child:
        child.read_line(5)
        process = psutil.Process(child.pid)
        assert cpu_s(process) >= 0
    assert cpu_s(process) == 0.0


def test_a_frozen_tree_does_nothing_until_it_may_go_on() -> None:
    with shell("while read line; do echo $line; done") as child:
        child.freeze()
        with pytest.raises(ProcessError):
            child.ask("one", 0.05)
        child.thaw()
        assert child.read_line(5) == "one"


def test_a_frozen_tree_can_be_stopped() -> None:
    with shell("sleep 60 & echo $!; wait") as child:
        grandchild = psutil.Process(int(child.read_line(5)))
        child.freeze()
    assert not is_alive(grandchild)
