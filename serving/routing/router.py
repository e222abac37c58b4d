"""The router of models: from a name to a route, by aliases, `auto`, lifetimes and fallbacks. Pure.

It reads no clock and draws no random number. The day, and the key that decides on an alias's arm, are passed
in, so that the same request gets the same route at every gateway.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date
from typing import get_args

from serving.api import MODELS, NO_SUCH_MODEL
from serving.config.routing import Failure, RoutingConfig
from serving.discovery.directory import Directory
from serving.errors import (
    MODEL_RETRY_S,
    AnswerTooLongError,
    ComptoirError,
    ContextLengthError,
    EngineTimeoutError,
    ModelNotFoundError,
    ModelUnavailableError,
    PermissionDeniedError,
    UnsupportedEndpointError,
)
from serving.routing.aliases import draw_arm
from serving.routing.features import RequestFeatures
from serving.routing.lifetimes import notices_of, retired_error
from serving.routing.route import Candidate, Route, Verdict
from serving.routing.rules import choose, judge
from serving.routing.search import MayUse, Search, Step

FAILURES: frozenset[Failure] = frozenset(get_args(Failure))

_DENIED = "this API key may not use this model"


def _pool(config: RoutingConfig) -> dict[str, None]:
    """The models that `auto` may choose, in the order of the configuration."""
    return dict.fromkeys([*config.models, *(name for rule in config.auto for name in rule.models)])


class ModelRouter:
    """Routes for names: aliases come first, then `auto`, then the names in the directory."""

    def __init__(self, config: RoutingConfig) -> None:
        self._config = config

    def needs_features(self, name: str) -> bool:
        """Whether the route of this name depends on the request; otherwise `features` may be None."""
        config = self._config
        return bool(config.auto) and name == config.auto_name and name not in config.aliases

    def route(
        self,
        name: str,
        features: RequestFeatures | None,
        directory: Directory,
        may_use: MayUse,
        sticky_key: str,
        today: date,
        tasks: Collection[str] = (),
    ) -> Route:
        """The candidates for a request, in order, and how they came about.

        Args:
            name: the client's `model`.
            may_use: whether the key allows a model or an adapter (`Caller.may_use`).
            sticky_key: requests with the same key get the same arm of an alias (`aliases.sticky_key`).
            today: the day in UTC.
            tasks: the tasks that the endpoint serves; models with others are passed over. Empty: any.

        Raises:
            ModelNotFoundError: there is no such name, or it is retired (the message names the successor),
                or no model behind `auto` can do what the request needs.
            PermissionDeniedError: the name exists, and the key allows no model behind it.
            UnsupportedEndpointError: the models behind it have other tasks.
            ModelUnavailableError: the models behind it are configured and not deployed now.
        """
        search = Search(self._config, directory, may_use, today, tasks)
        if name in self._config.aliases:
            return self._by_alias(search, name, sticky_key)
        if self.needs_features(name):
            if features is None:
                raise ValueError("this name needs features: ask needs_features() first")
            return self._by_rules(search, features)
        return self._by_name(search, name)

    def names(self, directory: Directory, may_use: MayUse, today: date) -> tuple[str, ...]:
        """The names (aliases, and `auto` if it has rules) behind which is a model that the caller may use."""
        search = Search(self._config, directory, may_use, today)
        found = [
            name
            for name, alias in sorted(self._config.aliases.items())
            if not alias.is_retired(today)
            and any(search.look(arm.model).state == "usable" for arm in alias.arms)
        ]
        if self._config.auto and search.cards(_pool(self._config)):
            found.append(self._config.auto_name)
        return tuple(found)

    def _by_name(self, search: Search, name: str) -> Route:
        look = search.look(name)
        # A name that is retired or has a fallback is known, even if its model is not deployed now.
        if look.model is None and look.state != "retired" and name not in self._config.fallbacks:
            raise ModelNotFoundError(NO_SUCH_MODEL, param="model")
        if look.state == "usable" and look.model and look.served not in self._config.fallbacks:
            candidates: tuple[Candidate, ...] = (Candidate(look.model.id, look.served, "named"),)
        else:
            candidates = search.expand([Step(name, "named")])
        if not candidates:
            raise _refusal(search, [name, look.served])
        return Route(
            candidates,
            skipped=search.passed_over,
            notices=notices_of(self._config.models, name, look.served),
        )

    def _by_alias(self, search: Search, name: str, sticky_key: str) -> Route:
        alias = self._config.aliases[name]
        if alias.is_retired(search.today):
            if all(search.look(arm.model).state == "denied" for arm in alias.arms):
                raise PermissionDeniedError(_DENIED, param="model")
            raise retired_error(self._config, alias, search.today)
        looks = {arm.model: search.look(arm.model).state for arm in alias.arms}
        # An arm that cannot answer leaves its share to the others; a missing arm may have a fallback.
        state = "usable" if "usable" in looks.values() else "missing"
        arms = [arm for arm in alias.arms if looks[arm.model] == state]
        arm = draw_arm(name, arms, sticky_key) if arms else alias.arms[0]
        for other, reason in looks.items():
            if other != arm.model and reason != "usable":
                search.skip(other, reason)
        candidates = search.expand([Step(arm.model, "alias")])
        if not candidates:
            raise _refusal(search, [arm.model])
        return Route(
            candidates,
            alias=name,
            arm=arm.model,
            skipped=search.passed_over,
            notices=notices_of(self._config.aliases, name),
        )

    def _by_rules(self, search: Search, features: RequestFeatures) -> Route:
        verdicts: list[Verdict] = []
        for rule in self._config.auto:
            verdict = judge(rule, features)
            if verdict.acts:
                cards = search.cards(rule.models or self._config.models)
                names, skipped = choose(rule, features, self._config.models, cards)
                search.skipped.update({model.name: model for model in skipped})
                if names:
                    best = names[0]
                    steps = [Step(best, "rule")]
                    steps += [Step(name, "rule", best, FAILURES) for name in names[1:]]
                    return Route(
                        search.expand(steps),
                        rule=rule.name,
                        verdicts=(*verdicts, verdict),
                        skipped=search.passed_over,
                    )
                verdict = replace(
                    verdict, acts=False, because=f"{verdict.because}; no model is left"
                )
            verdicts.append(verdict)
        raise _refusal(search, [], features)


def failure_of(error: ComptoirError) -> Failure | None:
    """The failure that an error before the first byte is; None: the request's own, for which none takes over.

    A request under which engines died or failed (`EngineFailedError`) is taken for the cause and stays where
    it was, and so does one whose answer takes too long. `saturated` and `deadline` come from admission.
    """
    if isinstance(error, AnswerTooLongError):
        return None
    if isinstance(error, ModelUnavailableError | EngineTimeoutError):
        return "unhealthy"
    return "context" if isinstance(error, ContextLengthError) else None


def _refusal(
    search: Search, names: Sequence[str], features: RequestFeatures | None = None
) -> ComptoirError:
    """The error for a client whose request no model is left for."""
    states = set(search.states.values())
    if features is not None and search.skipped.keys() > search.states.keys():
        needs = ", ".join(sorted(features.needs)) or "the rule requires more than they have"
        return ModelNotFoundError(
            f"no model behind this name can do what the request needs: {needs}", param="model"
        )
    if "missing" in states:
        return ModelUnavailableError(
            "no model behind this name is deployed now; try again shortly",
            param="model",
            retry_after_s=MODEL_RETRY_S,
        )
    if "denied" in states:
        return PermissionDeniedError(_DENIED, param="model")
    if "task" in states:
        found = (search.directory.models.get(name) for name in names)
        tasks = sorted({f"'{model.task}'" for model in found if model is not None})
        what = f"task is {', '.join(tasks)}" if tasks else "task is a different one"
        return UnsupportedEndpointError(
            f"this model's {what}, which the endpoint does not serve; GET {MODELS} lists each model's",
            param="model",
        )
    facts = (search.config.models[name] for name in names if name in search.config.models)
    return retired_error(search.config, next(facts, None), search.today)
