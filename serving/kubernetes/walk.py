"""Finds pods and containers in manifests of any kind. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_POD_KINDS = {
    "Pod": "spec",
    "Deployment": "spec.template.spec",
    "DaemonSet": "spec.template.spec",
    "ReplicaSet": "spec.template.spec",
    "StatefulSet": "spec.template.spec",
    "Job": "spec.template.spec",
    "CronJob": "spec.jobTemplate.spec.template.spec",
}
_RAY_CLUSTER = {
    "RayCluster": "spec",
    "RayService": "spec.rayClusterConfig",
    "RayJob": "spec.rayClusterSpec",
}


@dataclass(frozen=True)
class Pod:
    """One pod template: where it stands, its spec, its labels, and containers that the operator adds."""

    path: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    # (path, the part of a container that can be set): Ray's autoscaler.
    added: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def containers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Every container that the manifest spells out, with its path."""
        for field in ("initContainers", "containers", "ephemeralContainers"):
            for index, container in enumerate(self.spec.get(field) or ()):
                if isinstance(container, Mapping):
                    yield f"{self.path}.{field}[{index}]", container

    def mounts(self) -> Iterator[tuple[str, str]]:
        """(path, name of the volume), the operator's containers included."""
        for path, container in (*self.containers(), *self.added):
            for index, mount in enumerate(container.get("volumeMounts") or ()):
                yield f"{path}.volumeMounts[{index}]", str(mount.get("name"))


def pods(manifest: Mapping[str, Any]) -> Iterator[Pod]:
    """The pod templates of one manifest."""
    kind = str(manifest.get("kind"))
    if kind in _POD_KINDS:
        path = _POD_KINDS[kind]
        spec = at(manifest, path)
        if isinstance(spec, Mapping):
            holder = at(manifest, path.removesuffix("spec").rstrip(".")) or manifest
            yield Pod(path, spec, _labels(holder))
        return
    if kind not in _RAY_CLUSTER:
        return
    path = _RAY_CLUSTER[kind]
    cluster = at(manifest, path)
    if not isinstance(cluster, Mapping):
        return
    groups = [("headGroupSpec", cluster.get("headGroupSpec"))]
    for index, group in enumerate(cluster.get("workerGroupSpecs") or ()):
        groups.append((f"workerGroupSpecs[{index}]", group))
    for name, group in groups:
        template = group.get("template") if isinstance(group, Mapping) else None
        spec = template.get("spec") if isinstance(template, Mapping) else None
        if isinstance(spec, Mapping):
            added = _autoscaler(cluster, path) if name == "headGroupSpec" else ()
            yield Pod(f"{path}.{name}.template.spec", spec, _labels(template), added)


def at(holder: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for part in filter(None, path.split(".")):
        holder = holder.get(part) if isinstance(holder, Mapping) else None
    return holder


def strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a manifest, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from strings(member, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from strings(member, f"{path}[{index}]")


def _labels(template: Any) -> Mapping[str, str]:
    found = at(template, "metadata.labels")
    return found if isinstance(found, Mapping) else {}


def _autoscaler(cluster: Mapping[str, Any], path: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    if not cluster.get("enableInTreeAutoscaling"):
        return ()
    options = cluster.get("autoscalerOptions")
    return ((f"{path}.autoscalerOptions", options if isinstance(options, Mapping) else {}),)
