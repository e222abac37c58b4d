"""A Kubernetes site's settings beside its deployment file: images, places, weights, upgrades."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from serving.catalogue.gpus import get_gpu
from serving.config.base import FrozenConfig
from serving.errors import ConfigError

_IMAGE = re.compile(
    r"(?P<name>([a-z0-9][\w.-]*(:\d+)?/)*[a-z0-9][\w.-]*)"
    r"(:(?P<tag>[\w][\w.-]{0,127}))?(@sha256:(?P<digest>[0-9a-f]{64}))?",
    re.ASCII,
)


def _pinned(value: str) -> str:
    found = _IMAGE.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is not an image: NAME:TAG, best with @sha256:DIGEST")
    if found["digest"] is None and found["tag"] in (None, "latest"):
        raise ValueError(f"{value!r} is not pinned: give a tag other than latest, or a digest")
    return value


def _gpu_kinds(value: dict[str, GpuPool]) -> dict[str, GpuPool]:
    for kind in value:
        try:
            get_gpu(kind)
        except ConfigError as error:
            raise ValueError(error.message) from None
    return value


def _named(value: str, limit: int = 63) -> str:
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", value) or len(value) > limit:
        raise ValueError(
            f"{value!r} is not a name: at most {limit} lower-case letters, digits and -, a letter first"
        )
    return value


def _label(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", value, re.ASCII):
        raise ValueError(
            f"{value!r} is not a label's value: at most 63 letters, digits, - _ and ., a letter or "
            "digit first and last"
        )
    return value


def _network(value: str) -> str:
    try:
        if "/" not in value:
            raise ValueError
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is not a network: write 192.0.2.0/24, or 192.0.2.7/32"
        ) from None
    return value


Image = Annotated[str, AfterValidator(_pinned)]
Name = Annotated[str, AfterValidator(_named)]
# KubeRay appends to it.
ServiceName = Annotated[str, AfterValidator(lambda value: _named(value, 47))]
Label = Annotated[str, AfterValidator(_label)]
Cidr = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$")]


class Images(FrozenConfig):
    """One image for head, gateways and CPU models, one for GPU models; both of the same release."""

    cpu: Image
    gpu: Image


class CpuPool(FrozenConfig):
    """Pods for models on the CPU."""

    cpu: int = Field(default=4, ge=1, le=512)
    memory: Quantity = "16Gi"
    shm: Quantity = "2Gi"


class GpuPool(FrozenConfig):
    """Pods with one type of GPU. CPU, memory and shared memory are per GPU."""

    # Unset: the smallest that holds every engine, and the first replicas as far as a node has GPUs.
    gpus_per_pod: Literal[1, 2, 4, 8] | None = None
    # Unset: the label that NVIDIA's feature discovery sets for this type.
    node_selector: dict[str, Label] | None = None
    cpu_per_gpu: int = Field(default=12, ge=1, le=128)
    memory_gib_per_gpu: int = Field(default=120, ge=8, le=4096)
    shm_gib_per_gpu: int = Field(default=8, ge=1, le=1024)


class S3(FrozenConfig):
    """A bucket that an init container copies to the node before Ray starts."""

    endpoint: str = Field(pattern=r"^https://[\w.-]+(:\d+)?$")
    bucket: str = Field(min_length=3)
    prefix: str = ""
    region: str = Field(min_length=1)
    secret: Name = "comptoir-s3"  # noqa: S105  # its name
    image: Image = "rclone/rclone:1.71.2"
    cidrs: tuple[Cidr, ...] = Field(min_length=1)


class Weights(FrozenConfig):
    """The source of weights for model pods: the hub, a volume claim, an OCI image, or a bucket's copy."""

    source: Literal["hub", "pvc", "image", "s3"] = "pvc"
    claim: Name = "comptoir-weights"
    image: Image | None = None
    s3: S3 | None = None
    path: str = Field(default="/models", pattern=r"^/[\w./-]*\w$")
    cache: Quantity = "200Gi"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.source == "image" and self.image is None:
            raise ValueError("image: is required with source: image")
        if self.source == "s3" and self.s3 is None:
            raise ValueError("s3: is required with source: s3")
        return self


