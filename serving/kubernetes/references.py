"""References between a site's manifests: names and selectors that lead nowhere. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serving.kubernetes.walk import Pod, at, pods

Manifests = Sequence[Mapping[str, Any]]
_GATEWAY = "gateway.networking.k8s.io/gateway-name"
Problem = tuple[Mapping[str, Any], str, str]  # the manifest, a path in it, what is wrong


def dangling(manifests: Manifests) -> list[Problem]:
    """All references to missing objects."""
    templates = [pod for one in manifests for pod in pods(one)]
    found: list[Problem] = []
    for manifest in manifests:
        checks = (_of_pods(manifest, manifests), _of_kind(manifest, manifests, templates))
        found += [(manifest, path, problem) for check in checks for path, problem in check]
    return found


def _of_pods(manifest: Mapping[str, Any], manifests: Manifests) -> Iterator[tuple[str, str]]:
    templates = list(pods(manifest))
    for pod in templates:
        for field, kind in (
            ("serviceAccountName", "ServiceAccount"),
            ("priorityClassName", "PriorityClass"),
        ):
            name = pod.spec.get(field)
            if name is not None and not _exists(manifests, kind, name):
                yield f"{pod.path}.{field}", f"there is no {kind} {name!r}"
        volumes = [str(volume.get("name")) for volume in pod.spec.get("volumes") or ()]
        mounted = dict(pod.mounts())
        for path, name in mounted.items():
            if name not in volumes:
                yield path, f"there is no volume {name!r}"
        for index, name in enumerate(volumes):
            if name not in mounted.values():
                yield f"{pod.path}.volumes[{index}]", f"nothing mounts {name!r}"
        for index, one in enumerate(pod.spec.get("topologySpreadConstraints") or ()):
            if not _matches(one.get("labelSelector"), [pod]):
                yield (
                    f"{pod.path}.topologySpreadConstraints[{index}]",
                    "does not select its own pods",
                )


def _of_kind(
    manifest: Mapping[str, Any], manifests: Manifests, templates: Sequence[Pod]
) -> Iterator[tuple[str, str]]:
    kind, spec = manifest.get("kind"), manifest.get("spec") or {}
    if kind == "Service":
        selector = {"matchLabels": spec.get("selector") or {}}
        yield from _selected(selector, templates, "spec.selector")
        for index, port in enumerate(spec.get("ports") or ()):
            path = f"spec.ports[{index}].targetPort"
            yield from _port(port.get("targetPort"), selector, templates, path)
    elif kind in ("PodDisruptionBudget", "PodMonitor"):
        yield from _selected(spec.get("selector"), templates, "spec.selector")
        for index, one in enumerate(spec.get("podMetricsEndpoints") or ()):
            path = f"spec.podMetricsEndpoints[{index}].port"
            yield from _port(one.get("port"), spec.get("selector"), templates, path)
    elif kind == "NetworkPolicy":
        yield from _network_policy(spec, manifests, templates)
    elif kind == "RoleBinding":
        role = at(manifest, "roleRef.name")
        if not _exists(manifests, str(at(manifest, "roleRef.kind")), role):
            yield "roleRef.name", f"there is no {at(manifest, 'roleRef.kind')} {role!r}"
        for index, subject in enumerate(manifest.get("subjects") or ()):
            if not _exists(manifests, str(subject.get("kind")), subject.get("name")):
                yield (
                    f"subjects[{index}]",
                    f"there is no {subject.get('kind')} {subject.get('name')!r}",
                )
    elif kind == "HTTPRoute":
        yield from _backends(spec, manifests)


def _network_policy(
    spec: Mapping[str, Any], manifests: Manifests, templates: Sequence[Pod]
) -> Iterator[tuple[str, str]]:
    yield from _own(spec.get("podSelector"), manifests, templates, "spec.podSelector")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            for number, peer in enumerate(rule.get(side) or ()):
                # A peer in another namespace is not ours to know.
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    path = f"spec.{direction}[{index}].{side}[{number}].podSelector"
                    yield from _own(peer["podSelector"], manifests, templates, path)


def _own(
    selector: Any, manifests: Manifests, templates: Sequence[Pod], path: str
) -> Iterator[tuple[str, str]]:
    """Selects all, pods of ours, or pods of the Gateway that KubeRay makes."""
    wanted = at(selector, "matchLabels") or {}
    gateways = [{_GATEWAY: f"{name}-gateway"} for name in _incremental(manifests)]
    if wanted and wanted not in gateways:
        yield from _selected(selector, templates, path)


def _backends(spec: Mapping[str, Any], manifests: Manifests) -> Iterator[tuple[str, str]]:
    services = {
        at(one, "metadata.name"): [port.get("port") for port in at(one, "spec.ports") or ()]
        for one in manifests
        if one.get("kind") == "Service"
    }
    for index, rule in enumerate(spec.get("rules") or ()):
        for number, backend in enumerate(rule.get("backendRefs") or ()):
            path, name = f"spec.rules[{index}].backendRefs[{number}]", backend.get("name")
            if name in services:
                if backend.get("port") not in services[name]:
                    yield f"{path}.port", f"Service {name!r} has no port {backend.get('port')}"
            elif not _incremental(manifests):
                yield f"{path}.name", f"there is no Service {name!r}"


def _incremental(manifests: Manifests) -> list[str]:
    return [
        str(at(one, "metadata.name"))
        for one in manifests
        if at(one, "spec.upgradeStrategy.type") == "NewClusterWithIncrementalUpgrade"
    ]


def _selected(selector: Any, templates: Sequence[Pod], path: str) -> Iterator[tuple[str, str]]:
    if templates and not _matches(selector, templates):
        yield path, "selects no pod"


def _port(
    port: Any, selector: Any, templates: Sequence[Pod], path: str
) -> Iterator[tuple[str, str]]:
    chosen = [pod for pod in templates if _matches(selector, [pod])]
    for pod in chosen:
        ports = [one for _, container in pod.containers() for one in container.get("ports") or ()]
        if port not in [one.get("name") for one in ports] + [
            one.get("containerPort") for one in ports
        ]:
            yield path, f"no port {port!r} in {pod.path}"


def _matches(selector: Any, templates: Sequence[Pod]) -> bool:
    wanted = at(selector, "matchLabels")
    return bool(wanted) and any(wanted.items() <= pod.labels.items() for pod in templates)


def _exists(manifests: Manifests, kind: str, name: Any) -> bool:
    return any(one.get("kind") == kind and at(one, "metadata.name") == name for one in manifests)
