"""The search for models that may answer a request: those that can be used, and their fallbacks. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

from serving.config.routing import Failure, RoutingConfig
from serving.discovery.directory import Directory, Model
from serving.errors import ModelNotFoundError
from serving.records import record
from serving.replica_facts import ModelCard
from serving.routing.route import Candidate, Reason, Skipped

MAX_CANDIDATES = 8
State = Literal["usable", "missing", "denied", "task", "retired"]
MayUse = Callable[[str], bool]

_WHY: Mapping[str, str] = {
    "missing": "it is not deployed",
    "denied": "the key does not allow it",
    "task": "its task is not the endpoint's",
    "retired": "it is retired",
}


@record
class Look:
    """A look at a name: whether its model can be used, and the engine's name for it."""

    state: State
    model: Model | None
    served: str


@record
class Step:
    """A name on the way to candidates, and the model for which it takes over (None: it is asked first)."""

    name: str
    reason: Reason
    instead_of: str | None = None
    on: frozenset[Failure] = frozenset()


@dataclass
class Search:
    """The search on behalf of one request; it remembers the models that it passed over."""

    config: RoutingConfig
    directory: Directory
    may_use: MayUse
    today: date
    tasks: Collection[str] = ()
    states: dict[str, State] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)

    @property
    def passed_over(self) -> tuple[Skipped, ...]:
        """The models that were passed over."""
        return tuple(self.skipped.values())

    def skip(self, name: str, state: State) -> None:
        """Pass over a model."""
        self.states[name] = state
        self.skipped[name] = Skipped(name, _WHY[state])

    def look(self, name: str) -> Look:
        """Look at the model behind a name."""
        try:
            model: Model | None = self.directory.resolve(name)
        except ModelNotFoundError:
            model = None
        served = model.served_name(name) if model else name
        return Look(self._state(name, served, model), model, served)

    def _state(self, name: str, served: str, model: Model | None) -> State:
        # This comes first: only those who may use a model are told when it was retired, and what follows it.
        if not self.may_use(served):
            return "denied"
        facts = self.config.models
        if facts and any(
            facts[known].is_retired(self.today) for known in {name, served} & facts.keys()
        ):
            return "retired"
        if model is None:
            return "missing"
        wrong = self.tasks and model.task is not None and model.task not in self.tasks
        return "task" if wrong else "usable"

    def cards(self, names: Iterable[str]) -> dict[str, ModelCard]:
        """The cards of those of these models that can be used."""
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

        A model that is not deployed counts as one that failed: a fallback for `unhealthy` takes its place.
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
        # It is the fallback of several models, and takes over from each.
        found[served] = replace(known, takes_over={**takes_over, **known.takes_over})
