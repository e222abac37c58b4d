"""One model that can be hosted: its identity, its size, and what vLLM needs to serve it.

Numbers of parameters are in 10^9 ("b"), memory in GiB, contexts in tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    field_serializer,
    field_validator,
    model_validator,
)

from serving.catalogue.frozen import Frozen, FrozenMapping, freeze, thaw
from serving.catalogue.layouts import (
    BYTES_PER_PARAMETER,
    Checkpoint,
    Commit,
    GpuLayout,
    Quantisation,
    Repo,
)
from serving.errors import CatalogueError

__all__ = ["Checkpoint", "GpuLayout", "ModelSpec", "Quantisation", "Task"]

Task = Literal["chat", "embed", "rerank", "guard"]
Modality = Literal["text", "image", "video", "audio"]

# Weights are given this much room at least: activations, CUDA graphs and some KV cache come on top.
WEIGHT_HEADROOM = 1.2

# Set elsewhere (layout, site, deployment) or never: an entry that names one is refused.
_RESERVED = """
model served_model_name trust_remote_code revision code_revision tokenizer_revision hf_token
tensor_parallel_size pipeline_parallel_size reasoning_parser allowed_local_media_path
"""
RESERVED_ENGINE_ARGS = frozenset(_RESERVED.split())

_ID = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")


FrozenDict = Annotated[
    Mapping[str, Any], AfterValidator(freeze), PlainSerializer(thaw, return_type=dict)
]


class ModelSpec(Frozen):
    """A catalogue entry. It names its licence; the gate decides whether a site may run it."""

    id: str
    name: str = Field(min_length=1)
    family: str = Field(min_length=1)
    vendor: str = Field(min_length=1)
    vendor_jurisdiction: str = Field(pattern=r"^[A-Z]{2}$")
    hf_repo: Repo
    hf_aliases: tuple[Repo, ...] = ()
    revision: Commit = None
    checkpoints: Mapping[Quantisation, Checkpoint] = Field(
        default_factory=dict, validate_default=True
    )
    architecture: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    parameters_total_b: float = Field(gt=0, le=100_000)
    parameters_active_b: float = Field(gt=0, le=100_000)
    bytes_per_parameter: float | None = Field(default=None, gt=0.1, le=4)
    context_tokens: int = Field(ge=512, le=100_000_000)
    native_dtype: Quantisation
    licence: str
    reasoning_parser: str | None = None
    tool_parser: str | None = None
    chat_template: str | None = None
    needs_remote_code: bool = False
    remote_code_note: str | None = None
    tensor_parallel_max: int | None = Field(default=None, ge=1)
    layouts: tuple[GpuLayout, ...] = ()
    engine_args: FrozenDict = Field(default_factory=dict, validate_default=True)
    task: Task = "chat"
    modalities: tuple[Modality, ...] = ("text",)
    verified: bool
    sources: tuple[str, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()

    @field_validator("id")
    @classmethod
    def _is_slug(cls, value: str) -> str:
        if not _ID.fullmatch(value):
            raise ValueError(
                f"{value!r} is not a slug: lower-case letters and digits, joined by - or ."
            )
        return value

    @field_validator("checkpoints")
    @classmethod
    def _freeze_checkpoints(cls, value: Mapping[Any, Any]) -> Mapping[Any, Any]:
        return FrozenMapping(value)

    @field_serializer("checkpoints")
    def _dump_checkpoints(self, value: Mapping[str, Checkpoint]) -> dict[str, Any]:
        return {name: one.model_dump() for name, one in value.items()}

    @field_validator("engine_args")
    @classmethod
    def _nothing_reserved(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for key in value:
            if key in RESERVED_ENGINE_ARGS:
                raise ValueError(f"{key!r} cannot be set in an entry's engine_args")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.parameters_active_b > self.parameters_total_b:
            raise ValueError("parameters_active_b is larger than parameters_total_b")
        if not self.verified and not self.notes:
            raise ValueError("notes: an entry that is not verified must say what was not seen")
        if self.task in ("embed", "rerank") and self.engine_args.get("runner") != "pooling":
            raise ValueError(f"engine_args: task {self.task!r} needs `runner: pooling`")
        for index, layout in enumerate(self.layouts):
            self._check_layout(index, layout)
        return self

    def _check_layout(self, index: int, layout: GpuLayout) -> None:
        where = f"layouts[{index}]"
        if not self.can_be_served_at(layout.quantisation):
            raise ValueError(
                f"{where}: no checkpoint for {layout.quantisation!r}; name one under `checkpoints`"
            )
        if self.tensor_parallel_max and layout.tensor_parallel > self.tensor_parallel_max:
            raise ValueError(f"{where}: tensor_parallel exceeds {self.tensor_parallel_max}")
        needed_gib = self.weight_gib(layout.quantisation) * WEIGHT_HEADROOM
        if not layout.tested and needed_gib > layout.memory_gib:
            raise ValueError(
                f"{where}: weights with headroom need {needed_gib:.0f} GiB and {layout.gpus} x "
                f"{layout.gpu} have {layout.memory_gib:.0f} GiB"
            )

    # ---- what it weighs -------------------------------------------------------------------------

    @property
    def weight_bytes(self) -> int:
        """Size of the weights as published."""
        return self._weight_bytes(self.native_dtype)

    def _weight_bytes(self, quantisation: str) -> int:
        per_parameter = BYTES_PER_PARAMETER[quantisation]
        if quantisation == self.native_dtype and self.bytes_per_parameter is not None:
            per_parameter = self.bytes_per_parameter
        return round(self.parameters_total_b * 1e9 * per_parameter)

    def weight_gib(self, quantisation: Quantisation | None = None) -> float:
        """Size of the weights in GiB, as published or at another quantisation."""
        return self._weight_bytes(quantisation or self.native_dtype) / 2**30

    # ---- where its weights are ------------------------------------------------------------------

    @property
    def is_mixture(self) -> bool:
        """Whether only some parameters work on each token (mixture of experts)."""
        return self.parameters_active_b < self.parameters_total_b

    def can_be_served_at(self, quantisation: Quantisation) -> bool:
        """Whether weights exist: as published, as a named checkpoint, or (bf16 to fp8) quantised by vLLM."""
        return (
            quantisation == self.native_dtype
            or quantisation in self.checkpoints
            or (self.native_dtype == "bf16" and quantisation == "fp8")
        )

    def checkpoint(self, quantisation: Quantisation | None = None) -> Checkpoint:
        """The weights to load for a quantisation.

        Raises:
            CatalogueError: there are no such weights.
        """
        wanted = quantisation or self.native_dtype
        if wanted in self.checkpoints:
            return self.checkpoints[wanted]
        if not self.can_be_served_at(wanted):
            raise CatalogueError(
                f"{self.id}: no weights for quantisation {wanted!r}; available: "
                f"{', '.join([self.native_dtype, *self.checkpoints])}",
                param="quantisation",
            )
        return Checkpoint(repo=self.hf_repo, revision=self.revision)

    def engine_kwargs(self, layout: GpuLayout | None = None) -> dict[str, Any]:
        """Arguments for vLLM's `AsyncEngineArgs`, a fresh copy: the entry's and the layout's."""
        kwargs: dict[str, Any] = thaw(self.engine_args)
        if layout is None:
            return kwargs
        kwargs["tensor_parallel_size"] = layout.tensor_parallel
        kwargs["pipeline_parallel_size"] = layout.pipeline_parallel
        wanted = layout.quantisation
        if wanted != self.native_dtype and wanted not in self.checkpoints:
            kwargs["quantization"] = wanted
        return kwargs

    # ---- whether it can start -------------------------------------------------------------------

    @property
    def start_refusal(self) -> str | None:
        """Why Comptoir does not start the published weights, or None when it does."""
        if not self.needs_remote_code:
            return None
        reason = self.remote_code_note or "its repository ships Python that has to run to load it"
        return (
            f"{self.id}: {reason}. Comptoir never sets trust_remote_code. Convert configuration "
            "and tokenizer to standard files, check them, and set `source` to their folder"
        )

    def check_startable(self, *, converted: bool = False) -> None:
        """Refuse an entry whose published repository needs its own Python; `converted` lifts it.

        Raises:
            CatalogueError: the weights cannot be started as published; `param` is `source`.
        """
        if self.start_refusal is not None and not converted:
            raise CatalogueError(self.start_refusal, param="source")
