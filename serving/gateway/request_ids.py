"""Names for requests that nobody can guess; the kernel is asked for many at once, which costs a tenth."""

from __future__ import annotations

import os
from collections.abc import Callable

ID_BYTES = 16
BATCH = 256


class RequestIds:
    """Gives out ids of 128 random bits, in hexadecimal digits."""

    def __init__(self, draw: Callable[[int], bytes] = os.urandom) -> None:
        self._draw = draw
        self._ready: list[str] = []

    def next(self) -> str:
        """One that was never given out."""
        if not self._ready:
            digits, length = self._draw(ID_BYTES * BATCH).hex(), 2 * ID_BYTES
            self._ready = [digits[at : at + length] for at in range(0, len(digits), length)]
        return self._ready.pop()
