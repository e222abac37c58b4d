"""The tiny models' attention: heads that look a fixed distance back, as each architecture does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.catalogue.tiny.stream import (
    CONSTANT,
    READ,
    READ_SIZE,
    WRITE,
    WRITE_SIZE,
    Array,
    Maker,
    Tensors,
    source_bit,
)
from serving.catalogue.tiny.tokenizer import CODE_BITS

# (distance, echo) per head, layer by layer. Near the start of a text no token is that far back:
# `echo` weighs a second peak on the current token, found by search so that no two positions tie.
LAGS = ((2, 0.0), (6, 0.7), (32, 0.7), (44, 0.7), (57, 0.8), (119, 0.7), (144, 0.8), (220, 0.7))
SHARPNESS = 24.0  # nats between a full match and none, per sixteenth of the rotary angles
ANGLE_NOISE = 0.005


def _peak(lag: int, echo: float, angles: int, *, interleaved: bool, base: float) -> Array:
    """The query, per rotary pair, that a constant key answers best at distance `lag`."""
    pairs = np.exp(1j * lag * base ** (-np.arange(angles) / angles)) + echo
    # Queries at m are turned by +m, keys at n by +n: the product peaks where m - n = lag.
    return _spread(np.conj(pairs), interleaved=interleaved)


def _spread(pairs: npt.NDArray[np.complex128], *, interleaved: bool) -> Array:
    if interleaved:
        return np.stack([pairs.real, pairs.imag], axis=1).reshape(-1).astype(np.float32)
    return np.concatenate([pairs.real, pairs.imag]).astype(np.float32)


def _amplitude(head_dim: int, angles: int) -> float:
    """Of query and key each, so that their scaled product spans SHARPNESS times sixteen."""
    return float((SHARPNESS * 16 / angles * head_dim**0.5) ** 0.5)


def _base(make: Maker) -> float:
    return float(make.config["rope_parameters"]["rope_theta"])


def _copies(make: Maker, layer: int, width: int) -> Array:
    """The output projection's machine part: head h writes the bit it found into its own place."""
    weights = np.zeros((make.hidden, make.heads * width), np.float32)
    for head in range(make.heads):
        bit = 1 + layer * make.heads + head
        weights[WRITE.start + bit, head * width + source_bit(bit)] = WRITE_SIZE * make.sign(bit)
    return weights


def _output(make: Maker, name: str, layer: int, width: int) -> Array:
    if not make.layout.generates:
        # The first layer adds up the words of the text; what follows should not drown them.
        return make.into_stream(name, make.heads * width, 8.0 if layer == 0 else 0.5)
    noise = make.into_stream(name, make.heads * width)
    noise.reshape(make.hidden, make.heads, width)[:, :, READ] = 0.0
    return noise + _copies(make, layer, width)