class Redis(FrozenConfig):
    """External Redis or Valkey that keeps the head's state, so that a new head finds it."""

    address: str = Field(
        default="redis://comptoir-valkey.comptoir-data.svc.cluster.local:6379",
        pattern=r"^rediss?://[\w.-]+:\d+$",
    )
    secret: Name = "comptoir-redis"  # noqa: S105  # its name
    key: str = "password"
    # Where it runs: a namespace of this cluster, or addresses outside.
    namespace: Name | None = "comptoir-data"
    cidrs: tuple[Cidr, ...] = ()

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if not 1 <= self.port <= 65_535:
            raise ValueError(f"address: {self.port} is not a port")
        if self.namespace is None and not self.cidrs:
            raise ValueError("namespace or cidrs: one is needed, for the network policy")
        return self

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])


class Edge(FrozenConfig):
    """The Gateway with TLS in front of clients, and the longest stream."""

    gateway: Name = "edge"
    namespace: Name = "gateway-system"
    listener: Name = "https"
    hostnames: tuple[str, ...] = Field(min_length=1)
    stream_timeout_s: int = Field(default=3600, ge=0, le=86_400)


class Upgrade(FrozenConfig):
    """How a changed pod template reaches production. Models change in place in any case."""

    strategy: Literal["incremental", "new-cluster", "none"] = "incremental"
    gateway_class: Name = "istio"
    # The Service in front of KubeRay's own Gateway; unset: Istio's, NAME-gateway-CLASS.
    gateway_service: Name | None = None
    control_plane_namespace: Name = "istio-system"
    control_plane_ports: tuple[Port, ...] = (15012,)
    step_percent: int = Field(default=10, ge=1, le=100)
    surge_percent: int = Field(default=50, ge=1, le=100)
    interval_s: int = Field(default=60, ge=1)

    @model_validator(mode="after")
    def _step_fits(self) -> Self:
        if self.step_percent > self.surge_percent:
            raise ValueError("step_percent: must be at most surge_percent")
        return self


class Neighbours(FrozenConfig):
    """Namespaces and addresses that network policies let through."""

    operator: Name = "kuberay-operator"
    monitoring: Name = "monitoring"
    dns: Name = "kube-system"
    # Further namespaces whose pods call the API directly, without the edge.
    clients: tuple[Name, ...] = ()
    # The API server is reached by its address: name yours, this is every private network.
    api_server_cidrs: tuple[Cidr, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    api_server_ports: tuple[Port, ...] = (443, 6443)


class KubernetesConfig(FrozenConfig):
    """One site. The overlays hold the defaults; a settings file and options change them."""

    overlay: Name
    name: ServiceName = "comptoir"
    namespace: Name
    ray_version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    images: Images
    image_pull_secrets: tuple[Name, ...] = ()
    # Empty: anywhere. Otherwise nodes carry one of these as topology.kubernetes.io/region.
    regions: tuple[Label, ...] = ()
    gateway_pods: int = Field(default=2, ge=1, le=256)
    cpu: CpuPool = CpuPool()
    gpus: Annotated[dict[str, GpuPool], AfterValidator(_gpu_kinds)] = Field(default_factory=dict)
    weights: Weights = Weights()
    redis: Redis | None = Redis()
    edge: Edge
    upgrade: Upgrade = Upgrade()
    neighbours: Neighbours = Neighbours()
    ray_token_secret: Name = "comptoir-ray-token"  # noqa: S105  # its name
    keys_secret: Name = "comptoir-keys"  # noqa: S105  # its name
    idle_timeout_s: int = Field(default=600, ge=60)
    # So long may an engine load weights and compile.
    engine_start_timeout_s: int = Field(default=3600, ge=60)

    @property
    def is_european(self) -> bool:
        return self.overlay.startswith("eu-")

    @model_validator(mode="after")
    def _europe_has_a_place(self) -> Self:
        if self.is_european and not self.regions:
            raise ValueError(
                "regions: an EU overlay needs the regions of its nodes (topology.kubernetes.io/region)"
            )
        return self
