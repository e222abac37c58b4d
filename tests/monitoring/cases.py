"""For every alert: a fault that makes it fire, and something like it that must not.

Values are promtool's: one for each minute; `0+600x70` grows by 600 a minute. A case says what differs from
`healthy`, and which other alerts rightly fire along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Series = Mapping[str, str]

REPLICA = 'model="m",replica="r1"'
FAILED = 'comptoir_outcomes_total{model="m",outcome="failed"}'
BUSY = 'comptoir_outcomes_total{model="m",outcome="busy"}'
IN_TIME = 'comptoir_ttft_seconds_bucket{model="m",le="2.5"}'
GENERATED = f"comptoir_engine_generated_tokens_total{{{REPLICA}}}"
PROMPT = f"comptoir_engine_prompt_tokens_total{{{REPLICA}}}"
KV = f"comptoir_engine_kv_cache_use{{{REPLICA}}}"
WAITING = f"comptoir_engine_waiting{{{REPLICA}}}"
RUNNING = f"comptoir_engine_running{{{REPLICA}}}"
IN_FLIGHT = f"comptoir_in_flight{{{REPLICA}}}"
BREAKER = f"comptoir_breaker_state{{{REPLICA}}}"
MODEL_BREAKER = 'comptoir_model_breaker_state{model="m"}'
REPLICAS = 'comptoir_replicas{model="m"}'
WANTED = 'comptoir_replicas_wanted{model="m"}'
QUEUE = 'comptoir_admission_waiting{model="m",instance="g1"}'
RETRIES = 'comptoir_retries_total{model="m"}'
NO_RETRY = 'comptoir_retries_refused_total{model="m"}'
UNEXPECTED = 'comptoir_requests_total{model="",status="500"}'
REFUSED = 'comptoir_settings_refused{source="keys_file"}'
UP_1, UP_2 = (f'up{{job="comptoir-gateway",instance="g{number}"}}' for number in (1, 2))


def state(name: str) -> str:
    return f'comptoir_application_state{{model="m",state="{name}"}}'


def healthy(minutes: int) -> dict[str, str]:
    """600 requests a minute, all well."""
    steady = {UP_1: 1, UP_2: 1, state("RUNNING"): 1, REPLICAS: 2, WANTED: 2}
    steady |= {MODEL_BREAKER: 0, BREAKER: 0, QUEUE: 0, UNEXPECTED: 0, REFUSED: 0}
    steady |= {RUNNING: 8, IN_FLIGHT: 8, WAITING: 0, KV: 0.5}
    growing = {
        'comptoir_outcomes_total{model="m",outcome="ok"}': 600,
        'comptoir_outcomes_total{model="m",outcome="broken"}': 0,
        'comptoir_outcomes_total{model="m",outcome="refused"}': 6,
        FAILED: 0,
        BUSY: 0,
        IN_TIME: 600,
        'comptoir_ttft_seconds_count{model="m"}': 600,
        PROMPT: 9000,
        GENERATED: 5000,
        RETRIES: 0,
        NO_RETRY: 0,
    }
    return {name: f"{value}x{minutes}" for name, value in steady.items()} | {
        name: f"0+{value}x{minutes}" for name, value in growing.items()
    }


@dataclass(frozen=True)
class Case:
    """`fires` and `silent` differ from `healthy`; the sets are alerts that fire as well."""

    alert: str
    minutes: int
    fires: Series
    silent: Series
    along: frozenset[str] = frozenset()
    silent_along: frozenset[str] = frozenset()
    name: str = field(default="")

    def __str__(self) -> str:
        return f"{self.alert}{self.name}"

    def document(self, rules: str) -> dict[str, Any]:
        """What `promtool test rules` reads."""
        quiet = self.silent_along
        return {
            "rule_files": [rules],
            "evaluation_interval": "1m",
            "tests": [
                self._test(self.fires, {self.alert} | self.along),
                self._test(self.silent, quiet),
                self._test({}, frozenset()),
            ],
        }

    def _test(self, changes: Series, expected: set[str] | frozenset[str]) -> dict[str, Any]:
        series = healthy(self.minutes) | dict(changes)
        fired = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)]
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{self.minutes}m",
                    "exp_samples": fired,
                }
            ],
        }


def case(
    alert: str,
    minutes: int,
    fires: Series,
    silent: Series,
    along: Sequence[str] = (),
    silent_along: Sequence[str] = (),
    name: str = "",
) -> Case:
    return Case(
        f"Comptoir{alert}",
        minutes,
        fires,
        silent,
        frozenset(f"Comptoir{one}" for one in along),
        frozenset(f"Comptoir{one}" for one in silent_along),
        name,
    )


CASES = [
    # 1.6 % of an hour against 14.4 * 0.1 %; 0.5 % is above 3 * 0.1 %, and below 6 * 0.1 %.
    case(
        "AvailabilityBurnFast",
        70,
        {FAILED: "0+10x70"},
        {FAILED: "0+3x70"},
        along=["AvailabilityBurnSlow"],
        silent_along=["AvailabilityBurnSlow"],
    ),
    case("AvailabilityBurnSlow", 400, {FAILED: "0+3x400"}, {FAILED: "0+0.3x400"}),
    # What was bad and is over wakes nobody: the short windows see nothing.
    case(
        "AvailabilityBurnFast",
        480,
        {FAILED: "0x420 0+600x60"},
        {FAILED: "0+600x60 36000x420"},
        along=["AvailabilityBurnSlow"],
        name=" after the fault",
    ),
    # A stream that breaks is a failure too.
    case(
        "AvailabilityBurnFast",
        70,
        {'comptoir_outcomes_total{model="m",outcome="broken"}': "0+10x70"},
        {'comptoir_outcomes_total{model="m",outcome="refused"}': "0+900x70", BUSY: "0+9x70"},
        along=["AvailabilityBurnSlow"],
        name=" counts broken streams",
    ),
    # Six requests in three days, half of them failed: below `min_requests`.
    case(
        "AvailabilityBurnSlow",
        400,
        {FAILED: "0+3x400"},
        {
            'comptoir_outcomes_total{model="m",outcome="ok"}': "0+0.01x400",
            FAILED: "0+0.01x400",
        },
        name=" needs requests",
    ),
    # 40 % late against 6 * 5 %; 27 % is above 3 * 5 %.
    case(
        "TtftBurnFast",
        70,
        {IN_TIME: "0+360x70"},
        {IN_TIME: "0+438x70"},
        along=["TtftBurnSlow"],
        silent_along=["TtftBurnSlow"],
    ),
    case("TtftBurnSlow", 400, {IN_TIME: "0+540x400"}, {IN_TIME: "0+576x400"}),
    case(
        "EndpointDown",
        10,
        {UP_1: "1x5 0x5", UP_2: "1x5 0x5"},
        {UP_1: "1x5 0x5"},
        along=["GatewayDown"],
        silent_along=["GatewayDown"],
    ),
    case("GatewayDown", 12, {UP_1: "1x5 0x7"}, {UP_1: "1x5 0 1x6"}),
    # A file that is being written is refused for a moment.
    case("SettingsRefused", 10, {REFUSED: "1x10"}, {REFUSED: "0x4 1 0x6"}),
    case("UnexpectedErrors", 10, {UNEXPECTED: "0x5 1x5"}, {UNEXPECTED: "7x10"}),
    case("ModelUnavailable", 12, {MODEL_BREAKER: "0x5 2x7"}, {MODEL_BREAKER: "0x5 1x7"}),
    case("ModelFailed", 12, {state("DEPLOY_FAILED"): "1x12"}, {state("DEPLOYING"): "1x12"}),
    case("ModelFailed", 12, {state("UNHEALTHY"): "1x12"}, {}, name=" unhealthy"),
    case("ReplicasMissing", 50, {REPLICAS: "2x10 1x40"}, {REPLICAS: "2x10 1x25 2x15"}),
    case("BreakerOpen", 12, {BREAKER: "0x5 2x7"}, {BREAKER: "0x8 2 0x3"}),
    # Probes fail: open, half open, open.
    case("BreakerOpen", 12, {BREAKER: "0x4 2 1 2 1 2 1 2"}, {BREAKER: "1x12"}, name=" flaps"),
    case("QueueGrowing", 30, {QUEUE: "0+5x30"}, {QUEUE: "200x30"}),
    case("QueueGrowing", 30, {QUEUE: "0x10 0+20x20"}, {QUEUE: "0x25 0 2 4 6 8"}, name=" small"),
    case(
        "EngineStuck",
        20,
        {PROMPT: "0+9000x8 72000x12", GENERATED: "0+5000x8 40000x12"},
        {PROMPT: "9x20", GENERATED: "9x20", RUNNING: "0x20", IN_FLIGHT: "0x20"},
    ),
    # An engine that stopped reporting, or that embeds and generates nothing.
    case(
        "EngineStuck",
        20,
        {PROMPT: "0x20", GENERATED: "0x20", RUNNING: "0x20"},
        {GENERATED: "0x20"},
        name=" seen by gateways",
    ),
    case("KvCacheFull", 30, {KV: "0.99x30", WAITING: "3x30"}, {KV: "0.99x30"}),
    case("KvCacheFull", 30, {KV: "0.97x30", WAITING: "1x30"}, {WAITING: "9x30"}, name=" waits"),
    case("TurningAway", 20, {BUSY: "0+60x20"}, {BUSY: "0+20x20"}),
    case("Retrying", 20, {RETRIES: "0+90x20"}, {RETRIES: "0+40x20"}),
    case("RetryBudgetEmpty", 12, {NO_RETRY: "0x5 1+1x7"}, {NO_RETRY: "7x12"}),
]
