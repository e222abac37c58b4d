"""Everything that can be wrong with manifests, in one function; and the sites that tests render."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from serving.commands.k8s.document import load_document
from serving.commands.k8s.needs import model_needs
from serving.deployment_file import load_deployment_file
from serving.errors import ConfigError
from serving.kubernetes import names, schemas, structural
from serving.kubernetes.kuberay_rules import rayservice_problems
from serving.kubernetes.overlays import site_config
from serving.kubernetes.references import dangling
from serving.kubernetes.render import render
from serving.kubernetes.serve_config import serve_problems
from serving.kubernetes.walk import at, pods
from serving.settings import ProcessSettings

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data"
# The deployment file that k8s/overlays serves.
SHIPPED = {
    "dev": ROOT / "deployments" / "local.yaml",
    "eu-single-node": ROOT / "deployments" / "node-8xh200.yaml",
    "eu-multi-node": ROOT / "k8s" / "deployment-eu-multi-node.yaml",
}
S3 = {
    "endpoint": "https://s3.example.eu",
    "bucket": "weights",
    "prefix": "hub",
    "region": "eu",
    "cidrs": ["192.0.2.0/24"],
}
# Settings that together use every branch of the renderer.
VARIANTS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "weights in an image": {"weights": {"source": "image", "image": "models/qwen3:1.0"}},
    "weights in a bucket": {"weights": {"source": "s3", "s3": S3}, "image_pull_secrets": ["pull"]},
    "weights from the hub": {"weights": {"source": "hub"}},
    "upgrade with a gateway": {"upgrade": {"strategy": "incremental", "gateway_service": "front"}},
    "no redis": {"redis": None, "gateway_pods": 1},
}
# Kinds that are not Kubernetes' own.
CUSTOM = ("RayService", *(kind for _, kind in schemas.FILES))
KUBERNETES = "1.35"
SETTINGS = ProcessSettings()
Manifest = dict[str, Any]
# Maps in which Kubernetes takes any key: those that we mean.
FREE_KEYS: dict[str, set[str]] = {
    "labels": {names.INSTANCE, names.PART_OF, names.COMPONENT, names.OVERLAY},
    "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict"},
    "nodeSelector": {"nvidia.com/gpu.product"},
    "requests": {"cpu", "memory", "nvidia.com/gpu"},
    "limits": {"cpu", "memory", "nvidia.com/gpu"},
    "rayStartParams": {"num-cpus", "object-store-memory"},
    "matchLabels": {
        names.INSTANCE,
        names.COMPONENT,
        names.NAMESPACE,
        "k8s-app",
        "app.kubernetes.io/name",
        "gateway.networking.k8s.io/gateway-name",
    },
    "selector": {names.INSTANCE, names.COMPONENT, "matchLabels"},
    "resources": {
        "requests",
        "limits",
        "CPU",
        "comptoir_gateway",
        "accelerator_type:H200",
        "accelerator_type:H100",
        "accelerator_type:L40S",
    },
}


@functools.cache
def _rendered(overlay: str, variant: str, path: Path) -> str:
    file = load_deployment_file(path, SETTINGS)
    site = site_config(overlay, VARIANTS[variant])
    return json.dumps(render(file, site, model_needs(file, SETTINGS)))


def rendered(overlay: str, variant: str = "as shipped", path: Path | None = None) -> list[Manifest]:
    """Manifests of a site, the caller's to change."""
    found: list[Manifest] = json.loads(_rendered(overlay, variant, path or SHIPPED[overlay]))
    return found


def one(manifests: Sequence[Manifest], kind: str, name: str = "") -> Manifest:
    """The manifest of this kind, whose name ends so."""
    found = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"].endswith(name)]
    assert len(found) == 1, [m["metadata"]["name"] for m in found]
    return found[0]


def rayservice(overlay: str = "eu-multi-node", variant: str = "as shipped") -> Manifest:
    """Of a site."""
    return one(rendered(overlay, variant), "RayService")


def groups(manifest: Manifest) -> dict[str, Manifest]:
    """Head and worker groups, by name."""
    cluster = manifest["spec"]["rayClusterConfig"]
    return {"head": cluster["headGroupSpec"]} | {
        group["groupName"]: group for group in cluster["workerGroupSpecs"]
    }


