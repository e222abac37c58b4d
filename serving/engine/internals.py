"""The private parts of ray.llm that Comptoir uses, and of vLLM those of its engine's life.

Each is needed because there is no public way; tests/engine/test_internals.py fails when one moves.
"""

from __future__ import annotations

from typing import Any

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine


class LeanVLLMEngine(VLLMEngine):
    """Ray's vLLM engine without the parts that a single-node CPU replica does not need."""

    async def start(self) -> None:
        # Downloading on every node of the placement group starts a worker per node that imports all
        # of vLLM. It pays off only where several nodes share one model, which workers on a CPU never do.
        callback = self.llm_config.get_or_create_callback()
        config = self.llm_config.get_engine_config()
        several = config.num_devices > 1 and config.accelerator.requires_remote_initialization
        callback.ctx.run_init_node = several
        await super().start()

    def _prepare_engine_config(self, callback_ctx: Any) -> Any:
        engine_args, frontend_args, config = super()._prepare_engine_config(callback_ctx)
        parallel = config.parallel_config
        if config.device_config.device_type == "cpu" and parallel.world_size == 1:
            # Ray LLM insists on the multiprocessing executor on CPUs, which costs a third process
            # (0.6 GiB, ten seconds of imports). One worker can live inside the engine core.
            parallel.distributed_executor_backend = "uni"
        return engine_args, frontend_args, config

    @property
    def client(self) -> Any:
        """vLLM's `AsyncLLM`."""
        return self._engine_client

    @property
    def is_dead(self) -> bool:
        """Whether the engine core has failed for good."""
        return self._engine_client is None or bool(self._engine_client.errored)

    @property
    def max_model_len(self) -> int:
        """The context in tokens that the engine was started with."""
        return int(self._engine_client.model_config.max_model_len)

    async def stop(self) -> None:
        """End the engine's processes; Ray's own `shutdown` leaves them to the parent's death."""
        await self.shutdown()
        if self._engine_client is not None:
            self._engine_client.shutdown()
