"""Replicas larger than a pod, and groups of ranks: as many whole pods as they take."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.commands.k8s.needs import model_needs
from serving.deployment_file import load_deployment_file
from serving.errors import ConfigError
from serving.kubernetes.needs import Group, groups
from serving.kubernetes.overlays import site_config
from tests.k8s.checking import SETTINGS

FOLDER = Path(__file__).parents[2] / "deployments"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deepseek-v3-two-nodes", Group("gpu-h100", "h100", 8, 2, 2)),
        ("deepseek-v3-prefill-decode", Group("gpu-h200", "h200", 8, 2, 2)),
        ("deepseek-data-parallel", Group("gpu-h200", "h200", 8, 1, 1)),
        ("kimi-k2", Group("gpu-h200", "h200", 8, 1, 1)),
    ],
)
def test_an_example_gets_the_pods_it_says(name: str, expected: Group) -> None:
    file = load_deployment_file(FOLDER / f"{name}.yaml", SETTINGS)
    assert groups(site_config("eu-multi-node", {}), model_needs(file, SETTINGS)) == [expected]


def test_a_group_of_ranks_over_two_pods_is_counted_with_all_its_gpus(tmp_path: Path) -> None:
    text = (FOLDER / "deepseek-data-parallel.yaml").read_text()
    path = tmp_path / "site.yaml"
    path.write_text(text.replace("data_parallel_size: 8", "data_parallel_size: 16"))
    (need,) = model_needs(load_deployment_file(path, SETTINGS), SETTINGS)
    assert need.gpus == 16
    (group,) = groups(site_config("eu-multi-node", {}), [need])
    assert (group.size, group.pods_min) == (8, 2)


def test_pods_smaller_than_an_engine_are_refused_with_the_models_own_numbers() -> None:
    file = load_deployment_file(FOLDER / "kimi-k2.yaml", SETTINGS)
    config = site_config("eu-multi-node", {"gpus": {"h200": {"gpus_per_pod": 4}}})
    with pytest.raises(ConfigError, match=r"an engine has 8 GPUs.*pods have 4 h200"):
        groups(config, model_needs(file, SETTINGS))
