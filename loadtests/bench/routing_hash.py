"""Times the hashing of long prompts, as the gateway does it for the policy `prefix`.

    python -m loadtests.bench.routing_hash

Exits with 1 if a prompt takes longer than it may.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import typer

from loadtests.bench.tables import table
from serving import api
from serving.commands.output import run, say, show
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

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Timing:
    """The time of one prompt."""

    name: str
    prompt_bytes: int
    points: int
    median_us: float

    @property
    def row(self) -> list[str]:
        """One line of the table."""
        size = f"{self.prompt_bytes / 1024:.0f} KiB"
        return [self.name, size, str(self.points), f"{self.median_us:.1f} µs"]


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
    """Hash one prompt repeatedly, each time read anew from its bytes."""
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


@app.command()
def routing_hash(
    repeats: Annotated[
        int, typer.Option(min=1, help="Repetitions per prompt; the median is shown.")
    ] = 500,
    most_us: Annotated[
        float, typer.Option(help="Limit of the median per prompt, in microseconds.")
    ] = MOST_US,
) -> None:
    """Time the hashing of long prompts; exits with 1 if a prompt takes longer than it may.

    Example: python -m loadtests.bench.routing_hash --repeats 2000
    """
    timings = [measure(name, body, repeats) for name, body in BODIES.items()]
    show(table(["prompt", "size", "hashes", "median"], [timing.row for timing in timings]))
    slow = [timing.name for timing in timings if timing.median_us > most_us]
    if slow:
        say(f"longer than {most_us:g} µs: {'; '.join(slow)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
