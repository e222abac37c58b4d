"""All manifests of a site, as objects, as files, and as differences from earlier files. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from serving.deployment_file import DeploymentFile
from serving.errors import ConfigError
from serving.kubernetes import names, network, support
from serving.kubernetes.config import KubernetesConfig
from serving.kubernetes.kuberay_rules import rayservice_problems
from serving.kubernetes.names import Manifest
from serving.kubernetes.needs import ModelNeed, groups
from serving.kubernetes.rayservice import gateway_pods, rayservice
from serving.kubernetes.schemas import schema_problems
from serving.kubernetes.serve_config import for_cluster

HEADER = "# Made by `comptoir k8s render`: change the deployment file or the settings, and render again.\n"
BASE_NAME = "comptoir"
KUSTOMIZATION = "kustomization.yaml"
_FILES: Mapping[str, str] = {
    "ServiceAccount": "accounts.yaml",
    "Role": "accounts.yaml",
    "RoleBinding": "accounts.yaml",
    "PriorityClass": "priority.yaml",
    "NetworkPolicy": "network-policies.yaml",
    "RayService": "rayservice.yaml",
    "Service": "service.yaml",
    "HTTPRoute": "route.yaml",
    "PodDisruptionBudget": "disruption-budgets.yaml",
    "PodMonitor": "pod-monitor.yaml",
}


def render(
    file: DeploymentFile, config: KubernetesConfig, needs: Sequence[ModelNeed]
) -> list[Manifest]:
    """Every object, in the order in which `kubectl apply` should see them.

    Raises:
        ConfigError: the operator would refuse what the file or the settings request.
    """
    serve = for_cluster(file.document, file.gateway)
    found = groups(config, needs)
    service = rayservice(config, serve, found, needs)
    for problem in rayservice_problems(service):
        raise ConfigError(f"KubeRay would refuse this: {problem}", param="rayservice")
    manifests = [
        *base(config.name, config.namespace, config.neighbours.dns),
        *network.site_policies(config, serve, found),
        *support.disruption_budgets(config, gateway_pods(config, serve), found),
        network.service(config, serve),
        network.http_route(config, serve),
        service,
    ]
    for manifest in manifests:
        for problem in schema_problems(manifest):
            raise ConfigError(
                f"the cluster would refuse the {manifest['kind']}: {problem}; change `edge` in the "
                "settings",
                param=str(manifest["kind"]),
            )
    return manifests


def base(name: str, namespace: str | None, dns_namespace: str = "kube-system") -> list[Manifest]:
    """The manifests that depend on names only; without a namespace, they are k8s/base."""
    return [
        support.priority_class(name),
        support.service_account(names.head_account(name), name, namespace),
        support.service_account(names.worker_account(name), name, namespace),
        support.autoscaler_role(name, namespace),
        support.autoscaler_binding(name, namespace),
        network.default_deny(name, namespace),
        network.within(name, namespace),
        network.dns(name, namespace, dns_namespace),
        support.pod_monitor(name, namespace),
    ]


def base_files() -> dict[str, str]:
    """The content of k8s/base, by file name."""
    return _with_kustomization(as_files(base(BASE_NAME, None)), {})


def overlay_files(manifests: Sequence[Manifest], config: KubernetesConfig) -> dict[str, str]:
    """The content of a Kustomize overlay on k8s/base, by file name.

    Raises:
        ConfigError: the site is not one that k8s/base fits.
    """
    shared = base(config.name, config.namespace)
    if config.name != BASE_NAME or any(one not in manifests for one in shared):
        raise ConfigError(
            f"--kustomize: k8s/base is for a service named {BASE_NAME!r} with the usual DNS; render "
            "without --kustomize",
            param="kustomize",
        )
    own = [one for one in manifests if one not in shared]
    top = {"namespace": config.namespace}
    return _with_kustomization(as_files(own), top, ("../../base",))


def as_files(manifests: Iterable[Manifest]) -> dict[str, str]:
    """One file per group of kinds, by file name, in order."""
    found: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        found.setdefault(_FILES[manifest["kind"]], []).append(manifest)
    return {name: as_yaml(members) for name, members in found.items()}


def as_yaml(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Documents in one stream; the same objects always give the same text."""
    return HEADER + "---\n".join(
        yaml.dump(one, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        for one in manifests
    )


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """A unified diff over all files; empty when nothing differs."""
    lines: list[str] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        lines += difflib.unified_diff(
            (old or "").splitlines(keepends=True),
            (new or "").splitlines(keepends=True),
            "/dev/null" if old is None else f"a/{name}",
            "/dev/null" if new is None else f"b/{name}",
        )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _with_kustomization(
    files: dict[str, str], top: Mapping[str, Any], bases: Sequence[str] = ()
) -> dict[str, str]:
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        **top,
        "resources": [*bases, *files],
    }
    return {**files, KUSTOMIZATION: as_yaml([document])}


class _Dumper(yaml.SafeDumper):
    """Plain YAML for people and diffs: no anchors, and texts of several lines as they are."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
