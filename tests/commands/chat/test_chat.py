"""`comptoir chat` through pipes: one answer for each line, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.cli import app
from serving.commands.chat.endpoint import Figures
from serving.commands.chat.screen import harmless, told
from serving.errors import ComptoirError, ConfigError, StackError
from tests.commands.chat.fake_endpoint import FakeEndpoint, chunk, serving, usage


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with serving() as told:
        yield told


def chat(endpoint: FakeEndpoint, *words: str, says: str = "Hello\n", **env: str) -> Result:
    return CliRunner().invoke(app, ["chat", "--url", endpoint.url, *words], input=says, env=env)


def refused(result: Result) -> ComptoirError:
    assert isinstance(result.exception, ComptoirError), result.output
    return result.exception


def test_each_line_gets_one_line_and_the_conversation_goes_on(endpoint: FakeEndpoint) -> None:
    result = chat(endpoint, "m", "--system", "Be brief.", "--max-tokens", "9", says="one\n\ntwo\n")
    assert result.exit_code == 0, result.exception
    assert result.stdout == "Bonjour\nBonjour\n"
    said = [message["content"] for message in endpoint.asked[1]["messages"]]
    assert said == ["Be brief.", "one", "Bonjour", "two"]
    assert endpoint.asked[0]["model"] == "m"
    assert endpoint.asked[0]["max_tokens"] == 9
    assert endpoint.asked[0]["stream_options"] == {"include_usage": True}


def test_what_it_cost_is_told_beside_the_answers(endpoint: FakeEndpoint) -> None:
    result = chat(endpoint, "m")
    assert "2 tokens · TTFT " in result.stderr
    assert "tokens/s" in result.stderr
    assert "\x1b" not in result.output


def test_without_a_count_of_the_endpoint_the_pieces_are_counted(endpoint: FakeEndpoint) -> None:
    endpoint.events = [chunk("a"), chunk("b"), chunk("c", finish="length")]
    result = chat(endpoint, "m")
    assert "about 3 tokens" in result.stderr
    assert "cut at the limit of tokens" in result.stderr


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_no_part_of_the_answer_or_of_the_history(
    endpoint: FakeEndpoint, field: str
) -> None:
    endpoint.events = [chunk(**{field: "hm"}), chunk("yes"), chunk(finish="stop"), usage(2)]
    assert chat(endpoint, "m", says="a\nb\n").stdout == "yes\nyes\n"
    assert endpoint.asked[1]["messages"][1] == {"role": "assistant", "content": "yes"}


def test_line_breaks_of_an_answer_are_escaped(endpoint: FakeEndpoint) -> None:
    endpoint.events = [chunk("a\r\n"), chunk("b\\n", finish="stop")]
    assert chat(endpoint, "m").stdout == "a\\nb\\\\n\n"


def test_an_empty_answer_is_a_line_too(endpoint: FakeEndpoint) -> None:
    endpoint.events = [chunk(finish="stop")]
    assert chat(endpoint, "m", says="a\nb\n").stdout == "\n\n"


def test_what_a_terminal_would_obey_is_shown_and_not_sent(endpoint: FakeEndpoint) -> None:
    endpoint.events = [chunk("\x1b]0;title\x07\x1b[2J"), chunk("\x9b1m\u202eok", finish="stop")]
    assert chat(endpoint, "m").stdout == "\\x1b]0;title\\x07\\x1b[2J\\x9b1m\\u202eok\n"
    assert harmless("é\t\n漢 👩‍🚀") == "é\t\n漢 👩‍🚀"


@pytest.mark.parametrize("text", ["a\u2028b", "a\u0085b", "a\u2029b"])
def test_a_line_separator_within_an_answer_ends_no_event(endpoint: FakeEndpoint, text: str) -> None:
    endpoint.events = [json.dumps(chunk(text, finish="stop"), ensure_ascii=False)]
    result = chat(endpoint, "m", says="one\ntwo\n")
    assert result.exit_code == 0, result.exception
    assert endpoint.asked[1]["messages"][1]["content"] == text


def test_an_event_without_an_end_is_not_read_on(endpoint: FakeEndpoint) -> None:
    endpoint.events = ["x" * 6 * 2**20]
    assert "an event does not end" in refused(chat(endpoint, "m")).message


def test_half_a_surrogate_pair_ends_nothing(endpoint: FakeEndpoint) -> None:
    endpoint.events = [chunk("\ud83d"), chunk("\ude80 \ud83d", finish="stop")]
    result = chat(endpoint, "m", says="one\ntwo\n")
    assert result.exit_code == 0, result.exception
    assert result.stdout == "\U0001f680 \ufffd\n" * 2


def test_words_between_colons_are_no_pictures(endpoint: FakeEndpoint) -> None:
    endpoint.events = [chunk("fe80:a:b::1 -v x:on:ro", finish="stop")]
    assert chat(endpoint, "m").stdout == "fe80:a:b::1 -v x:on:ro\n"


def test_what_an_endpoint_says_before_the_chat_is_harmless(endpoint: FakeEndpoint) -> None:
    endpoint.models = [{"id": "e\x1b]0;owned\x07", "aliases": 3}, {"id": "n", "aliases": [{}]}]
    message = refused(chat(endpoint, "nope")).message
    assert "\x1b" not in message
    assert "e\\x1b]0;owned\\x07" in message


def test_a_key_that_fits_no_header_is_told(endpoint: FakeEndpoint) -> None:
    error = refused(chat(endpoint, "m", "--key", "sk-\u2026"))
    assert "no HTTP header may hold" in error.message
    assert error.param == "key"


def test_bytes_that_are_no_utf8_are_sent_as_what_they_may_mean(endpoint: FakeEndpoint) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", "chat", "m", "--url", endpoint.url],
        input=b"caf\xe9\n",
        capture_output=True,
        env=os.environ | {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert endpoint.asked[0]["messages"][0]["content"] == "caf?"


def test_the_first_model_that_can_chat_is_taken(endpoint: FakeEndpoint) -> None:
    assert chat(endpoint).exit_code == 0
    assert endpoint.asked[0]["model"] == "m"


@pytest.mark.parametrize("name", ["nick", "unlisted"])
def test_a_name_need_not_be_listed(endpoint: FakeEndpoint, name: str) -> None:
    endpoint.unlisted = ("unlisted",)
    assert chat(endpoint, name).exit_code == 0
    assert endpoint.asked[0]["model"] == name


def test_an_unknown_model_is_answered_with_those_there_are(endpoint: FakeEndpoint) -> None:
    error = refused(chat(endpoint, "x"))
    assert isinstance(error, ConfigError)
    assert f"there is no model 'x' at {endpoint.url}; available: embedder, m, n" in error.message
    endpoint.unlisted = ("x",)
    endpoint.refusal = (404, {"error": {"message": "gone"}})
    assert "available: embedder, m, n" in refused(chat(endpoint, "x")).message


@pytest.mark.parametrize(
    ("words", "complaint"),
    [((), "an API key is required"), (("--key", "wrong"), "the endpoint does not know this key")],
)
def test_a_missing_or_wrong_key_is_told(
    endpoint: FakeEndpoint, words: tuple[str, ...], complaint: str
) -> None:
    endpoint.key = "right"
    message = refused(chat(endpoint, *words)).message
    assert f"{complaint}; give one with --key or COMPTOIR_API_KEY" in message
    assert chat(endpoint, COMPTOIR_API_KEY="right").exit_code == 0


def test_no_endpoint_is_told(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    nobody = FakeEndpoint(url="http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in refused(chat(nobody)).message
    wrong = FakeEndpoint(url=f"{endpoint.url}/elsewhere")
    assert "is not an OpenAI-compatible endpoint" in refused(chat(wrong)).message
    assert "must begin with http" in refused(chat(FakeEndpoint(url="host:80"))).message
    result = CliRunner().invoke(app, ["chat"], env={"COMPTOIR_CACHE_DIR": str(tmp_path)})
    assert "no stack is running on this machine" in refused(result).message


def test_the_url_may_end_with_v1(endpoint: FakeEndpoint) -> None:
    endpoint.url += "/v1/"
    assert chat(endpoint).stdout == "Bonjour\n"


@pytest.mark.parametrize(
    ("events", "cuts", "complaint"),
    [
        ([chunk("a"), {"error": {"message": "engine \x1blost"}}], False, r"engine \x1blost"),
        ([chunk("a"), "{oops"], False, "an event is not JSON"),
        ([chunk("a"), [1]], False, "an event is not an object"),
        ([chunk("a"), {"choices": [7]}], False, "an event is not a chunk of a chat"),
        ([chunk("a")], False, "the endpoint ended it without a reason"),
        ([chunk("a")], True, "the connection was lost"),
    ],
)
def test_an_answer_that_breaks_off_says_so(
    endpoint: FakeEndpoint, events: list[object], cuts: bool, complaint: str
) -> None:
    endpoint.events, endpoint.cuts = events, cuts
    result = chat(endpoint, "m")
    assert isinstance(refused(result), StackError)
    assert "the answer broke off: " in refused(result).message
    assert complaint in refused(result).message
    assert result.stdout == "a\n"


def test_a_refusal_is_passed_on(endpoint: FakeEndpoint) -> None:
    endpoint.refusal = (429, {"error": {"message": "too many requests"}})
    assert "status 429: too many requests" in refused(chat(endpoint, "m")).message


def test_figures_leave_out_what_is_not_known() -> None:
    assert told(Figures(0.0, tokens=1, is_counted=True)) == "1 token"
    assert told(Figures(0.0, first_s=0.1, last_s=1.1, tokens=11, is_counted=True)) == (
        "11 tokens · TTFT 100 ms · 10.0 tokens/s"
    )
