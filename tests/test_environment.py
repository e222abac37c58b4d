"""What every process of a cluster has in its environment."""

from __future__ import annotations

import shlex
import subprocess

from serving.environment import CLUSTER, as_exports, cluster_environment


def test_nothing_phones_home() -> None:
    environment = cluster_environment()
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    # vLLM compares with "1" exactly.
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_ray_asks_for_its_token() -> None:
    assert cluster_environment()["RAY_AUTH_MODE"] == "token"


def test_the_option_that_opens_a_proxy_to_everyone_is_not_set() -> None:
    assert "RAY_SERVE_THROUGHPUT_OPTIMIZED" not in cluster_environment()


def test_a_shell_reads_the_exports_as_they_are_meant() -> None:
    names = " ".join(CLUSTER)
    script = f'{as_exports()}\nfor n in {names}; do printenv "$n" || echo MISSING; done'
    shell = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert shell.stdout.split("\n")[:-1] == list(cluster_environment().values())
    assert shell.stderr == ""


def test_every_value_is_a_single_word_and_has_a_reason() -> None:
    for name, (value, reason) in CLUSTER.items():
        assert shlex.split(value) == [value], name
        assert reason
        assert "\n" not in reason


def test_the_environment_is_a_copy() -> None:
    cluster_environment()["RAY_AUTH_MODE"] = "disabled"
    assert cluster_environment()["RAY_AUTH_MODE"] == "token"
