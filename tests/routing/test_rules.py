"""The rules of `auto`: what the configuration refuses, which rule acts, which models it prefers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from serving.config.base import validated
from serving.config.routing import AutoRule, ModelFacts, RoutingConfig, When
from serving.errors import ConfigError
from serving.replica_facts import ModelCard
from serving.routing.features import RequestFeatures
from serving.routing.route import Verdict
from serving.routing.rules import CONDITIONS, choose, judge

SEEN = RequestFeatures(
    kind="chat",
    tools=2,
    json_schema=True,
    images=1,
    stream=True,
    turns=3,
    input_characters=4000,
    input_tokens=1000,
    max_output_tokens=200,
    code_share=0.4,
    script="latin",
    language="de",
    reasoning_effort="high",
)
NOTHING = RequestFeatures("chat")


def rule(when: dict[str, Any] | None = None, **fields: Any) -> AutoRule:
    fields = fields or {"models": ["m"]}
    return AutoRule.model_validate({"name": "r", "when": when} | fields)


def config(**fields: Any) -> RoutingConfig:
    return validated(RoutingConfig, fields, "routing")


def refusal(**fields: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        config(**fields)
    return raised.value.message


# ---- conditions ------------------------------------------------------------------------------------

# Each condition with a value that SEEN meets and one that it does not.
PAIRS: Mapping[str, tuple[Any, Any]] = {
    "endpoint": (["chat", "messages"], ["embeddings"]),
    "tools": (True, False),
    "json_schema": (True, False),
    "images": (True, False),
    "stream": (True, False),
    "min_input_tokens": (1000, 1001),
    "max_input_tokens": (1000, 999),
    "max_output_tokens": (200, 199),
    "min_turns": (3, 4),
    "max_turns": (3, 2),
    "min_code_share": (0.4, 0.5),
    "max_code_share": (0.4, 0.3),
    "script": (["latin"], ["cjk", "arabic"]),
    "language": (["fr", "de"], ["en"]),
    "reasoning_effort": (["high"], ["low", "none"]),
}


def test_every_condition_of_the_configuration_can_be_judged() -> None:
    assert set(CONDITIONS) == set(When.model_fields) == set(PAIRS)


@pytest.mark.parametrize("name", PAIRS)
def test_a_condition_holds_or_is_named(name: str) -> None:
    holds, fails = PAIRS[name]
    assert judge(rule({name: holds}), SEEN).acts
    verdict = judge(rule({name: fails}), SEEN)
    assert not verdict.acts
    assert f"it requires {name} " in verdict.because


def test_all_conditions_must_hold() -> None:
    assert judge(rule({"tools": True, "language": ["de"]}), SEEN).acts
    verdict = judge(rule({"tools": True, "language": ["en", "fr"]}), SEEN)
    assert verdict == Verdict("r", False, "it requires language en or fr; the request has de")


def test_what_a_request_does_not_say_meets_no_bound() -> None:
    assert not judge(rule({"max_output_tokens": 10}), NOTHING).acts
    verdict = judge(rule({"reasoning_effort": ["low"]}), NOTHING)
    assert verdict.because == "it requires reasoning_effort low; the request has none"


def test_a_rule_without_when_always_acts() -> None:
    assert judge(rule(), NOTHING) == Verdict("r", True, "it is the default")


# ---- choices ---------------------------------------------------------------------------------------

FACTS = {
    "big": ModelFacts(cost=3, capabilities=("tools", "code")),
    "small": ModelFacts(cost=1, capabilities=("tools",)),
    "plain": ModelFacts(cost=2, capabilities=()),
    "free": ModelFacts(capabilities=("tools",)),
}
CARDS = {name: ModelCard() for name in FACTS}


def chosen(
    one: AutoRule,
    features: RequestFeatures = NOTHING,
    cards: Mapping[str, ModelCard] = CARDS,
    facts: Mapping[str, ModelFacts] = FACTS,
) -> list[str]:
    return choose(one, features, facts, cards)[0]


def test_the_cheapest_comes_first_and_a_model_without_a_cost_last() -> None:
    assert chosen(rule(choose={})) == ["small", "plain", "big", "free"]


def test_or_the_first_of_the_list() -> None:
    assert chosen(rule(choose={"prefer": "list"})) == ["big", "small", "plain", "free"]


def test_a_model_without_a_needed_capability_is_passed_over() -> None:
    names, skipped = choose(rule(choose={"need": ["code"]}), NOTHING, FACTS, CARDS)
    assert names == ["big"]
    assert {one.name: one.why for one in skipped}["plain"] == "it lacks code"


def test_what_the_request_itself_needs_is_needed_without_a_word() -> None:
    tools = RequestFeatures("chat", tools=1)
    assert chosen(rule(choose={}), tools) == ["small", "big", "free"]
    images = RequestFeatures("chat", tools=1, images=1)
    names, skipped = choose(rule(choose={}), images, FACTS, CARDS)
    assert names == []
    assert {one.why for one in skipped} == {"it lacks vision", "it lacks tools, vision"}


def test_of_a_model_of_which_nobody_says_anything_only_the_rules_need_is_in_doubt() -> None:
    facts = {"m": ModelFacts()}
    tools = RequestFeatures("chat", tools=1)
    assert chosen(rule(choose={}), tools, {"m": ModelCard()}, facts) == ["m"]
    names, skipped = choose(rule(choose={"need": ["tools"]}), tools, facts, {"m": ModelCard()})
    assert names == []
    assert "capabilities" in skipped[0].why


def test_a_rule_that_lists_models_means_these_in_this_order() -> None:
    tools = RequestFeatures("chat", tools=1)
    assert chosen(rule(models=["plain", "gone", "big"]), tools) == ["plain", "big"]


def test_a_context_that_is_too_small_is_passed_over_while_another_is_not() -> None:
    long = RequestFeatures("chat", input_tokens=9000, max_output_tokens=1000)
    cards = {"big": ModelCard(max_model_len=10_000), "small": ModelCard(max_model_len=9999)}
    names, skipped = choose(rule(choose={}), long, FACTS, cards)
    assert names == ["big"]
    assert skipped[0].why == "its context of 9999 tokens is too small for about 10000"
    assert chosen(rule(models=["small", "big"]), long, cards) == ["big"]


def test_where_every_context_is_too_small_the_largest_comes_first() -> None:
    long = RequestFeatures("chat", input_tokens=99_000)
    cards = {"big": ModelCard(max_model_len=10_000), "small": ModelCard(max_model_len=9999)}
    assert chosen(rule(choose={}), long, cards) == ["big", "small"]


# ---- what the configuration refuses ------------------------------------------------------------------

DEFAULT = {"name": "default", "models": ["m"]}


@pytest.mark.parametrize(
    ("fields", "telling"),
    [
        ({"auto": [DEFAULT | {"when": {"tools": True}}]}, "the last rule is the default"),
        ({"auto": [DEFAULT | {"name": "x"}, DEFAULT]}, "'x' has no `when` and always acts"),
        (
            {"auto": [DEFAULT | {"when": {"tools": True}}, DEFAULT]},
            "auto: the name 'default' appears twice",
        ),
        ({"auto": [DEFAULT | {"when": {}}]}, "auto.0.when: names no condition"),
        ({"auto": [DEFAULT | {"when": {"tols": True}}]}, "auto.0.when.tols: unknown key"),
        (
            {"auto": [DEFAULT | {"when": {"min_turns": 3, "max_turns": 2}}]},
            "min_turns (3) is larger than max_turns (2)",
        ),
        ({"auto": [DEFAULT | {"choose": {}}]}, "auto.0: give either `choose` or `models`"),
        ({"auto": [{"name": "x"}]}, "auto.0: give either `choose` or `models`"),
        ({"auto": [DEFAULT | {"models": ["m", "m"]}]}, "auto.0.models: the name 'm' appears twice"),
        ({"auto": [{"name": "x", "choose": {}}]}, "among `routing.models`, which is empty"),
        (
            {"models": {"m": {}}, "auto": [{"name": "x", "choose": {"need": ["tolls"]}}]},
            "'x' needs 'tolls', which no model",
        ),
        (
            {"models": {"m": {}}, "auto": [{"name": "x", "choose": {"prefer": "speed"}}]},
            "auto.0.choose.prefer",
        ),
        ({"aliases": {"auto": "m"}}, "aliases.auto: is the name that starts the rules"),
        ({"aliases": {"best": "m"}, "auto_name": "best"}, "aliases.best: is the name"),
        ({"aliases": {"a b": "m"}}, "'a b' is not a name"),
        ({"aliases": {"a": []}}, "aliases.a.arms"),
        ({"aliases": {"a": [{"model": "m", "weight": 0}]}}, "aliases.a.arms.0.weight"),
        ({"aliases": {"a": [{"model": "m", "weight": -1}]}}, "aliases.a.arms.0.weight"),
        ({"aliases": {"a": [{"model": "m"}, {"model": "m"}]}}, "the name 'm' appears twice"),
        (
            {"models": {"m": {"deprecated_on": "2026-11-01", "retired_on": "2026-10-31"}}},
            "models.m: retired_on (2026-10-31) is before deprecated_on (2026-11-01)",
        ),
        (
            {"models": {"m": {"retired_on": "2026-11-01", "successor": "m"}}},
            "models.m: successor: is the name itself",
        ),
        ({"models": {"m": {"successor": "n"}}}, "add deprecated_on or retired_on"),
        ({"models": {"m": {"retired_on": 20261101}}}, "'2026-11-30', in quotes"),
        ({"models": {"m": {"capabilities": ["Tools"]}}}, "'Tools' is not a capability"),
        ({"models": {"m": {"cost": -1}}}, "models.m.cost"),
        (
            {
                "models": {
                    "a": {"retired_on": "2026-11-01", "successor": "b"},
                    "b": {"retired_on": "2026-11-01", "successor": "a"},
                }
            },
            "successor: goes in a circle: a -> b -> a",
        ),
        ({"fallbacks": {"a": {"to": ["a"]}}}, "fallbacks.a: to: names the model itself"),
        ({"fallbacks": {"a": {"to": []}}}, "fallbacks.a.to"),
        ({"fallbacks": {"a": {"to": ["b"], "after": []}}}, "fallbacks.a.after"),
        ({"fallbacks": {"a": {"to": ["b"], "after": ["slow"]}}}, "'unhealthy', 'saturated'"),
        ({"fallbacks": {"a": {"to": ["auto"]}}, "auto": [DEFAULT]}, "name models here"),
        (
            {"fallbacks": {"a": {"to": ["x", "b"]}, "b": {"to": ["c"]}, "c": {"to": ["a"]}}},
            "fallbacks: go in a circle: a -> b -> c -> a",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence_that_names_the_key(
    fields: dict[str, Any], telling: str
) -> None:
    message = refusal(**fields)
    assert telling in message
    assert "\n" not in message


def test_a_bare_date_is_refused_because_serve_could_not_send_it_on() -> None:
    import yaml

    assert "in quotes" in refusal(**yaml.safe_load("models: {m: {retired_on: 2026-11-01}}"))
    quoted = config(**yaml.safe_load("models: {m: {retired_on: '2026-11-01'}}"))
    assert str(quoted.models["m"].retired_on) == "2026-11-01"


def test_an_alias_can_be_written_short() -> None:
    short = config(aliases={"a": "m", "b": [{"model": "m", "weight": 9}, {"model": "n"}]}).aliases
    assert [arm.model for arm in short["a"].arms] == ["m"]
    assert [arm.weight for arm in short["b"].arms] == [9, 1]


def test_fallbacks_that_meet_again_are_no_circle() -> None:
    config(fallbacks={"a": {"to": ["b", "c"]}, "b": {"to": ["d"]}, "c": {"to": ["d"]}})
