"""Discovery from Serve's status: which applications are models that may be asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger
from ray.serve.schema import ApplicationStatus

from serving.gateway import backend
from serving.gateway.backend import RayDirectory
from serving.routing.directory import Replica


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
        backend,
        "serve",
        SimpleNamespace(
            status=lambda: SimpleNamespace(applications=found),
            get_deployment_handle=lambda *_, **__: SimpleNamespace(
                ready=SimpleNamespace(remote=_ready)
            ),
        ),
    )
    return found


async def _ready() -> bool:
    return True


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


async def test_a_model_that_is_being_removed_is_unknown_though_it_still_ends_its_requests(
    applications: dict[str, Any],
) -> None:
    applications["qwen3"] = application(ApplicationStatus.RUNNING, "ModelReplica")
    applications["yi"] = application(ApplicationStatus.DELETING, "ModelReplica")
    assert await states(RayDirectory(60)) == {"qwen3": "RUNNING"}


async def test_a_directory_is_full_when_it_knows_a_replica_of_each_model_that_has_one(
    applications: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "SEEN", {})
    monkeypatch.setattr(backend, "FULL_PERIOD_S", 0.01)
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
    backend.SEEN["qwen3"] = (Replica("r", "http://127.0.0.1:9", "t"),)
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
