"""The comparison of bills and engines: it can say no."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from loadtests.checks.metering_kinds import KINDS, Reading
from loadtests.checks.metering_real import billed, disagreeing, same
from serving.settings import GatewayConfig
from serving.trust.fields import endpoints

KIND = {kind.name: kind for kind in KINDS}


def line(bill: str = "a", request_id: str = "r", **fields: Any) -> dict[str, Any]:
    tokens = {"prompt_tokens": 20, "output_tokens": 5, "distinct_prompt_tokens": 10}
    return {"bill": bill, "request_id": request_id, "model": "m"} | tokens | fields


def engine(prompt: int, output: int, apart: int = 0) -> dict[str, Counter[str]]:
    counts = Counter(prompt=prompt, output=output, unattributed_output_tokens=apart)
    return {"m": counts}


def test_a_bill_that_stands_twice_counts_once() -> None:
    assert billed([line(), line(), line("b")]) == {"m": Counter(prompt=40, output=10)}


@pytest.mark.parametrize(
    ("engines", "holds"),
    [
        (engine(20, 5), True),
        (engine(20, 7, apart=2), True),
        (engine(20, 6), False),
        (engine(19, 5), False),
        ({"other": Counter(prompt=1)}, False),
        ({"idle": Counter()} | engine(20, 5), True),
    ],
)
def test_every_token_must_be_on_a_bill(engines: dict[str, Counter[str]], holds: bool) -> None:
    assert same(engines, billed([line()])) is holds


def test_an_answer_must_say_what_its_bills_say() -> None:
    lines = [line("a"), line("b", distinct_prompt_tokens=0), line("c", "other")]
    assert disagreeing({"r": Reading(10, 10)}, lines) == []
    assert len(disagreeing({"r": Reading(10, 5), "lost": Reading(1, 1)}, lines)) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}},
        {"usage": {"input_tokens": 7, "output_tokens": 3}},
    ],
)
def test_usage_is_read_in_every_dialect(answer: dict[str, Any]) -> None:
    raw = json.dumps(answer).encode()
    assert KIND["chat"].read(raw) == Reading(7, 3)
    for event in (answer, {"response": answer}):
        stream = b'data: {"x": 1}\n\ndata: ' + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n"
        assert KIND["chat stream"].read(stream) == Reading(7, 3)


def test_usage_that_is_said_in_parts_is_put_together() -> None:
    events: list[Any] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 0}}},
        {"type": "message_delta", "usage": {"output_tokens": 3}},
    ]
    events[0]["message"]["usage"] |= {"input_tokens": 4, "cache_read_input_tokens": 3}
    raw = b"".join(b"event: x\ndata: " + json.dumps(one).encode() + b"\n\n" for one in events)
    assert KIND["messages"].read(raw) == Reading(7, 3)
    assert KIND["messages"].read(b"data: {}\n\n") is None


@pytest.mark.parametrize("name", KIND)
def test_the_gateway_takes_every_kind(name: str) -> None:
    kind, known = KIND[name], endpoints(GatewayConfig().limits)
    for seed in range(20):
        known[kind.path].check(kind.body(random.Random(seed)))
