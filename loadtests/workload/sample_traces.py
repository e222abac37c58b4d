"""Makes the sample traces under loadtests/workload/samples/: synthetic, in the formats of real ones.

    python -m loadtests.workload.sample_traces

Times come in bursts, lengths are log-normal, Mooncake's blocks begin with one of a few shared documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("samples")
REQUESTS = 240
# Short enough for the tiny models of the local stack.
MEAN_INPUT, MEAN_OUTPUT = 220, 24
MOONCAKE_BLOCK = 512


def _requests(seed: int) -> Iterator[tuple[float, int, int]]:
    """Seconds, input tokens, output tokens: about two a second, in bursts."""
    random = np.random.default_rng(seed)
    at_s = np.cumsum(random.gamma(0.4, 0.5 / 0.4, REQUESTS))
    inputs = np.clip(random.lognormal(np.log(MEAN_INPUT), 0.6, REQUESTS), 8, 700)
    outputs = np.clip(random.lognormal(np.log(MEAN_OUTPUT), 0.5, REQUESTS), 1, 96)
    for at, given, made in zip(at_s, inputs, outputs, strict=True):
        yield round(float(at), 3), int(given), int(made)


def mooncake() -> str:
    """JSON lines; every other request shares its first block with others."""
    lines = []
    for number, (at_s, given, made) in enumerate(_requests(1)):
        blocks = range(-(-given // MOONCAKE_BLOCK))
        ids = [
            number % 8 if not block and number % 2 else 100 + 2 * number + block for block in blocks
        ]
        row = {
            "timestamp": int(at_s * 1000),
            "input_length": given,
            "output_length": made,
            "hash_ids": ids,
        }
        lines.append(json.dumps(row))
    return "\n".join(lines) + "\n"


def azure() -> str:
    """CSV as of 2024."""
    begin = datetime(2024, 5, 10, 0, 0, 0, 9930)
    rows = [
        f"{begin + timedelta(seconds=at_s):%Y-%m-%d %H:%M:%S.%f}+00:00,{given},{made}"
        for at_s, given, made in _requests(2)
    ]
    return "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n"


def burstgpt() -> str:
    """CSV; one request in forty has failed."""
    rows = []
    for number, (at_s, given, made) in enumerate(_requests(3)):
        answered = 0 if number % 40 == 39 else made
        kind = "API log" if number % 3 else "Conversation log"
        rows.append(f"{at_s},ChatGPT,{given},{answered},{given + answered},{kind}")
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    return "\n".join([head, *rows]) + "\n"


SAMPLES = {
    "mooncake.jsonl": mooncake,
    "azure.csv": azure,
    "burstgpt.csv": burstgpt,
}


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in SAMPLES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
