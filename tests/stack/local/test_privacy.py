"""Nothing of a prompt or an answer stays anywhere: a canary goes everywhere, then every file is searched.

Runs last of this folder, so that the searched files have also seen what the other tests did.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stack.conftest import CANARY, Stack

MODELS = ("qwen3", "deepseek-v3")


def requests() -> Iterator[tuple[str, Any]]:
    """Bodies with the canary in every place that takes text: good ones and wrong ones."""
    user = {"role": "user", "content": f"remember {CANARY}"}
    tool = {"type": "function", "function": {"name": "f", "description": CANARY}}
    schema = {"type": "object", "properties": {"a": {"enum": [CANARY]}}}
    for model in MODELS:
        base = {"model": model, "messages": [user], "max_tokens": 8}
        yield "/v1/chat/completions", base
        yield "/v1/chat/completions", base | {"stream": True, "logprobs": True}
        yield "/v1/chat/completions", base | {"tools": [tool], "tool_choice": "required"}
        yield (
            "/v1/chat/completions",
            base
            | {
                "max_tokens": 64,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": schema},
                },
            },
        )
        yield "/v1/chat/completions", base | {"stop": [CANARY]}
        yield "/v1/completions", {"model": model, "prompt": CANARY, "max_tokens": 8}
        yield "/v1/responses", {"model": model, "input": CANARY, "max_output_tokens": 8}
        yield "/v1/messages", base | {"system": CANARY}
        # Refused by the gateway.
        yield "/v1/chat/completions", base | {"max_tokens": -1}
        # A name that is an identifier is told to the client who sent it (docs/api.md), and to nobody else.
        yield "/v1/chat/completions", base | {f"my {CANARY}": 1}
        yield "/v1/chat/completions", base | {f"{CANARY}{CANARY}": {"role": CANARY}}
        yield "/v1/chat/completions", base | {"messages": [user | {f"{CANARY}.": CANARY}]}
        yield "/v1/chat/completions", base | {"metadata": {CANARY: CANARY}}
        yield "/v1/chat/completions", base | {"chat_template": CANARY}
        yield "/v1/chat/completions", base | {"model": CANARY}
        yield "/v1/chat/completions", base | {"temperature": CANARY}
        yield "/v1/chat/completions", base | {"messages": CANARY}
        yield "/v1/messages", {"model": model, "messages": [user], "max_tokens": CANARY}
        yield "/v1/chat/completions", f'{{"model": "{CANARY}'
        yield "/v1/chat/completions", base | {"messages": [user] * 60_000}
        yield f"/v1/{CANARY}", base
        # Refused by the engine.
        yield "/v1/chat/completions", base | {"messages": [user] * 3000}
        yield (
            "/v1/chat/completions",
            base
            | {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": CANARY}},
                }
            },
        )
        yield (
            "/v1/chat/completions",
            base
            | {
                "messages": [
                    user,
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "1", "function": {"name": "f", "arguments": f"{{{CANARY}"}}
                        ],
                    },
                ]
            },
        )
        yield "/v1/completions", {"model": model, "prompt": [999_999_999], "max_tokens": 8}
    yield "/v1/embeddings", {"model": "qwen3-embedding", "input": [CANARY]}
    yield "/v1/embeddings", {"model": "qwen3-embedding", "input": [CANARY * 4000]}
    yield (
        "/v1/rerank",
        {"model": "qwen3-embedding", "query": CANARY, "documents": [CANARY]},
    )
    yield "/v1/score", {"model": "qwen3-embedding", "text_1": CANARY, "text_2": CANARY}
    yield "/v1/score", {"model": "qwen3-embedding", "text_1": CANARY}


def send(stack: Stack, path: str, body: Any) -> httpx.Response:
    headers = {"content-type": "application/json", "x-request-id": CANARY, "x-other": CANARY}
    content = body if isinstance(body, str) else None
    return httpx.post(
        stack.url + path,
        params={"q": CANARY},
        headers=headers,
        content=content,
        json=None if content else body,
        timeout=60,
    )


def abort(stack: Stack, model: str) -> None:
    """Leave in the middle of a stream."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": CANARY}],
        "max_tokens": 2000,
        "stream": True,
    }
    with httpx.stream("POST", f"{stack.url}/v1/chat/completions", json=body) as response:
        next(response.iter_raw())


def files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def test_a_canary_is_found_in_no_file_error_or_metric(stack: Stack) -> None:
    statuses: dict[int, int] = {}
    for path, body in requests():
        response = send(stack, path, body)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        assert response.status_code != 500, (path, response.text[:300])
        if response.status_code != 200:
            assert CANARY not in response.text, (path, response.text[:500])
        assert CANARY not in str(response.headers)
    for model in MODELS:
        abort(stack, model)
    assert {200, 400, 404, 413} <= set(statuses), statuses
    for path in ("/status", "/ready", "/v1/models", "/health"):
        assert CANARY not in httpx.get(stack.url + path).text
    time.sleep(2)
    needles = [CANARY.encode(), base64.b64encode(CANARY.encode())[:20]]
    folders = [stack.session_root, stack.cache_dir]
    if stack.log:
        folders.append(stack.log.parent)
    searched = 0
    for folder in folders:
        for path in files(folder):
            try:
                content = path.read_bytes()
            except OSError:
                continue
            searched += 1
            for needle in needles:
                assert needle not in content, f"the canary is in {path}"
    assert searched > 20, "too few files: the search looked in the wrong place"


def test_the_search_would_find_a_canary(stack: Stack) -> None:
    # The test above must be able to fail: a file with the text, where it looks, is found.
    planted = stack.session_root / f"planted-{os.getpid()}.txt"
    planted.write_text(CANARY)
    try:
        with pytest.raises(AssertionError, match="the canary is in"):
            test_a_canary_is_found_in_no_file_error_or_metric(stack)
    finally:
        planted.unlink()
