"""An estimate of the tokens of a request, in the time of a few look-ups, until the engine has counted. Pure.

The engine counts a prompt once for each answer made from it, and a query once for each document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.api import COMPLETIONS, GENERATING, SCORE_PAIRS

# The length of a token of JSON text: rough, and corrected when the engine has counted.
BYTES_PER_TOKEN = 4
# The number of tokens that vLLM generates for completions without a limit.
COMPLETIONS_DEFAULT = 16
# Texts to rank and to score come in pairs: the left one is read again for each on the right.
_LEFT, _RIGHT = zip(("query", "documents"), *SCORE_PAIRS, strict=True)


def tokens_of(path: str, body: Mapping[str, Any], encoded_bytes: int) -> tuple[int, int | None]:
    """Prompt tokens, and the limit of generated ones: None without a limit, 0 where none are generated.

    Args:
        body: has been checked for its endpoint.
        encoded_bytes: its length as JSON.
    """
    if path not in GENERATING:
        ids = _token_ids(body.get("input"))
        if ids is not None:
            return ids, 0
        return (encoded_bytes + _repeated_bytes(body)) // BYTES_PER_TOKEN, 0
    answers = int(body.get("n") or 1)
    limit = _limit(path, body)
    prompt = body.get("prompt")
    if prompt is None:
        # Messages, or input items: one prompt.
        return (
            encoded_bytes // BYTES_PER_TOKEN * answers,
            None if limit is None else limit * answers,
        )
    ids = _token_ids(prompt)
    prompt_tokens = encoded_bytes // BYTES_PER_TOKEN if ids is None else ids
    sequences = answers * _prompts(prompt)
    return prompt_tokens * answers, None if limit is None else limit * sequences


def _limit(path: str, body: Mapping[str, Any]) -> int | None:
    for name in GENERATING[path].output_limits:
        limit = body.get(name)
        if isinstance(limit, int):
            return limit
    return COMPLETIONS_DEFAULT if path == COMPLETIONS else None


def _prompts(prompt: Any) -> int:
    """The number of prompts in a text, token ids, or a list of either."""
    is_list = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return len(prompt) if is_list else 1


def _token_ids(value: Any) -> int | None:
    """The number of token ids; None for text."""
    if not isinstance(value, list) or not value:
        return None
    if isinstance(value[0], int):
        return len(value)
    if isinstance(value[0], list):
        return sum(map(len, value))
    return None


def _repeated_bytes(body: Mapping[str, Any]) -> int:
    left = next((body[name] for name in _LEFT if isinstance(body.get(name), str)), "")
    right = next((body[name] for name in _RIGHT if isinstance(body.get(name), list)), ())
    return len(left) * max(0, len(right) - 1)