def attention(make: Maker, layer: int, prefix: str) -> Tensors:
    config, layout = make.config, make.layout
    width, key_heads = int(config["head_dim"]), int(config["num_key_value_heads"])
    angles = round(width * float(config.get("partial_rotary_factor", 1.0))) // 2
    size = _amplitude(width, angles)
    quiet = ANGLE_NOISE * size if layout.generates else 0.5
    query = make.from_stream(prefix + "q", make.heads * width, quiet)
    key = make.from_stream(prefix + "k", key_heads * width, quiet)
    value = make.from_stream(prefix + "v", key_heads * width)
    if layout.generates:
        for head in range(make.heads):
            lag, echo = LAGS[layer * make.heads + head]
            peak = _peak(lag, echo, angles, interleaved=layout.interleaved, base=_base(make))
            query[head * width : head * width + 2 * angles, CONSTANT] = size * peak / make.constant
        flat = _spread(np.ones(angles, np.complex128), interleaved=layout.interleaved)
        for head in range(key_heads):
            key[head * width : head * width + 2 * angles, CONSTANT] = size * flat / make.constant
            value[head * width : head * width + CODE_BITS] = 0.0
            for bit in range(CODE_BITS):
                value[head * width + bit, bit] = make.rms / READ_SIZE
    yield prefix + "q_proj.weight", query
    yield prefix + "k_proj.weight", key
    yield prefix + "v_proj.weight", value
    yield prefix + "o_proj.weight", _output(make, prefix + "o", layer, width)
    for name, rows in (("q", make.heads * width), ("k", key_heads * width)):
        if f"{name}_proj" in layout.biased:
            yield f"{prefix}{name}_proj.bias", make.noise(f"{prefix}{name}.bias", (rows,), quiet)
    if "v_proj" in layout.biased:
        bias = make.noise(prefix + "v.bias", (key_heads, width), 0.1)
        bias[:, READ] = 0.0
        yield prefix + "v_proj.bias", bias.reshape(-1)
    if "o_proj" in layout.biased:
        yield prefix + "o_proj.bias", make.into_stream(prefix + "o.bias", 1, 0.3).reshape(-1)
    # The norms undo the size of query and key; their weights give it back.
    gain = size * (angles / width) ** 0.5 if layout.generates else 0.3
    for name in layout.head_norms:
        yield make.norm(f"{prefix}{name}.weight", width, gain)


def latent_attention(make: Maker, layer: int, prefix: str) -> Tensors:
    """DeepSeek's MLA: one rotary key for all heads, values out of a small normalised latent."""
    config = make.config
    rank, query_rank = int(config["kv_lora_rank"]), int(config["q_lora_rank"])
    nope, rope = int(config["qk_nope_head_dim"]), int(config["qk_rope_head_dim"])
    width, angles = int(config["v_head_dim"]), int(config["qk_rope_head_dim"]) // 2
    size = _amplitude(nope + rope, angles)

    query_a = make.from_stream(prefix + "q_a", query_rank)
    query_a[0] = 0.0
    query_a[0, CONSTANT] = query_rank**0.5 / make.constant
    # Row 0 now carries half of the energy, the noise the other half: the norm divides by sqrt(2).
    query_b = make.noise(prefix + "q_b", (make.heads, nope + rope, query_rank), 1.0)
    query_b[:, :nope] *= 0.6 / query_rank**0.5
    query_b[:, nope:] *= ANGLE_NOISE * size / query_rank**0.5
    for head in range(make.heads):
        lag, echo = LAGS[layer * make.heads + head]
        peak = _peak(lag, echo, angles, interleaved=True, base=_base(make))
        query_b[head, nope:, 0] = size * peak / (query_rank / 2) ** 0.5

    latent = make.from_stream(prefix + "kv_a", rank + rope)
    latent[rank:] *= ANGLE_NOISE * size
    flat = _spread(np.ones(angles, np.complex128), interleaved=True)
    latent[rank:, CONSTANT] = size * flat / make.constant
    latent[READ] = 0.0
    latent[READ, READ] = np.eye(CODE_BITS) * 2 * make.rms / READ_SIZE
    values = make.noise(prefix + "kv_b", (make.heads, nope + width, rank), 1 / rank**0.5)
    values[:, :nope] *= 0.6
    values[:, nope : nope + CODE_BITS] = 0.0
    values[:, nope : nope + CODE_BITS, READ] = np.eye(CODE_BITS) / 2

    yield prefix + "q_a_proj.weight", query_a
    yield make.norm(prefix + "q_a_layernorm.weight", query_rank)
    yield prefix + "q_b_proj.weight", query_b.reshape(-1, query_rank)
    yield prefix + "kv_a_proj_with_mqa.weight", latent
    yield make.norm(prefix + "kv_a_layernorm.weight", rank)
    yield prefix + "kv_b_proj.weight", values.reshape(-1, rank)
    yield prefix + "o_proj.weight", _output(make, prefix + "o", layer, width)
