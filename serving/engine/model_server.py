"""ModelServer: Ray Serve LLM's server, serving vLLM's own HTTP app on a port of its own.

Placement, LoRA and accelerators come from `ray.serve.llm.deployment.LLMServer`; only the data path differs
(docs/architecture.md, step 5).
"""

from __future__ import annotations

import asyncio
from typing import Any

import vllm.envs as envs
from ray.serve.llm.deployment import DPServer, LLMServer

from serving.engine.direct_chat import DirectChat
from serving.engine.internals import LeanVLLMEngine
from serving.engine.metered_app import MeteredApp
from serving.engine.metered_engine import install, reasoning_tokens
from serving.engine.metering import Meter
from serving.engine.stream_errors import tell_errors


class ModelServer(LLMServer):
    """An `LLMServer` that starts no telemetry and hands out vLLM's ASGI app."""

    _default_engine_cls = LeanVLLMEngine

    @classmethod
    def prepared(cls, config: Any) -> ModelServer:
        """A server that has not started; `config` is a `ray.serve.llm.LLMConfig`."""
        server: ModelServer = cls.sync_init(config)
        return server

    async def open(self) -> None:
        """Start the engine."""
        await self.start()

    async def _start_engine(self) -> None:
        # The parent also starts a telemetry actor on the head node, whatever the usage setting says.
        await self.engine.start()

    async def asgi_app(self, meter: Meter) -> Any:
        """vLLM's own OpenAI app: every endpoint it has for this model's task, and a short way for chats.

        Args:
            meter: counts the cost of each request from now on.
        """
        install(self.engine.client, meter)
        vllms = await self.engine.build_asgi_app()
        tell_errors(vllms.state)
        app = MeteredApp(DirectChat(vllms), meter, reasoning_tokens)
        # vLLM reads environment variables per token; its engine process caches them, its server does not.
        envs.enable_envs_cache()
        return app

    @property
    def is_dead(self) -> bool:
        """Whether the engine has failed and the replica should be replaced."""
        return self.engine is None or self.engine.is_dead

    @property
    def max_model_len(self) -> int:
        """The context in tokens that the engine was started with."""
        return int(self.engine.max_model_len)

    async def stop(self) -> None:
        """End the engine's processes."""
        envs.disable_envs_cache()
        if self.engine is not None:
            await asyncio.wait_for(self.engine.stop(), timeout=20.0)


class RankServer(ModelServer, DPServer):
    """A rank of a data-parallel group; finds the others and its GPUs as Ray Serve LLM's `DPServer` does."""

    @classmethod
    def prepared(cls, config: Any) -> RankServer:
        """A server that has not started, and has not looked for the other ranks yet."""
        server = cls.__new__(cls)
        server.engine = None
        server._unopened = config
        return server

    async def open(self) -> None:
        """Wait for rank 0, then start the engine; all ranks of a group become ready together."""
        await DPServer.__init__(self, self._unopened)
