"""A dashboard and an endpoint that exist in memory, for the commands."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.commands.rollout.api import Running
from serving.errors import StackError
from serving.rollout.document import same


@dataclass
class FakeCluster:
    """Runs what it is given at once; `broken` applications do not come up."""

    document: dict[str, Any]
    broken: frozenset[str] = frozenset()
    submitted: list[dict[str, Any]] = field(default_factory=list)
    # Called before every submission: somebody else's hand.
    meddle: Callable[[FakeCluster], None] = lambda cluster: None

    def running(self) -> Running:
        states = {
            one["name"]: {
                "status": "DEPLOY_FAILED" if one["name"] in self.broken else "RUNNING",
                "message": "RuntimeError: no such weights" if one["name"] in self.broken else "",
            }
            for one in self.document["applications"]
        }
        return Running(copy.deepcopy(self.document), states)

    def submit(self, expected: Mapping[str, Any], document: Mapping[str, Any]) -> Running:
        self.meddle(self)
        if not same(self.document, expected):
            raise StackError("the config on the cluster has changed meanwhile")
        self.document = copy.deepcopy(dict(document))
        self.submitted.append(self.document)
        return self.running()


@dataclass
class FakeEndpoint:
    """Says what a gateway would; `open` counts down with every look at the status."""

    cluster: FakeCluster
    open: dict[str, int] = field(default_factory=dict)
    dumb: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    def status(self) -> Mapping[str, Any]:
        models = []
        for one in self.cluster.document["applications"]:
            count = self.open.get(one["name"], 0)
            self.open[one["name"]] = max(0, count - 1)
            models.append({"id": one["name"], "state": "ready", "replicas": [{"in_flight": count}]})
        return {"models": models}

    def ask(self, model: str) -> bool:
        self.asked.append(model)
        if model in self.dumb:
            raise StackError("answers with status 500")
        return True


class Clock:
    """Time passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
