"""The rules of `auto`: whether one acts on a request, and which models it prefers. Pure.

The texts (`because`, `why`) are made of configuration, numbers and fixed words, never of a request's text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.config.routing import AutoRule, ModelFacts, When
from serving.replica_facts import ModelCard
from serving.routing.capabilities import capabilities_of
from serving.routing.features import RequestFeatures
from serving.routing.route import Skipped, Verdict


@dataclass(frozen=True)
class _Condition:
    found: Callable[[RequestFeatures], Any]
    holds: Callable[[Any, Any], bool]


def _is(wanted: Any, found: Any) -> bool:
    return bool(wanted == found)


def _is_one_of(wanted: Any, found: Any) -> bool:
    return found in wanted


def _at_least(wanted: Any, found: Any) -> bool:
    return found is not None and bool(found >= wanted)


def _at_most(wanted: Any, found: Any) -> bool:
    return found is not None and bool(found <= wanted)


# The condition of each field of `When`.
CONDITIONS: Mapping[str, _Condition] = {
    "endpoint": _Condition(lambda seen: seen.kind, _is_one_of),
    "tools": _Condition(lambda seen: seen.tools > 0, _is),
    "json_schema": _Condition(lambda seen: seen.json_schema, _is),
    "images": _Condition(lambda seen: seen.images > 0, _is),
    "stream": _Condition(lambda seen: seen.stream, _is),
    "min_input_tokens": _Condition(lambda seen: seen.input_tokens, _at_least),
    "max_input_tokens": _Condition(lambda seen: seen.input_tokens, _at_most),
    "max_output_tokens": _Condition(lambda seen: seen.max_output_tokens, _at_most),
    "min_turns": _Condition(lambda seen: seen.turns, _at_least),
    "max_turns": _Condition(lambda seen: seen.turns, _at_most),
    "min_code_share": _Condition(lambda seen: seen.code_share, _at_least),
    "max_code_share": _Condition(lambda seen: seen.code_share, _at_most),
    "script": _Condition(lambda seen: seen.script, _is_one_of),
    "language": _Condition(lambda seen: seen.language, _is_one_of),
    "reasoning_effort": _Condition(lambda seen: seen.reasoning_effort, _is_one_of),
}


def judge(rule: AutoRule, features: RequestFeatures) -> Verdict:
    """The verdict of a rule: it acts if all its conditions hold; the first that does not is named."""
    if rule.when is None:
        return Verdict(rule.name, True, "it is the default")
    for name, wanted in rule.when.conditions.items():
        found = CONDITIONS[name].found(features)
        if not CONDITIONS[name].holds(wanted, found):
            return Verdict(
                rule.name,
                False,
                f"it requires {name} {_worded(wanted)}; the request has {_worded(found)}",
            )
    return Verdict(rule.name, True, f"all its conditions hold: {_listed(rule.when, features)}")


def choose(
    rule: AutoRule,
    features: RequestFeatures,
    facts: Mapping[str, ModelFacts],
    cards: Mapping[str, ModelCard],
) -> tuple[list[str], list[Skipped]]:
    """The models that a rule prefers, best first, and those of `cards` that it passes over.

    A rule that lists models means exactly these. A rule that chooses takes those of `facts` that have what
    the rule and the request itself need, by cost (without one: last) or in the order of `facts`. A model
    whose context is too small for the estimated prompt and the wanted output is taken only where none is
    large enough: the estimate can be wrong, and the engine counts exactly.

    Args:
        facts: `routing.models` in the configuration.
        cards: by name, the cards of usable models: running, allowed, right for the endpoint.
    """
    skipped: list[Skipped] = []
    if rule.choose is None:
        names = [name for name in rule.models if name in cards]
    else:
        names = []
        for name in (name for name in facts if name in cards):
            missing = _missing(
                rule.choose.need, features, capabilities_of(facts[name], cards[name])
            )
            if missing:
                skipped.append(Skipped(name, missing))
            else:
                names.append(name)
        if rule.choose.prefer == "cost":
            names.sort(key=lambda name: _cost(facts[name]))
    contexts = {name: _context_tokens(cards[name]) for name in names}
    large = [name for name in names if features.total_tokens <= contexts[name]]
    if not large:
        return sorted(names, key=lambda name: -contexts[name]), skipped
    skipped += [
        Skipped(
            name,
            f"its context of {contexts[name]:.0f} tokens is too small for about "
            f"{features.total_tokens}",
        )
        for name in names
        if name not in large
    ]
    return large, skipped


def _missing(
    need: Iterable[str], features: RequestFeatures, capabilities: frozenset[str] | None
) -> str | None:
    if capabilities is None:
        # Without a word on its capabilities, only the rule's own demand keeps it out.
        return "its capabilities are not declared (`capabilities`)" if tuple(need) else None
    lacking = sorted((frozenset(need) | features.needs) - capabilities)
    return f"it lacks {', '.join(lacking)}" if lacking else None


def _cost(facts: ModelFacts) -> float:
    return math.inf if facts.cost is None else facts.cost


def _context_tokens(card: ModelCard) -> float:
    return float(card.max_model_len or math.inf)


def _listed(when: When, features: RequestFeatures) -> str:
    return ", ".join(
        f"{name} {_worded(wanted)} ({_worded(CONDITIONS[name].found(features))})"
        for name, wanted in when.conditions.items()
    )


def _worded(value: Any) -> str:
    if isinstance(value, tuple):
        return " or ".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)
