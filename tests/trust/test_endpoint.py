"""The table of fields: each has one row, and pydantic-core and the walk say the same of all bodies."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import RequestError
from serving.settings import RequestLimits
from serving.trust.checker import WrongValueError, exhaust
from serving.trust.common_fields import EVERYWHERE
from serving.trust.endpoint import Endpoint, Fate
from serving.trust.endpoint_schema import schema_of
from serving.trust.fields import endpoints
from serving.trust.images import ImageLimits
from serving.trust.leftovers import Leftovers
from tests.gateway.schemas import PNG, changed, values_of
from tests.trust.test_fields import GOOD, bodies

# A busy machine is no failure.
unhurried = settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)

LIMITS = RequestLimits(max_n=3, max_stop=2, max_output_tokens=100, max_inputs=5, max_images=1)
ENDPOINTS = endpoints(LIMITS)
PATHS = sorted(ENDPOINTS)
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


# ---- rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_only_what_is_sent_on_has_a_check_and_all_else_has_a_reason(path: str) -> None:
    for name, row in ENDPOINTS[path].rows.items():
        assert row.name == name
        assert (row.check is not None) == (row.fate is Fate.FORWARDED)
        assert bool(row.why) == (row.fate is not Fate.FORWARDED)
        assert row.fate is Fate.FORWARDED or not row.required


@pytest.mark.parametrize("path", PATHS)
def test_an_endpoints_own_row_comes_before_the_one_for_all(path: str) -> None:
    rows = ENDPOINTS[path].rows
    for row in EVERYWHERE:
        own = row.name in ENDPOINTS[path].fields
        assert (rows[row.name] is row) != own


def test_no_field_has_two_rows() -> None:
    names = [row.name for row in EVERYWHERE]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", PATHS)
def test_every_row_is_described(path: str) -> None:
    properties = schema_of(ENDPOINTS[path])["properties"]
    spelt = {spelling.name for spelling in ENDPOINTS[path].spellings}
    assert properties.keys() == ENDPOINTS[path].rows.keys() | spelt


# ---- two forms of one check --------------------------------------------------------------------------


def outcome(check: Any) -> Any:
    try:
        return check()
    except RequestError as error:
        return type(error), error.message, error.param


def in_steps(endpoint: Endpoint, body: dict[str, Any], left: Leftovers) -> dict[str, Any]:
    steps = endpoint.check_in_steps(body, left)
    while True:
        try:
            next(steps)
        except StopIteration as over:
            kept: dict[str, Any] = over.value
            return kept


def agree(endpoint: Endpoint, body: dict[str, Any]) -> None:
    for is_strict in (False, True):
        one, other = deepcopy(body), deepcopy(body)
        left, left_too = Leftovers(is_strict=is_strict), Leftovers(is_strict=is_strict)
        kept = outcome(partial(endpoint.check, one, left))
        # As text: a NaN is not equal to itself.
        assert repr(kept) == repr(outcome(partial(in_steps, endpoint, other, left_too)))
        if isinstance(kept, dict):
            assert left.named == left_too.named
            again = Leftovers(is_strict=True)
            assert repr(endpoint.check(deepcopy(kept), again)) == repr(kept)
            assert again.is_empty
    members = {name: body[name] for name in endpoint.fields if body.get(name) is not None}
    passes = endpoint.members.passes(members)
    left = Leftovers()
    try:
        exhaust(endpoint.members.walk(deepcopy(members), left))
    except WrongValueError:
        assert not passes
    else:
        assert passes == left.is_empty


@pytest.mark.parametrize("path", PATHS)
@unhurried
@given(data=st.data())
def test_both_say_the_same_of_a_body_that_is_nearly_right(path: str, data: st.DataObject) -> None:
    endpoint = ENDPOINTS[path]
    body = data.draw(values_of(schema_of(endpoint)))
    agree(endpoint, body)
    for _ in range(2):
        if body:
            body = changed(body, data)
            agree(endpoint, body)


@unhurried
@given(bodies())
def test_both_say_the_same_of_any_body(drawn: tuple[Endpoint, dict[str, Any]]) -> None:
    agree(ENDPOINTS[drawn[0].path], drawn[1])


EDGES = (
    *(True, False, 0, 1, 1.0, -0.0, 2, 2.0, 2.1, 3, 4, 20, 21, 100, 101, 1023, 1024, "1", ""),
    *(2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**400, -(10**400)),
    *(1e308, 1e-320, 1e-5, 1e-6, 0.01, 0.009999999999999998, 10.000000000000002),
    *(float("nan"), float("inf"), float("-inf"), [], {}),
)


@pytest.mark.parametrize("path", PATHS)
def test_both_say_the_same_at_every_edge(path: str) -> None:
    endpoint = ENDPOINTS[path]
    for name in endpoint.fields:
        for edge in EDGES:
            agree(endpoint, GOOD[path] | {name: edge})
            agree(endpoint, GOOD[path] | {name: [edge]})


# ---- images ------------------------------------------------------------------------------------------


def with_images(*images: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(images)}]}


@pytest.mark.parametrize(("images", "looks"), [((), 0), ((IMAGE,), 1)])
def test_images_are_searched_for_only_where_there_are_some(
    images: tuple[Any, ...], looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Any] = []
    monkeypatch.setattr(ImageLimits, "steps", lambda self, body: searched.append(body) or iter(()))
    ENDPOINTS["/v1/chat/completions"].check(with_images(*images))
    assert len(searched) == looks


def test_where_the_walk_takes_what_pydantic_refused_images_count_all_the_same() -> None:
    endpoint = endpoints(LIMITS)["/v1/chat/completions"]
    endpoint.members.__dict__["passes"] = lambda value, context=None: False
    assert endpoint.check(with_images(IMAGE)) == with_images(IMAGE)
    with pytest.raises(RequestError) as raised:
        endpoint.check(with_images(IMAGE, IMAGE))
    assert raised.value.param == "messages[0].content[1].image_url.url"
