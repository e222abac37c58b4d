from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtests.bench.compare.clients import Target
from loadtests.bench.compare.server import complete
from loadtests.bench.compare.texts import compare
from loadtests.processes.free_ports import free_port
from loadtests.reference import Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(ttft_ms=0, itl_ms=0) as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_is_that_of_a_complete_answer(server: Running, stream: bool) -> None:
    good = Target(server.address, {})
    assert complete(good, "Bonjour", 3, stream=stream) == " word word word"
    for end in ("aborted", "error_body", "no_finish_reason", "short", "truncated:cut"):
        bad = Target(server.address, {"x-reference-end": end})
        assert complete(bad, "Bonjour", 9, stream=stream) is None, end


def test_who_does_not_listen_has_no_text() -> None:
    assert complete(Target(f"127.0.0.1:{free_port()}", {}), "Bonjour", 3) is None


@pytest.mark.parametrize(
    ("other", "different"),
    [({"p": "a", "q": "b"}, 0), ({"p": "a", "q": "c"}, 1), ({"p": "a"}, 1), ({}, 2)],
)
def test_every_text_that_is_not_the_same_counts(
    other: dict[str, str | None], different: int
) -> None:
    assert compare({"p": "a", "q": "b"}, other).different == different


def test_no_text_on_either_side_is_not_the_same() -> None:
    assert not compare({"p": None}, {"p": None}).is_same
    assert not compare({}, {}).is_same
