"""The settings: frozen, checked when built; every default is defined once.

Precedence: command line > environment (COMPTOIR_*) > configuration file > default.
The file is an ordinary Ray Serve config; the models below are the `args` of its applications.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.config.admission import (
    AdmissionConfig,
    BreakerConfig,
    QuarantineConfig,
    RetryConfig,
)
from serving.config.autoscaling import AutoscalingConfig
from serving.config.base import ENV_PREFIX, FrozenConfig, config_error, validated
from serving.config.browsers import CorsConfig
from serving.config.connections import ConnectionsConfig
from serving.config.engine_args import EngineArgs
from serving.config.keys import KeyConfig as KeyConfig
from serving.config.keys import hash_key as hash_key
from serving.config.keys import read_keys, twice
from serving.config.limits import RequestLimits as RequestLimits
from serving.config.metering import MeteringConfig
from serving.config.paths import AbsolutePath, expanded
from serving.config.prefill import PrefillConfig
from serving.config.replica_routing import ReplicaRoutingConfig
from serving.config.rerouting import LiveConfig
from serving.config.routing import RoutingConfig
from serving.errors import ConfigError

_JURISDICTION = re.compile(r"[A-Z]{2}")
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,95}")


class ProcessSettings(BaseSettings):
    """Settings from the environment alone, the same in every process of a site."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore")

    cache_dir: Path = Path("~/.cache/comptoir")
    device: Literal["auto", "cpu", "gpu"] = "auto"
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    # Where replicas listen for gateways; by default the node's address in the cluster.
    replica_host: str | None = None
    # `comptoir up` then asks the model hub whether it can be reached; nothing else goes out unasked.
    probe_hub: bool = False

    @field_validator("cache_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return expanded(value, "COMPTOIR_CACHE_DIR")

    @field_validator("device", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            ConfigError: a COMPTOIR_ variable has an invalid value; the message names it.
        """
        try:
            return cls()
        except ValidationError as error:
            raise config_error(error, "environment", env=True) from None


class SiteConfig(FrozenConfig):
    """The site's jurisdiction and acknowledged licences; shared by all applications of a file."""

    jurisdiction: str = "EU"
    acknowledged_licences: tuple[str, ...] = ()

    @field_validator("jurisdiction")
    @classmethod
    def _is_code(cls, value: str) -> str:
        if not _JURISDICTION.fullmatch(value):
            raise ValueError(
                f"must be EU or a country's two capital letters (ISO 3166-1), such as DE, not {value!r}"
            )
        return value


class GatewayConfig(FrozenConfig):
    """The endpoint: its address, its keys, its limits."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    site: SiteConfig = SiteConfig()
    keys: tuple[KeyConfig, ...] = ()
    keys_file: AbsolutePath | None = None
    limits: RequestLimits = RequestLimits()
    connections: ConnectionsConfig = ConnectionsConfig()
    cors: CorsConfig = CorsConfig()
    # Also answer at Azure's paths, and to its header `api-key`.
    azure_paths: bool = False
    routing: RoutingConfig = RoutingConfig()
    replica_routing: ReplicaRoutingConfig = ReplicaRoutingConfig()
    admission: AdmissionConfig = AdmissionConfig()
    breaker: BreakerConfig = BreakerConfig()
    retries: RetryConfig = RetryConfig()
    metering: MeteringConfig = MeteringConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
    replicas: int = Field(default=1, ge=1, le=1024)
    discovery_period_s: float = Field(default=2.0, gt=0, le=60)
    connect_timeout_s: float = Field(default=2.0, gt=0)
    response_timeout_s: float = Field(default=600.0, gt=0)
    # A prefill replica that has not finished a prompt by then loses it: the model's own computes it.
    prefill_timeout_s: float = Field(default=60.0, gt=0)
    # When it stops: `/ready` says 503 for so long and it answers as before; then open requests have so long.
    lame_duck_s: float = Field(default=5.0, ge=0, le=600)
    drain_timeout_s: float = Field(default=30.0, ge=0)
    # Gateways that may start beside the old ones when `args` change, in percent of `replicas`.
    surge_percent: int = Field(default=100, ge=0, le=100)

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Self:
        if (wrong := twice(self.keys)) is not None:
            raise ValueError(wrong)
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the endpoint."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def from_args(cls, args: Mapping[str, Any], process: ProcessSettings) -> Self:
        """Build from a Serve application's `args`; the environment wins over the file.

        Raises:
            ConfigError: a key is unknown or its value does not fit; `param` is the dotted key.
        """
        merged = dict(args)
        if process.host is not None:
            merged["host"] = process.host
        if process.port is not None:
            merged["port"] = process.port
        config = validated(cls, merged, "gateway")
        if config.keys_file is not None:
            # Built again, not copied: the rules about all keys hold for both places together.
            merged["keys"] = config.keys + read_keys(config.keys_file)
            config = validated(cls, merged, "gateway")
        config._require_keys()
        return config

    def changed(
        self, live: LiveConfig, in_args: tuple[KeyConfig, ...], in_file: tuple[KeyConfig, ...]
    ) -> Self:
        """This gateway's configuration with the settings that change while it runs.

        Args:
            in_args: the keys of its `args`, where `live` names none.
            in_file: those of its `keys_file`.

        Raises:
            ConfigError: a key appears twice, or none would be left where there are some.
        """
        keys = (in_args if live.keys is None else live.keys) + in_file
        if (wrong := twice(keys)) is not None:
            raise ConfigError(f"gateway: {wrong}", param="keys")
        if self.keys and not keys:
            raise ConfigError(
                "gateway: keys: no key would be left, and everyone would be let in; to run without "
                "keys, deploy `args` without them",
                param="keys",
            )
        said = {name: getattr(live, name) for name in ("routing", "limits", "admission")}
        given = {name: value for name, value in said.items() if value is not None}
        config = self.model_copy(update=given | {"keys": keys})
        config._require_keys()
        return config

    def _require_keys(self) -> None:
        if not self.is_loopback and not self.keys:
            raise ConfigError(
                f"host {self.host!r} can be reached from other machines and no API key is "
                "configured: run `comptoir keys new NAME` and put the entry it prints under `keys`, "
                "or listen on 127.0.0.1",
                param="keys",
            )


class ModelConfig(FrozenConfig):
    """One hosted model: its names, its catalogue entry, how it runs."""

    id: Annotated[str, Field(description="the name clients send as `model`")]
    catalogue: str | None = None
    source: str | None = None
    revision: str | None = Field(default=None, min_length=1)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    gpu: str | None = None
    layout: int | None = Field(default=None, ge=0)
    # Of the nodes, or pods, that this model may run on; decides what must stay together.
    gpus_per_node: int = Field(default=8, ge=1, le=64)
    engine_args: EngineArgs = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    replicas: AutoscalingConfig = AutoscalingConfig()
    prefill: PrefillConfig | None = None
    kv_cache_gib: float | None = Field(default=None, gt=0)
    aliases: tuple[str, ...] = ()
    adapters: dict[str, str] = Field(default_factory=dict)
    drain_timeout_s: float = Field(default=60.0, ge=0)
    watchdog_s: float = Field(default=120.0, ge=0)
    site: SiteConfig = SiteConfig()
    catalogue_files: tuple[AbsolutePath, ...] = ()

    @field_validator("id", "aliases", "adapters")
    @classmethod
    def _is_model_id(cls, value: Any) -> Any:
        for name in (value,) if isinstance(value, str) else value:
            if not _MODEL_ID.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a model name: letters, digits and . _ / : - only, at most 96"
                )
        return value

    @model_validator(mode="after")
    def _prefill_fits(self) -> Self:
        if self.prefill is not None and self.adapters:
            raise ValueError(
                "prefill: not with `adapters`: their prompts would be computed without them; host the "
                "adapters in an application of their own"
            )
        return self

    @property
    def entry(self) -> str:
        """The catalogue entry this model is; its own name unless said otherwise."""
        return self.catalogue or self.id

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Self:
        """Build from a Serve application's `args`.

        Raises:
            ConfigError: a key is unknown or its value does not fit; `param` is the dotted key.
        """
        return validated(cls, args, "model")
