"""Schemathesis reads /openapi.json and sends what it makes of it: every answer is one that is described."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.settings import GatewayConfig, KeyConfig, RequestLimits, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import Site, SiteFactory
from tests.gateway.schemas import FORMATS

# Half a minute: with the slower tests.
pytestmark = pytest.mark.services

EXAMPLES = 40
KEY = KeyConfig(name="a", hash=hash_key("sk-a"), scopes=("inference", "metrics", "operator"))
CONFIG = GatewayConfig(keys=(KEY,), limits=RequestLimits(max_output_tokens=8, max_n=2))
# Of every answer; the checks of schemathesis that send requests of their own are below.
ANSWERS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
for name, strategy in FORMATS.items():
    schemathesis.openapi.format(name, strategy)


def operations(document: dict[str, Any]) -> list[Any]:
    found = [one.ok() for one in schemathesis.openapi.from_dict(document).get_all_operations()]
    assert len(found) > 12
    return found


def send_all(site: Site, document: dict[str, Any], mode: GenerationMode) -> dict[str, set[int]]:
    """Send what is made of each operation; the statuses that each answered with."""
    statuses: dict[str, set[int]] = {}
    for operation in operations(document):

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), names_model=st.booleans())
        def send(case: Any, names_model: bool) -> None:
            if names_model and isinstance(case.body, dict) and "model" in case.body:
                # Otherwise hardly any request would reach an engine.
                case.body["model"] = "fake"
            answer = case.call(base_url=site.url, headers={"authorization": "Bearer sk-a"})
            case.validate_response(answer, checks=ANSWERS)
            statuses.setdefault(case.operation.path, set()).add(answer.status_code)

        try:
            send()
        except Unsatisfiable:
            # There is nothing in it that could be wrong.
            assert mode == GenerationMode.NEGATIVE, operation.path
    return statuses


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
async def test_every_answer_is_described(make_site: SiteFactory, mode: GenerationMode) -> None:
    site = await make_site(FakeEngine(), config=CONFIG)
    # `/ready?all` is 503 with it, rightly.
    del site.models["sleeping"]
    document = (await site.client.get("/openapi.json")).json()
    statuses = await asyncio.to_thread(send_all, site, document, mode)
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"):
        # It got through to the engine, or was stopped before.
        assert (200 if mode == GenerationMode.POSITIVE else 400) in statuses[path], statuses


async def test_other_methods_are_refused_and_say_which_is_right(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(), config=CONFIG)
    document = (await site.client.get("/openapi.json")).json()
    for path, described in document["paths"].items():
        known = {method.upper() for method in described}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - known:
            answer = await site.client.request(
                method, re.sub("{.*}", "fake", path), headers={"authorization": "Bearer sk-a"}
            )
            assert (answer.status_code, method) == (405, method)
            assert known <= set(re.split(", ?", answer.headers["allow"]))


async def test_no_key_no_answer_where_one_is_asked_for(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(), config=CONFIG)
    document = (await site.client.get("/openapi.json")).json()
    for path, described in document["paths"].items():
        for method, operation in described.items():
            place = re.sub("{.*}", "fake", path)
            answer = await site.client.request(method, place, json={} if method == "post" else None)
            assert (answer.status_code == 401) == bool(operation["security"]), path
