"""All findings of the lint: policy, refusals of operators, dangling references, Serve configs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from serving.commands.k8s.document import cluster_settings, load_document
from serving.config.yaml_file import parse
from serving.errors import ConfigError
from serving.kubernetes.kuberay_rules import rayservice_problems
from serving.kubernetes.names import Manifest
from serving.kubernetes.policy import Finding, lint
from serving.kubernetes.references import dangling
from serving.kubernetes.schemas import schema_problems
from serving.kubernetes.serve_config import serve_problems
from serving.kubernetes.walk import at

# What reading a manifest whose values have the wrong types ends in: Kubernetes' own schemas are not here.
_MISSHAPEN = (AttributeError, KeyError, TypeError, ValueError)


def findings(manifests: list[Manifest], eu_regions: frozenset[str]) -> list[Finding]:
    """All findings of all rules; a manifest with values of wrong types has only that finding."""
    found, sound = [], []
    for manifest in manifests:
        try:
            _looked_at([manifest], eu_regions)
        except _MISSHAPEN:
            found += list(_of_schema(manifest)) or [_misshapen(manifest)]
        else:
            sound.append(manifest)
    return found + _looked_at(sound, eu_regions)


def _looked_at(manifests: list[Manifest], eu_regions: frozenset[str]) -> list[Finding]:
    found = lint(manifests, eu_regions)
    for manifest, path, problem in dangling(manifests):
        found.append(_finding("reference", manifest, path, problem, "correct the name"))
    for manifest in manifests:
        found += _of_schema(manifest)
        if manifest["kind"] == "RayService":
            found += _of_rayservice(manifest)
    return found


def _misshapen(manifest: Manifest) -> Finding:
    problem = "a list, a mapping or a number stands where the kind has something else"
    fix = "`kubectl apply --dry-run=server` names the place"
    return _finding("schema", manifest, "spec", problem, fix)


def _of_schema(manifest: Manifest) -> Iterator[Finding]:
    for problem in schema_problems(manifest):
        path, _, text = problem.partition(": ")
        yield _finding("schema", manifest, path, text, "the API server would refuse or drop it")


def _of_rayservice(manifest: Manifest) -> Iterator[Finding]:
    for problem in rayservice_problems(manifest):
        path, _, text = problem.partition(": ")
        yield _finding("kuberay", manifest, path, text, "the operator would refuse it")
    try:
        serve = parse(str((manifest.get("spec") or {}).get("serveConfigV2") or ""), "it")
        load_document(serve, cluster_settings(), Path("serveConfigV2"))
        wrong = list(serve_problems(serve))
    except ConfigError as error:
        wrong = [error.message]
    for problem in wrong:
        fix = "change the deployment file, and render again"
        yield _finding("serve", manifest, "spec.serveConfigV2", problem, fix)


def _finding(rule: str, manifest: Mapping[str, Any], path: str, problem: str, fix: str) -> Finding:
    name = str(at(manifest, "metadata.name"))
    return Finding(rule, str(manifest["kind"]), name, path, problem, fix)
