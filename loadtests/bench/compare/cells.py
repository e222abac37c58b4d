"""The cells of the comparison: concurrent streams, tokens per answer, streamed or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STREAMS = (1, 16, 64, 256)
TOKENS = (1, 64, 256)
# Of one stream that has the server to itself; several have twice their number at least.
MIN_REQUESTS_ALONE = 16
MAX_REQUESTS = 8192


@dataclass(frozen=True)
class Cell:
    """One kind of load."""

    streams: int
    tokens: int
    stream: bool = True

    @property
    def name(self) -> str:
        """The name in tables and JSON: `64x64`, `64x64 whole`."""
        return f"{self.streams}x{self.tokens}{'' if self.stream else ' whole'}"

    @property
    def trial_requests(self) -> int:
        """The number of requests that shows a server's rough speed."""
        return max(4, self.streams)

    def requests_for(self, requests_per_s: float, seconds: float) -> int:
        """The number of requests that keep such a server busy for a time, at least two per stream."""
        least = MIN_REQUESTS_ALONE if self.streams == 1 else 2 * self.streams
        count = max(least, min(int(requests_per_s * seconds), MAX_REQUESTS))
        # Whole waves: no stream is idle at the end while others have one more to do.
        return -(-count // self.streams) * self.streams

    @staticmethod
    def prompts(salt: str, count: int) -> list[str]:
        """One prompt for each request: none twice, so that no engine has it in its cache."""
        return [f"Request {number} of {salt}: count to a hundred" for number in range(count)]


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
