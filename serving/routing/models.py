"""Which model answers a name: aliases and their shares, lifetimes, fallbacks, `auto`. Pure.

Nothing here reads a clock or draws a random number: the day, and the key that decides an alias's arm, are
passed in, so that the same request gets the same route at every gateway.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import get_args

from serving.config.routing import Arm, Failure, Lifetime, RoutingConfig
from serving.discovery.directory import Directory
from serving.errors import (
    AnswerTooLongError,
    ComptoirError,
    ContextLengthError,
    EngineTimeoutError,
    ModelNotFoundError,
    ModelUnavailableError,
    PermissionDeniedError,
    UnsupportedEndpointError,
)
from serving.records import record
from serving.routing.features import RequestFeatures
from serving.routing.rules import (
    Candidate,
    MayUse,
    Search,
    Skipped,
    Step,
    Verdict,
    choose,
    judge,
)

RETRY_AFTER_S = 5.0
FAILURES: frozenset[Failure] = frozenset(get_args(Failure))

_DENIED = "this API key may not use this model"
_NO_SUCH_MODEL = "there is no such model; GET /v1/models lists those that exist"


@dataclass(frozen=True)
class Notice:
    """What a client should know about the name it used. Days begin at 00:00 UTC and may lie ahead."""

    name: str
    deprecated_on: date | None
    retired_on: date | None
    successor: str | None


@record
class Route:
    """Who answers a request, in order, and how that came about. There is always a first candidate."""

    candidates: tuple[Candidate, ...]
    alias: str | None = None
    arm: str | None = None
    rule: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notices: tuple[Notice, ...] = ()

    def next(self, failed: Mapping[str, Failure]) -> Candidate | None:
        """Whom to ask, given how those asked before failed, by `served_name`; None when nobody is left."""
        for candidate in self.candidates:
            if candidate.served_name not in failed and candidate.is_due(failed):
                return candidate
        return None


def _pool(config: RoutingConfig) -> dict[str, None]:
    """Every model that `auto` may choose, in the order of the configuration."""
    return dict.fromkeys([*config.models, *(name for rule in config.auto for name in rule.models)])


class ModelRouter:
    """Turns names into routes: aliases come first, then `auto`, then what the directory knows."""

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
        """Who may answer, in order.

        Args:
            name: what the client sent as `model`.
            may_use: whether the key allows a model or an adapter (`Caller.may_use`).
            sticky_key: requests with the same one get the same arm of an alias; see `sticky_key`.
            today: the day in UTC.
            tasks: what models the endpoint is for; models with another task are passed over. Empty: any.

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
        """Aliases, and `auto` if it has rules, to which a model answers that the caller may use."""
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
        # A name that is retired or has a fallback is known, even when its model is not deployed now.
        if look.model is None and look.state != "retired" and name not in self._config.fallbacks:
            raise ModelNotFoundError(_NO_SUCH_MODEL, param="model")
        if look.state == "usable" and look.model and look.served not in self._config.fallbacks:
            candidates: tuple[Candidate, ...] = (Candidate(look.model.id, look.served, "named"),)
        else:
            candidates = search.expand([Step(name, "named")])
        if not candidates:
            raise _refusal(search, [name, look.served])
        return Route(
            candidates,
            skipped=search.passed_over,
            notices=_notices(self._config.models, name, look.served),
        )

    def _by_alias(self, search: Search, name: str, sticky_key: str) -> Route:
        alias = self._config.aliases[name]
        if alias.is_retired(search.today):
            if all(search.look(arm.model).state == "denied" for arm in alias.arms):
                raise PermissionDeniedError(_DENIED, param="model")
            raise _retired(self._config, alias, search.today)
        looks = {arm.model: search.look(arm.model).state for arm in alias.arms}
        # An arm that cannot answer leaves its share to the others; a missing one may have a fallback.
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
            notices=_notices(self._config.aliases, name),
        )

    def _by_rules(self, search: Search, features: RequestFeatures) -> Route:
        verdicts: list[Verdict] = []
        for rule in self._config.auto:
            verdict = judge(rule, features)
            if verdict.acts:
                cards = search.cards(rule.models or self._config.models)
                names, skipped = choose(rule, features, self._config.models, cards)
                search.skipped.update({one.name: one for one in skipped})
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


def draw_arm(alias: str, arms: Sequence[Arm], sticky_key: str) -> Arm:
    """The arm of an alias that a key belongs to: each has the share of its weight.

    Weighted rendezvous hashing (the logarithmic method): every arm draws -ln(u) / weight, u from a hash of
    alias, arm and key, and the least wins. When one arm's weight changes, comes or goes, keys move only to it
    or from it, no more than its share changed; a hash laid over intervals would shift all later arms.
    """

    def drawn(arm: Arm) -> float:
        text = "\0".join((alias, arm.model, sticky_key)).encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        return -math.log((number + 1) / 2**64) / arm.weight

    return min(arms, key=drawn)


def sticky_key(caller: str, session: str | None = None, user: str | None = None) -> str:
    """What an alias's arm is decided by: the session if there is one, else the user, else the API key's name.

    The caller's name is part of it, so that two tenants' session ids have nothing to do with each other.
    """
    kind, value = ("session", session) if session else ("user", user) if user else ("key", "")
    return "\0".join((kind, caller, value or ""))


