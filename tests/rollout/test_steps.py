"""The documents of a rollout: what one begins, weighs, ends, and that nothing else is touched."""

from __future__ import annotations

import copy
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.rerouting import routing_from
from serving.config.routing import RoutingConfig
from serving.discovery.directory import Directory, Model
from serving.errors import ConfigError, ModelNotFoundError
from serving.replica_facts import ModelCard
from serving.rollout.changes import public_args
from serving.rollout.document import read_site, running_document, same
from serving.rollout.steps import (
    decided,
    ended,
    find,
    present_revision,
    rollouts,
    started,
    weighted,
    what_changes,
)
from serving.routing.aliases import draw_arm, sticky_key
from serving.routing.route import Route
from serving.routing.router import ModelRouter
from serving.tenancy.keys import Caller
from tests.rollout.sites import Document, application, model, site, sites

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

percents = st.integers(0, 100)
CHANGE: Document = {"engine_args": {"max_num_seqs": 8}}


def begun(document: Document, percent: float = 5, name: str = "qwen3") -> Document:
    """A rollout of `name` with a share for the new revision."""
    site = read_site(document)
    args = site.models[present_revision(site, name)]["args"]
    # Something new, each time.
    count = args.get("engine_args", {}).get("max_num_seqs", 0) + 8
    staged = started(document, name, args | {"engine_args": {"max_num_seqs": count}})
    return weighted(staged, name, percent)


def routing_of(document: Document) -> RoutingConfig:
    return routing_from({"routing": read_site(document).routing})


def directory(document: Document) -> Directory:
    return Directory(
        Model(
            name,
            ModelCard(
                task="chat",
                aliases=tuple(one["args"].get("aliases", ())),
                adapters=tuple(one["args"].get("adapters", ())),
            ),
        )
        for name, one in read_site(document).models.items()
    )


def route(document: Document, name: str, session: str = "s", models: str = "*") -> Route:
    caller = Caller("tenant", frozenset({models}))
    return ModelRouter(routing_of(document)).route(
        name,
        None,
        directory(document),
        caller.may_use,
        sticky_key("tenant", session),
        date(2026, 8, 1),
    )


def share_of(document: Document, name: str, served: str) -> float:
    asked = [route(document, name, f"session-{n}").candidates[0].served_name for n in range(400)]
    return asked.count(served) / len(asked)


# ---- identities ----------------------------------------------------------------------------------------


@unhurried
@given(sites(), st.lists(percents, min_size=1, max_size=4))
def test_to_abort_a_rollout_leaves_no_trace(document: Document, weights: list[int]) -> None:
    now = begun(document)
    for percent in weights:
        now = weighted(now, "qwen3", percent)
    assert same(ended(now, "qwen3", "old"), document)


@unhurried
@given(sites(), percents)
def test_an_interrupted_promotion_can_be_aborted(document: Document, percent: int) -> None:
    half = decided(begun(document, percent), "qwen3", "new")
    assert same(ended(half, "qwen3", "old"), document)


@unhurried
@given(sites(), percents)
def test_an_interrupted_promotion_can_be_resumed(document: Document, percent: int) -> None:
    now = begun(document, percent)
    half = decided(now, "qwen3", "new")
    assert same(ended(half, "qwen3", "new"), ended(now, "qwen3", "new"))


@unhurried
@given(sites(), percents, percents)
def test_an_interrupted_promotion_can_go_back_to_a_weight(
    document: Document, percent: int, then: int
) -> None:
    now = begun(document, percent)
    half = decided(now, "qwen3", "new")
    assert same(weighted(half, "qwen3", then), weighted(now, "qwen3", then))


@unhurried
@given(sites(), percents)
def test_promotion_changes_the_args_and_nothing_else(document: Document, percent: int) -> None:
    after = ended(begun(document, percent), "qwen3", "new")
    before = application(document, "qwen3")
    now = application(after, "qwen3--r2")
    wanted = public_args(before["args"] | CHANGE)
    assert public_args(now["args"]) == wanted
    for document_part in (before, now):
        document_part.pop("args")
        document_part.pop("name")
    assert now == before
    assert {one["name"] for one in after["applications"]} == {"gateway", "glm", "yi", "qwen3--r2"}
    assert application(after, "glm") == application(document, "glm")
    gateway, gateway_before = (application(one, "gateway") for one in (after, document))
    assert gateway["args"] == gateway_before["args"], "changed args would restart the gateways"


