"""The meter's hook in vLLM's output processor, a private part: tokens are counted where vLLM counts them.

`OutputProcessor` sums every step's tokens into the statistics that `EngineSignals` adds up. The same
numbers go to the account of the request that they are for, at the same place: what arrives after an abort is
in neither.
tests/engine/test_metered_engine.py fails when one of the places moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm.v1.engine.output_processor import OutputProcessor

from serving.engine.metering import Meter


class MeteredOutputProcessor(OutputProcessor):
    """vLLM's output processor, with a meter."""

    meter: Meter

    def add_request(
        self,
        request: Any,
        prompt: Any,
        parent_req: Any = None,
        request_index: int = 0,
        queue: Any = None,
    ) -> None:
        is_new = request.request_id not in self.request_states
        super().add_request(request, prompt, parent_req, request_index, queue)
        if is_new:
            adapter = request.lora_request.lora_name if request.lora_request else ""
            self.meter.began(request.request_id, adapter)

    def _update_stats_from_output(
        self, req_state: Any, engine_core_output: Any, *args: Any, **kwargs: Any
    ) -> None:
        super()._update_stats_from_output(req_state, engine_core_output, *args, **kwargs)
        tokens = len(engine_core_output.new_token_ids)
        if tokens:
            self.meter.wrote(req_state.request_id, tokens)
        if req_state.is_prefilling and (stats := engine_core_output.prefill_stats) is not None:
            # Of a prompt that a prefill replica has computed, cached is what that one had.
            remote = req_state.remote_prefill_cached_tokens
            self.meter.read(
                req_state.request_id,
                stats.num_prompt_tokens,
                stats.num_cached_tokens if remote is None else remote,
                is_first=req_state.request_index == 0,
            )

    def _finish_request(self, req_state: Any) -> None:
        super()._finish_request(req_state)
        self.meter.ended(req_state.request_id)

    def abort_requests(self, request_ids: Iterable[str], internal: bool) -> list[str]:
        aborted: list[str] = super().abort_requests(request_ids, internal)
        for request_id in aborted:
            self.meter.ended(request_id)
        return aborted

    def propagate_error(self, e: Exception) -> None:
        super().propagate_error(e)
        self.meter.broke()


def install(client: Any, meter: Meter) -> None:
    """Connect an `AsyncLLM` that has not served a request yet with the meter."""
    processor = client.output_processor
    # Its loop holds this very object, so that a new one would be ignored.
    processor.__class__ = MeteredOutputProcessor
    processor.meter = meter


def reasoning_tokens(state: Mapping[str, Any]) -> int:
    """Reasoning tokens, as vLLM reports them to its web framework; 0 where it does not tell them apart.

    Args:
        state: the `state` of the request's ASGI scope, once its answer is complete.
    """
    usage = getattr(state.get("request_metadata"), "final_usage_info", None)
    details = getattr(usage, "completion_tokens_details", None)
    return getattr(details, "reasoning_tokens", None) or 0
