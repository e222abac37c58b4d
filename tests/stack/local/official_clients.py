"""What the tests with the official clients share: models, a bounded schema, deterministic requests.

Nothing asks `deepseek-v3` for logprobs, JSON or tool calls: test_first_requests.py measures its first.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from tests.lazily import lazily
from tests.stack.conftest import Stack

openai = lazily("openai")

CHAT_MODELS = ("qwen3", "deepseek-v3")
EMBEDDING = "qwen3-embedding"
CANARY = "palimpsest-4c1e-quagga"
PROMPT = "Tell me a thing"
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
# Random weights pad JSON with white space: few and bounded values, and room for it.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "sunny": {"type": "boolean"}},
    "required": ["city", "sunny"],
    "additionalProperties": False,
}
JSON_TOKENS = 1000
FUNCTION: dict[str, Any] = {"name": "weather", "parameters": SCHEMA, "strict": True}
TOOLS: list[Any] = [
    {"type": "function", "function": FUNCTION},
    {"type": "function", "function": FUNCTION | {"name": "climate"}},
]
NAMED: Any = {"type": "function", "function": {"name": "weather"}}
JSON_SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {"name": "forecast", "schema": SCHEMA, "strict": True},
}


class Forecast(BaseModel):
    city: Literal["Paris", "Rome"]
    sunny: bool


def open_client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=60)


def open_async_client(stack: Stack) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=120
    )


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    """A deterministic chat completion of 16 tokens, unless `fields` say otherwise."""
    usual = {"model": "qwen3", "messages": MESSAGES, "max_tokens": 16, "temperature": 0}
    return client.chat.completions.create(**(usual | fields))


def complete(client: openai.OpenAI, **fields: Any) -> Any:
    usual = {"model": "qwen3", "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    return client.completions.create(**(usual | fields))


def respond(client: openai.OpenAI, **fields: Any) -> Any:
    usual = {"model": "qwen3", "input": PROMPT, "max_output_tokens": 16, "temperature": 0}
    return client.responses.create(**(usual | fields))


def embed(client: openai.OpenAI, text: Any, **fields: Any) -> Any:
    return client.embeddings.create(model=EMBEDDING, input=text, **fields)


def text_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def joined(chunks: Any) -> str:
    """The text of a chat stream with one choice."""
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
