"""What a request may cost before an engine has counted: every prompt and every answer of it."""

from __future__ import annotations

from typing import Any

import pytest

from serving.admission.estimate import COMPLETIONS_DEFAULT, tokens_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        pytest.param(CHAT, {}, (100, None), id="no limit"),
        pytest.param(CHAT, {"max_completion_tokens": 7}, (100, 7), id="a limit"),
        pytest.param(CHAT, {"max_tokens": 7, "n": 3}, (300, 21), id="several answers"),
        pytest.param("/v1/responses", {"max_output_tokens": 7}, (100, 7), id="responses"),
        pytest.param("/v1/messages", {"max_tokens": 7}, (100, 7), id="messages"),
        pytest.param(
            COMPLETIONS, {"prompt": "x"}, (100, COMPLETIONS_DEFAULT), id="the engine's own limit"
        ),
        pytest.param(
            COMPLETIONS,
            {"prompt": ["x"] * 5, "max_tokens": 7, "n": 2},
            (200, 70),
            id="several prompts",
        ),
        pytest.param(COMPLETIONS, {"prompt": [1] * 30, "max_tokens": 7}, (30, 7), id="token ids"),
        pytest.param(
            COMPLETIONS,
            {"prompt": [[1] * 30, [2] * 10], "max_tokens": 7},
            (40, 14),
            id="several prompts of token ids",
        ),
        pytest.param("/v1/embeddings", {"input": ["x"] * 100}, (100, 0), id="embeddings"),
        pytest.param("/v1/embeddings", {"input": [[1] * 3] * 9}, (27, 0), id="ids to embed"),
        pytest.param("/v1/embeddings", {"input": []}, (100, 0), id="nothing to embed"),
        pytest.param(
            "/v1/rerank", {"query": "q" * 40, "documents": ["x"] * 11}, (200, 0), id="rerank"
        ),
        pytest.param("/v1/score", {"text_1": "q" * 40, "text_2": "x"}, (100, 0), id="one pair"),
        pytest.param("/v1/score", {"text_1": "q" * 40, "text_2": ["x"] * 11}, (200, 0), id="score"),
        pytest.param(
            "/v1/score", {"queries": ["q"] * 2, "documents": ["x"] * 2}, (100, 0), id="pairs"
        ),
    ],
)
def test_every_prompt_and_every_answer_counts(
    path: str, body: dict[str, Any], expected: tuple[int, int | None]
) -> None:
    assert tokens_of(path, body, 400) == expected
