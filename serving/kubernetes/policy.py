"""The policy lint: contents that a site's manifests must not have, or must have. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serving.kubernetes.names import OVERLAY, REGION
from serving.kubernetes.policy_places import european_problem
from serving.kubernetes.policy_secrets import secret_texts
from serving.kubernetes.walk import Pod, at, pods

Manifests = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One problem, its place, and its remedy."""

    rule: str
    kind: str
    name: str
    path: str
    problem: str
    fix: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        where = f"{self.kind}/{self.name}: {self.path}"
        return f"{where}: {self.problem}; {self.fix} [{self.rule}]"


@dataclass(frozen=True)
class _Found:
    """A finding without its manifest."""

    path: str
    problem: str
    fix: str
    level: Literal["error", "warning"] = "error"


Check = Callable[[Mapping[str, Any], frozenset[str]], Iterator[_Found]]


def lint(manifests: Manifests, eu_regions: frozenset[str] = frozenset()) -> list[Finding]:
    """All findings of all rules.

    Args:
        eu_regions: names of regions, beside the well-known ones, that lie in the European Union.
    """
    found = []
    for manifest in manifests:
        for rule, check in RULES.items():
            found += [_at(rule, manifest, one) for one in check(manifest, eu_regions)]
    return found + list(_default_deny(manifests))


def _images(manifest: Mapping[str, Any], _: frozenset[str]) -> Iterator[_Found]:
    for pod in pods(manifest):
        references = [(f"{path}.image", one.get("image")) for path, one in pod.containers()]
        references += [(f"{path}.image", one["image"]) for path, one in pod.added if "image" in one]
        for index, volume in enumerate(pod.spec.get("volumes") or ()):
            if isinstance(volume.get("image"), Mapping):
                path = f"{pod.path}.volumes[{index}].image.reference"
                references.append((path, volume["image"].get("reference")))
        for path, reference in references:
            yield from _image(path, str(reference or ""))


def _image(path: str, reference: str) -> Iterator[_Found]:
    name, _, digest = reference.partition("@")
    tag = name.rsplit("/", 1)[-1].partition(":")[2]
    if not reference:
        yield _Found(path, "no image", "name one with a tag or a digest")
    elif not digest and tag in ("", "latest"):
        yield _Found(path, f"{reference!r} may change under you", "give a version as its tag")
    elif not digest:
        yield _Found(
            path, f"{reference!r} has no digest", "append @sha256:… of what you tested", "warning"
        )


def _privileges(manifest: Mapping[str, Any], _: frozenset[str]) -> Iterator[_Found]:
    for pod in pods(manifest):
        for path, container in (*pod.containers(), *pod.added):
            security = container.get("securityContext") or {}
            where = f"{path}.securityContext"
            if security.get("privileged"):
                yield _Found(f"{where}.privileged", "is privileged", "remove it")
            if security.get("allowPrivilegeEscalation") is not False:
                yield _Found(where, "may gain privileges", "set allowPrivilegeEscalation: false")
            capabilities = security.get("capabilities") or {}
            if "ALL" not in (capabilities.get("drop") or ()):
                yield _Found(where, "keeps capabilities", "set capabilities: {drop: [ALL]}")
            if capabilities.get("add"):
                yield _Found(f"{where}.capabilities.add", "adds capabilities", "remove it")


def _host(manifest: Mapping[str, Any], _: frozenset[str]) -> Iterator[_Found]:
    for pod in pods(manifest):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield _Found(f"{pod.path}.{field}", "shares the node's namespace", "remove it")
        for index, volume in enumerate(pod.spec.get("volumes") or ()):
            if "hostPath" in volume:
                path = f"{pod.path}.volumes[{index}].hostPath"
                yield _Found(path, "mounts a folder of the node", "use a claim, image or emptyDir")
        for path, container in pod.containers():
            for index, port in enumerate(container.get("ports") or ()):
                if port.get("hostPort"):
                    where = f"{path}.ports[{index}].hostPort"
                    yield _Found(where, "opens a port of the node", "use a Service")


def _secrets(manifest: Mapping[str, Any], _: frozenset[str]) -> Iterator[_Found]:
    for path, problem in secret_texts(manifest):
        yield _Found(path, problem, "put it into a Secret and refer to that")


def _resources(manifest: Mapping[str, Any], _: frozenset[str]) -> Iterator[_Found]:
    for pod in pods(manifest):
        for path, container in (*pod.containers(), *pod.added):
            for side in ("requests", "limits"):
                amounts = at(container, f"resources.{side}") or {}
                missing = [name for name in ("cpu", "memory") if name not in amounts]
                if missing:
                    where = f"{path}.resources.{side}"
                    yield _Found(where, f"no {' and no '.join(missing)}", "set both")


