"""Fails when vLLM counts, begins or ends requests elsewhere than the meter does."""

from __future__ import annotations

import inspect
import time
from types import SimpleNamespace
from typing import Any

import pytest

from serving.engine.metering import CURRENT, Account, Meter
from serving.engine.signals import EngineSignals

pytestmark = pytest.mark.engine


class Engine:
    """vLLM's own output processor, fed by hand, and the statistics it makes of that."""

    def __init__(self, meter: Meter) -> None:
        from vllm.v1.engine.output_processor import OutputProcessor

        from serving.engine.metered_engine import install

        self.processor: Any = OutputProcessor(None, log_stats=True)
        self.meter = meter
        self.signals = EngineSignals()
        install(SimpleNamespace(output_processor=self.processor), meter)

    def add(self, name: str, account: Account, n: int = 1, prompt: int = 5) -> None:
        """What `AsyncLLM.add_request` does."""
        from copy import copy

        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.engine.output_processor import RequestOutputCollector
        from vllm.v1.engine.parallel_sampling import ParentRequest

        params = SamplingParams(n=n, detokenize=False, output_kind=RequestOutputKind.DELTA)
        request = EngineCoreRequest(
            request_id=name,
            prompt_token_ids=list(range(prompt)),
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        request.external_req_id = name
        queue = RequestOutputCollector(params.output_kind, name)
        token = CURRENT.set(account)
        parent = ParentRequest(request) if n > 1 else None
        for index in range(n):
            child = copy(request)
            if parent is not None:
                child.request_id, child.sampling_params = parent.get_child_info(index)
            self.processor.add_request(child, None, parent, index, queue)
        CURRENT.reset(token)

    def step(self, **tokens: tuple[int, int | None]) -> None:
        """One step: for each request its new tokens, and the prompt's cached tokens if it has been read."""
        from vllm.v1.engine import EngineCoreOutput, FinishReason
        from vllm.v1.metrics.stats import IterationStats, PrefillStats

        iteration = IterationStats()
        outputs = []
        for name, (new, cached) in tokens.items():
            prefill = None
            if cached is not None:
                prefill = PrefillStats()
                prefill.set(5, cached, 0)
            outputs.append(
                EngineCoreOutput(
                    request_id=name.replace("_of_", "_"),
                    new_token_ids=list(range(abs(new))),
                    prefill_stats=prefill,
                    finish_reason=FinishReason.LENGTH if new < 0 else None,
                )
            )
        self.processor.process_outputs(outputs, time.monotonic(), iteration)
        self.signals.record(None, iteration, time.monotonic())

    def check(self, accounts: list[Account]) -> None:
        """The accounts together are what vLLM's statistics say."""
        everyone = [*accounts, self.meter.unattributed]
        assert sum(one.prompt_tokens for one in everyone) == self.signals.prompt_tokens
        assert sum(one.output_tokens for one in everyone) == self.signals.generated_tokens


@pytest.fixture
def meter() -> Meter:
    return Meter("m")


@pytest.fixture
def engine(meter: Meter) -> Engine:
    return Engine(meter)


def test_a_requests_tokens_are_those_of_vllms_statistics(engine: Engine, meter: Meter) -> None:
    one, two = meter.open("1", "g k", "/"), meter.open("2", "g k", "/")
    engine.add("a", one)
    engine.add("b", two)
    engine.step(a=(1, 2))
    engine.step(a=(1, None), b=(1, 0))
    # Several at once, as with speculative decoding; both end.
    engine.step(a=(-3, None), b=(-1, None))
    assert (one.prompt_tokens, one.cached_tokens, one.output_tokens) == (5, 2, 5)
    assert (two.prompt_tokens, two.cached_tokens, two.output_tokens) == (5, 0, 2)
    assert one.open_sequences == two.open_sequences == 0
    engine.check([one, two])


def test_each_sequence_of_a_prompt_counts(engine: Engine, meter: Meter) -> None:
    account = meter.open("1", "g k", "/")
    engine.add("a", account, n=2)
    engine.step(**{"0_of_a": (1, 0), "1_of_a": (1, 4)})
    engine.step(**{"0_of_a": (-1, None)})
    assert account.open_sequences == 1
    engine.step(**{"1_of_a": (-1, None)})
    assert (account.prompt_tokens, account.distinct_prompt_tokens) == (10, 5)
    assert (account.output_tokens, account.sequences, account.open_sequences) == (4, 2, 0)
    engine.check([account])


def test_what_comes_after_an_abort_counts_nowhere(engine: Engine, meter: Meter) -> None:
    unread, begun = meter.open("1", "g k", "/"), meter.open("2", "g k", "/")
    engine.add("a", unread)
    engine.add("b", begun, n=2)
    engine.step(**{"0_of_b": (1, 0)})
    engine.processor.abort_requests(["a", "b"], internal=True)
    assert unread.open_sequences == begun.open_sequences == 0
    engine.step(**{"a": (1, 0), "0_of_b": (1, None), "1_of_b": (1, 0)})
    assert (unread.prompt_tokens, unread.output_tokens) == (0, 0)
    assert (begun.prompt_tokens, begun.output_tokens) == (5, 1)
    engine.check([unread, begun])
    assert not meter._engine


def test_an_engine_that_breaks_ends_what_it_had(engine: Engine, meter: Meter) -> None:
    account = meter.open("1", "g k", "/")
    engine.add("a", account)
    engine.step(a=(1, 0))
    engine.processor.propagate_error(RuntimeError())
    assert account.open_sequences == 0
    engine.check([account])


def test_vllm_removes_requests_only_where_the_meter_sees_it() -> None:
    from vllm.v1.engine import async_llm, output_processor

    source = inspect.getsource(output_processor)
    assert source.count("request_states.pop(") == 2
    for method in ("_finish_request", "abort_requests"):
        found = inspect.getsource(getattr(output_processor.OutputProcessor, method))
        assert "self.request_states.pop(" in found
    counted = inspect.getsource(output_processor.OutputProcessor.process_outputs)
    assert counted.count("self._update_stats_from_output(") == 1
    # Its loop calls through the object that `install` changes.
    assert "output_processor.process_outputs(" in inspect.getsource(async_llm)
    assert "output_processor = self.output_processor" in inspect.getsource(async_llm)


def test_vllm_tells_its_framework_what_reasoning_cost() -> None:
    from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata
    from vllm.entrypoints.openai.chat_completion import serving
    from vllm.entrypoints.serve.engine.protocol import CompletionTokenUsageInfo, UsageInfo

    from serving.engine.metered_engine import reasoning_tokens

    metadata = RequestResponseMetadata(request_id="r")
    assert reasoning_tokens({}) == reasoning_tokens({"request_metadata": metadata}) == 0
    details = CompletionTokenUsageInfo(reasoning_tokens=3)
    metadata.final_usage_info = UsageInfo(completion_tokens_details=details)
    assert reasoning_tokens({"request_metadata": metadata}) == 3
    assert "raw_request.state.request_metadata = request_metadata" in inspect.getsource(serving)
