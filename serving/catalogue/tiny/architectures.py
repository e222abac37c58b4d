"""The tiny models: the real architecture of each, and the arguments that its engine needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from serving.catalogue.tiny import layout as layouts
from serving.catalogue.tiny.layout import Layout
from serving.catalogue.tiny.tokenizer import read_data
from serving.errors import CatalogueError

ID_PREFIX = "tiny-"
# Compiling a model of two layers takes longer than any test that uses it.
_BASE_ARGS: Mapping[str, Any] = {"dtype": "bfloat16", "enforce_eager": True, "max_model_len": 8192}
# The CPU's own rotary operator mishandles the three-dimensional keys of MLA; this one is PyTorch's.
_LATENT_ARGS: Mapping[str, Any] = {"compilation_config": {"custom_ops": ["-rotary_embedding"]}}
_POOLING_ARGS: Mapping[str, Any] = {"runner": "pooling"}


class TinyFamily(BaseModel):
    """A real architecture at toy size, with random weights.

    `engine_args` are vLLM's, for correct results on a CPU. `parity_exact` says that vLLM's float32
    output equals transformers' on the same checkpoint; otherwise `parity_note` says why not.
    `tool_parser` reads the calls the chat template shows; there is no reasoning parser, because the
    template opens no think block and the parsers would then take the whole answer for reasoning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    architecture: str
    task: Literal["chat", "embed", "rerank"] = "chat"
    stands_for: str
    engine_args: dict[str, Any]
    parity_exact: bool = True
    parity_note: str | None = None
    tool_parser: str | None = "hermes"
    reasoning_parser: str | None = None
    layout: Layout

    @property
    def id(self) -> str:
        """The name users see."""
        return ID_PREFIX + self.name

    @property
    def config(self) -> dict[str, Any]:
        """A fresh copy of the model's `config.json`."""
        config: dict[str, Any] = json.loads(read_data(f"configs/{self.name}.json"))
        return config


def _chat(name: str, stands_for: str, layout: Layout, **changes: Any) -> TinyFamily:
    extra = _LATENT_ARGS if layout.latent else {}
    return _family(name, stands_for, layout, {**_BASE_ARGS, **extra}, **changes)


def _pooling(
    name: str, stands_for: str, layout: Layout, task: Literal["embed", "rerank"]
) -> TinyFamily:
    args = {**_BASE_ARGS, **_POOLING_ARGS}
    return _family(name, stands_for, layout, args, task=task, tool_parser=None)


def _family(
    name: str, stands_for: str, layout: Layout, args: Mapping[str, Any], **changes: Any
) -> TinyFamily:
    architecture = json.loads(read_data(f"configs/{name}.json"))["architectures"][0]
    return TinyFamily(
        name=name,
        architecture=architecture,
        stands_for=stands_for,
        layout=layout,
        engine_args=dict(args),
        **changes,
    )


_FAMILIES = (
    _chat("qwen3", "Alibaba Qwen3, dense (0.6B to 32B)", layouts.QWEN3),
    _chat("qwen3-moe", "Alibaba Qwen3, experts (30B-A3B, 235B-A22B)", layouts.QWEN3_MOE),
    _chat("qwen2", "Alibaba Qwen2.5, dense", layouts.QWEN2),
    _chat("yi", "01.AI Yi (Llama architecture)", layouts.LLAMA),
    _chat("deepseek-v3", "DeepSeek V3, V3.1 and R1", layouts.DEEPSEEK_V3),
    _chat("kimi-k2", "Moonshot Kimi K2 (DeepSeek V3 architecture)", layouts.DEEPSEEK_V3),
    _chat("glm4-moe", "Zhipu GLM-4.5 and GLM-4.6", layouts.GLM4_MOE),
    _chat("glm4-moe-lite", "Zhipu GLM-4.7-Flash", layouts.DEEPSEEK_V3),
    _chat("hunyuan-dense", "Tencent Hunyuan, dense (0.5B to 7B)", layouts.HUNYUAN),
    _chat("hy-v3", "Tencent Hy3", layouts.HY_V3),
    _chat("ernie4.5", "Baidu ERNIE 4.5, dense (0.3B)", layouts.ERNIE),
    _chat("ernie4.5-moe", "Baidu ERNIE 4.5, experts (21B-A3B, 300B-A47B)", layouts.ERNIE_MOE),
    _chat("pangu-embedded", "Huawei openPangu-Embedded (1B, 7B)", layouts.PANGU),
    _chat("seed-oss", "ByteDance Seed-OSS (36B)", layouts.QWEN2),
    _pooling("qwen3-embedding", "Alibaba Qwen3-Embedding", layouts.QWEN3_EMBEDDING, "embed"),
    _pooling("qwen3-reranker", "Alibaba Qwen3-Reranker", layouts.QWEN3_RERANKER, "rerank"),
)


def families() -> tuple[TinyFamily, ...]:
    """All tiny models, chat models first."""
    return _FAMILIES


def family(name: str) -> TinyFamily:
    """The family called `name`, with or without `tiny-` in front.

    Raises:
        CatalogueError: there is none; the message lists those that exist.
    """
    for candidate in _FAMILIES:
        if name in (candidate.name, candidate.id):
            return candidate
    known = ", ".join(candidate.name for candidate in _FAMILIES)
    raise CatalogueError(f"there is no tiny model {name!r}; available: {known}", param="name")