def container(group: Manifest) -> Manifest:
    """Ray's."""
    found: Manifest = group["template"]["spec"]["containers"][0]
    return found


def serve_of(manifest: Manifest) -> Any:
    """The Serve config inside, parsed."""
    return yaml.safe_load(manifest["spec"]["serveConfigV2"])


@functools.cache
def custom_schema(kind: str) -> structural.Schema:
    """The strict schema of a custom resource."""
    if kind != "RayService":
        (group,) = (group for group, one in schemas.FILES if one == kind)
        found = schemas.schema(group, kind)
        assert found is not None
        return found
    text = (DATA / "rayservice-crd-v1.7.0.yaml").read_text(encoding="utf-8")
    versions = yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]  # safe, in C
    schema = next(v for v in versions if v["name"] == "v1")["schema"]["openAPIV3Schema"]
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"]["metadata"] = structural.METADATA
    return dict(schema)


@functools.cache
def _core_validator(kind: str, api_version: str, version: str) -> Any:
    """What `kubernetes_validate.validate(…, strict=True)` builds anew, in 0.1 s, for each manifest."""
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    group = (
        api_version.split("/")[0].split(".")[0] + "-" + api_version.split("/")[1]
        if "/" in (api_version)
        else api_version
    )
    contents = functools.partial(kubernetes_validate.utils.schema_contents, desired_version=version)
    registry_of, resource = kubernetes_validate.utils.Registry, kubernetes_validate.utils.Resource
    schema = resource.from_contents(contents(f"{folder}/{kind.lower()}-{group}.json"))
    registry: Any = resource.from_contents(contents(f"{folder}/_definitions.json")) @ registry_of()
    return jsonschema.Draft202012Validator(schema.contents, registry=schema @ registry)


def schema_problems(manifest: Manifest, version: str = KUBERNETES) -> list[str]:
    """What the API server would refuse, or drop without a word."""
    kind = str(manifest.get("kind"))
    if kind in CUSTOM:
        schema = custom_schema(kind)
        filled = structural.with_defaults(schema, manifest)
        return list(structural.problems(schema, filled, kind))
    try:
        validator = _core_validator(kind, str(manifest.get("apiVersion")), version)
    except (FileNotFoundError, IndexError):
        return [f"{kind}: there is no such kind"]
    found = [
        f"{kind}{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)
    ]
    if not str(at(manifest, "metadata.name") or ""):
        found.append(f"{kind}.metadata.name: is required")
    return found


def problems(manifests: Sequence[Manifest]) -> list[str]:
    """Everything: schemas, KubeRay's rules, references, free maps, the Serve config inside."""
    found = [problem for manifest in manifests for problem in schema_problems(manifest)]
    found += [problem for manifest in manifests for problem in _free_maps(manifest)]
    if found:
        # The rest assumes that shapes are right.
        return found
    found += [f"{manifest['kind']}.{path}: {text}" for manifest, path, text in dangling(manifests)]
    for manifest in manifests:
        for pod in pods(manifest):
            template = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "one"},
                "spec": dict(pod.spec),
            }
            found += [f"{pod.path}: {problem}" for problem in schema_problems(template)]
        if manifest["kind"] == "RayService":
            found += rayservice_problems(manifest)
            found += serve_config_problems(manifest["spec"]["serveConfigV2"])
    return found


def serve_config_problems(text: str) -> list[str]:
    from ray.serve.schema import ServeDeploySchema

    document = yaml.safe_load(text)
    try:
        load_document(document, SETTINGS, Path("serve"))
        ServeDeploySchema.model_validate(document)
    except (ConfigError, ValueError) as error:
        return [str(error)]
    return list(serve_problems(document))


def _free_maps(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            if key in FREE_KEYS and isinstance(member, Mapping):
                for unknown in sorted(set(member) - FREE_KEYS[key]):
                    yield f"{path}.{key}: {unknown!r} is not a key that we use"
            yield from _free_maps(member, f"{path}.{key}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _free_maps(member, f"{path}[{index}]")
