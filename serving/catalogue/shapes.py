"""The shape of a model, as far as it decides how the model can be spread: heads, layers, experts.

From `config.json` where the weights are a folder on this machine; else from the table below, which holds
the models that are large enough for it to matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one model. `latent`: keys and values are one compressed vector per token (MLA)."""

    layers: int
    heads: int
    kv_heads: int
    experts: int = 0
    latent: bool = False
    # Width of one expert's hidden layer, and of the blocks that share a scale in the FP8 checkpoint.
    expert_width: int = 0
    fp8_block: int = 0
    # Parameters outside the experts, in 10^9: every rank of a group has them all.
    shared_b: float = 0

    @property
    def kv_copies_from(self) -> int:
        """The number of GPUs above which tensor parallelism stores keys and values more than once."""
        return 1 if self.latent else self.kv_heads


_DEEPSEEK_V3 = Shape(61, 128, 128, 256, latent=True, expert_width=2048, fp8_block=128, shared_b=17)
_KIMI_K2 = Shape(61, 64, 64, 384, latent=True, expert_width=2048, fp8_block=128, shared_b=12)
_GLM_45 = Shape(92, 96, 8, 160, expert_width=1536, shared_b=19)
_QWEN3_30B = Shape(48, 32, 4, 128, expert_width=768, fp8_block=128, shared_b=1.5)
_QWEN3_235B = Shape(94, 64, 4, 128, expert_width=1536, fp8_block=128, shared_b=8)
_MINIMAX_M2 = Shape(62, 48, 8, 256, expert_width=1536, fp8_block=128, shared_b=5)

# By catalogue id; a name that ends in `*` stands for all that begin so.
SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "deepseek-v3": _DEEPSEEK_V3,
        "deepseek-v3.1-terminus": _DEEPSEEK_V3,
        "deepseek-v3.2": _DEEPSEEK_V3,
        "deepseek-r1": _DEEPSEEK_V3,
        "deepseek-r1-0528": _DEEPSEEK_V3,
        "kimi-k2*": _KIMI_K2,
        "glm-4.5-air": Shape(46, 96, 8, 128, expert_width=1408, shared_b=6),
        "glm-4.5": _GLM_45,
        "glm-4.6": _GLM_45,
        "glm-4.7": _GLM_45,
        "minimax-m2*": _MINIMAX_M2,
        "qwen3-8b": Shape(36, 32, 8),
        "qwen3-14b": Shape(40, 40, 8),
        "qwen3-32b": Shape(64, 64, 8),
        "qwen3-30b-a3b*": _QWEN3_30B,
        "qwen3-coder-30b-a3b-instruct": _QWEN3_30B,
        "qwen3-235b-a22b*": _QWEN3_235B,
        "qwen3-coder-480b-a35b-instruct": Shape(
            62, 96, 8, 160, expert_width=2560, fp8_block=128, shared_b=12
        ),
    }
)


def shape_of(model_id: str) -> Shape | None:
    """The shape of a catalogue entry, or None where it is not recorded."""
    for name, shape in SHAPES.items():
        if model_id == name or (name.endswith("*") and model_id.startswith(name[:-1])):
            return shape
    return None


def read_shape(folder: Path) -> Shape | None:
    """The shape of the weights in a folder, or None where there is no such folder or no such file here."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return from_config(config) if isinstance(config, dict) else None


def from_config(config: Mapping[str, Any]) -> Shape | None:
    """Read `config.json`; a model with images keeps the part about text in `text_config`."""
    text = config.get("text_config")
    facts: Mapping[str, Any] = text if isinstance(text, Mapping) else config
    layers, heads = facts.get("num_hidden_layers"), facts.get("num_attention_heads")
    if not isinstance(layers, int) or not isinstance(heads, int):
        return None
    names = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
    quantised = config.get("quantization_config") or facts.get("quantization_config") or {}
    blocks = quantised.get("weight_block_size") or [0]
    return Shape(
        layers=layers,
        heads=heads,
        kv_heads=facts.get("num_key_value_heads") or heads,
        experts=next((facts[name] for name in names if isinstance(facts.get(name), int)), 0),
        latent=facts.get("kv_lora_rank") is not None,
        expert_width=facts.get("moe_intermediate_size") or 0,
        fp8_block=int(blocks[0]),
    )
