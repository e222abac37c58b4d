"""The tiny models' residual stream: its layout, and the noise around it.

Purely random weights have near ties between tokens, and then the rounding of another batch shape
changes the text. So the generating models carry a small machine whose decisions have a wide margin:

* Each token has a code word of nine bits, written as +/- in the residual stream by the embedding.
* Each attention head looks at one fixed distance back (a peak in the rotary angles) and copies one
  bit of the token it finds there; the ninth bit comes from the last token itself.
* The nine copied bits are the code word of the next token, and the output head reads them.

The text thus depends on tokens up to 220 back, and wrong rotary angles or a wrong cache change it
at once. Every other weight (experts, routers, norms, MLPs) is noise that moves each log-probability
without moving the choice. Models that embed or rank are noise only, and read all tokens alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.catalogue.tiny.layout import Layout
from serving.catalogue.tiny.tokenizer import CODE_BITS, CodeWord

Array = npt.NDArray[np.float32]
Tensors = Iterator[tuple[str, Array]]

READ = slice(0, CODE_BITS)  # the token's own bits,
WRITE = slice(CODE_BITS, 2 * CODE_BITS)  # the next token's bits,
CONSTANT = 2 * CODE_BITS  # a constant, and noise in the rest
READ_SIZE, WRITE_SIZE = 3.0, 2.0
# So large that the norms divide every token by the same number; otherwise heads would look at keys
# for their length. The normalised constant, sqrt(128), lies well inside one bfloat16 step.
CONSTANT_SIZE = 512.0
STREAM_SIZE = 1.35  # root mean square of the stream without its constant, as measured


@dataclass(frozen=True, slots=True)
class Maker:
    """The inputs of every tensor of one model: its configuration, its names and the code words."""

    seed: str
    config: Mapping[str, Any]
    layout: Layout
    words: Mapping[int, CodeWord]

    @property
    def hidden(self) -> int:
        return int(self.config["hidden_size"])

    @property
    def heads(self) -> int:
        return int(self.config["num_attention_heads"])

    @property
    def constant(self) -> float:
        """The constant as a projection sees it, behind the norm."""
        return float(self.hidden**0.5)

    @property
    def rms(self) -> float:
        """What the norms divide the stream by."""
        return CONSTANT_SIZE / self.constant

    def noise(self, name: str, shape: tuple[int, ...], size: float) -> Array:
        """Normal noise that depends on the model and the tensor's name only, not on the order."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        seed = int.from_bytes(digest[:8], "little")
        sample = np.random.Generator(np.random.Philox(seed)).standard_normal(shape)
        return (sample * size).astype(np.float32)

    def norm(self, name: str, width: int, size: float = 1.0) -> tuple[str, Array]:
        return name, size * (1 + self.noise(name, (width,), 0.02))

    def into_stream(self, name: str, width: int, size: float = 1.0) -> Array:
        """A projection back into the stream: quiet where the bits stand, louder elsewhere."""
        rows = np.full((self.hidden, 1), 0.5, np.float32)
        if self.layout.generates:
            rows[READ], rows[WRITE], rows[CONSTANT] = 0.02, 0.06, 0.02
        return rows * self.noise(name, (self.hidden, width), size / width**0.5)

    def from_stream(self, name: str, width: int, size: float = 1.0) -> Array:
        rows = self.noise(name, (width, self.hidden), size / self.hidden**0.5)
        if self.layout.generates:
            rows *= self.rms / STREAM_SIZE
            rows[:, CONSTANT] = 0.0
        return rows

    def sign(self, bit: int) -> float:
        """Whether `bit` is copied or turned around on its way to the next token."""
        return float(np.sign(self.noise(f"sign-{bit}", (1,), 1.0)[0]))


def source_bit(bit: int) -> int:
    """Which bit of the earlier token becomes `bit` of the next: one cycle through all of them."""
    return (bit + 4) % CODE_BITS
