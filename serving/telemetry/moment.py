"""The values that are read at the moment of a scrape, and their meaning.

Names that end with `_total` are counters that somebody else keeps: an engine since its start, a breaker
since it was made. Every gateway tells the same of engines and replicas, so sums over gateways count them
several times: take the maximum over gateways first (docs/monitoring.md).
"""

from __future__ import annotations

from collections.abc import Mapping

# Numbers of a replica's report (serving/engine/signals.py, serving/engine/replica.py) and their names here.
ENGINE_SIGNALS: Mapping[str, str] = {
    "running": "engine_running",
    "waiting": "engine_waiting",
    "open_requests": "engine_open_requests",
    "kv_cache_use": "engine_kv_cache_use",
    "tokens_per_s": "engine_tokens_per_second",
    "start_s": "engine_start_seconds",
    "prompt_tokens": "engine_prompt_tokens_total",
    "generated_tokens": "engine_generated_tokens_total",
    "prefix_queried_tokens": "engine_prefix_queried_tokens_total",
    "prefix_hit_tokens": "engine_prefix_hit_tokens_total",
    "preemptions": "engine_preemptions_total",
    "kept_bills": "engine_kept_bills",
    "dropped_bills": "engine_dropped_bills_total",
}

MOMENT: Mapping[str, str] = {
    "build_info": "Always 1; the version is a label",
    "keys": "API keys that are in force",
    "settings_refused": "1 while the last change is refused and the previous settings stay in force",
    # ---- models, by `model` ----------------------------------------------------------------------------
    "application_state": "1 for the state of the model's Serve application",
    "replicas": "Replicas that gateways can send to",
    "prefill_replicas": "Replicas that gateways can let compute prompts",
    "replicas_wanted": "Target number of replicas: those that run and those that start",
    "replicas_by_state": "Replicas by Serve's state for them",
    "model_breaker_state": "State of the model's breaker: 0 closed, 1 half open, 2 open",
    "retry_budget_left": "Retries that may be made at once",
    "retries_refused_total": "Retries that the budget did not allow",
    "admission_slots": "Requests that this gateway may have open at the model",
    "admission_open": "Requests that have a slot",
    "admission_waiting": "Requests that wait in this gateway's queue",
    "admission_oldest_wait_seconds": "Waiting time of the first request in the queue",
    "requests_held": "Requests that this gateway holds because no replica of the model can be asked",
    # ---- replicas, by `model` and `replica` --------------------------------------------------------------
    "in_flight": "Requests of this gateway that the replica has not answered yet",
    "breaker_state": "State of the replica's breaker: 0 closed, 1 half open, 2 open",
    "breaker_openings_total": "Openings of the replica's breaker",
    "engine_running": "Requests in the engine's batch",
    "engine_waiting": "Requests that wait inside the engine",
    "engine_open_requests": "Requests inside the replica, from all gateways",
    "engine_kv_cache_use": "Share of the KV cache in use, from 0 to 1",
    "engine_tokens_per_second": "Tokens generated per second, over five seconds",
    "engine_start_seconds": "Time that the replica took to start",
    "engine_prompt_tokens_total": "Prompt tokens that the engine has processed",
    "engine_generated_tokens_total": "Tokens that the engine has generated",
    "engine_prefix_queried_tokens_total": "Prompt tokens looked up in the prefix cache",
    "engine_prefix_hit_tokens_total": "Prompt tokens found in the prefix cache",
    "engine_preemptions_total": "Requests preempted because the KV cache was full",
    "engine_kept_bills": "Bills that no gateway has acknowledged yet",
    "engine_dropped_bills_total": "Bills dropped before a gateway collected them, for lack of room",
}