@unhurried
@given(sites())
def test_the_next_rollout_is_as_free_of_traces(document: Document) -> None:
    first = ended(begun(document), "qwen3", "new")
    second = begun(first)
    assert find(second, "qwen3").new == "qwen3--r3"
    assert same(ended(second, "qwen3", "old"), first)
    assert public_args(application(ended(second, "qwen3", "new"), "qwen3--r3")["args"]) == (
        public_args(application(document, "qwen3")["args"] | {"engine_args": {"max_num_seqs": 16}})
    )


@unhurried
@given(sites(), percents)
def test_the_document_before_is_not_changed(document: Document, percent: int) -> None:
    copied = copy.deepcopy(document)
    now = begun(document, percent)
    copied_now = copy.deepcopy(now)
    ended(now, "qwen3", "new")
    ended(now, "qwen3", "old")
    assert document == copied
    assert now == copied_now


@unhurried
@given(sites(), percents)
def test_every_name_answers_at_every_step(document: Document, percent: int) -> None:
    now = begun(document, percent)
    steps = [
        document,
        started(document, "qwen3", application(document, "qwen3")["args"] | CHANGE),
        now,
        decided(now, "qwen3", "new"),
        decided(now, "qwen3", "old"),
        ended(now, "qwen3", "new"),
        ended(now, "qwen3", "old"),
    ]
    args = application(document, "qwen3")["args"]
    for step in steps:
        for name in ("qwen3", *args.get("aliases", ()), *args.get("adapters", ())):
            # Also for a key that allows nothing but this name: it allows the revisions.
            allowed = "qwen3" if name == "said" else name
            served = route(step, name, models=allowed).candidates[0].served_name
            assert served.split("--r")[0] in (allowed, "law")


@unhurried
@given(sites(), percents)
def test_when_the_new_one_is_missing_the_old_one_answers(document: Document, percent: int) -> None:
    now = begun(document, percent)
    less = {**now, "applications": [x for x in now["applications"] if x["name"] != "qwen3--r2"]}
    router = ModelRouter(routing_of(now))
    for session in ("a", "b", "c"):
        found = router.route(
            "qwen3", None, directory(less), lambda name: True, session, date(2026, 8, 1)
        )
        assert found.candidates[0].model_id in ("qwen3", "yi")


# ---- weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0, 5, 50, 100])
def test_the_new_revision_gets_its_share(percent: int) -> None:
    now = begun(site(), percent)
    assert share_of(now, "qwen3", "qwen3--r2") == pytest.approx(percent / 100, abs=0.07)
    assert find(now, "qwen3").percent == percent


def test_other_aliases_are_shared_out_in_the_same_way() -> None:
    chat = [{"model": "qwen3", "weight": 60}, {"model": "glm", "weight": 40}]
    now = begun(site(routing={"aliases": {"chat": chat, "fast": "qwen3"}}), 25)
    arms = {arm.model: arm.weight for arm in routing_of(now).aliases["chat"].arms}
    assert arms == {"qwen3": 45.0, "qwen3--r2": 15.0, "glm": 40.0}
    assert [arm.weight for arm in routing_of(now).aliases["fast"].arms] == [0.75, 0.25]


def test_a_larger_weight_takes_nobody_away_from_the_new_revision() -> None:
    few, more = (routing_of(begun(site(), percent)).aliases["qwen3"].arms for percent in (5, 25))
    for n in range(300):
        if draw_arm("qwen3", few, str(n)).model == "qwen3--r2":
            assert draw_arm("qwen3", more, str(n)).model == "qwen3--r2"


