"""What the rules say: whether one of `auto` acts on a request, which models can be used, who stands in. Pure.

What is said here (`because`, `why`) is made of configuration, numbers and fixed words, never of a request's
text.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from serving.config.routing import AutoRule, Failure, ModelFacts, RoutingConfig, When
from serving.discovery.directory import Directory, Model
from serving.errors import ModelNotFoundError
from serving.records import record
from serving.routing.features import RequestFeatures

MAX_CANDIDATES = 8
Reason = Literal["named", "alias", "rule", "fallback"]
State = Literal["usable", "missing", "denied", "task", "retired"]
MayUse = Callable[[str], bool]


@dataclass(frozen=True)
class Verdict:
    """Whether a rule acts on a request, and why (not)."""

    rule: str
    acts: bool
    because: str


@dataclass(frozen=True)
class Skipped:
    """A model that was looked at and passed over."""

    name: str
    why: str


@record
class Candidate:
    """A model that may answer.

    `takes_over` says after which failures of which models (by served name) it is asked; the first one has
    none. `reason`: the client named it, it is an alias's arm, a rule of `auto` chose it, or it is a fallback.
    """

    model_id: str
    served_name: str
    reason: Reason
    takes_over: Mapping[str, frozenset[Failure]] = field(default_factory=dict)

    def is_due(self, failed: Mapping[str, Failure]) -> bool:
        """Whether to ask it, given how models failed that were asked before."""
        return not self.takes_over or any(
            failed.get(name) in on for name, on in self.takes_over.items()
        )


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


# One for each field of `When`.
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
    """Whether all conditions of a rule hold; the first that does not is named."""
    if rule.when is None:
        return Verdict(rule.name, True, "it is the default")
    for name, wanted in rule.when.conditions.items():
        found = CONDITIONS[name].found(features)
        if not CONDITIONS[name].holds(wanted, found):
            return Verdict(
                rule.name, False, f"it wants {name} {_said(wanted)}; here it is {_said(found)}"
            )
    return Verdict(rule.name, True, f"all its conditions hold: {_listed(rule.when, features)}")


def choose(
    rule: AutoRule,
    features: RequestFeatures,
    facts: Mapping[str, ModelFacts],
    cards: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], list[Skipped]]:
    """The models a rule prefers, best first, and those of `cards` that it passes over.

    A rule that lists models means exactly these. One that chooses takes, among `facts`, those that have
    what the rule and the request itself need, by cost (without one: last) or in the order of `facts`.
    A model whose context the estimated prompt and the wanted output overrun is taken only where none is
    large enough: the estimate can be wrong, and the engine counts exactly.

    Args:
        facts: `routing.models` of the configuration.
        cards: the cards, by name, of models that can be used: running, allowed, right for the endpoint.
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


def capabilities_of(facts: ModelFacts, card: Mapping[str, Any]) -> frozenset[str] | None:
    """What a model can do: what the site says, else what its card says; None when nobody says."""
    said = facts.capabilities if facts.capabilities is not None else card.get("capabilities")
    return None if said is None else frozenset(said)


def card_capabilities(
    task: str, engine_args: Mapping[str, Any], modalities: Iterable[str] = ("text",)
) -> list[str]:
    """What a model's card says under `capabilities`, from its task, vLLM's arguments and its modalities."""
    found = {
        # vLLM constrains the output of every generating model.
        "json_schema": task in ("chat", "guard"),
        "tools": bool(engine_args.get("tool_call_parser")),
        "reasoning": bool(engine_args.get("reasoning_parser")),
        "vision": "image" in modalities,
    }
    return [name for name, has in found.items() if has]


def _missing(
    need: Iterable[str], features: RequestFeatures, capabilities: frozenset[str] | None
) -> str | None:
    if capabilities is None:
        # Nobody says what it can do: only the rule's own demand keeps it out.
        return "nobody says what it can do (`capabilities`)" if tuple(need) else None
    lacking = sorted((frozenset(need) | features.needs) - capabilities)
    return f"it lacks {', '.join(lacking)}" if lacking else None


