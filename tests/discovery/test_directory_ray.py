"""Discovery from Serve's status: which applications are models that may be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger
from ray.serve.schema import ApplicationStatus

from serving.discovery import directory_ray
from serving.discovery.directory import Replica
from serving.discovery.directory_ray import RayDirectory
from serving.discovery.replica_table import CARDS, SEEN
from serving.replica_facts import ModelCard


def application(status: ApplicationStatus, *deployments: str) -> Any:
    """What Serve says of an application, as far as it is read."""
    replicas = SimpleNamespace(
        replica_states={"RUNNING": 1}, status="HEALTHY", status_trigger="UNSPECIFIED"
    )
    return SimpleNamespace(status=status, deployments=dict.fromkeys(deployments, replicas))


@pytest.fixture
def applications(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    monkeypatch.setattr(
        directory_ray,
        "serve",
        SimpleNamespace(
            status=lambda: SimpleNamespace(applications=found),
            get_deployment_handle=lambda _, app_name: Handle(app_name),
        ),
    )
    monkeypatch.setattr(Handle, "connected", [])
    monkeypatch.setattr(Handle, "called", [])
    return found


class Handle:
    """A handle of Serve's: connects when it is given options, calls when it is told to."""

    connected: ClassVar[list[str]] = []
    called: ClassVar[list[str]] = []

    def __init__(self, app: str) -> None:
        self._app = app

    def options(self, **_: Any) -> Handle:
        self.connected.append(self._app)
        return self

    @property
    def ready(self) -> Any:
        async def call() -> bool:
            self.called.append(self._app)
            return True

        return SimpleNamespace(remote=call)


async def states(directory: RayDirectory) -> dict[str, str]:
    """One look at Serve, and what is known after it."""
    await directory.start()
    await directory.stop()
    return {model.id: model.state for model in directory.current.models.values()}


async def test_models_are_the_applications_that_have_replicas_of_ours_or_are_being_built(
    applications: dict[str, Any],
) -> None:
    applications["gateway"] = application(ApplicationStatus.RUNNING, "GatewayReplica")
    applications["qwen3"] = application(ApplicationStatus.RUNNING, "ModelReplica")
    applications["yi"] = application(ApplicationStatus.DEPLOYING)
    assert await states(RayDirectory(60)) == {"qwen3": "RUNNING", "yi": "DEPLOYING"}


async def test_a_model_is_not_woken_by_looking_and_once_by_asking(
    applications: dict[str, Any],
) -> None:
    applications["qwen3"] = application(ApplicationStatus.RUNNING, "ModelReplica")
    directory = RayDirectory(60)
    await directory.start()
    await asyncio.sleep(0)
    assert (Handle.connected, Handle.called) == (["qwen3"], [])
    directory.wake("qwen3")
    directory.wake("qwen3")
    await asyncio.sleep(0)
    assert Handle.called == ["qwen3"]
    await directory.stop()


async def test_a_model_that_was_deployed_again_has_its_card_read_again_once(
    applications: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_ray, "CHANGED_DEPLOYMENTS", {"qwen3", "not-here-yet"})
    monkeypatch.setattr(directory_ray, "DeploymentHandle", lambda _, app_name: Handle(app_name))
    applications["qwen3"] = application(ApplicationStatus.RUNNING, "ModelReplica")
    directory = RayDirectory(60)
    await directory.start()
    await directory._look()
    assert sorted(Handle.connected) == ["qwen3", "qwen3"]
    assert list(directory_ray.CHANGED_DEPLOYMENTS) == ["not-here-yet"]
    assert Handle.called == []
    await directory.stop()


