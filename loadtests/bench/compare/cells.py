"""What is measured of each server: streams at once, tokens of each answer, streamed or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STREAMS = (1, 16, 64, 256)
TOKENS = (1, 64, 256)
# Enough tokens for a few seconds on two cores; one stream alone is slower.
TOKENS_PER_CELL = 24_000
TOKENS_PER_CELL_ALONE = 2_000
MAX_REQUESTS = 1024
MAX_REQUESTS_ALONE = 200


@dataclass(frozen=True)
class Cell:
    """One kind of load."""

    streams: int
    tokens: int
    stream: bool = True

    @property
    def name(self) -> str:
        """As it stands in tables and JSON: `64x64`, `64x64 whole`."""
        return f"{self.streams}x{self.tokens}{'' if self.stream else ' whole'}"

    @property
    def requests(self) -> int:
        """Requests of one measurement: for a few seconds, and at least two for each stream."""
        alone = self.streams == 1
        tokens = TOKENS_PER_CELL_ALONE if alone else TOKENS_PER_CELL
        most = MAX_REQUESTS_ALONE if alone else MAX_REQUESTS
        count = max(2 * self.streams, min(tokens // self.tokens, most))
        # Whole waves: no stream is idle at the end while others have one more to do.
        return -(-count // self.streams) * self.streams

    def prompts(self, salt: str) -> list[str]:
        """One prompt for each request: none twice, so that no engine has it in its cache."""
        return [
            f"Request {number} of {salt}: count to a hundred" for number in range(self.requests)
        ]


QUICK = (Cell(1, 64), Cell(64, 64), Cell(64, 64, False), Cell(64, 1, False))
STANDARD = (
    Cell(1, 64),
    Cell(16, 64),
    Cell(64, 64),
    Cell(256, 64),
    Cell(64, 1),
    Cell(64, 256),
    Cell(64, 64, False),
    Cell(64, 1, False),
)
ALL = tuple(
    Cell(streams, tokens, stream)
    for stream in (True, False)
    for streams in STREAMS
    for tokens in TOKENS
)