def _cost(facts: ModelFacts) -> float:
    return math.inf if facts.cost is None else facts.cost


def _context_tokens(card: Mapping[str, Any]) -> float:
    return float(card.get("max_model_len") or math.inf)


def _listed(when: When, features: RequestFeatures) -> str:
    return ", ".join(
        f"{name} {_said(wanted)} ({_said(CONDITIONS[name].found(features))})"
        for name, wanted in when.conditions.items()
    )


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return " or ".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "not given" if value is None else str(value)


# ---- looking for models --------------------------------------------------------------------------------

_WHY: Mapping[str, str] = {
    "missing": "it is not deployed",
    "denied": "the key does not allow it",
    "task": "its task is not the endpoint's",
    "retired": "it is retired",
}


@record
class Look:
    """Whether a model can be used, and what its engine calls it."""

    state: State
    model: Model | None
    served: str


@record
class Step:
    """A name on the way to candidates, and for whom it would take over (None: it is asked first)."""

    name: str
    reason: Reason
    instead_of: str | None = None
    on: frozenset[Failure] = frozenset()


@dataclass
class Search:
    """Looks for models on behalf of one request, and remembers what it passed over."""

    config: RoutingConfig
    directory: Directory
    may_use: MayUse
    today: date
    tasks: Collection[str] = ()
    states: dict[str, State] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)

    @property
    def passed_over(self) -> tuple[Skipped, ...]:
        return tuple(self.skipped.values())

    def skip(self, name: str, state: State) -> None:
        self.states[name] = state
        self.skipped[name] = Skipped(name, _WHY[state])

    def look(self, name: str) -> Look:
        try:
            model: Model | None = self.directory.resolve(name)
        except ModelNotFoundError:
            model = None
        served = model.served_name(name) if model else name
        return Look(self._state(name, served, model), model, served)

    def _state(self, name: str, served: str, model: Model | None) -> State:
        # First: when a model was retired, and what follows it, is told to those who might use it.
        if not self.may_use(served):
            return "denied"
        facts = self.config.models
        if facts and any(
            facts[one].is_retired(self.today) for one in {name, served} & facts.keys()
        ):
            return "retired"
        if model is None:
            return "missing"
        wrong = self.tasks and model.task is not None and model.task not in self.tasks
        return "task" if wrong else "usable"

    def cards(self, names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """The cards of those that can be used."""
        found = {}
        for name in names:
            look = self.look(name)
            if look.state == "usable" and look.model is not None:
                found[name] = look.model.card
            else:
                self.skip(name, look.state)
        return found

    def expand(self, steps: Sequence[Step]) -> tuple[Candidate, ...]:
        """The models of these steps and their fallbacks, nearest first, each once.

        A model that is not deployed counts as one that failed: where its fallback answers `unhealthy`, that
        takes its place.
        """
        found: dict[str, Candidate] = {}
        queue, seen = deque(steps), set[Step]()
        while queue and len(found) < MAX_CANDIDATES:
            step = queue.popleft()
            if step in seen:
                continue
            seen.add(step)
            look = self.look(step.name)
            fallback = self.config.fallbacks.get(look.served)
            if look.state == "usable" and look.model is not None:
                if look.served not in found and fallback:
                    queue.extend(
                        Step(name, "fallback", look.served, fallback.after) for name in fallback.to
                    )
                _add(found, step, look.model.id, look.served)
                continue
            self.skip(step.name, look.state)
            if fallback and look.state == "missing" and "unhealthy" in fallback.after:
                queue.extendleft(
                    Step(name, "fallback", step.instead_of, step.on)
                    for name in reversed(fallback.to)
                )
        return tuple(found.values())


def _add(found: dict[str, Candidate], step: Step, model_id: str, served: str) -> None:
    takes_over = {} if step.instead_of is None else {step.instead_of: step.on}
    known = found.get(served)
    if known is None:
        found[served] = Candidate(model_id, served, step.reason, takes_over)
    elif known.takes_over and step.instead_of not in (None, served):
        # Several models name it as their fallback: it takes over from each.
        found[served] = replace(known, takes_over={**takes_over, **known.takes_over})
