"""What a rollout does on a cluster, step by step, and how it leaves it when something goes wrong."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest

from serving.commands.rollout.api import Cluster, Endpoint, Running
from serving.commands.rollout.run import QUIET_S, Run
from serving.errors import StackError
from serving.rollout.document import same
from serving.rollout.steps import ended, find, started, weighted
from tests.rollout.cluster import Clock, FakeCluster, FakeEndpoint
from tests.rollout.sites import application, model, site

BEFORE = site()
STAGED = started(BEFORE, "qwen3", application(BEFORE, "qwen3")["args"] | {"device": "cpu"})
HALF = weighted(STAGED, "qwen3", 50)


def a_run(cluster: FakeCluster, endpoint: FakeEndpoint | None = None) -> tuple[Run, Clock]:
    clock = Clock()
    # They stand in for what talks to machines.
    run = Run(
        cast(Cluster, cluster),
        cast(Endpoint, endpoint or FakeEndpoint(cluster)),
        timeout_s=30.0,
        clock=clock,
        sleep=clock.sleep,
    )
    return run, clock


def test_a_revision_that_answers_is_brought_in() -> None:
    cluster = FakeCluster(BEFORE)
    endpoint = FakeEndpoint(cluster)
    run, _ = a_run(cluster, endpoint)
    run.bring(cluster.running(), STAGED, find(STAGED, "qwen3"))
    assert cluster.document == STAGED
    assert endpoint.asked == ["qwen3--r2"]


@pytest.mark.parametrize(
    ("broken", "dumb", "why"),
    [
        ({"qwen3--r2"}, set(), "is DEPLOY_FAILED: RuntimeError: no such weights"),
        (set(), {"qwen3--r2"}, "gives no answer after 30 s .answers with status 500"),
    ],
)
def test_a_revision_that_does_not_come_up_is_taken_away(
    broken: set[str], dumb: set[str], why: str
) -> None:
    cluster = FakeCluster(BEFORE, frozenset(broken))
    run, _ = a_run(cluster, FakeEndpoint(cluster, dumb=frozenset(dumb)))
    with pytest.raises(StackError, match=f"was removed, and qwen3 serves as before.*{why}"):
        run.bring(cluster.running(), STAGED, find(STAGED, "qwen3"))
    assert same(cluster.document, BEFORE)
    assert all(
        application(one, "qwen3") == application(BEFORE, "qwen3") for one in cluster.submitted
    )


def test_an_interrupted_start_leaves_nothing_behind() -> None:
    cluster = FakeCluster(BEFORE)
    run, _ = a_run(cluster)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    class Never(FakeEndpoint):
        def status(self) -> Any:
            return {"models": []}

    run.endpoint = cast(Endpoint, Never(cluster))
    run.sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        run.bring(cluster.running(), STAGED, find(STAGED, "qwen3"))
    assert same(cluster.document, BEFORE)


def test_taking_it_away_keeps_what_others_changed_meanwhile() -> None:
    cluster = FakeCluster(BEFORE, frozenset({"qwen3--r2"}))

    def add(one: FakeCluster) -> None:
        if len(one.submitted) == 1 and not any(
            each["name"] == "yi" for each in one.document["applications"]
        ):
            one.document["applications"].append(model("yi"))

    run, _ = a_run(cluster)
    running = cluster.running

    def look() -> Running:
        add(cluster)
        return running()

    cluster.running = look  # type: ignore[method-assign]
    with pytest.raises(StackError):
        run.bring(running(), STAGED, find(STAGED, "qwen3"))
    assert {one["name"] for one in cluster.document["applications"]} == {
        *(one["name"] for one in BEFORE["applications"]),
        "yi",
    }


@pytest.mark.parametrize(("keep", "gone"), [("new", "qwen3"), ("old", "qwen3--r2")])
def test_the_one_that_goes_first_finishes_what_it_has(keep: Any, gone: str) -> None:
    cluster = FakeCluster(copy.deepcopy(HALF))
    run, clock = a_run(cluster, FakeEndpoint(cluster, open={gone: 7}))
    run.end(cluster.running(), find(HALF, "qwen3"), keep)
    assert [len(one["applications"]) for one in cluster.submitted] == [4, 3]
    assert clock.now >= 7 * 0.5 + QUIET_S - 0.5
    assert same(cluster.document, ended(HALF, "qwen3", keep))


def test_requests_that_do_not_end_are_not_cut() -> None:
    cluster = FakeCluster(copy.deepcopy(HALF))
    run, _ = a_run(cluster, FakeEndpoint(cluster, open={"qwen3": 10_000}))
    with pytest.raises(StackError, match=r"qwen3 still has open requests.*run the command again"):
        run.end(cluster.running(), find(HALF, "qwen3"), "new")
    assert application(cluster.document, "qwen3")
    # Again, and they have ended.
    run, _ = a_run(cluster)
    run.end(cluster.running(), find(cluster.document, "qwen3"), "new")
    assert same(cluster.document, ended(HALF, "qwen3", "new"))


def test_what_somebody_else_changed_meanwhile_is_not_overwritten() -> None:
    cluster = FakeCluster(copy.deepcopy(HALF))
    run, _ = a_run(cluster)
    before = cluster.running()
    cluster.document["applications"].append(model("yi"))
    with pytest.raises(StackError, match="has changed meanwhile"):
        run.route(before, weighted(HALF, "qwen3", 75))
    assert application(cluster.document, "yi")


def test_a_revision_that_is_not_well_gets_no_more() -> None:
    cluster = FakeCluster(copy.deepcopy(HALF), frozenset({"qwen3--r2"}))
    run, _ = a_run(cluster)
    with pytest.raises(
        StackError, match=r"qwen3--r2 is DEPLOY_FAILED.*no such weights.*abort qwen3"
    ):
        run.require_health(cluster.running(), find(HALF, "qwen3"))
