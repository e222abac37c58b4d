"""A fake engine behind a real meter: what a replica bills, without vLLM."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serving.engine.metered_app import MeteredApp
from serving.engine.metering import Meter
from tests.fake_engine import FakeEngine

PROMPT_TOKENS = 7


@dataclass
class MeteredEngine(FakeEngine):
    """Counts seven tokens for each prompt, and what it generates, as `/status` would."""

    meter: Meter = field(default_factory=lambda: Meter("fake"))
    counted: Counter[str] = field(default_factory=Counter)

    def asgi(self) -> Any:
        return MeteredApp(super().asgi(), self.meter)

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        if body.get("stream") or self.status != 200:
            return await super()._answer(request)
        inputs = body.get("input")
        sequences = len(inputs) if isinstance(inputs, list) else int(body.get("n") or 1)
        names = [self._begin() for _ in range(sequences)]
        response = await super()._answer(request)
        writes = request.url.path not in ("/v1/embeddings", "/v1/rerank", "/v1/score")
        tokens = int(body.get("max_tokens") or 16) if writes else 0
        for name in names:
            self._write(name, tokens if response.status_code == 200 else tokens // 2)
            self.meter.ended(name)
        return response

    async def _stream(self, body: dict[str, Any], tokens: int) -> AsyncIterator[bytes]:
        name = self._begin()
        try:
            async for event in super()._stream(body, tokens):
                if b'"content"' in event:
                    self._write(name, 1)
                yield event
        finally:
            self.meter.ended(name)

    def _begin(self) -> str:
        self.counted["requests"] += 1
        name = f"e{self.counted['requests']}"
        self.meter.began(name)
        self.meter.read(name, PROMPT_TOKENS, 3, is_first=True)
        self.counted["prompt"] += PROMPT_TOKENS
        return name

    def _write(self, name: str, tokens: int) -> None:
        self.meter.wrote(name, tokens)
        self.counted["output"] += tokens
