"""Weights and where they go: quantisations, repositories at a commit, and layouts over GPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from serving.catalogue.frozen import Frozen
from serving.catalogue.gpus import GPUS, GpuKind

Quantisation = Literal["bf16", "fp8", "mxfp8", "int8", "int4", "mxfp4", "nvfp4", "fp8-fp4"]

# Scales and zero points included; `fp8-fp4` has experts in 4 bits and the rest in 8.
BYTES_PER_PARAMETER: Mapping[str, float] = MappingProxyType(
    {
        "bf16": 2.0,
        "fp8": 1.0,
        "mxfp8": 1.03,
        "int8": 1.0,
        "int4": 0.57,
        "mxfp4": 0.53,
        "nvfp4": 0.56,
        "fp8-fp4": 0.56,
    }
)

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _is_repo(value: str) -> str:
    if not _REPO.fullmatch(value):
        raise ValueError(f"{value!r} is not a repository: write OWNER/NAME")
    return value


def _is_commit(value: str | None) -> str | None:
    if value is not None and not _COMMIT.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a commit: 40 hexadecimal digits, or leave it out (a branch moves)"
        )
    return value


Repo = Annotated[str, AfterValidator(_is_repo)]
Commit = Annotated[str | None, AfterValidator(_is_commit)]


class Checkpoint(Frozen):
    """A repository of weights, at a commit where one is known. In YAML also just `OWNER/NAME`."""

    repo: Repo
    revision: Commit = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"repo": value} if isinstance(value, str) else value


class GpuLayout(Frozen):
    """One way to spread a replica over GPUs. In YAML also `h200 tp8 pp2 fp8 recipe`.

    `source` is `recipe` (vLLM's recipe collection ran it), `publisher` (the model's own README
    gives it) or `computed` (arithmetic only).
    """

    gpu: GpuKind
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    pipeline_parallel: int = Field(default=1, ge=1, le=64)
    quantisation: Quantisation
    source: Literal["recipe", "publisher", "computed"] = "computed"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        fields: dict[str, Any] = {}
        for word in value.split():
            if match := re.fullmatch(r"(tp|pp)(\d+)", word):
                key = "tensor_parallel" if match[1] == "tp" else "pipeline_parallel"
                fields[key] = int(match[2])
            elif word in GPUS:
                fields["gpu"] = word
            elif word in BYTES_PER_PARAMETER:
                fields["quantisation"] = word
            elif word in ("recipe", "publisher", "computed"):
                fields["source"] = word
            else:
                raise ValueError(
                    f"{value!r}: {word!r} is neither a GPU, tpN, ppN, a quantisation nor a source"
                )
        return fields

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def memory_gib(self) -> float:
        """Memory of all GPUs of one replica."""
        return self.gpus * GPUS[self.gpu].memory_gib

    @property
    def tested(self) -> bool:
        """Whether someone has run it, rather than computed it."""
        return self.source != "computed"
