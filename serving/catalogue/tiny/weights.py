"""Name and compute every tensor of a tiny model; `stream` explains the machine they form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.catalogue.tiny.attention import attention, latent_attention
from serving.catalogue.tiny.layout import ExpertNames, Layout
from serving.catalogue.tiny.stream import (
    CONSTANT,
    CONSTANT_SIZE,
    READ,
    READ_SIZE,
    WRITE,
    WRITE_SIZE,
    Array,
    Maker,
    Tensors,
    source_bit,
)
from serving.catalogue.tiny.tokenizer import CODE_BITS, PAD_ID, TURN_END_ID, CodeWord

NATS_PER_BIT = 1.5
NEVER_BITS = -12.0
END_BITS = 2


def tensors(
    seed: str, config: Mapping[str, Any], layout: Layout, words: Mapping[int, CodeWord]
) -> Tensors:
    """Yield each tensor's name and values as the checkpoint names them, in a fixed order."""
    make = Maker(seed, config, layout, words)
    yield "model.embed_tokens.weight", _embedding(make)
    for layer in range(int(config["num_hidden_layers"])):
        prefix = f"model.layers.{layer}."
        yield make.norm(prefix + "input_layernorm.weight", make.hidden)
        attend = latent_attention if layout.latent else attention
        yield from attend(make, layer, prefix + "self_attn.")
        yield make.norm(prefix + "post_attention_layernorm.weight", make.hidden)
        first_expert = int(config.get("first_k_dense_replace", layout.first_expert))
        if layout.experts and layer >= first_expert:
            yield from _experts(make, layout.experts, prefix + "mlp.")
        else:
            yield from _mlp(make, prefix + "mlp.", int(config["intermediate_size"]))
    yield make.norm("model.norm.weight", make.hidden)
    if layout.scores:
        yield "score.weight", make.from_stream("score.weight", 1, 1.5)
    elif not config["tie_word_embeddings"]:
        yield "lm_head.weight", _head(make)


def _embedding(make: Maker) -> Array:
    rows = make.noise("embed_tokens", (int(make.config["vocab_size"]), make.hidden), 1.0)
    if not make.layout.generates:
        rows[PAD_ID] *= 0.3  # the last token's state is what is read: it should hold the others
        return rows
    bits = np.sign(make.noise("bits", (len(rows), CODE_BITS), 1.0))
    for token, word in make.words.items():
        bits[token] = word.bits
    rows[:, READ] = READ_SIZE * bits
    rows[:, WRITE] = 0.0
    rows[:, WRITE.start] = WRITE_SIZE * make.sign(0) * bits[:, source_bit(0)]
    rows[:, CONSTANT] = CONSTANT_SIZE
    return rows


def _head(make: Maker) -> Array:
    rows = make.noise("lm_head", (int(make.config["vocab_size"]), make.hidden), 0.01)
    rows *= make.rms
    bit = NATS_PER_BIT * make.rms / WRITE_SIZE
    constant = NATS_PER_BIT / make.constant
    rows[:, CONSTANT] = NEVER_BITS * constant
    for token, word in make.words.items():
        counted = CODE_BITS - word.free
        rows[token, WRITE] = 0.0
        rows[token, WRITE][:counted] = np.asarray(word.bits[:counted]) * bit
        # Fewer bits to match give a smaller sum: the constant makes up for it.
        rows[token, CONSTANT] = word.free * constant
    # The end shares its code word with an ordinary token, and takes its place after one token in
    # 2**END_BITS: a model that stopped as often as it says any other word would rarely say sixty.
    rows[TURN_END_ID, READ][:END_BITS] = NATS_PER_BIT * make.rms / READ_SIZE
    rows[TURN_END_ID, CONSTANT] -= (END_BITS - 1) * constant
    return rows


def _mlp(make: Maker, prefix: str, width: int) -> Tensors:
    yield prefix + "gate_proj.weight", make.from_stream(prefix + "gate", width)
    yield prefix + "up_proj.weight", make.from_stream(prefix + "up", width)
    # An embedding should say which words there are, more than what the noise makes of them.
    size = 1.0 if make.layout.generates else 0.3
    yield prefix + "down_proj.weight", make.into_stream(prefix + "down", width, size)


def _experts(make: Maker, experts: ExpertNames, prefix: str) -> Tensors:
    count = int(make.config[experts.count_key])
    width = int(make.config["moe_intermediate_size"])
    yield prefix + experts.router, make.from_stream(prefix + "router", count, 1.5)
    if experts.router_bias:
        shape = (1, count) if experts.router_bias_is_row else (count,)
        bias = make.noise(prefix + "router.bias", shape, experts.router_bias_size)
        yield prefix + experts.router_bias, bias
    for expert in range(count):
        yield from _mlp(make, f"{prefix}experts.{expert}.", width)
    if experts.shared:
        shared = width * int(make.config[experts.shared_count_key])
        yield from _mlp(make, prefix + experts.shared + ".", shared)
