"""A rollout on Kubernetes: what `comptoir rollout export` writes renders to a site that serves the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serving.commands.k8s.document import load_document
from serving.commands.k8s.needs import model_needs
from serving.config.rerouting import user_config_in
from serving.deployment_file import load_deployment_file
from serving.errors import ConfigError
from serving.kubernetes.overlays import site_config
from serving.kubernetes.render import render
from serving.rollout.document import as_yaml, running_document, same
from serving.rollout.steps import decided, ended, started, weighted
from tests.k8s.checking import SETTINGS, SHIPPED, Manifest, one, problems, rendered, serve_of

Document = dict[str, Any]
MODEL = "qwen3-235b"
FILE = SHIPPED["eu-single-node"]
ROOMY = {"gpus": {"h200": {"gpus_per_pod": 8}}}


def running() -> Document:
    """The Serve config of the shipped site, as its cluster runs it."""
    return dict(serve_of(one(rendered("eu-single-node"), "RayService")))


def in_rollout() -> Document:
    args = next(one["args"] for one in running()["applications"] if one["name"] == MODEL)
    wanted = args | {"engine_args": args["engine_args"] | {"max_num_seqs": 64}}
    return weighted(started(running(), MODEL, wanted), MODEL, 25)


STATES: dict[str, Callable[[], Document]] = {
    "before": running,
    "with a share": in_rollout,
    "with none": lambda: weighted(in_rollout(), MODEL, 0),
    "with all": lambda: weighted(in_rollout(), MODEL, 100),
    "draining": lambda: decided(in_rollout(), MODEL, "new"),
    "promoted": lambda: ended(in_rollout(), MODEL, "new"),
    "aborted": lambda: ended(in_rollout(), MODEL, "old"),
}


def exported(document: Document, path: Path) -> Path:
    """`comptoir rollout export FILE` against a cluster that runs `document`."""
    schema = ServeDeploySchema.model_validate(copy.deepcopy(document))
    details = {
        # What Serve reports of itself: its own words for what it was given.
        **schema.model_dump(mode="json", exclude_unset=True),
        "target_capacity": 100.0,
        "applications": {
            one.name: {"deployed_app_config": one.model_dump(mode="json", exclude_unset=True)}
            for one in schema.applications
        },
    }
    file = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    path.write_text(as_yaml(file | running_document(details)), encoding="utf-8")
    return path


def render_file(path: Path) -> list[Manifest]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    file = load_document(document, SETTINGS, path)
    return render(file, site_config("eu-single-node", ROOMY), model_needs(file, SETTINGS))


@pytest.mark.parametrize("state", STATES)
def test_what_runs_is_what_is_rendered_of_its_export(state: str, tmp_path: Path) -> None:
    document = STATES[state]()
    manifests = render_file(exported(document, tmp_path / "site.yaml"))
    assert problems(manifests) == []
    assert same(serve_of(one(manifests, "RayService")), document)


def test_routing_of_a_rollout_stays_where_serve_changes_it_in_place(tmp_path: Path) -> None:
    document = in_rollout()
    inside = serve_of(one(render_file(exported(document, tmp_path / "site.yaml")), "RayService"))
    before, after = (site["applications"][0] for site in (running(), inside))
    assert after["args"] == before["args"]
    config = user_config_in(after)
    assert config is not None
    arms = config["routing"]["aliases"][MODEL]["arms"]
    assert [(arm["model"], arm["weight"]) for arm in arms] == [(MODEL, 75), (f"{MODEL}--r2", 25)]


def test_both_revisions_get_their_pods_and_the_pods_do_not_change(tmp_path: Path) -> None:
    def group(document: Document) -> Any:
        manifests = render_file(exported(document, tmp_path / "site.yaml"))
        cluster = one(manifests, "RayService")["spec"]["rayClusterConfig"]
        (found,) = (g for g in cluster["workerGroupSpecs"] if g["groupName"] == "gpu-h200")
        return found

    before, during, after = (
        group(STATES[name]()) for name in ("before", "with a share", "promoted")
    )
    assert during["maxReplicas"] > before["maxReplicas"]
    assert during["template"] == before["template"]
    assert after == before


def test_a_files_own_share_of_a_clusters_capacity_is_left_out(tmp_path: Path) -> None:
    path = exported(running(), tmp_path / "site.yaml")
    assert "target_capacity: 100" in path.read_text(encoding="utf-8")
    assert "target_capacity" not in serve_of(one(render_file(path), "RayService"))


def test_a_model_that_a_file_places_by_hand_is_refused(tmp_path: Path) -> None:
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    document["applications"][1]["deployments"] = [{"name": "ModelReplica", "num_replicas": 2}]
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert load_deployment_file(path, SETTINGS).models
    with pytest.raises(ConfigError, match=r"'qwen3-235b': deployments: .*\(num_replicas\)"):
        render_file(path)
