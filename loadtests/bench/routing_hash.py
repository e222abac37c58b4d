"""Times the hashing of long prompts, as the gateway does it for the policy `prefix`.

    python -m loadtests.bench.routing_hash

Exits with 1 if a prompt takes longer than it may.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serving import api
from serving.gateway.body import encode
from serving.replicas.prompt_prefix import prompt_prefix

PATH = api.CHAT
SALT = b"tenant"
# A prompt of 32,000 tokens, at the median.
MOST_US = 150.0
# Some 32,000 tokens: four letters each in English, one and a half characters each in Chinese.
ENGLISH = ("The quick brown fox jumps over the lazy dog. " * 3000)[: 128 * 1024]
FRENCH = ("Élève à l’école, où êtes-vous allé cet été ? " * 3000)[: 120 * 1024]
CHINESE = ("请介绍一下北京的历史与文化，谢谢。" * 3000)[:48_000]


@dataclass(frozen=True)
class Timing:
    """What one prompt took."""

    name: str
    prompt_bytes: int
    points: int
    median_us: float

    @property
    def row(self) -> str:
        """One line of the table."""
        size = f"{self.prompt_bytes / 1024:6.0f} KiB {self.points:5} hashes"
        return f"{self.name:32} {size} {self.median_us:7.1f} µs"


def conversation(text: str, messages: int) -> dict[str, Any]:
    """A body whose messages together say the text."""
    length = -(-len(text) // messages)
    return {
        "model": "m",
        "messages": [
            {
                "role": ("user", "assistant")[number % 2],
                "content": text[number * length : (number + 1) * length],
            }
            for number in range(messages)
        ],
    }


BODIES: Mapping[str, dict[str, Any]] = {
    "English, 500 tokens, 2 messages": conversation(ENGLISH[:2000], 2),
    "English, one message": conversation(ENGLISH, 1),
    "French, one message": conversation(FRENCH, 1),
    "Chinese, one message": conversation(CHINESE, 1),
    "English, 100 messages": conversation(ENGLISH, 100),
    "Chinese, 100 messages": conversation(CHINESE, 100),
}


def measure(name: str, body: Mapping[str, Any], repeats: int) -> Timing:
    """Hash one prompt so many times, each time read anew from its bytes."""
    raw = orjson.dumps(body)
    prompt, times_s = prompt_prefix(PATH, orjson.loads(raw), SALT), []
    for _ in range(repeats):
        read = orjson.loads(raw)
        # The gateway writes the body for the engine first, which leaves the texts' UTF-8 with them.
        encode(read)
        began_s = time.perf_counter()
        prompt = prompt_prefix(PATH, read, SALT)
        times_s.append(time.perf_counter() - began_s)
    return Timing(name, prompt.total_bytes, len(prompt.hashes), statistics.median(times_s) * 1e6)


def main(command_line: Sequence[str] | None = None) -> int:
    """The command: prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.routing_hash", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("--repeats", type=int, default=500, help="of which the median is shown")
    parser.add_argument("--most-us", type=float, default=MOST_US, help="what one may take, in µs")
    chosen = parser.parse_args(command_line)
    timings = [measure(name, body, chosen.repeats) for name, body in BODIES.items()]
    print("\n".join(timing.row for timing in timings))
    slow = [timing.name for timing in timings if timing.median_us > chosen.most_us]
    if slow:
        print(f"longer than {chosen.most_us:g} µs: {'; '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
