"""The real engine on every tiny model: its arithmetic equals transformers', its text is stable.

One process imports vLLM and forks for each case (`parity_runner.py`); the whole file takes about three
minutes on two cores, and ten seconds more for each architecture that vLLM meets for the first time.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from serving.catalogue.tiny import families, family

pytestmark = pytest.mark.engine

CHAT = [model.name for model in families() if model.task == "chat"]
ROOT = Path(__file__).parents[2]


class Runner(Protocol):
    def __call__(self, name: str, kind: str) -> dict[str, Any]: ...


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    cache = tmp_path_factory.mktemp("cache")
    log = cache / "engine.log"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("parity_runner.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        to_runner, from_runner = process.stdin, process.stdout

        def ask(name: str, kind: str) -> dict[str, Any]:
            print(name, kind, cache, file=to_runner, flush=True)
            line = from_runner.readline()
            answer: dict[str, Any] = json.loads(line) if line else {"failed": "the runner ended"}
            if "failed" in answer:
                pytest.fail(f"{answer['failed']}\n{log.read_text()[-4000:]}")
            return answer

        yield ask
        to_runner.close()


@pytest.mark.parametrize("name", CHAT)
def test_greedy_tokens_and_their_probabilities_equal_transformers(run: Runner, name: str) -> None:
    model = family(name)
    if not model.parity_exact:
        pytest.skip(model.parity_note or "no reason given")
    pairs = run(name, "parity")["pairs"]
    assert len(pairs) == 4
    assert sum(len(pair["engine"]) >= 32 for pair in pairs) >= 3  # one may end by itself
    for pair in pairs:
        assert pair["engine"] == pair["transformers"]
        # The choice has a wide margin by construction; the probabilities show the arithmetic.
        assert pair["engine_logprobs"] == pytest.approx(pair["transformers_logprobs"], abs=1e-4)


@pytest.mark.parametrize("name", CHAT)
def test_a_text_is_the_same_alone_in_a_batch_and_from_the_prefix_cache(
    run: Runner, name: str
) -> None:
    result = run(name, "stability")
    assert result["together"] == result["alone"] * 3
    assert result["again"] == result["alone"]
    # vLLM turns the prefix cache off for MLA on a CPU without AMX.
    if not family(name).layout.latent:
        assert result["cached_tokens"] > 0
    assert len(set(result["alone"])) == len(result["alone"])
    assert result["smallest_margin"] > 0.5
    assert sum(tokens >= 32 for tokens in result["tokens"]) >= 3  # one may end by itself


def test_embeddings_equal_transformers(run: Runner) -> None:
    result = run("qwen3-embedding", "embedding")
    for ours, theirs in zip(result["engine"], result["transformers"], strict=True):
        assert math.hypot(*ours) == pytest.approx(1, abs=1e-4)
        assert sum(a * b for a, b in zip(ours, theirs, strict=True)) > 0.9999


def test_scores_equal_transformers(run: Runner) -> None:
    result = run("qwen3-reranker", "ranking")
    assert result["engine"] == pytest.approx(result["transformers"], abs=1e-4)
    assert len({round(score, 3) for score in result["engine"]}) == 3
