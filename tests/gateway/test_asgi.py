"""Who else may ask: pages in browsers, probes that want the head alone, clients with Azure's paths."""

from __future__ import annotations

import pytest

from serving.config.browsers import CorsConfig
from serving.errors import ConfigError
from serving.settings import GatewayConfig, KeyConfig, hash_key, validated
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import SiteFactory

PAGE = "https://app.example.eu"
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
KEY = KeyConfig(name="a", hash=hash_key("sk-a"))
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, x-stainless-lang",
}


async def test_without_a_setting_no_page_may_ask(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine())
    answer = await site.client.request("OPTIONS", "/v1/chat/completions", headers=PREFLIGHT)
    assert answer.status_code == 405
    answer = await site.client.post("/v1/chat/completions", json=CHAT, headers={"origin": PAGE})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_page_of_the_list_asks_without_a_key_first_and_reads_the_answer(
    make_site: SiteFactory, stream: bool
) -> None:
    config = GatewayConfig(keys=(KEY,), cors=CorsConfig(origins=(PAGE,), max_age_s=60))
    site = await make_site(FakeEngine(), config=config)
    before = await site.client.request("OPTIONS", "/v1/chat/completions", headers=PREFLIGHT)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == PAGE
    assert "x-stainless-lang" in before.headers["access-control-allow-headers"]
    assert before.headers["access-control-max-age"] == "60"
    headers = {"origin": PAGE, "authorization": "Bearer sk-a"}
    answer = await site.client.post(
        "/v1/chat/completions", json=CHAT | {"stream": stream}, headers=headers
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    refused = await site.client.post("/v1/chat/completions", json=CHAT, headers={"origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE


async def test_another_page_is_refused_before_it_asks(make_site: SiteFactory) -> None:
    config = GatewayConfig(cors=CorsConfig(origins=(PAGE,)))
    site = await make_site(FakeEngine(), config=config)
    other = PREFLIGHT | {"origin": "https://app.example.eu.evil.example"}
    answer = await site.client.request("OPTIONS", "/v1/chat/completions", headers=other)
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["app.example.eu", "https://a.eu/path", "https://*.a.eu", ""])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validated(GatewayConfig, {"cors": {"origins": [origin]}}, "gateway")
    assert "cors.origins" in (raised.value.param or "")


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/v1/models/fake", "/status"])
async def test_a_probe_may_ask_for_the_head_alone(make_site: SiteFactory, path: str) -> None:
    site = await make_site(FakeEngine())
    head, whole = await site.client.head(path), await site.client.get(path)
    assert head.status_code == whole.status_code == 200
    assert head.content == b""
    assert int(head.headers["content-length"]) > 0


AZURE = GatewayConfig(keys=(KEY,), azure_paths=True)


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/fake/chat/completions?api-version=2024-10-21",
        "/openai/v1/chat/completions",
        "/v1/chat/completions",
    ],
)
async def test_azures_clients_find_the_api(make_site: SiteFactory, path: str) -> None:
    engine = FakeEngine()
    site = await make_site(engine, config=AZURE)
    answer = await site.client.post(path, json=CHAT, headers={"api-key": "sk-a"})
    assert answer.status_code == 200
    assert engine.bodies[-1]["model"] == "fake"
    assert (await site.client.post(path, json=CHAT, headers={"api-key": "no"})).status_code == 401


async def test_the_model_may_stand_in_the_path_alone_but_not_another_one_there(
    make_site: SiteFactory,
) -> None:
    engine = FakeEngine()
    site = await make_site(engine, config=AZURE)
    path = "/openai/deployments/fake/chat/completions"
    body = {name: value for name, value in CHAT.items() if name != "model"}
    for filler in (0, 50_000):
        messages = [{"role": "user", "content": "x" * (filler + 1)}]
        answer = await site.client.post(
            path, json=body | {"messages": messages}, headers={"api-key": "sk-a"}
        )
        assert answer.status_code == 200
        assert engine.bodies[-1]["model"] == "fake"
    missing = await site.client.post(
        path.replace("fake", "other"), json=body, headers={"api-key": "sk-a"}
    )
    assert missing.status_code == 404


async def test_without_the_setting_azures_paths_do_not_exist(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine())
    answer = await site.client.post("/openai/v1/chat/completions", json=CHAT)
    assert answer.status_code == 404
