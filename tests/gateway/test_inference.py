"""The hot path's corner: a stream that has begun to wait gets one head, one end, and is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.config.admission import AdmissionConfig
from serving.settings import GatewayConfig, RequestLimits
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import SiteFactory
from tests.gateway.test_report import samples

CHAT: dict[str, Any] = {
    "model": "fake",
    "messages": [{"role": "user", "content": "canary-79"}],
    "stream": True,
    "max_tokens": 5,
}
# One request at a time, and a sign of life at once: what waits has begun.
BUSY = AdmissionConfig(
    min_open_per_replica=1,
    max_open_per_replica=1,
    reserve_share=0,
    keep_alive_s=0.01,
    max_wait_s=0.3,
)


async def test_a_stream_that_waits_too_long_ends_with_an_error_and_is_counted(
    make_site: SiteFactory,
) -> None:
    site = await make_site(FakeEngine(first_token_s=1.0), config=GatewayConfig(admission=BUSY))
    first, second = await asyncio.gather(
        *(site.client.post("/v1/chat/completions", json=CHAT) for _ in range(2))
    )
    waited = second if ": waiting" in second.text else first
    assert waited.status_code == 200
    assert waited.text.startswith(": waiting\n\n")
    assert '"code"' in waited.text
    assert "the model is busy" in waited.text
    found = await samples(site)
    assert found["comptoir_rejected_total|expired"] == 1
    assert found["comptoir_requests_total||429"] == 1


async def test_a_mistake_of_ours_after_waiting_is_the_streams_last_event(
    make_site: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await make_site(FakeEngine(first_token_s=0.1), config=GatewayConfig(admission=BUSY))
    upstream = site.services.upstream
    whole, calls = upstream.post, []

    async def post(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("canary-79")
        return await whole(*args, **options)

    monkeypatch.setattr(upstream, "post", post)
    texts = [
        answer.text
        for answer in await asyncio.gather(
            *(site.client.post("/v1/chat/completions", json=CHAT) for _ in range(2))
        )
    ]
    (waited,) = [text for text in texts if ": waiting" in text]
    events = [part for part in waited.split("\n\n") if part and not part.startswith(":")]
    assert len(events) == 1
    assert "internal error" in events[0]
    assert "HTTP/1.1" not in waited
    assert "canary" not in waited


ECHOED = [
    {"role": "user", "content": "canary-79"},
    {"role": "assistant", "content": "a", "provider_specific_fields": {"x": 1}, "refusal": None},
    {"role": "user", "content": "b", "prefix": True},
]


@pytest.mark.parametrize("filler", [0, 200_000], ids=["small", "large"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_engine_is_not_sent_is_named_in_a_header_and_counted(
    make_site: SiteFactory, stream: bool, filler: int
) -> None:
    engine = FakeEngine()
    site = await make_site(engine)
    messages = [*ECHOED, {"role": "user", "content": "x" * filler}]
    body = CHAT | {"messages": messages, "stream": stream, "verbosity": "low", "colour": 1}
    answer = await site.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-comptoir-dropped"] == (
        "verbosity, colour, messages[].provider_specific_fields, messages[].prefix"
    )
    sent = engine.bodies[-1]
    assert sent.keys() <= CHAT.keys() | {"cache_salt", "store", "model"}
    assert [message.keys() for message in sent["messages"]] == [{"role", "content"}] * 4
    status = (await site.client.get("/status")).json()
    assert status["dropped_fields"] == {
        "/v1/chat/completions": {
            "verbosity": 1,
            "(others)": 1,
            "provider_specific_fields": 1,
            "prefix": 1,
        }
    }
    assert (
        "x-comptoir-dropped"
        not in (await site.client.post("/v1/chat/completions", json=CHAT)).headers
    )


async def test_a_strict_client_or_site_gets_the_name_instead(make_site: SiteFactory) -> None:
    body = CHAT | {"messages": ECHOED}
    strict = {"x-comptoir-strict": "true"}
    site = await make_site(FakeEngine())
    for name, value in (("colour", 1), ("messages", ECHOED)):
        answer = await site.client.post(
            "/v1/chat/completions", json=CHAT | {name: value}, headers=strict
        )
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "unsupported_parameter"
        place = "messages[1].provider_specific_fields"
        assert error["param"] == (name if name == "colour" else place)
    site = await make_site(FakeEngine(), config=GatewayConfig(limits=RequestLimits(strict=True)))
    assert (await site.client.post("/v1/chat/completions", json=body)).status_code == 400
    assert (await site.client.post("/v1/chat/completions", json=CHAT)).status_code == 200
