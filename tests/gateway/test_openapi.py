"""/openapi.json says what is there, and what is accepted, exactly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from serving.discovery.directory import Directory
from serving.errors import RequestError
from serving.gateway.openapi import client_errors, document
from serving.gateway.routes import build_router
from serving.gateway.services import Services
from serving.settings import GatewayConfig, KeyConfig, RequestLimits, hash_key
from serving.trust.endpoint_schema import schema_of
from serving.trust.fields import endpoints
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import SiteFactory
from tests.gateway.schemas import changed, values_of

unhurried = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)
KEY = KeyConfig(name="a", hash=hash_key("sk-a"))
ENDPOINTS = endpoints(RequestLimits())
DOCUMENT = document(GatewayConfig(keys=(KEY,)), ENDPOINTS)
PATHS = sorted(ENDPOINTS)


def test_every_path_is_described_and_no_other() -> None:
    services = Services.build(GatewayConfig(), Directory)
    routes = {
        (route.path.replace(":path", ""), method.lower())
        for route in build_router(services).routes
        for method in route.methods
        if method != "HEAD"
    }
    routes |= {(path, "post") for path in services.endpoints}
    described = {(path, method) for path, one in DOCUMENT["paths"].items() for method in one}
    assert described == routes


def schemas(value: Any) -> Any:
    if isinstance(value, dict):
        for key, member in value.items():
            if key == "schema":
                yield member
            else:
                yield from schemas(member)
    elif isinstance(value, list):
        for member in value:
            yield from schemas(member)


def test_every_schema_is_one() -> None:
    found = [*schemas(DOCUMENT["paths"]), *DOCUMENT["components"]["schemas"].values()]
    assert len(found) > 50
    for schema in found:
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    def refs(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for member in value.values():
                yield from refs(member)
        elif isinstance(value, list):
            for member in value:
                yield from refs(member)

    found = set(refs(DOCUMENT))
    assert found
    for one in found:
        place: Any = DOCUMENT
        for name in one.removeprefix("#/").split("/"):
            place = place[name]


@pytest.mark.parametrize("path", PATHS)
def test_every_status_of_an_error_is_described(path: str) -> None:
    responses = DOCUMENT["paths"][path]["post"]["responses"]
    # 405 is what other methods get.
    assert responses.keys() == {"200"} | {str(one.status) for one in client_errors()} - {"405"}
    streams = "text/event-stream" in responses["200"]["content"]
    assert streams == ENDPOINTS[path].streams
    schema = responses["400"]["content"]["application/json"]["schema"]["$ref"]
    assert schema.endswith("AnthropicError") == path.startswith("/v1/messages")


def test_keys_are_asked_for_where_there_are_some() -> None:
    for path, one in DOCUMENT["paths"].items():
        (operation,) = one.values()
        is_public = path in ("/health", "/-/healthz", "/ready", "/openapi.json")
        assert (operation["security"] == []) == is_public
    without = document(GatewayConfig(), ENDPOINTS)
    assert all(one["post"]["security"] == [] for one in without["paths"].values() if "post" in one)


# What an image is, which expression an engine follows, and which fields go together, a schema cannot say.
UNSAYABLE = (
    *("image", "regular expression", "it repeats something", "looks around or back"),
    *("characters is none", "needs functions in 'tools'", "is not supported with"),
    *("characters together", "is not supported in schemas", "must have exactly one of"),
)


@pytest.mark.parametrize("path", PATHS)
@unhurried
@given(data=st.data())
def test_a_body_is_accepted_if_and_only_if_it_fits_the_schema(
    path: str, data: st.DataObject
) -> None:
    endpoint = ENDPOINTS[path]
    fits = Draft202012Validator(schema_of(endpoint)).is_valid
    body = data.draw(values_of(schema_of(endpoint)))
    if data.draw(st.booleans()):
        body = changed(body, data)
    is_right = fits(body)
    try:
        endpoint.check(body)
        refusal = None
    except RequestError as error:
        refusal = error
    if refusal is not None and any(words in refusal.message for words in UNSAYABLE):
        return
    assert (refusal is None) == is_right, refusal and refusal.message


async def test_it_is_public_names_no_model_and_follows_the_limits(make_site: SiteFactory) -> None:
    site = await make_site(
        FakeEngine(), config=GatewayConfig(keys=(KEY,), limits=RequestLimits(max_n=3))
    )
    answer = await site.client.get("/openapi.json")
    assert answer.status_code == 200
    assert '"fake"' not in answer.text
    described = answer.json()
    fields = described["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    assert fields["application/json"]["schema"]["properties"]["n"]["maximum"] == 3
    site.services.apply(GatewayConfig(keys=(KEY,), limits=RequestLimits(max_n=2)))
    again = (await site.client.get("/openapi.json")).json()
    fields = again["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    assert fields["application/json"]["schema"]["properties"]["n"]["maximum"] == 2
