"""Weights in a pod: from the hub, a volume claim, an OCI image, or a bucket; read-only for the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.kubernetes.config import S3, Weights
from serving.kubernetes.names import Manifest

_VOLUME = "weights"


@dataclass(frozen=True)
class Storage:
    """The parts of a pod through which its engines find weights."""

    volumes: tuple[Manifest, ...] = ()
    mounts: tuple[Manifest, ...] = ()
    init_containers: tuple[Manifest, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def storage(weights: Weights, security: Manifest) -> Storage:
    """Volumes, mounts, init containers and variables for one source.

    Under `path` lies a cache of the model hub (`path/hub`), or folders that `source` of a model names.
    """
    if weights.source == "hub":
        # A volume of its own: the home is for small caches.
        volume = {"name": _VOLUME, "emptyDir": {"sizeLimit": weights.cache}}
        writable: Manifest = {"name": _VOLUME, "mountPath": weights.path}
        return Storage((volume,), (writable,), env={"HF_HUB_CACHE": f"{weights.path}/hub"})
    # Nothing is asked of the hub, and nothing can be: egress is denied.
    env = {"HF_HUB_CACHE": f"{weights.path}/hub", "HF_HUB_OFFLINE": "1"}
    mount: Manifest = {"name": _VOLUME, "mountPath": weights.path, "readOnly": True}
    if weights.source == "pvc":
        claim: Manifest = {"claimName": weights.claim, "readOnly": True}
        return Storage(({"name": _VOLUME, "persistentVolumeClaim": claim},), (mount,), env=env)
    if weights.source == "image":
        image = {"reference": str(weights.image), "pullPolicy": "IfNotPresent"}
        return Storage(({"name": _VOLUME, "image": image},), (mount,), env=env)
    assert weights.s3 is not None  # noqa: S101  # checked when the settings were built
    volume = {"name": _VOLUME, "emptyDir": {"sizeLimit": weights.cache}}
    return Storage((volume,), (mount,), (_copy(weights, weights.s3, security),), env)


def _copy(weights: Weights, s3: S3, security: Manifest) -> Manifest:
    plain = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_WEIGHTS_TYPE": "s3",
        "RCLONE_CONFIG_WEIGHTS_PROVIDER": "Other",
        "RCLONE_CONFIG_WEIGHTS_ENDPOINT": s3.endpoint,
        "RCLONE_CONFIG_WEIGHTS_REGION": s3.region,
    }
    secret = {
        "RCLONE_CONFIG_WEIGHTS_ACCESS_KEY_ID": "access_key_id",
        "RCLONE_CONFIG_WEIGHTS_SECRET_ACCESS_KEY": "secret_access_key",
    }
    amounts = {"cpu": "2", "memory": "2Gi"}
    source = f"weights:{s3.bucket}/{s3.prefix}".rstrip("/")
    return {
        "name": "fetch-weights",
        "image": s3.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["rclone"],
        "args": ["copy", "--transfers=8", "--checksum", source, weights.path],
        "env": [
            *({"name": name, "value": value} for name, value in plain.items()),
            *(
                {"name": name, "valueFrom": {"secretKeyRef": {"name": s3.secret, "key": key}}}
                for name, key in secret.items()
            ),
        ],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": security,
        "volumeMounts": [{"name": _VOLUME, "mountPath": weights.path}],
    }
