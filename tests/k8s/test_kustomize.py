"""k8s/ is what `comptoir k8s render` writes, and Kustomize makes the same objects of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from serving.commands.k8s.needs import model_needs
from serving.deployment_file import load_deployment_file
from serving.errors import ConfigError
from serving.kubernetes import kustomize
from serving.kubernetes.overlays import OVERLAYS, site_config
from serving.kubernetes.render import base_files, overlay_files, render
from tests.k8s.checking import ROOT, SETTINGS, SHIPPED, rendered

K8S = ROOT / "k8s"
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def read(path: PurePosixPath) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def by_name(manifests: list[Any]) -> dict[tuple[str, str], Any]:
    return {(one["kind"], one["metadata"]["name"]): one for one in manifests}


def test_there_is_a_folder_for_every_overlay_and_no_other() -> None:
    assert {path.name for path in (K8S / "overlays").iterdir()} == set(OVERLAYS)


def test_the_base_is_what_is_written_today() -> None:
    assert content(K8S / "base") == base_files()


@each_overlay
def test_an_overlay_is_what_is_rendered_today(overlay: str) -> None:
    """Otherwise: comptoir k8s render --config … --overlay … --kustomize --out k8s/overlays/…"""
    file = load_deployment_file(SHIPPED[overlay], SETTINGS)
    site = site_config(overlay)
    manifests = render(file, site, model_needs(file, SETTINGS))
    assert content(K8S / "overlays" / overlay) == overlay_files(manifests, site)


@each_overlay
def test_built_it_has_the_rendered_objects(overlay: str) -> None:
    built = kustomize.build(PurePosixPath("k8s/overlays", overlay), read)
    assert by_name(built) == by_name(rendered(overlay))
    assert len(built) == len(rendered(overlay))


@each_overlay
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_builds_the_same(overlay: str) -> None:
    command = ["kubectl", "kustomize", str(K8S / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert by_name(list(yaml.safe_load_all(done.stdout))) == by_name(rendered(overlay))


@pytest.mark.parametrize(
    "folder", [K8S / "base", *(K8S / "overlays").iterdir()], ids=lambda p: p.name
)
def test_no_file_is_forgotten(folder: Path) -> None:
    top = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    files = {name for name in top["resources"] if not name.startswith("..")}
    assert files == {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
    for name in top["resources"]:
        assert (folder / name).exists()


def test_more_of_kustomize_than_is_read_is_refused() -> None:
    files = {"a/kustomization.yaml": "kind: Kustomization\nnamePrefix: x-\nresources: []\n"}
    with pytest.raises(ConfigError, match="namePrefix: is not understood here; give the output of"):
        kustomize.build(PurePosixPath("a"), lambda path: files[str(path)])


def test_a_namespace_goes_to_everything_that_has_one() -> None:
    files = {
        "a/kustomization.yaml": "kind: Kustomization\nnamespace: there\nresources: [../b]\n",
        "b/kustomization.yaml": "kind: Kustomization\nresources: [x.yaml]\n",
        "b/x.yaml": "kind: PriorityClass\nmetadata: {name: p}\n---\nkind: Role\nmetadata: {name: r}\n",
    }
    priority, role = kustomize.build(PurePosixPath("a"), lambda path: files[str(path)])
    assert "namespace" not in priority["metadata"]
    assert role["metadata"] == {"name": "r", "namespace": "there"}


@pytest.mark.parametrize("text", ["- a\n", "kind: 1\n", "a: [\n", "plain"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"here\.yaml"):
        kustomize.documents(text, "here.yaml")


def test_another_name_has_no_base() -> None:
    file = load_deployment_file(SHIPPED["dev"], SETTINGS)
    site = site_config("dev", name="other")
    with pytest.raises(ConfigError, match="k8s/base is for a service named 'comptoir'"):
        overlay_files(render(file, site, model_needs(file, SETTINGS)), site)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("resources: [../site]", "the folder is its own base"),
        ("", "must be one document"),
        ("resources: 5", "resources: must be a list"),
    ],
)
def test_a_kustomization_that_leads_nowhere_is_refused(text: str, complaint: str) -> None:
    whole = f"kind: Kustomization\n{text}\n" if text else ""
    with pytest.raises(ConfigError, match=complaint):
        kustomize.build(PurePosixPath("site"), lambda path: whole)
