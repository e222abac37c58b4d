"""`comptoir chat` in a terminal: colours, commands, and a Ctrl-C that ends an answer only."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.commands.chat.fake_endpoint import FakeEndpoint, chunk, serving, usage

WAIT_S = 60
CTRL_C, CTRL_D = b"\x03", b"\x04"


@dataclass
class Terminal:
    """A terminal in which the command runs."""

    fd: int
    process: subprocess.Popen[bytes]
    seen: str = ""

    def type(self, text: str | bytes) -> None:
        os.write(self.fd, text if isinstance(text, bytes) else f"{text}\n".encode())

    def expect(self, pattern: str, key: bytes = b"") -> re.Match[str]:
        """Wait for some output; what came before it is looked at no more.

        `key` is pressed again each second: readline misses a signal between its prompt and its wait.
        """
        deadline, again = time.monotonic() + WAIT_S, time.monotonic() + 1
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            if key and time.monotonic() > again:
                self.type(key)
                again += 1
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.fd, 65536).decode()
                except OSError:
                    assert re.search(pattern, self.seen), f"no {pattern!r} in {self.seen!r}"
        self.seen = self.seen[found.end() :]
        return found

    def status(self) -> int:
        return self.process.wait(WAIT_S)


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with serving() as told:
        yield told


@pytest.fixture
def terminal(endpoint: FakeEndpoint) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.cli", "chat", "--url", endpoint.url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean | {"TERM": "xterm", "COLUMNS": "200"},
        start_new_session=True,
        # Ctrl-C reaches the process only where the terminal is its own.
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )
    os.close(theirs)
    opened = Terminal(ours, process)
    try:
        opened.expect("/help lists the commands")
        yield opened
    finally:
        process.kill()
        process.wait(WAIT_S)
        os.close(ours)


def test_reasoning_is_dimmed_and_escapes_are_shown(
    endpoint: FakeEndpoint, terminal: Terminal
) -> None:
    endpoint.events = [
        chunk(reasoning="hm"),
        chunk("\x1b[31mred", finish="stop"),
        usage(3),
    ]
    terminal.type("Hello")
    terminal.expect(r"\x1b\[2;3mhm\x1b\[0m\s+\\x1b\[31mred")
    terminal.expect(r"3 tokens · TTFT \d+ ms")
    terminal.type("/quit")
    assert terminal.status() == 0


def test_ctrl_c_ends_an_answer_and_not_the_chat(endpoint: FakeEndpoint, terminal: Terminal) -> None:
    endpoint.events, endpoint.pause_s = [chunk(f"word{i} ") for i in range(10_000)], 0.01
    terminal.type("Hello")
    terminal.expect("word1 ")
    terminal.type(CTRL_C)
    terminal.expect("ended")
    assert endpoint.left.wait(WAIT_S), "the request went on"
    endpoint.events = [chunk("again", finish="stop")]
    terminal.type("Once more")
    terminal.expect("again[^>]*TTFT[^>]*> ")
    roles = [message["role"] for message in endpoint.asked[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    terminal.type(CTRL_C)
    terminal.expect("/quit or Ctrl-D leaves[^>]*> ", key=CTRL_C)
    terminal.type(CTRL_D)
    assert terminal.status() == 0


def test_commands_change_the_conversation(endpoint: FakeEndpoint, terminal: Terminal) -> None:
    for typed, answer in (
        ("/help", r"/model \[NAME\]"),
        ("/model", r"\* m\b[^>]*embedder"),
        ("/model n", "now n"),
        ("/model x", "there is no model 'x'"),
        ("/system Be brief.", "the system prompt is set"),
        ("/nonsense", "there is no command /nonsense"),
        ("one", "Bonjour[^/]*tokens/s"),
        ("/clear", "a new conversation"),
        ("two", "Bonjour[^/]*tokens/s"),
    ):
        terminal.type(typed)
        terminal.expect(answer)
    assert [asked["model"] for asked in endpoint.asked] == ["n", "n"]
    said = [message["content"] for message in endpoint.asked[1]["messages"]]
    assert said == ["Be brief.", "two"]


def test_an_error_does_not_end_the_chat(endpoint: FakeEndpoint, terminal: Terminal) -> None:
    endpoint.refusal = (503, {"error": {"message": "starting"}})
    terminal.type("Hello")
    terminal.expect("answers with status 503: starting")
    endpoint.refusal = None
    terminal.type("Hello")
    terminal.expect("Bonjour")
    assert len(endpoint.asked[1]["messages"]) == 1
