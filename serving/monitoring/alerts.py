"""Alerts on causes: a gateway, a queue, a breaker, a replica, an engine. docs/monitoring.md has remedies.

Where several gateways share a port, a scrape meets one of them, and the others' series have gaps.
So rates and `…_over_time` over some minutes are used instead of the last value, wherever gateways differ.
"""

from __future__ import annotations

from serving.monitoring.alert import Alert, Record
from serving.monitoring.promql import per_replica, rate
from serving.monitoring.settings import MonitoringConfig
from serving.monitoring.slo import requests

QUEUE = "model:comptoir_admission_waiting:sum"
MINUTE = 60


def records(config: MonitoringConfig) -> list[Record]:
    """The recording rules that several alerts and dashboards use."""
    lately = config.duration(2 * MINUTE)
    queue = f"sum by (model) (avg_over_time(comptoir_admission_waiting[{lately}]))"
    return [Record(QUEUE, queue)]


def alerts(config: MonitoringConfig) -> list[Alert]:
    """All alerts, the outermost cause first."""
    return [
        *_gateways(config),
        *_models(config),
        *_replicas(config),
        *_engines(config),
        *_clients(config),
    ]


def _gateways(config: MonitoringConfig) -> list[Alert]:
    up = f'up{{job="{config.job}"}}'
    window = config.duration(10 * MINUTE)
    return [
        Alert(
            "ComptoirEndpointDown",
            f"absent({up} == 1)",
            "page",
            "No gateway answers",
            f"Prometheus reaches no target of the job {config.job}: clients probably reach none either.",
            for_s=MINUTE,
        ),
        Alert(
            "ComptoirGatewayDown",
            f"{up} == 0",
            "ticket",
            "The gateway {{ $labels.instance }} does not answer",
            "Prometheus cannot scrape it. Others may still serve.",
            for_s=2 * MINUTE,
        ),
        Alert(
            "ComptoirUnexpectedErrors",
            f'sum(increase(comptoir_requests_total{{status="500"}}[{window}])) > 0',
            "ticket",
            "The gateway fails on requests with an unexpected error",
            "{{ $value | humanize }} answers with status 500 in ten minutes; the log names type and "
            "place.",
        ),
        Alert(
            "ComptoirSettingsRefused",
            f"max by (source) (min_over_time(comptoir_settings_refused[{config.duration(2 * MINUTE)}])) > 0",
            "ticket",
            "The gateway refused the last change in {{ $labels.source }}",
            "The new settings are invalid; the previous keys, limits and routing stay in force. "
            "The gateway's log says why.",
            for_s=3 * MINUTE,
        ),
    ]


def _models(config: MonitoringConfig) -> list[Alert]:
    lately = config.duration(2 * MINUTE)
    return [
        Alert(
            "ComptoirModelUnavailable",
            f"max by (model) (max_over_time(comptoir_model_breaker_state[{lately}])) == 2",
            "page",
            "No replica of {{ $labels.model }} answers",
            "Requests for it fail, or go to a fallback where routing names one.",
            for_s=3 * MINUTE,
        ),
        Alert(
            "ComptoirModelFailed",
            "max by (model, state) "
            '(comptoir_application_state{state=~"DEPLOY_FAILED|UNHEALTHY"}) == 1',
            "page",
            "Serve reports {{ $labels.state }} for {{ $labels.model }}",
            "Its replicas cannot be started, or do not stay healthy.",
            for_s=2 * MINUTE,
        ),
    ]


def _replicas(config: MonitoringConfig) -> list[Alert]:
    lately, trend = config.duration(2 * MINUTE), config.duration(10 * MINUTE)
    growth = 1 / (MINUTE * config.pace)
    return [
        Alert(
            "ComptoirReplicasMissing",
            "max by (model) (comptoir_replicas_wanted) - min by (model) (comptoir_replicas) > 0",
            "ticket",
            "{{ $value }} replicas of {{ $labels.model }} should run and do not",
            "They take longer to start than a replica may: no node has room, or they fail at startup.",
            for_s=config.start_s,
        ),
        Alert(
            "ComptoirBreakerOpen",
            f"max by (model, replica) (max_over_time(comptoir_breaker_state[{lately}])) == 2",
            "ticket",
            "The replica {{ $labels.replica }} of {{ $labels.model }} keeps failing",
            "Gateways leave it alone; the other replicas carry its load.",
            for_s=3 * MINUTE,
        ),
        Alert(
            "ComptoirQueueGrowing",
            f"deriv({QUEUE}[{trend}]) > {growth:.6g}\nand {QUEUE} > {config.queue_length}",
            "ticket",
            "More and more requests wait for {{ $labels.model }}",
            "The queue in the gateways has grown for minutes: requests arrive faster than the "
            "replicas finish them.",
            for_s=5 * MINUTE,
        ),
    ]


def _engines(config: MonitoringConfig) -> list[Alert]:
    window = config.duration(5 * MINUTE)
    has_work = (
        f"{per_replica(f'min_over_time(comptoir_engine_running[{window}])')} > 0\n"
        f"  or {per_replica(f'min_over_time(comptoir_in_flight[{window}])')} > 0"
    )
    tokens = " + ".join(
        f"increase(comptoir_engine_{kind}_tokens_total[{window}])"
        for kind in ("prompt", "generated")
    )
    full = per_replica(f"avg_over_time(comptoir_engine_kv_cache_use[{window}])")
    waits = per_replica(f"avg_over_time(comptoir_engine_waiting[{window}])")
    return [
        Alert(
            "ComptoirEngineStuck",
            f"(\n  {has_work}\n)\nand {per_replica(tokens)} == 0",
            "page",
            "The engine {{ $labels.replica }} of {{ $labels.model }} takes requests and produces no output",
            "It had requests the whole time and processed no token, neither prompt nor output.",
            for_s=3 * MINUTE,
        ),
        Alert(
            "ComptoirKvCacheFull",
            f"{full} > {config.kv_cache_use:g}\nand {waits} >= 1",
            "ticket",
            "The KV cache of {{ $labels.replica }} ({{ $labels.model }}) is full and requests wait",
            "{{ $value | humanizePercentage }} is in use: the engine preempts requests and slows down.",
            for_s=10 * MINUTE,
        ),
    ]


def _clients(config: MonitoringConfig) -> list[Alert]:
    window = config.duration(5 * MINUTE)
    busy = rate('comptoir_outcomes_total{outcome="busy"}', window)
    taken = rate('comptoir_outcomes_total{outcome!="refused"}', window)
    refused = f"sum by (model) (increase(comptoir_retries_refused_total[{window}]))"
    return [
        Alert(
            "ComptoirTurningAway",
            f"{busy} / {taken} > {config.busy_share:g}",
            "ticket",
            "{{ $labels.model }} turns requests away: it is busy",
            "{{ $value | humanizePercentage }} of its requests got 429: the queue was full or too slow.",
            for_s=5 * MINUTE,
        ),
        Alert(
            "ComptoirRetrying",
            f"{rate('comptoir_retries_total', window)} / {requests(5 * MINUTE)} > {config.retry_share:g}",
            "ticket",
            "Many requests for {{ $labels.model }} need a second replica",
            "{{ $value | humanizePercentage }} were sent again: replicas fail before they answer.",
            for_s=5 * MINUTE,
        ),
        Alert(
            "ComptoirRetryBudgetEmpty",
            f"{refused} > 0",
            "page",
            "Requests for {{ $labels.model }} fail because the retry budget is spent",
            "So many replicas fail that gateways no longer retry every request.",
            for_s=2 * MINUTE,
        ),
    ]
