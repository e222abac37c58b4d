"""The schemas of the custom resources beside the RayService, as their operators publish them. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from serving.kubernetes import structural

# By group and kind; crds/README.md says where each comes from.
FILES: Mapping[tuple[str, str], str] = {
    ("gateway.networking.k8s.io", "HTTPRoute"): "httproute-v1.json",
    ("monitoring.coreos.com", "PodMonitor"): "podmonitor-v1.json",
    ("monitoring.coreos.com", "PrometheusRule"): "prometheusrule-v1.json",
}


@functools.cache
def schema(group: str, kind: str) -> structural.Schema | None:
    """The strict schema of a kind, or None where there is none here."""
    name = FILES.get((group, kind))
    if name is None:
        return None
    text = resources.files("serving.kubernetes").joinpath("crds", name).read_text("utf-8")
    found: structural.Schema = json.loads(text)
    found["properties"]["metadata"] = structural.METADATA
    return found


def schema_problems(manifest: Mapping[str, Any]) -> list[str]:
    """Contents that the API server would refuse or drop silently; each begins with its path."""
    group = str(manifest.get("apiVersion")).rpartition("/")[0]
    found = schema(group, str(manifest.get("kind")))
    if found is None:
        return []
    filled = structural.with_defaults(found, manifest)
    return [problem.removeprefix(".") for problem in structural.problems(found, filled)]
