"""Prefill and decode in two replicas: the prompts that are worth it, and the two requests made of one. Pure.

The first request makes an engine compute the prompt and keep its KV cache; the answer says where that is. The
second is the client's own request with that answer in it: its engine fetches what it would
compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import orjson

from serving.api import GENERATING

# Where a prompt was computed. "handed": in a prefill replica; all others in the one that answers: "short": it
# is not worth a hand-over; "unfit": vLLM cannot hand it over; "failed": no prefill replica did.
Outcome = Literal["handed", "short", "unfit", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("handed", "short", "unfit", "failed")

# Fields of what is generated and how it is sent, not of the prompt. All others stay: were the prompt
# different by a token, the answer would be written to a prompt that nobody sent.
_ABOUT_THE_ANSWER = ("stream", "stream_options", "min_tokens", "logprobs", "top_logprobs")
_PARAMS = "kv_transfer_params"
_COMPUTE = {"do_remote_decode": True, "do_remote_prefill": False}


def fits(path: str, body: Mapping[str, Any]) -> bool:
    """Whether a request can be handed over: one prompt, one answer, which can only be fetched once."""
    if path not in GENERATING or (body.get("n") or 1) != 1:
        return False
    prompt = body.get("prompt")
    return not isinstance(prompt, list) or len(prompt) == 1 or _is_tokens(prompt)


def is_long(encoded_bytes: int, min_tokens: int, estimate: Callable[[], int]) -> bool:
    """Whether the prompt has `min_tokens` tokens by `estimate`, as the model's tokenizer is not at hand."""
    # No estimate is higher than one token per byte: most requests need no look.
    return encoded_bytes >= min_tokens and estimate() >= min_tokens


def prefill_body(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The request for the prefill replica: the same prompt, one token, nothing streamed."""
    kept = {name: value for name, value in body.items() if name not in _ABOUT_THE_ANSWER}
    return kept | dict.fromkeys(GENERATING[path].output_limits, 1) | {_PARAMS: _COMPUTE}


def decode_body(body: Mapping[str, Any], answer: bytes) -> dict[str, Any] | None:
    """The request for the answering replica, from the prefill replica's answer; None if that kept nothing."""
    try:
        said = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    params = said.get(_PARAMS) if isinstance(said, dict) else None
    if not isinstance(params, dict) or not params.get("remote_block_ids"):
        return None
    return {**body, _PARAMS: params}


def _is_tokens(prompt: list[Any]) -> bool:
    return all(isinstance(item, int) for item in prompt)
