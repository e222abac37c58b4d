"""With real engines: the bills of every kind of request are what the engine counted, to the token."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import aiohttp
import pytest

from loadtests.checks.metering_kinds import KINDS
from serving.replica_protocol import (
    BILLS_PATH,
    MAX_COLLECTED,
    PAYER_HEADER,
    TOKEN_HEADER,
    Bill,
    parse_bills,
)
from tests.engine.real.conftest import LOOP, Running

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope=LOOP),
]

EACH = 6
LEAVE_WITHIN_S = 0.3


async def ask(running: Running, kind: Any, number: int, *, leaves: bool) -> None:
    """One request; its client may leave it at some moment."""
    rng = random.Random(f"{kind.name} {number}")
    facts = running.facts
    headers = {
        TOKEN_HEADER: facts["token"],
        PAYER_HEADER: "g key",
        "x-request-id": f"{kind.name} {number}",
    }
    after_s = rng.uniform(0, LEAVE_WITHIN_S) if leaves else None
    try:
        async with asyncio.timeout(after_s), aiohttp.ClientSession() as session:
            url = f"http://{facts['host']}:{facts['port']}{kind.path}"
            async with session.post(url, json=kind.body(rng), headers=headers) as response:
                await response.read()
                assert response.status == 200
    except TimeoutError:
        assert leaves


async def bills_of(running: Running) -> list[Bill]:
    """Every bill, once no request is open and none is to come."""
    assert await running.replica._door.drained(60)
    found: dict[str, Bill] = {}
    while True:
        # Those that were said with an answer are repeated a few seconds later.
        call = {"gateway": "g", "acknowledged": list(found)}
        _, raw = await running.post(BILLS_PATH, call)
        bills = parse_bills(raw)
        found |= {bill.id: bill for bill in bills}
        stats = await running.replica.record_routing_stats()
        if not stats["kept_bills"]:
            return list(found.values())
        if len(bills) < MAX_COLLECTED:
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("running", ["qwen3", "qwen3-embedding", "qwen3-reranker"], indirect=True)
async def test_all_bills_together_are_what_the_engine_counted(
    running: Running, request: pytest.FixtureRequest
) -> None:
    model = request.node.callspec.params["running"]
    kinds = [kind for kind in KINDS if kind.body(random.Random(0))["model"] == model]
    assert kinds
    asked = [
        ask(running, kind, number, leaves=kind.always_left or number % 3 == 0)
        for kind in kinds
        for number in range(EACH)
    ]
    # The counters are the process's, and other engines have been in it.
    before = await running.replica.record_routing_stats()
    await asyncio.gather(*asked)
    bills = await bills_of(running)
    stats = await running.replica.record_routing_stats()
    prompt, output = (stats[name] - before[name] for name in ("prompt_tokens", "generated_tokens"))
    assert sum(bill.usage.prompt_tokens for bill in bills) == prompt > 0
    assert sum(bill.usage.output_tokens for bill in bills) == output
    assert stats["unattributed_prompt_tokens"] == stats["unattributed_output_tokens"] == 0
    assert {bill.key for bill in bills} == {"key"}
    # Whoever was answered has one bill, and it says so.
    whole = Counter(bill.request_id for bill in bills if bill.outcome == "ok")
    answered = {
        f"{kind.name} {number}"
        for kind in kinds
        for number in range(EACH)
        if number % 3 and not kind.always_left
    }
    assert answered <= whole.keys()
    assert set(whole.values()) == {1}
