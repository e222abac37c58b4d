"""The hostile client itself, and our gateway under it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Thread

import pytest
from typer.testing import CliRunner

from loadtests.hostile import run
from loadtests.hostile.cases.everything import every_case
from loadtests.hostile.cli import app
from loadtests.hostile.fuzz import fuzz
from loadtests.hostile.generated import requests
from loadtests.hostile.own import Own, own_target
from loadtests.hostile.ready import unfit
from loadtests.hostile.run import Verdict, try_all
from loadtests.hostile.target import Target
from loadtests.hostile.wire import BrokenError, Wire

TARGET = Target("127.0.0.1", 1, "m", "key")


def test_there_are_more_than_sixty_cases_each_with_a_name_of_its_own() -> None:
    names = [f"{case.group}/{case.name}" for case in every_case()]
    assert len(names) > 60
    assert len(set(names)) == len(names)


def test_the_same_seed_makes_the_same_requests() -> None:
    first = list(islice(requests(TARGET, 7), 200))
    assert first == list(islice(requests(TARGET, 7), 200))
    assert first != list(islice(requests(TARGET, 8), 200))


def test_an_address_with_tls_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="http://127"):
        Target.at("https://example.org", model="m")


@contextmanager
def _endpoint(**statuses: int) -> Iterator[int]:
    """A server that answers each key with its status; yields the port."""

    class Says(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            key = self.headers.get("authorization", "").removeprefix("Bearer ")
            self.send_response(statuses[key or "none"])
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Says) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("statuses", "keys", "said"),
    [
        ({"none": 200}, ("", ""), None),
        ({"a": 200, "b": 200}, ("a", "b"), None),
        ({"none": 401}, ("", ""), "ONE: the endpoint requires a key"),
        ({"a": 200, "b": 401}, ("a", "b"), "TWO: the endpoint does not know this key"),
        ({"a": 403, "b": 200}, ("a", "b"), "ONE: this key may not ask"),
        ({"none": 404}, ("", ""), "--model: the endpoint has no such model"),
        ({"none": 503}, ("", ""), "status 503"),
        ({"a": 200}, ("a", "a"), "ONE and TWO hold the same key"),
    ],
)
def test_what_cannot_be_attacked_is_said_in_one_sentence(
    statuses: dict[str, int], keys: tuple[str, str], said: str | None
) -> None:
    with _endpoint(**statuses) as port:
        found = unfit(Target("127.0.0.1", port, "m", *keys), "ONE", "TWO")
    assert found is None if said is None else said in (found or "")


def test_an_endpoint_that_does_not_answer_ends_the_command_with_2() -> None:
    with socket.socket() as unheard:
        # Bound, so that nobody else gets it, and not listening.
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        result = CliRunner().invoke(app, [url, "--only", "framing"])
    assert result.exit_code == 2
    assert "cannot be attacked" in result.output
    assert "BROKEN" not in result.output


async def test_a_short_attack_is_watched_for_as_long_as_an_answer_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "PERIOD_S", 0.05)
    ended: list[float] = []

    async def attack() -> None:
        ended.append(time.monotonic())

    async def period() -> dict[str, float]:
        return {"after_s": time.monotonic() - ended[0]}

    assert (await run.measured(period, attack()))["after_s"] >= 0.04


async def _said(*pieces: bytes, method: str = "GET") -> list[object]:
    """What the wire makes of a server that says this and then closes."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        target = Target("127.0.0.1", port, "m")
        found: list[object] = []
        async with await Wire.open(target) as wire:
            while (reply := await wire.reply(method)) is not None:
                found.append((reply.status, reply.body, reply.is_whole))
        return found


async def test_two_answers_are_told_apart() -> None:
    one = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    two = b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    assert await _said(one + two) == [(200, b"ok", True), (404, b"x", True)]


async def test_an_answer_that_is_cut_is_not_whole() -> None:
    (found,) = await _said(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab")
    assert found == (200, b"ab", False)


async def test_what_is_not_http_is_a_fault() -> None:
    with pytest.raises(BrokenError, match="not HTTP"):
        await _said(b"hello\r\n\r\n")


@pytest.fixture(scope="module")
def own() -> Iterator[Own]:
    with own_target() as started:
        yield started


@pytest.mark.services
@pytest.mark.timeout(400)
def test_every_case_holds_at_our_own_gateway(own: Own) -> None:
    verdicts: list[Verdict] = []
    asyncio.run(try_all(every_case(), own.target, verdicts, lambda text: None))
    assert len(verdicts) == len(every_case())
    faults = {f"{one.case.group}/{one.case.name}": one.fault for one in verdicts if one.fault}
    assert faults == {}
    # Our own target has everything that a case needs.
    assert [one.case.name for one in verdicts if one.skipped] == []


@pytest.mark.services
@pytest.mark.timeout(200)
def test_no_generated_request_finds_a_fault(own: Own) -> None:
    found = asyncio.run(fuzz(own.target, 400, seed=3))
    assert found.faults == []
    # Some get through to the engine, most are wrong.
    assert found.statuses["200"] > 20
    assert found.statuses["400"] > 100