async def test_a_card_that_could_not_be_read_is_read_by_the_next_look(
    applications: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles = [RuntimeError("the controller restarts")]

    def handle(_: str, app_name: str) -> Handle:
        if troubles:
            raise troubles.pop()
        return Handle(app_name)

    monkeypatch.setattr(directory_ray, "CHANGED_DEPLOYMENTS", {"qwen3"})
    monkeypatch.setattr(directory_ray, "DeploymentHandle", handle)
    applications["qwen3"] = application(ApplicationStatus.RUNNING, "ModelReplica")
    directory = RayDirectory(60)
    with pytest.raises(RuntimeError):
        await directory._look()
    await directory._look()
    assert sorted(Handle.connected) == ["qwen3", "qwen3"]
    assert not directory_ray.CHANGED_DEPLOYMENTS
    await directory.stop()


async def test_a_model_that_is_being_removed_is_unknown_though_it_still_ends_its_requests(
    applications: dict[str, Any],
) -> None:
    applications["qwen3"] = application(ApplicationStatus.RUNNING, "ModelReplica")
    applications["yi"] = application(ApplicationStatus.DELETING, "ModelReplica")
    assert await states(RayDirectory(60)) == {"qwen3": "RUNNING"}


async def test_a_directory_is_full_when_it_knows_a_replica_of_each_model_that_has_one(
    applications: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_ray, "SEEN", {})
    monkeypatch.setattr(directory_ray, "FULL_PERIOD_S", 0.01)
    applications["qwen3"] = application(ApplicationStatus.RUNNING, "ModelReplica")
    applications["starting"] = application(ApplicationStatus.DEPLOYING, "ModelReplica")
    applications["starting"].deployments["ModelReplica"] = SimpleNamespace(
        replica_states={"STARTING": 1}, status="UPDATING", status_trigger="CONFIG_UPDATE_STARTED"
    )
    applications["building"] = application(ApplicationStatus.DEPLOYING)
    directory = RayDirectory(60)
    await directory.start()
    assert not await directory.full(0.0)
    waiting = asyncio.create_task(directory.full(10))
    await asyncio.sleep(0)
    directory_ray.SEEN["qwen3"] = (Replica("r", "http://127.0.0.1:9", "t"),)
    assert await waiting
    await directory.stop()


@pytest.mark.parametrize(
    ("status", "trigger", "is_hopeless"),
    [
        (DeploymentStatus.UNHEALTHY, DeploymentStatusTrigger.HEALTH_CHECK_FAILED, False),
        (DeploymentStatus.UNHEALTHY, DeploymentStatusTrigger.REPLICA_STARTUP_FAILED, True),
        (DeploymentStatus.DEPLOY_FAILED, DeploymentStatusTrigger.REPLICA_STARTUP_FAILED, True),
        (DeploymentStatus.UPDATING, DeploymentStatusTrigger.CONFIG_UPDATE_STARTED, False),
    ],
)
async def test_only_a_model_that_fails_to_start_again_and_again_is_said_to_be_hopeless(
    applications: dict[str, Any],
    status: DeploymentStatus,
    trigger: DeploymentStatusTrigger,
    is_hopeless: bool,
) -> None:
    app = applications["qwen3"] = application(ApplicationStatus.UNHEALTHY, "ModelReplica")
    app.deployments["ModelReplica"].status = status
    app.deployments["ModelReplica"].status_trigger = trigger
    applications["yi"] = application(ApplicationStatus.DEPLOY_FAILED)
    directory = RayDirectory(60)
    await states(directory)
    assert directory.current.models["qwen3"].fails_to_start is is_hopeless
    assert directory.current.models["yi"].fails_to_start


# ---- work per look -----------------------------------------------------------------------------------


@pytest.fixture
async def large(applications: dict[str, Any]) -> AsyncIterator[RayDirectory]:
    """A site of 134 models, each with two replicas."""
    for number in range(134):
        name = f"model-{number}"
        applications[name] = application(ApplicationStatus.RUNNING, "ModelReplica")
        SEEN[name] = tuple(Replica(f"{name}-{n}", "http://127.0.0.1:9", "t") for n in (1, 2))
        CARDS[name] = ModelCard.parse({"aliases": [f"alias-{number}"]})
    directory = RayDirectory(60)
    await directory.start()
    yield directory
    await directory.stop()
    for number in range(134):
        SEEN.forget(f"model-{number}")
        CARDS.forget(f"model-{number}")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that are made anew."""
    names: list[str] = []
    model = RayDirectory._model

    def counted(self: RayDirectory, app: str) -> Any:
        names.append(app)
        return model(self, app)

    monkeypatch.setattr(RayDirectory, "_model", counted)
    return names


async def test_a_look_makes_nothing_while_nothing_changes(
    large: RayDirectory, made: list[str]
) -> None:
    first = large.current
    assert len(first.models) == len(made) == 134
    made.clear()
    assert all(large.current is first for _ in range(100))
    assert made == []


async def test_a_look_makes_only_the_model_that_changed(
    large: RayDirectory, made: list[str]
) -> None:
    before = large.current
    made.clear()
    SEEN["model-7"] = (Replica("new", "http://127.0.0.1:9", "t"),)
    after = large.current
    assert made == ["model-7"]
    assert [one.id for one in after.models["model-7"].replicas] == ["new"]
    assert after.resolve("alias-7") is after.models["model-7"]
    assert before.models["model-7"] is not after.models["model-7"]
    assert before.models["model-8"] is after.models["model-8"]


async def test_a_card_that_changes_changes_the_names(large: RayDirectory) -> None:
    assert large.current.get("other") is None
    CARDS["model-7"] = ModelCard.parse({"aliases": ["other"]})
    assert large.current.resolve("other").id == "model-7"
    assert large.current.get("alias-7") is None


async def test_what_serve_says_changes_and_removes_models(
    large: RayDirectory, applications: dict[str, Any], made: list[str]
) -> None:
    assert len(large.current.models) == 134
    made.clear()
    del applications["model-3"]
    applications["model-4"] = application(ApplicationStatus.UNHEALTHY, "ModelReplica")
    await large._look()
    assert large.current.models["model-4"].state == "UNHEALTHY"
    assert "model-3" not in large.current.models
    assert large.current.get("alias-3") is None
    assert made == ["model-4"]


async def test_a_directory_that_has_stopped_is_told_nothing_more(large: RayDirectory) -> None:
    assert large.current.models
    await large.stop()
    SEEN["model-7"] = ()
    assert "model-7" not in large._changed
