"""A site to break, and what the policy lint says then."""

from __future__ import annotations

from typing import Any

from serving.kubernetes.policy import Finding, lint
from tests.k8s.checking import Manifest, one, rendered

HEAD = "spec.rayClusterConfig.headGroupSpec.template.spec"
RAY = f"{HEAD}.containers[0]"
DIGEST = "@sha256:" + "0" * 64


def site() -> list[Manifest]:
    return rendered("eu-multi-node")


def head(manifests: list[Manifest]) -> Manifest:
    cluster = one(manifests, "RayService")["spec"]["rayClusterConfig"]
    return dict(cluster["headGroupSpec"]["template"])


def errors(manifests: list[Manifest], **options: Any) -> list[Finding]:
    return [one for one in lint(manifests, **options) if one.level == "error"]
