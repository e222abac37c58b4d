"""The dashboard of one model, down to its replicas and engines."""

from __future__ import annotations

from serving.monitoring import slo
from serving.monitoring.boards.parts import (
    MODEL,
    MODELS,
    WINDOW,
    engine,
    outcomes,
    quantile,
    quantiles,
)
from serving.monitoring.grafana import Dashboard, Panel, Query, Row
from serving.monitoring.promql import per_replica, rate
from serving.monitoring.settings import MonitoringConfig, duration


def model(config: MonitoringConfig) -> Dashboard:
    """The state of one model, down to its replicas."""
    return Dashboard(
        "model",
        "model",
        "One model: its objectives, its latency, its replicas and engines",
        [
            Row("Objectives", _objectives(config)),
            Row("Requests", _requests()),
            Row("Engines", _engines()),
            Row("Routing", _routing()),
        ],
        [MODELS],
    )


def _objectives(config: MonitoringConfig) -> list[Panel]:
    bad = f"sum by (model) (increase(comptoir_outcomes_total{{{slo.BAD},{MODEL}}}[30d]))"
    all_of_them = (
        f"sum by (model) (increase(comptoir_outcomes_total{{{slo.COUNTED},{MODEL}}}[30d]))"
    )
    left = f"1 - {bad} / {all_of_them} / {1 - config.availability:.6g}"
    windows = (5 * slo.MINUTE, slo.HOUR, 6 * slo.HOUR)
    return [
        Panel(
            "Error budget left, 30 days",
            [Query(left, "{{model}}")],
            "percentunit",
            f"Objective: {100 * config.availability:g} % of requests. Prometheus must keep 30 days",
            kind="stat",
            width=8,
        ),
        Panel(
            "Burn rate of the error budget",
            [
                Query(
                    f"{slo.errors(seconds)}{{{MODEL}}} / {1 - config.availability:.6g}",
                    f"{{{{model}}}} {duration(seconds)}",
                )
                for seconds in windows
            ],
            "short",
            "At 1 it lasts exactly 30 days; at 14.4 over an hour somebody is paged",
            width=8,
        ),
        Panel(
            f"Streams that begin after {config.ttft_s:g} s",
            [
                Query(
                    f"{slo.slow_starts(seconds)}{{{MODEL}}}",
                    f"{{{{model}}}} {duration(seconds)}",
                )
                for seconds in windows
            ],
            "percentunit",
            f"The objective allows {100 * (1 - config.ttft_share):.4g} %",
            width=8,
        ),
    ]


def _requests() -> list[Panel]:
    bucket = f"sum by (le) (increase(comptoir_ttft_seconds_bucket{{{MODEL}}}[{WINDOW}]))"
    queue = "queue_wait_seconds"
    return [
        outcomes(MODEL),
        Panel("Time to the first token", quantiles("ttft_seconds", MODEL), "s"),
        Panel("Time to the first token, all of it", [Query(bucket, "{{le}}")], "s", kind="heatmap"),
        Panel("Whole requests", quantiles("request_seconds", MODEL), "s"),
        Panel(
            "Tokens",
            [
                Query(
                    rate(f"comptoir_tokens_total{{{MODEL}}}", WINDOW, "model, kind"),
                    "{{model}} {{kind}}",
                )
            ],
            "suffix: tok/s",
            "As the engines counted them; cached ones are part of the prompt's",
        ),
        Panel(
            "Wait in the queue, p95",
            [Query(quantile(0.95, queue, MODEL, "priority"), "{{priority}}")],
            "s",
            "Of requests that had to wait",
        ),
    ]


def _growth(signal: str) -> str:
    return per_replica(f"rate(comptoir_engine_{signal}_total{{{MODEL}}}[{WINDOW}])")


def _engines() -> list[Panel]:
    name = "{{model}} {{replica}}"
    return [
        Panel("Running in the engine", [Query(engine("running"), name)], "short"),
        Panel("Waiting in the engine", [Query(engine("waiting"), name)], "short"),
        Panel("KV cache taken", [Query(engine("kv_cache_use"), name)], "percentunit", maximum=1),
        Panel("Tokens generated", [Query(engine("tokens_per_second"), name)], "suffix: tok/s"),
        Panel(
            "Mean time between two tokens",
            [Query(f"{engine('running')} / ({engine('tokens_per_second')} > 0)", name)],
            "s",
            "Requests in the batch over tokens per second",
        ),
        Panel(
            "Prefix cache hits",
            [
                Query(
                    f"{_growth('prefix_hit_tokens')} / ({_growth('prefix_queried_tokens')} > 0)",
                    name,
                )
            ],
            "percentunit",
            "Share of prompt tokens that were computed before",
            maximum=1,
        ),
        Panel(
            "Preemptions",
            [Query(_growth("preemptions"), name)],
            "ops",
            "Requests preempted because the KV cache was full",
        ),
        Panel("Prompt tokens processed", [Query(_growth("prompt_tokens"), name)], "suffix: tok/s"),
    ]


def _routing() -> list[Panel]:
    choices = rate(f"comptoir_replica_choices_total{{{MODEL}}}", WINDOW, "policy, reason")
    states = f"max by (model, state) (comptoir_replicas_by_state{{{MODEL}}})"
    return [
        Panel(
            "Why the model was chosen",
            [
                Query(
                    rate(f"comptoir_model_choices_total{{{MODEL}}}", WINDOW, "model, reason"),
                    "{{model}} {{reason}}",
                )
            ],
            "reqps",
            "By its name, an alias (canaries), a rule, or as a fallback",
        ),
        Panel("Why a replica was chosen", [Query(choices, "{{policy}}: {{reason}}")], "reqps"),
        Panel("Replicas by Serve's state", [Query(states, "{{model}} {{state}}")], "short"),
        Panel(
            "Breakers",
            [Query(per_replica(f"comptoir_breaker_state{{{MODEL}}}"), "{{model}} {{replica}}")],
            "none",
            "0 closed, 1 half open, 2 open",
            maximum=2,
        ),
    ]
