"""Takes a checked request along its route: the first model that answers, before its first byte, gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from serving.config.routing import Failure, RoutingConfig
from serving.errors import ComptoirError
from serving.gateway.body import encode
from serving.gateway.engine_errors import from_engine
from serving.gateway.forwarding import Forwarder
from serving.gateway.upstream import Answer, ReplicaBrokeError
from serving.routing.directory import Directory, Replica
from serving.routing.features import features_of
from serving.routing.models import (
    ModelRouter,
    Route,
    deprecation_headers,
    failure_of,
    sticky_key,
)
from serving.routing.rules import Candidate
from serving.tenancy.keys import Caller
from serving.trust.fields import Endpoint


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has been checked: who asks what of which endpoint.

    `body` holds what may be sent to an engine; `session` and `user` are the client's own words for whom it
    speaks for, and go no further than into a hash.
    """

    endpoint: Endpoint
    caller: Caller
    body: dict[str, Any]
    request_id: str
    session: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer that has begun, and how it came about."""

    answer: Answer
    replica: Replica
    candidate: Candidate
    route: Route

    @property
    def headers(self) -> dict[str, str]:
        """What the client is told: which model answers, whether as a stand-in, and what is deprecated."""
        headers = {"x-comptoir-model": self.candidate.served_name}
        if self.candidate.reason != "named":
            headers["x-comptoir-route"] = self.candidate.reason
        return headers | deprecation_headers(self.route)


def _today() -> date:
    return datetime.now(UTC).date()


class Dispatcher:
    """Routes by name, then asks candidates in order until one has begun to answer."""

    def __init__(
        self,
        config: RoutingConfig,
        directory: Callable[[], Directory],
        forwarder: Forwarder,
        today: Callable[[], date] = _today,
    ) -> None:
        self._router = ModelRouter(config)
        self._directory = directory
        self._forwarder = forwarder
        self._today = today

    async def open(self, asked: Asked) -> Opened:
        """The first answer that has begun; `close` it in the end.

        Raises:
            ComptoirError: nobody may, can or will answer; what the last candidate failed with.
        """
        route = self._route(asked)
        failed: dict[str, Failure] = {}
        error: ComptoirError | None = None
        while (candidate := route.next(failed)) is not None:
            try:
                answer, replica = await self._ask(asked, candidate)
                return Opened(answer, replica, candidate, route)
            except ComptoirError as failure:
                kind = failure_of(failure)
                if kind is None:
                    raise
                failed[candidate.served_name], error = kind, failure
        if error is None:
            raise RuntimeError("a route has a first candidate")
        raise error

    def close(self, opened: Opened) -> None:
        """Done with the answer. If it is not complete, the engine aborts its request."""
        opened.answer.close()
        self._forwarder.done(opened.replica)

    def names(self, caller: Caller) -> tuple[str, ...]:
        """The names that routing gives to models, as far as the caller may use one behind them."""
        return self._router.names(self._directory(), caller.may_use, self._today())

    def _route(self, asked: Asked) -> Route:
        name = asked.body["model"]
        features = None
        if self._router.needs_features(name):
            features = features_of(asked.endpoint.path, asked.body)
        return self._router.route(
            name,
            features,
            self._directory(),
            asked.caller.may_use,
            sticky_key(asked.caller.name, asked.session, asked.user),
            self._today(),
            asked.endpoint.tasks,
        )

    async def _ask(self, asked: Asked, candidate: Candidate) -> tuple[Answer, Replica]:
        body = asked.body | {"model": candidate.served_name}
        if asked.endpoint.path == "/v1/responses":
            body["store"] = False
        if asked.caller.cache_salt is not None:
            body["cache_salt"] = asked.caller.cache_salt
        answer, replica = await self._forwarder.open(
            candidate.model_id, asked.endpoint.path, encode(body), asked.request_id
        )
        if answer.status < 400:
            return answer, replica
        try:
            raise from_engine(answer.status, await answer.rest(), asked.body.keys())
        except ReplicaBrokeError:
            raise from_engine(502, b"") from None
        finally:
            answer.close()
            self._forwarder.done(replica)
