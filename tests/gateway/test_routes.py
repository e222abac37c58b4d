"""What a client sees: answers, streams, errors, limits."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from starlette import datastructures

from serving.config.admission import AdmissionConfig
from serving.settings import GatewayConfig, KeyConfig, RequestLimits, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import Site, SiteFactory

CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
CANARY = "canary-5f2c"


# Nobody is waited for.
IMPATIENT = GatewayConfig(admission=AdmissionConfig(max_wait_s=0.05))


async def chat(site: Site, **fields: Any) -> httpx.Response:
    return await site.client.post("/v1/chat/completions", json=CHAT | fields)


def error_of(response: httpx.Response) -> dict[str, Any]:
    return response.json()["error"]


async def test_a_completion_comes_back_with_the_engines_usage(make_site: SiteFactory) -> None:
    response = await chat(await make_site(), max_tokens=3)
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "one two three "
    assert response.json()["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
    }


async def test_a_stream_equals_the_whole_answer(make_site: SiteFactory) -> None:
    site = await make_site()
    text = ""
    async with site.client.stream(
        "POST", "/v1/chat/completions", json=CHAT | {"stream": True, "max_tokens": 25}
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    for line in lines[:-1]:
        delta = orjson.loads(line.removeprefix("data: "))["choices"][0]["delta"]
        text += delta.get("content", "")
    whole = await chat(site, max_tokens=25)
    assert text == whole.json()["choices"][0]["message"]["content"]


async def test_an_alias_reaches_the_model_under_its_own_name(make_site: SiteFactory) -> None:
    site = await make_site()
    response = await chat(site, model="vendor/alias")
    assert response.headers["x-comptoir-model"] == "fake"
    assert site.engines[0].bodies[0]["model"] == "fake"


async def test_an_adapter_is_a_model_of_its_own_to_clients(make_site: SiteFactory) -> None:
    site = await make_site(card={"adapters": ["tuned"]})
    response = await chat(site, model="tuned")
    assert response.headers["x-comptoir-model"] == "tuned"
    assert site.engines[0].bodies[0]["model"] == "tuned"
    card = (await site.client.get("/v1/models/tuned")).json()
    assert (card["id"], card["parent"]) == ("tuned", "fake")
    listed = (await site.client.get("/v1/models")).json()["data"]
    assert [card["id"] for card in listed] == ["fake", "tuned", "sleeping"]


async def test_a_key_may_be_for_an_adapter_only(make_site: SiteFactory) -> None:
    key = KeyConfig(name="a", hash=hash_key("sk-a"), models=("tuned",))
    site = await make_site(card={"adapters": ["tuned"]}, config=GatewayConfig(keys=(key,)))
    headers = {"authorization": "Bearer sk-a"}
    for model, status in (("tuned", 200), ("fake", 403)):
        response = await site.client.post(
            "/v1/chat/completions", json=CHAT | {"model": model}, headers=headers
        )
        assert response.status_code == status
    listed = (await site.client.get("/v1/models", headers=headers)).json()["data"]
    assert [card["id"] for card in listed] == ["tuned"]
    shown = await site.client.get("/v1/models/tuned", headers=headers)
    assert shown.json()["parent"] is listed[0]["parent"] is None


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "nothing"}, 404, "model_not_found", "model"),
        ({"model": "sleeping"}, 503, "model_unavailable", "model"),
        ({"model": 3}, 400, "invalid_value", "model"),
        ({"messages": "hello"}, 400, "invalid_value", "messages"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": None}, 400, "missing_required_parameter", "messages"),
        ({"max_tokens": -1}, 400, "invalid_value", "max_tokens"),
        ({"max_tokens": 1.5}, 400, "invalid_value", "max_tokens"),
        ({"temperature": "hot"}, 400, "invalid_value", "temperature"),
        ({"temperature": 9}, 400, "invalid_value", "temperature"),
        ({"n": 1000}, 400, "invalid_value", "n"),
        ({"stop": ["a"] * 50}, 400, "invalid_value", "stop"),
        ({"stream": "yes"}, 400, "invalid_value", "stream"),
        ({"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
        ({"chat_template": "x"}, 400, "unsupported_parameter", "chat_template"),
        ({"cache_salt": "x"}, 400, "unsupported_parameter", "cache_salt"),
        ({"priority": 1}, 400, "unsupported_parameter", "priority"),
        ({"guided_json": CANARY}, 400, "unsupported_parameter", "guided_json"),
        ({"messages": [{"role": CANARY, "content": CANARY}]}, 400, "invalid_value", None),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": f"http://10.0.0.1/{CANARY}"}}
                        ],
                    }
                ]
            },
            400,
            "invalid_value",
            None,
        ),
    ],
)
async def test_a_wrong_request_is_refused_by_field_without_repeating_its_text(
    make_site: SiteFactory, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    site = await make_site()
    response = await chat(site, **fields)
    assert response.status_code == status, response.text
    assert error_of(response)["code"] == code
    if param:
        assert error_of(response)["param"] == param
    assert CANARY not in response.text
    assert site.engines[0].bodies == []


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff", b'{"a": NaN}', b"[" * 5000])
async def test_a_body_that_is_no_json_object_is_refused(
    make_site: SiteFactory, body: bytes
) -> None:
    site = await make_site()
    response = await site.client.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_json"


async def test_deep_nesting_is_refused(make_site: SiteFactory) -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    response = await chat(await make_site(), tools=[tool])
    assert response.status_code == 400


async def test_another_content_type_is_refused(make_site: SiteFactory) -> None:
    site = await make_site()
    response = await site.client.post("/v1/chat/completions", content=orjson.dumps(CHAT))
    assert response.status_code == 415


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_refused(make_site: SiteFactory, declared: bool) -> None:
    site = await make_site(config=GatewayConfig(limits=RequestLimits(max_body_bytes=2048)))
    big = orjson.dumps(CHAT | {"messages": [{"role": "user", "content": "x" * 4000}]})

    async def parts() -> Any:
        yield big

    response = await site.client.post(
        "/v1/chat/completions",
        content=big if declared else parts(),
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"


async def test_doubled_keys_reach_the_engine_once(make_site: SiteFactory) -> None:
    site = await make_site()
    body = b'{"model": "nothing", "model": "fake", "messages": [{"role": "user", "content": "x"}]}'
    await site.client.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert site.engines[0].bodies[0]["model"] == "fake"


async def test_personal_fields_are_not_sent_on(make_site: SiteFactory) -> None:
    site = await make_site()
    await chat(site, user="someone@example.eu", metadata={"a": "b"}, store=True)
    assert not {"user", "metadata", "store"} & site.engines[0].bodies[0].keys()


async def test_the_clients_request_id_is_replaced(make_site: SiteFactory) -> None:
    site = await make_site()
    response = await site.client.post(
        "/v1/chat/completions", json=CHAT, headers={"x-request-id": CANARY}
    )
    assert CANARY not in response.headers["x-request-id"]
    assert site.engines[0].headers[0]["x-request-id"] == response.headers["x-request-id"]


async def test_an_unknown_path_and_a_wrong_method_have_the_same_form(
    make_site: SiteFactory,
) -> None:
    site = await make_site()
    assert error_of(await site.client.get("/v1/nothing"))["code"] == "unknown_url"
    assert error_of(await site.client.get("/v1/completions"))["code"] == "method_not_allowed"


async def test_engine_endpoints_that_are_not_listed_cannot_be_reached(
    make_site: SiteFactory,
) -> None:
    site = await make_site()
    for path in ("/tokenizer_info", "/invocations", "/v1/load_lora_adapter", "/sleep"):
        assert (await site.client.post(path, json={})).status_code == 404
    # The gateway's own, not the engine's.
    assert "vllm" not in (await site.client.get("/metrics")).text


async def test_a_chat_on_an_embedding_model_is_refused(make_site: SiteFactory) -> None:
    response = await chat(await make_site(task="embed"))
    assert response.status_code == 400
    assert error_of(response)["code"] == "unsupported_endpoint"


async def test_models_are_listed_and_shown(make_site: SiteFactory) -> None:
    site = await make_site()
    listed = (await site.client.get("/v1/models")).json()
    assert [card["id"] for card in listed["data"]] == ["fake", "sleeping"]
    assert (await site.client.get("/v1/models/vendor/alias")).json()["id"] == "fake"
    assert (await site.client.get("/v1/models/nothing")).status_code == 404


async def test_ready_waits_for_every_model(make_site: SiteFactory) -> None:
    site = await make_site()
    response = await site.client.get("/ready?all=1")
    assert response.status_code == 503
    assert response.json()["models"] == {"fake": "ready", "sleeping": "starting"}
    del site.models["sleeping"]
    assert (await site.client.get("/ready?all=1")).status_code == 200


async def test_one_model_that_starts_does_not_take_the_gateway_out(make_site: SiteFactory) -> None:
    site = await make_site()
    assert (await site.client.get("/ready")).status_code == 200
    del site.models["fake"]
    assert (await site.client.get("/ready")).status_code == 503


async def test_ready_names_no_models_where_keys_are_asked_for(make_site: SiteFactory) -> None:
    site = await make_site(config=keyed_config())
    assert (await site.client.get("/ready?all=1")).json() == {"ready": False}
    assert (await site.client.get("/ready")).json() == {"ready": True}


def keyed_config() -> GatewayConfig:
    return GatewayConfig(
        keys=(
            KeyConfig(name="all", hash=hash_key("sk-all")),
            KeyConfig(name="other", hash=hash_key("sk-other"), models=("sleeping",)),
        )
    )


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "invalid_api_key"),
        ({"authorization": "Bearer nonsense"}, 401, "invalid_api_key"),
        ({"authorization": "Basic sk-all"}, 401, "invalid_api_key"),
        ({"authorization": "Bearer sk-other"}, 403, "model_not_allowed"),
        ({"authorization": "Bearer sk-all"}, 200, None),
        ({"x-api-key": "sk-all"}, 200, None),
    ],
)
async def test_keys_decide_who_may_use_what(
    make_site: SiteFactory, headers: dict[str, str], status: int, code: str | None
) -> None:
    site = await make_site(config=keyed_config())
    response = await site.client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert response.status_code == status
    if code:
        assert error_of(response)["code"] == code


async def test_callers_do_not_share_what_engines_cache(make_site: SiteFactory) -> None:
    keys = tuple(KeyConfig(name=name, hash=hash_key(f"sk-{name}")) for name in ("a", "b"))
    site = await make_site(config=GatewayConfig(keys=keys))
    for name in ("a", "b", "a"):
        headers = {"authorization": f"Bearer sk-{name}"}
        await site.client.post("/v1/chat/completions", json=CHAT, headers=headers)
    first, other, again = (body["cache_salt"] for body in site.engines[0].bodies)
    assert first == again != other
    assert hash_key("sk-a") not in first
    local = await make_site()
    await chat(local)
    assert "cache_salt" not in local.engines[0].bodies[0]


async def test_a_key_sees_only_its_models(make_site: SiteFactory) -> None:
    site = await make_site(config=keyed_config())
    headers = {"authorization": "Bearer sk-other"}
    listed = (await site.client.get("/v1/models", headers=headers)).json()
    assert [card["id"] for card in listed["data"]] == ["sleeping"]


async def test_anthropic_errors_have_anthropics_form(make_site: SiteFactory) -> None:
    site = await make_site()
    response = await site.client.post("/v1/messages", json={"model": "fake"})
    assert response.status_code == 400
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == "invalid_request_error"


# ---- engines that misbehave ------------------------------------------------------------------------


async def test_what_an_engine_says_when_it_refuses_is_not_repeated(make_site: SiteFactory) -> None:
    response = await chat(await make_site(FakeEngine(status=400, error_message=CANARY)))
    assert response.status_code == 400
    assert CANARY not in response.text


async def test_a_context_overflow_is_named_with_its_limit(make_site: SiteFactory) -> None:
    message = f"This model's maximum context length is 4096 tokens. {CANARY}"
    response = await chat(await make_site(FakeEngine(status=400, error_message=message)))
    assert error_of(response)["code"] == "context_length_exceeded"
    assert "4096" in error_of(response)["message"]
    assert CANARY not in response.text


async def test_an_engine_that_fails_is_a_502_without_its_text(make_site: SiteFactory) -> None:
    response = await chat(await make_site(FakeEngine(status=500, error_message=CANARY)))
    assert response.status_code == 502
    assert CANARY not in response.text


async def test_a_request_whose_engine_dies_goes_to_another_replica(make_site: SiteFactory) -> None:
    dead = FakeEngine(status=500, error_message="EngineCore encountered an issue. See above")
    site = await make_site(dead, FakeEngine())
    assert {(await chat(site)).status_code for _ in range(4)} == {200}
    assert (await chat(await make_site(dead, config=IMPATIENT))).status_code == 503


async def test_a_request_that_kills_engines_is_not_given_to_a_third(make_site: SiteFactory) -> None:
    engines = [FakeEngine(status=500, error_message="EngineCore encountered an issue")] * 4
    site = await make_site(*engines)
    response = await chat(site)
    assert response.status_code == 502
    assert len(engines[0].bodies) == 2


async def test_null_counts_as_absent(make_site: SiteFactory) -> None:
    site = await make_site()
    assert (await chat(site, ignore_eos=None, n=None, user=None)).status_code == 200
    assert not {"ignore_eos", "n"} & site.engines[0].bodies[0].keys()


async def test_a_schema_that_would_stall_the_compiler_is_refused(make_site: SiteFactory) -> None:
    many = {f"p{n}": {"type": "string"} for n in range(600)}
    deep: Any = {"type": "string"}
    for _ in range(40):
        deep = {"type": "array", "items": deep}
    for schema in ({"type": "object", "properties": many}, deep, {"enum": ["x" * 40_000]}):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        response = await chat(await make_site(), response_format=form)
        assert response.status_code == 400
        assert error_of(response)["param"] == "response_format.json_schema.schema"


async def test_a_replica_that_is_gone_is_passed_over(make_site: SiteFactory) -> None:
    site = await make_site(gone=1)
    assert [(await chat(site)).status_code for _ in range(5)] == [200] * 5


async def test_no_replica_left_is_a_503_with_retry_after(make_site: SiteFactory) -> None:
    site = await make_site(dead=True, config=IMPATIENT)
    response = await chat(site)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1


async def test_an_error_before_the_first_token_moves_to_another_replica(
    make_site: SiteFactory,
) -> None:
    site = await make_site(FakeEngine(error_after=0), FakeEngine())
    response = await chat(site, stream=True, max_tokens=2)
    assert response.status_code == 200
    assert "one" in response.text
    assert "error" not in response.text


@pytest.mark.parametrize("engine", [FakeEngine(break_after=3), FakeEngine(error_after=3)])
async def test_a_stream_that_breaks_ends_with_an_error_event(
    make_site: SiteFactory, engine: FakeEngine
) -> None:
    response = await chat(await make_site(engine), stream=True, max_tokens=9)
    assert "three" in response.text
    events = [line for line in response.text.splitlines() if line]
    last = orjson.loads(events[-1].removeprefix("data: "))
    assert last["error"]["code"] == "engine_error"
    assert "secret" not in response.text
    assert "[DONE]" not in response.text


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_makes_the_engine_stop(
    make_site: SiteFactory, stream: bool
) -> None:
    engine = FakeEngine(interval_s=0.05)
    site = await make_site(engine)
    sending = asyncio.create_task(chat(site, stream=stream, max_tokens=1000))
    for _ in range(100):
        await asyncio.sleep(0.02)
        if engine.running:
            break
    assert engine.running == 1
    sending.cancel()
    for _ in range(50):
        await asyncio.sleep(0.02)
        if not engine.running:
            break
    assert engine.running == 0
    assert sum(site.services.forwarder.in_flight.values()) == 0


async def test_load_is_spread_over_replicas(make_site: SiteFactory) -> None:
    engines = [FakeEngine(first_token_s=0.1) for _ in range(3)]
    site = await make_site(*engines)
    await asyncio.gather(*(chat(site, max_tokens=1) for _ in range(12)))
    assert [len(engine.bodies) for engine in engines] == [4, 4, 4]


async def test_many_streams_at_once_lose_and_double_nothing(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(interval_s=0.001))
    whole = (await chat(site, max_tokens=64)).json()["choices"][0]["message"]["content"]

    async def streamed() -> str:
        response = await chat(site, stream=True, max_tokens=64)
        events = [
            orjson.loads(line.removeprefix("data: "))
            for line in response.text.splitlines()
            if line.startswith("data: {")
        ]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in events)

    assert set(await asyncio.gather(*(streamed() for _ in range(64)))) == {whole}


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/v1/models", "/v1/models/fake", "/status", "/metrics"]
)
async def test_head_is_get_without_a_body(make_site: SiteFactory, path: str) -> None:
    site = await make_site()
    whole, head = await site.client.get(path), await site.client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert int(head.headers["content-length"]) > 0
    assert (await site.client.get("/health")).json() == {"status": "ok"}


@pytest.mark.parametrize(("query", "status"), [("a&" * 30_000, 200), ("all&" + "a&" * 30_000, 503)])
async def test_a_long_query_is_not_parsed(
    make_site: SiteFactory, monkeypatch: pytest.MonkeyPatch, query: str, status: int
) -> None:
    site, parsed, parse = await make_site(), [0], datastructures.parse_qsl

    def noted(text: str, **how: Any) -> Any:
        parsed.append(len(text))
        return parse(text, **how)

    monkeypatch.setattr(datastructures, "parse_qsl", noted)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.front.port)
    writer.write(f"GET /ready?{query} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 %d" % status)
    writer.close()
    assert max(parsed) <= 256


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/chat/completion", "did you mean /v1/chat/completions?"),
        ("/v1/message", "did you mean /v1/messages?"),
        ("/v1/canary-41", "GET /openapi.json describes all"),
        ("/", "GET /openapi.json describes all"),
        ("/v1/chat/completions" * 1000, "GET /openapi.json describes all"),
    ],
)
async def test_a_wrong_path_is_answered_with_the_one_that_was_meant(
    make_site: SiteFactory, path: str, meant: str
) -> None:
    answer = await (await make_site()).client.post(path, json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].endswith(meant)
    assert "canary" not in answer.text
