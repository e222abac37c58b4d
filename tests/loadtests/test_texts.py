from __future__ import annotations

import pytest

from loadtests.bench.compare.texts import compare, text_of

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'


def test_a_streams_text_is_put_together_from_its_chunks() -> None:
    usage = b'data: {"choices":[],"usage":{"completion_tokens":2}}\n\n'
    stream = CHUNK % b"Bon" + CHUNK % b"jour" + usage + b"data: [DONE]\n\n"
    assert text_of(stream) == "Bonjour"


def test_a_stream_that_breaks_off_has_no_text() -> None:
    assert text_of(CHUNK % b"Bon") is None


def test_a_chunk_without_content_adds_nothing() -> None:
    first = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
    assert text_of(first + CHUNK % b"a" + b"data: [DONE]\n\n") == "a"


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
