"""The overlays' defaults, and how a settings file and options change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving import __version__
from serving.config.base import validated
from serving.errors import ConfigError
from serving.kubernetes.config import KubernetesConfig

# Cluster version and image tags: a test holds them to requirements/ and to the package.
RAY_VERSION = "2.60.0"
_COMMON: Mapping[str, Any] = {
    "ray_version": RAY_VERSION,
    "images": {"cpu": f"comptoir-cpu:{__version__}", "gpu": f"comptoir-gpu:{__version__}"},
}
OVERLAYS: Mapping[str, Mapping[str, Any]] = {
    # One small cluster, anywhere, nothing outside it.
    "dev": {
        "namespace": "comptoir-dev",
        "gateway_pods": 1,
        "weights": {"source": "hub", "cache": "20Gi"},
        "redis": None,
        "edge": {"hostnames": ["comptoir.dev.example"]},
        "upgrade": {"strategy": "new-cluster"},
    },
    # One node whose GPUs are all taken: there is no room for a second cluster beside the first.
    "eu-single-node": {
        "namespace": "comptoir",
        "regions": ["eu-central"],
        "edge": {"hostnames": ["api.example.eu"]},
        "upgrade": {"strategy": "none"},
    },
    "eu-multi-node": {
        "namespace": "comptoir",
        "regions": ["eu-central", "eu-west"],
        "gateway_pods": 2,
        "edge": {"hostnames": ["api.example.eu"]},
        "upgrade": {"strategy": "incremental"},
    },
}


def site_config(
    overlay: str,
    settings: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    namespace: str | None = None,
    images: Sequence[str] = (),
    regions: Sequence[str] = (),
) -> KubernetesConfig:
    """Options over settings over the overlay's defaults.

    Args:
        images: `REF` for both images, `cpu=REF` or `gpu=REF` for one.

    Raises:
        ConfigError: no such overlay, or a value does not fit; `param` is the dotted key.
    """
    if overlay not in OVERLAYS:
        raise ConfigError(
            f"overlay {overlay!r} is unknown; available: {', '.join(OVERLAYS)}", param="overlay"
        )
    merged = _merge(_merge(dict(_COMMON), OVERLAYS[overlay]), settings or {})
    if "overlay" in (settings or {}):
        raise ConfigError("settings: overlay: is given by --overlay", param="overlay")
    merged["overlay"] = overlay
    merged |= {"name": name} if name is not None else {}
    merged |= {"namespace": namespace} if namespace is not None else {}
    merged |= {"regions": list(regions)} if regions else {}
    for image in images:
        kind, equals, reference = image.partition("=")
        chosen = {kind: reference} if equals else {"cpu": image, "gpu": image}
        merged["images"] = {**merged["images"], **chosen}
    return validated(KubernetesConfig, merged, f"overlay {overlay}")


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(under, value) if both else value  # type: ignore[arg-type]
    return merged
