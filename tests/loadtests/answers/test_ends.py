"""The load client against a server that gives every answer that is none: each has its word, none counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import gevent
import orjson
import pytest

from loadtests.answers.dialects import judged
from loadtests.answers.ends import (
    BROKEN,
    ENDS,
    End,
    broken_in,
    counts_in_words,
    in_words,
    sentence_of,
)
from loadtests.answers.reading import Expected
from loadtests.generator.client import Client, Endpoint
from loadtests.reference import Running, running
from loadtests.reference.messages import KINDS, parse
from loadtests.reference.wayward import end_of, ways
from loadtests.run.record import Record

TOKENS = 6
PATHS = tuple(path.decode() for path in KINDS)
# Those that no server can make.
CLIENTS_OWN = {"connect", "cancelled"}
DOCS = Path(__file__).parents[3] / "docs" / "load-testing.md"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(ttft_ms=0, itl_ms=0) as found:
        yield found


def body_of(path: str, *, stream: bool = False) -> dict[str, Any]:
    text: dict[str, Any] = {
        "/v1/completions": {"prompt": "a b"},
        "/v1/responses": {"input": "a b"},
        "/v1/embeddings": {"input": "a b"},
    }.get(path, {"messages": [{"role": "user", "content": "a b"}]})
    most = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    return text | {
        "model": "m",
        most: TOKENS,
        "ignore_eos": True,
        "stream": stream,
        "stream_options": {"include_usage": True},
    }


def ask(
    server: Running, path: str, body: Mapping[str, Any], end: str = "", timeout_s: float = 5
) -> Record:
    client = Client(Endpoint.parse(server.url), timeout_s=timeout_s)
    record = Record(0, "c", "chat", "m", "t")
    request = client.request_bytes(
        path, orjson.dumps(body), {"x-reference-end": end} if end else {}
    )
    expected = Expected.of(path, body)
    gevent.spawn(client.ask, request, record, expected=expected).get(timeout=20)
    client.close()
    return record


def kinds() -> Iterator[tuple[str, bool]]:
    for path in PATHS:
        for stream in (False, True):
            if not (stream and path == "/v1/embeddings"):
                yield path, stream


def every_way() -> Iterator[tuple[str, bool, str]]:
    for path, stream in kinds():
        asked = parse(KINDS[path.encode()], orjson.dumps(body_of(path, stream=stream)))
        for name in ways(asked):
            yield path, stream, name


@pytest.mark.parametrize(("path", "stream"), list(kinds()))
def test_a_good_answer_counts(server: Running, path: str, stream: bool) -> None:
    record = ask(server, path, body_of(path, stream=stream))
    assert (record.error, record.status, record.is_ok) == ("", 200, True)
    assert record.prompt_tokens == 2
    assert record.output_tokens == (0 if path == "/v1/embeddings" else TOKENS)
    assert (record.first_s is not None) == stream
    assert len(record.gaps_ms) == (TOKENS - 1 if stream else 0)


@pytest.mark.parametrize(("path", "stream", "name"), list(every_way()))
def test_an_answer_that_is_none_has_its_word(
    server: Running, path: str, stream: bool, name: str
) -> None:
    timeout_s = 0.1 if end_of(name) == "timeout" else 5
    record = ask(server, path, body_of(path, stream=stream), name, timeout_s)
    assert record.error == end_of(name)
    assert not record.is_ok


def test_the_server_can_make_every_end_that_a_client_has_a_word_for() -> None:
    assert {end_of(name) for *_, name in every_way()} | CLIENTS_OWN == set(ENDS)
    assert set(get_args(End)) == {"", *ENDS}


def test_every_end_is_in_the_documentation() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", DOCS.read_text(), re.MULTILINE))
    assert {word: rows.get(word) for word in ENDS} == {
        word: meaning.sentence for word, meaning in ENDS.items()
    }


def test_what_goes_wrong_before_status_200_is_no_broken_answer() -> None:
    assert set(ENDS) - BROKEN == {"connect", "timeout", "reset", "http", "cancelled"}
    assert broken_in({"http": 5, "empty": 2, "aborted": 1}) == 3
    counts = {"http": 5, "empty": 2, "aborted": 1}
    assert counts_in_words(counts, BROKEN) == "2 without content, 1 aborted by the server"


def test_words_of_older_runs_stay_as_they_are() -> None:
    assert (in_words("protocol"), sentence_of("protocol")) == ("protocol", "")
    assert broken_in({"protocol": 3}) == 0


# ---- what counts all the same ------------------------------------------------------------------------


def chat(reason: str = "length", tokens: int = TOKENS, **message: Any) -> bytes:
    choice = {"message": {"content": "word"} | message, "finish_reason": reason}
    usage = {"prompt_tokens": 2, "completion_tokens": tokens}
    return orjson.dumps({"choices": [choice], "usage": usage})


@pytest.mark.parametrize("reason", ["length", "stop", "tool_calls", "content_filter", "eos"])
def test_a_finish_reason_that_ends_an_answer_is_a_good_one(reason: str) -> None:
    assert judged(Expected(), "application/json", chat(reason)).failure == ""


@pytest.mark.parametrize("reason", ["stop", "tool_calls"])
def test_an_answer_that_the_model_ended_may_be_shorter_than_asked(reason: str) -> None:
    asked = Expected(tokens=TOKENS)
    assert judged(asked, "application/json", chat(reason, tokens=2)).failure == ""
    assert judged(asked, "application/json", chat("length", tokens=2)).failure == "short"


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_content": "hm"},
        {"content": None, "tool_calls": [{"id": "1"}]},
        {"content": None, "refusal": "no"},
    ],
)
def test_an_answer_without_content_can_be_one(message: dict[str, Any]) -> None:
    assert judged(Expected(), "application/json", chat(**message)).failure == ""


def test_a_token_that_is_part_of_a_character_is_an_answer_and_thirty_without_text_are_none() -> (
    None
):
    for tokens, word in ((0, "empty"), (1, ""), (30, "empty")):
        whole = judged(Expected(), "application/json", chat(tokens=tokens, content=""))
        assert whole.failure == word, tokens


def test_usage_that_is_missing_is_no_fault_of_the_answer() -> None:
    document = orjson.loads(chat())
    del document["usage"]
    found = judged(Expected(), "application/json", orjson.dumps(document))
    assert (found.failure, found.prompt_tokens, found.output_tokens) == ("", -1, -1)


@pytest.mark.parametrize(
    ("path", "document"),
    [
        (
            "/v1/rerank",
            {"results": [{"index": 0, "relevance_score": 0.0}], "usage": {"total_tokens": 4}},
        ),
        ("/v1/score", {"data": [{"score": 0.0}], "usage": {"prompt_tokens": 4}}),
        ("/v1/classify", {"data": [{"label": "a"}], "usage": {"prompt_tokens": 4}}),
        ("/v1/embeddings", {"data": [{"embedding": [0.0]}], "usage": {"prompt_tokens": 4}}),
    ],
)
def test_lists_of_results_are_answers_and_without_items_or_values_they_are_none(
    path: str, document: dict[str, Any]
) -> None:
    def judge(document: dict[str, Any]) -> str:
        return judged(Expected(path), "application/json", orjson.dumps(document)).failure

    (key,) = set(document) - {"usage"}
    (item,) = document[key]
    assert judge(document) == ""
    assert judge(document | {key: []}) == "empty"
    assert judge(document | {key: [dict.fromkeys(item)]}) == "malformed"
    assert judge(document | {key: [{}]}) == "malformed"


def test_each_choice_needs_its_finish_reason() -> None:
    choices = [{"index": 0, "text": "a", "finish_reason": "stop"}, {"index": 1, "text": "b"}]
    body = orjson.dumps({"choices": choices})
    assert judged(Expected("/v1/completions"), "", body).failure == "no_finish_reason"


def test_comments_ids_and_names_of_events_are_no_garbage() -> None:
    chunks = [
        b": alive\n\nid: 7\nretry: 10\nevent: message\ndata: ",
        orjson.dumps(
            {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
        ),
        b"\n\ndata: [DONE]\n\n",
    ]
    assert judged(Expected(), "text/event-stream", b"".join(chunks)).failure == ""
