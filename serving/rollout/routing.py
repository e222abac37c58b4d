"""Routing while two revisions run: arms in shares, and everything that names one of them. Pure.

Works on `routing` as JSON, normalised by `serving.config.rerouting.user_config`: aliases are mappings with
`arms`, defaults are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Routing = dict[str, Any]
_DATES = ("deprecated_on", "retired_on", "successor")


@dataclass(frozen=True)
class Names:
    """The names of two revisions.

    `pairs`: the old revision's id and adapters, and what each is called in the new one. `public`: what
    clients say, and which of the old names that means. `own`: names to which the old revision answers without
    routing's help.
    """

    pairs: Mapping[str, str]
    public: Mapping[str, str]
    own: frozenset[str] = field(default_factory=frozenset)


def shared(routing: Mapping[str, Any], names: Names, percent: float) -> Routing:
    """Give the new revision `percent` of every share that the two have, by any alias.

    The public names become aliases. The old revision answers when the new one cannot: a canary may fail, its
    requests may not.
    """
    result = copy.deepcopy(dict(routing))
    aliases = result.setdefault("aliases", {})
    for public, old in names.public.items():
        aliases.setdefault(
            public, {"arms": [{"model": old, "weight": 100.0}]} | _dates(result, public)
        )
    for alias in aliases.values():
        for old, new in names.pairs.items():
            alias["arms"] = _split(alias["arms"], old, new, percent)
    fallbacks = result.setdefault("fallbacks", {})
    for old, new in names.pairs.items():
        fallbacks.setdefault(new, {"to": [old]})
    return result


def settled(routing: Mapping[str, Any], names: Names, keep: Literal["old", "new"]) -> Routing:
    """Make everything that names one of the revisions name the one that stays."""
    renamed = dict(names.pairs) if keep == "new" else {new: old for old, new in names.pairs.items()}
    result = copy.deepcopy(dict(routing))
    fallbacks = result.get("fallbacks", {})
    for old, new in names.pairs.items():
        # What `shared` put there; a site's own would not name the old revision alone.
        if fallbacks.get(new, {}).get("to") == [old]:
            del fallbacks[new]
    for alias in result.get("aliases", {}).values():
        alias["arms"] = _renamed_arms(alias["arms"], renamed)
    result["fallbacks"] = _renamed_keys(fallbacks, renamed)
    for name, fallback in result["fallbacks"].items():
        to = dict.fromkeys(renamed.get(one, one) for one in fallback["to"])
        fallback["to"] = [one for one in to if one != name]
    result["models"] = _renamed_keys(result.get("models", {}), renamed)
    for rule in result.get("auto", ()):
        if rule.get("models"):
            rule["models"] = list(dict.fromkeys(renamed.get(one, one) for one in rule["models"]))
    if keep == "old":
        _drop_needless(result, names)
    return {key: value for key, value in result.items() if value not in ({}, [])}


def percent_of_new(routing: Mapping[str, Any], public: str, old: str, new: str) -> float:
    """The new revision's share of what both get under the public name; 0 to 100."""
    alias = routing.get("aliases", {}).get(public, {"arms": []})
    weights = {arm["model"]: arm.get("weight", 1.0) for arm in alias["arms"]}
    both = weights.get(old, 0.0) + weights.get(new, 0.0)
    return _rounded(100 * weights.get(new, 0.0) / both) if both else 0.0


def _dates(routing: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An alias hides the dates of the model of that name, and so has to repeat them."""
    facts = routing.get("models", {}).get(name, {})
    return {key: facts[key] for key in _DATES if facts.get(key) is not None}


def _split(arms: list[Any], old: str, new: str, percent: float) -> list[Any]:
    both = [arm for arm in arms if arm["model"] in (old, new)]
    if not both:
        return arms
    total = sum(arm.get("weight", 1.0) for arm in both)
    parts = [
        {"model": name, "weight": _rounded(total * share / 100)}
        for name, share in ((old, 100 - percent), (new, percent))
        if share > 0
    ]
    place = arms.index(both[0])
    rest = [arm for arm in arms if arm not in both]
    return [*rest[:place], *parts, *rest[place:]]


def _renamed_arms(arms: list[Any], renamed: Mapping[str, str]) -> list[Any]:
    weights: dict[str, float] = {}
    for arm in arms:
        name = renamed.get(arm["model"], arm["model"])
        weights[name] = weights.get(name, 0.0) + arm.get("weight", 1.0)
    return [{"model": name, "weight": _rounded(weight)} for name, weight in weights.items()]


def _renamed_keys(entries: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """In the same order, by which `prefer: list` goes; where both have an entry, what stays keeps its own."""
    return {
        renamed.get(name, name): entry
        for name, entry in entries.items()
        if name not in renamed or renamed[name] not in entries
    }


def _drop_needless(routing: Routing, names: Names) -> None:
    """Take away the aliases that say what is true without them."""
    aliases = routing.get("aliases", {})
    for public in names.own & aliases.keys():
        alias = aliases[public]
        arms = [arm["model"] for arm in alias["arms"]]
        dates = {key: alias[key] for key in _DATES if alias.get(key) is not None}
        if arms == [names.public.get(public)] and dates == _dates(routing, public):
            del aliases[public]


def _rounded(weight: float) -> float:
    # 95 × 0.05 + 95 × 0.95 is to be 95 again.
    return float(f"{weight:.9g}")