def test_the_old_revision_takes_over_from_the_new_one() -> None:
    candidates = route(begun(site(), 100), "qwen3").candidates
    assert [one.served_name for one in candidates] == ["qwen3--r2", "qwen3"]


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
def test_a_weight_that_is_no_percentage_is_refused(percent: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 100"):
        weighted(begun(site()), "qwen3", percent)


# ---- what stays true -----------------------------------------------------------------------------------


def test_a_name_that_ends_still_says_so() -> None:
    dates = {"deprecated_on": "2026-09-01", "retired_on": "2026-12-01", "successor": "glm"}
    document = site(routing={"models": {"qwen3": dates, "glm": {}}})
    before = route(document, "qwen3").notices
    assert before
    for step in (begun(document), ended(begun(document), "qwen3", "new")):
        (notice,) = route(step, "qwen3").notices
        assert notice == before[0]


def test_promotion_renames_wherever_routing_names_the_model() -> None:
    routing: dict[str, Any] = {
        "models": {"qwen3": {"cost": 1}, "glm": {"cost": 2}},
        "fallbacks": {"glm": {"to": ["qwen3"]}, "qwen3": {"to": ["yi"]}},
        "auto": [{"name": "all", "models": ["qwen3", "glm"]}],
    }
    document = site(model("qwen3"), model("glm"), model("yi"), routing=routing)
    after = routing_of(ended(begun(document), "qwen3", "new"))
    assert list(after.models) == ["qwen3--r2", "glm"]
    assert {name: one.to for name, one in after.fallbacks.items()} == {
        "glm": ("qwen3--r2",),
        "qwen3--r2": ("yi",),
    }
    assert after.auto[0].models == ("qwen3--r2", "glm")


def test_the_catalogue_entry_outlives_the_id_that_named_it() -> None:
    document = site({**model("qwen3"), "args": {"id": "qwen3"}})
    assert application(begun(document), "qwen3--r2")["args"]["catalogue"] == "qwen3"


def test_a_name_that_is_still_ending_is_not_taken_again() -> None:
    staged = started(
        site(), "qwen3", {"id": "qwen3", "device": "cpu"}, taken=["qwen3--r4", "glm--r9"]
    )
    assert find(staged, "qwen3").new == "qwen3--r5"


def test_it_says_what_changes() -> None:
    now = begun(site())
    assert what_changes(read_site(now), find(now, "qwen3")) == ["engine_args"]
    assert [one.model for one in rollouts(now)] == ["qwen3"]
    assert rollouts(site()) == []


# ---- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "name", "message"),
    [
        (site(), "nobody", "no model 'nobody'.*available: qwen3, glm"),
        (site(routing={"aliases": {"fast": "glm"}}), "fast", "'fast' is an alias"),
        (begun(site()), "qwen3", "already in progress .qwen3, qwen3--r2.*abort qwen3"),
        (begun(site()), "qwen3--r2", "already in progress"),
        ({"applications": [model("qwen3")]}, "qwen3", "runs 0 applications with import_path"),
    ],
)
def test_a_start_that_cannot_be_is_refused(document: Document, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        started(document, name, {"id": "qwen3", "device": "cpu"})


@pytest.mark.parametrize("step", [decided, ended])
def test_what_is_not_going_on_cannot_end(step: Any) -> None:
    with pytest.raises(ConfigError, match="no rollout of 'glm' is in progress"):
        step(begun(site()), "glm", "new")


def test_three_revisions_are_no_rollout() -> None:
    document = site(model("qwen3"), model("qwen3--r2"), model("qwen3--r3"))
    with pytest.raises(ConfigError, match="3 revisions"):
        find(document, "qwen3")


def test_an_unknown_name_stays_unknown_during_a_rollout() -> None:
    with pytest.raises(ModelNotFoundError):
        route(begun(site()), "qwen")


# ---- what the cluster says -----------------------------------------------------------------------------


def test_the_running_document_is_what_was_deployed() -> None:
    document = site()
    details = {
        "controller_info": {"pid": 1},
        "proxy_location": "Disabled",
        "http_options": {"port": 8000},
        "target_capacity": None,
        "applications": {
            one["name"]: {"status": "RUNNING", "deployed_app_config": one}
            for one in document["applications"]
        }
        | {"ending": {"status": "DELETING", "deployed_app_config": None}},
    }
    running = running_document(details)
    assert running == document | {"http_options": {"port": 8000}}
