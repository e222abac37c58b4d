"""Reads the part of Kustomize that k8s/ uses: resources and a namespace. Pure: files come from a callable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from serving.config.yaml_file import parse_all
from serving.errors import ConfigError

KUSTOMIZATION = "kustomization.yaml"
_UNDERSTOOD = frozenset({"apiVersion", "kind", "namespace", "resources"})
_CLUSTER_WIDE = frozenset({"PriorityClass", "Namespace", "ClusterRole", "ClusterRoleBinding"})
Read = Callable[[PurePosixPath], str]


def documents(text: str, where: str) -> list[dict[str, Any]]:
    """The manifests of one file.

    Raises:
        ConfigError: it is not YAML, or a document is not an object with `kind`.
    """
    found = [one for one in parse_all(text, where) if one is not None]
    for one in found:
        if not isinstance(one, dict) or not isinstance(one.get("kind"), str):
            raise ConfigError(f"{where}: a document is not a manifest with `kind`", param=where)
    return found


def build(folder: PurePosixPath, read: Read) -> list[dict[str, Any]]:
    """The output of `kubectl kustomize folder`.

    Args:
        read: text of a file; raises ConfigError where there is none.

    Raises:
        ConfigError: it uses more of Kustomize than this reads.
    """
    return _build(folder, read, ())


def _build(
    folder: PurePosixPath, read: Read, above: tuple[PurePosixPath, ...]
) -> list[dict[str, Any]]:
    where = folder / KUSTOMIZATION
    if folder in above:
        raise ConfigError(f"{where}: resources: the folder is its own base", param="resources")
    found_here = documents(read(where), str(where))
    if len(found_here) != 1:
        raise ConfigError(f"{where}: must be one document with `resources`", param="resources")
    top = found_here[0]
    unknown = sorted(top.keys() - _UNDERSTOOD)
    if unknown:
        raise ConfigError(
            f"{where}: {unknown[0]}: is not understood here; give the output of "
            f"`kubectl kustomize {folder}` instead",
            param=unknown[0],
        )
    found: list[dict[str, Any]] = []
    resources = top.get("resources") or []
    if not isinstance(resources, list):
        raise ConfigError(f"{where}: resources: must be a list", param="resources")
    for name in resources:
        path = folder / str(name)
        if path.suffix in (".yaml", ".yml"):
            found += documents(read(path), str(path))
        else:
            found += _build(_straight(path), read, (*above, folder))
    namespace = top.get("namespace")
    return [_within(one, str(namespace)) for one in found] if namespace else found


def _within(manifest: dict[str, Any], namespace: str) -> dict[str, Any]:
    if manifest["kind"] in _CLUSTER_WIDE:
        return manifest
    changed = dict(manifest)
    changed["metadata"] = _placed(manifest.get("metadata") or {}, namespace)
    if "subjects" in manifest:
        changed["subjects"] = [
            {**one, "namespace": namespace} if one.get("kind") == "ServiceAccount" else one
            for one in manifest["subjects"]
        ]
    return changed


def _placed(metadata: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """The namespace after the name, as `render` writes it."""
    rest = {key: value for key, value in metadata.items() if key not in ("name", "namespace")}
    return {"name": metadata.get("name"), "namespace": namespace, **rest}


def _straight(path: PurePosixPath) -> PurePosixPath:
    """Without `..`."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)