def failure_of(error: ComptoirError) -> Failure | None:
    """Which failure an error before the first byte is; None: it is the request's own, nobody takes over.

    A request under which engines died or failed (`EngineFailedError`) is taken for the cause and stays where
    it was, as does one whose answer takes too long.
    What `saturated` and `deadline` are, admission knows.
    """
    if isinstance(error, AnswerTooLongError):
        return None
    if isinstance(error, ModelUnavailableError | EngineTimeoutError):
        return "unhealthy"
    return "context" if isinstance(error, ContextLengthError) else None


def _refusal(
    search: Search, names: Sequence[str], features: RequestFeatures | None = None
) -> ComptoirError:
    """Why nobody is left, as the client should hear it."""
    states = set(search.states.values())
    if features is not None and search.skipped.keys() > search.states.keys():
        needs = ", ".join(sorted(features.needs)) or "its rule asks for more than they have"
        return ModelNotFoundError(
            f"no model behind this name can do what the request needs: {needs}", param="model"
        )
    if "missing" in states:
        return ModelUnavailableError(
            "no model behind this name is deployed now; try again shortly",
            param="model",
            retry_after_s=RETRY_AFTER_S,
        )
    if "denied" in states:
        return PermissionDeniedError(_DENIED, param="model")
    if "task" in states:
        found = (search.directory.models.get(name) for name in names)
        tasks = sorted({f"'{model.task}'" for model in found if model is not None})
        what = f"task is {', '.join(tasks)}" if tasks else "task is another one"
        return UnsupportedEndpointError(
            f"this model's {what}, which the endpoint does not serve; GET /v1/models lists each model's",
            param="model",
        )
    facts = (search.config.models[name] for name in names if name in search.config.models)
    return _retired(search.config, next(facts, None), search.today)


# ---- lifetimes ---------------------------------------------------------------------------------------


def deprecation_headers(route: Route) -> dict[str, str]:
    """`deprecation` (RFC 9745), `sunset` (RFC 8594) and a `link` to the successor (RFC 5829), if there are.

    Both dates are sent as soon as they are configured, also when they lie ahead, as the RFCs intend.
    """
    headers: dict[str, str] = {}
    for notice in route.notices[:1]:
        if notice.deprecated_on:
            # An sf-date, RFC 9651, 3.3.7: seconds since 1970 after an @.
            headers["deprecation"] = f"@{int(_midnight(notice.deprecated_on).timestamp())}"
        if notice.retired_on:
            headers["sunset"] = format_datetime(_midnight(notice.retired_on), usegmt=True)
        if notice.successor:
            headers["link"] = f'</v1/models/{notice.successor}>; rel="successor-version"'
    return headers


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _notices(lifetimes: Mapping[str, Lifetime], *names: str) -> tuple[Notice, ...]:
    """What is to be said of the first of these names that has a date."""
    for name in names:
        one = lifetimes.get(name)
        if one and (one.deprecated_on or one.retired_on):
            return (Notice(name, one.deprecated_on, one.retired_on, one.successor),)
    return ()


def _retired(config: RoutingConfig, lifetime: Lifetime | None, today: date) -> ModelNotFoundError:
    when = f" on {lifetime.retired_on}" if lifetime else ""
    successor = lifetime.successor if lifetime else None
    # The one named here may be retired by now as well; the configuration has no circles.
    while successor and (then := config.lifetime(successor)) and then.is_retired(today):
        successor = then.successor
    what = f"use '{successor}' instead" if successor else "GET /v1/models lists those that exist"
    return ModelNotFoundError(f"this model was retired{when}; {what}", param="model")


# ---- checking a configuration ---------------------------------------------------------------------------


def unknown_models(config: RoutingConfig, known: Collection[str]) -> list[str]:
    """Names in the configuration that no model of the site has, each in a sentence for `comptoir check`.

    Args:
        known: ids, aliases and adapters of the site's models.
    """
    named = [
        *(
            (f"aliases.{name}", arm.model)
            for name, one in config.aliases.items()
            for arm in one.arms
        ),
        *((f"models.{name}", name) for name, one in config.models.items() if not one.retired_on),
        *((f"fallbacks.{name}", name) for name in config.fallbacks),
        *((f"fallbacks.{name}.to", to) for name, one in config.fallbacks.items() for to in one.to),
        *((f"auto.{rule.name}", name) for rule in config.auto for name in rule.models),
    ]
    answering = {*known, *config.aliases, *((config.auto_name,) if config.auto else ())}
    successors = [
        (f"{key}.{name}.successor", one.successor)
        for key, lifetimes in (("aliases", config.aliases), ("models", config.models))
        for name, one in lifetimes.items()
        if one.successor
    ]
    names = ", ".join(sorted(known)) or "none"
    return [
        f"routing.{key}: there is no model {name!r} in this file; there are: {names}"
        for key, name in named
        if name not in known
    ] + [
        f"routing.{key}: {name!r} is neither a model of this file nor an alias"
        for key, name in successors
        if name not in answering
    ]