def _region(manifest: Mapping[str, Any], eu_regions: frozenset[str]) -> Iterator[_Found]:
    # Strict unless it says that it is for development.
    for pod in pods(manifest):
        label = pod.labels.get(OVERLAY) or at(manifest, "metadata.labels") or {}
        overlay = label if isinstance(label, str) else label.get(OVERLAY)
        if overlay == "dev":
            continue
        path = f"{pod.path}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
        terms = at(pod.spec, path.removeprefix(f"{pod.path}.")) or {}
        alternatives = terms.get("nodeSelectorTerms") or []
        # One term that fits is enough for the scheduler: each must name the regions.
        chosen = [_regions_of(term) for term in alternatives]
        if not alternatives or not all(chosen):
            yield _Found(path, "may run anywhere", f"require {REGION} In [regions in the EU]")
        for region in sorted({name for names in chosen for name in names}):
            problem = european_problem(region, eu_regions)
            if problem:
                yield _Found(path, problem, "choose another, or vouch for it with --eu-region")


def _regions_of(term: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for one in term.get("matchExpressions") or ():
        if one.get("key") == REGION and one.get("operator") == "In":
            found += one.get("values") or []
    return found


def _user(manifest: Mapping[str, Any], _: frozenset[str]) -> Iterator[_Found]:
    for pod in pods(manifest):
        above = pod.spec.get("securityContext") or {}
        if at(above, "seccompProfile.type") not in ("RuntimeDefault", "Localhost"):
            fix = "set seccompProfile: {type: RuntimeDefault}"
            yield _Found(f"{pod.path}.securityContext", "system calls are not filtered", fix)
        for path, container in (*pod.containers(), *pod.added):
            own = container.get("securityContext") or {}
            where = f"{path}.securityContext"
            if not own.get("runAsNonRoot", above.get("runAsNonRoot")):
                yield _Found(where, "may run as root", "set runAsNonRoot: true")
            if own.get("runAsUser", above.get("runAsUser")) == 0:
                yield _Found(f"{where}.runAsUser", "runs as root", "use a number above 0")
            if not own.get("readOnlyRootFilesystem"):
                fix = "set readOnlyRootFilesystem: true, with an emptyDir where it writes"
                yield _Found(where, "can change its own image", fix, "warning")


def _token(manifest: Mapping[str, Any], _: frozenset[str]) -> Iterator[_Found]:
    fix = "set automountServiceAccountToken: false; project a token where one is needed"
    for pod in pods(manifest):
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield _Found(pod.path, "every container gets a token of the API server", fix)
    if (
        manifest.get("kind") == "ServiceAccount"
        and manifest.get("automountServiceAccountToken") is not False
    ):
        yield _Found("automountServiceAccountToken", "its token is mounted everywhere", fix)


def _default_deny(manifests: Manifests) -> Iterator[Finding]:
    denied = {
        at(one, "metadata.namespace")
        for one in manifests
        if one.get("kind") == "NetworkPolicy" and _denies_all(one.get("spec") or {})
    }
    for manifest in manifests:
        namespace = at(manifest, "metadata.namespace")
        if any(True for _ in pods(manifest)) and namespace not in denied:
            found = _Found(
                "metadata.namespace",
                f"nothing denies traffic in namespace {namespace!r}",
                "add a NetworkPolicy with podSelector {} for Ingress and Egress, without rules",
            )
            yield _at("default-deny", manifest, found)


def _denies_all(spec: Mapping[str, Any]) -> bool:
    selects_all = not any((spec.get("podSelector") or {}).values())
    both = {"Ingress", "Egress"} <= set(spec.get("policyTypes") or ())
    return selects_all and both and not spec.get("ingress") and not spec.get("egress")


def _at(rule: str, manifest: Mapping[str, Any], found: _Found) -> Finding:
    kind, name = str(manifest.get("kind")), str(at(manifest, "metadata.name"))
    return Finding(rule, kind, name, found.path, found.problem, found.fix, found.level)


RULES: Mapping[str, Check] = {
    "image": _images,
    "privileges": _privileges,
    "host": _host,
    "secret": _secrets,
    "resources": _resources,
    "region": _region,
    "user": _user,
    "token": _token,
}
__all__ = ["RULES", "Finding", "Pod", "lint"]
