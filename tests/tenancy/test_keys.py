"""API keys: who is let in, as whom, and what they may use."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.keys import SCOPES, Scope
from serving.errors import AuthenticationError, PermissionDeniedError, ScopeError
from serving.settings import KeyConfig, hash_key
from serving.tenancy.keys import ANONYMOUS, PREFIX, Caller, KeyRing, new_key

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SECRETS = ("sk-comptoir-alpha", "sk-comptoir-beta")
RING = KeyRing(
    (
        KeyConfig(name="alpha", hash=hash_key(SECRETS[0]), models=("m",), weight=2.0),
        KeyConfig(name="beta", hash=hash_key(SECRETS[1]), priority="batch"),
    )
)
# What can stand in an HTTP header, as a server hands it on.
HEADER = st.text(st.characters(max_codepoint=255), max_size=40)


def test_a_key_gives_its_owners_name_and_rights() -> None:
    caller = RING.identify(f"Bearer {SECRETS[0]}")
    bare = replace(caller, cache_salt=None, id="")
    assert bare == Caller("alpha", frozenset({"m"}), "standard", 2.0)
    assert caller.cache_salt != RING.identify(f"Bearer {SECRETS[1]}").cache_salt
    assert RING.identify(f"Bearer {SECRETS[1]}").priority == "batch"
    assert len(RING) == 2


def test_bills_name_a_key_by_what_stands_for_it_and_nothing_leads_back() -> None:
    caller = RING.identify(f"Bearer {SECRETS[0]}")
    assert RING.names[caller.id] == "alpha"
    assert sorted(RING.names.values()) == ["alpha", "beta"]
    assert caller.id not in hash_key(SECRETS[0])
    assert caller.id != RING.identify(f"Bearer {SECRETS[1]}").id


def test_without_keys_bills_are_for_the_one_caller_there_is() -> None:
    ring = KeyRing(())
    assert ring.names == {ring.identify(None).id: ANONYMOUS.name}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_may_be_written_in_any_case(scheme: str) -> None:
    assert RING.identify(f"{scheme} {SECRETS[0]}").name == "alpha"


def test_anthropics_header_is_as_good() -> None:
    assert RING.identify(None, SECRETS[1]).name == "beta"
    assert RING.identify("Basic abc", f" {SECRETS[1]} ").name == "beta"


def test_a_wrong_bearer_is_not_saved_by_the_other_header() -> None:
    with pytest.raises(AuthenticationError):
        RING.identify("Bearer wrong", SECRETS[0])


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", SECRETS[0], f"Basic {SECRETS[0]}"]
)
def test_without_a_key_the_error_says_how_to_send_one(authorization: str | None) -> None:
    with pytest.raises(AuthenticationError, match="Authorization: Bearer"):
        RING.identify(authorization)


@unhurried
@given(HEADER | st.none(), HEADER | st.none())
def test_nobody_else_is_let_in_and_nothing_they_sent_is_repeated(
    authorization: str | None, x_api_key: str | None
) -> None:
    with pytest.raises(AuthenticationError) as raised:
        RING.identify(authorization, x_api_key)
    for sent in (authorization, x_api_key):
        # Short texts stand in any sentence by accident.
        assert sent is None or len(sent) < 12 or sent not in raised.value.message


@unhurried
@given(st.sampled_from(SECRETS), st.integers(0, 16), st.characters(max_codepoint=255))
def test_a_key_with_one_character_changed_is_unknown(
    secret: str, place: int, character: str
) -> None:
    changed = secret[:place] + character + secret[place + 1 :]
    if changed.strip() in SECRETS:
        return
    with pytest.raises(AuthenticationError):
        RING.identify(f"Bearer {changed}")


@unhurried
@given(
    st.dictionaries(
        st.text(st.characters(categories=("L", "N"), max_codepoint=127), min_size=8, max_size=20),
        st.sets(st.sampled_from(["a", "b", "c"]), min_size=1),
        min_size=1,
        max_size=5,
    )
)
def test_every_key_of_a_ring_is_known_as_itself(owners: dict[str, set[str]]) -> None:
    ring = KeyRing(
        KeyConfig(name=f"k{number}", hash=hash_key(secret), models=tuple(models))
        for number, (secret, models) in enumerate(owners.items())
    )
    for number, (secret, models) in enumerate(owners.items()):
        caller = ring.identify(f"Bearer {secret}")
        assert caller.name == f"k{number}"
        assert {model for model in "abc" if caller.may_use(model)} == models


@pytest.mark.parametrize("authorization", [None, "Bearer anything"])
def test_without_any_key_everyone_is_anonymous(authorization: str | None) -> None:
    assert KeyRing(()).identify(authorization) is ANONYMOUS
    assert ANONYMOUS.may_use("any model")


def test_a_model_that_is_not_allowed_is_refused_without_its_name() -> None:
    caller = Caller("alpha", frozenset({"m"}))
    caller.require("m")
    with pytest.raises(PermissionDeniedError) as raised:
        caller.require("canary")
    assert raised.value.status == 403
    assert "canary" not in raised.value.message


def test_a_star_allows_every_model_and_a_name_only_itself() -> None:
    assert Caller("a", frozenset({"*"})).may_use("m")
    assert not Caller("a", frozenset({"m*"})).may_use("mm")
    assert not Caller("a", frozenset()).may_use("m")


def test_new_keys_are_long_differ_and_fit_a_header() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith(PREFIX)
        assert len(key.removeprefix(PREFIX)) >= 43
        assert key.isascii()
        assert key.isprintable()
        assert " " not in key


def test_no_key_can_be_read_from_a_ring() -> None:
    shown = repr(vars(RING)) + repr(RING.identify(f"Bearer {SECRETS[0]}"))
    assert not any(secret in shown for secret in SECRETS)


def test_a_key_is_for_inference_unless_its_entry_says_otherwise() -> None:
    assert RING.identify(f"Bearer {SECRETS[0]}").scopes == {"inference"}
    assert Caller("a", frozenset()).scopes == {"inference"}
    assert ANONYMOUS.scopes == set(SCOPES)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_its_own_endpoints_only(scope: Scope) -> None:
    ring = KeyRing((KeyConfig(name="a", hash=hash_key("sk-a"), scopes=(scope,)),))
    assert ring.admit((scope,), "Bearer sk-a").name == "a"
    others = [one for one in SCOPES if one != scope]
    with pytest.raises(ScopeError, match=f"lacks the scope .* it has: {scope}"):
        ring.admit(others, "Bearer sk-a")
    with pytest.raises(AuthenticationError):
        ring.admit((scope,), "Bearer sk-b")
