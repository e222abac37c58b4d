"""Dashboards about requests: the whole fleet, and who sends them."""

from __future__ import annotations

from serving.monitoring import slo
from serving.monitoring.alerts import QUEUE
from serving.monitoring.boards.parts import WINDOW, outcomes, quantile, quantiles
from serving.monitoring.grafana import Dashboard, Panel, Query, Row, Variable
from serving.monitoring.promql import per_replica, rate
from serving.monitoring.settings import MonitoringConfig

OUTPUT = 'comptoir_tokens_total{kind="output"}'
CHOSEN = 'tenant=~"$tenant"'
TENANTS = Variable("tenant", "Tenant", "label_values(comptoir_tenant_outcomes_total, tenant)")


def _stat(title: str, expr: str, unit: str, about: str = "") -> Panel:
    return Panel(title, [Query(expr, title)], unit, about, kind="stat", width=4, height=4)


def fleet(config: MonitoringConfig) -> Dashboard:
    """The health of the endpoint, and the place of problems."""
    job = f'job="{config.job}"'
    return Dashboard(
        "fleet",
        "fleet",
        "Health of the endpoint: all models, all gateways",
        [
            Row("Now", _now(config, job)),
            Row("Models", _models()),
            Row("Replicas", _failing()),
            Row("Gateways", _gateways(job)),
        ],
    )


def _now(config: MonitoringConfig, job: str) -> list[Panel]:
    good = f"1 - sum(rate(comptoir_outcomes_total{{{slo.BAD}}}[1h]))"
    return [
        _stat("Requests", f"sum(rate(comptoir_outcomes_total[{WINDOW}]))", "reqps"),
        _stat("Output tokens", f"sum(rate({OUTPUT}[{WINDOW}]))", "suffix: tok/s"),
        _stat(
            "Availability, 1 h",
            f"{good} / sum(rate(comptoir_outcomes_total{{{slo.COUNTED}}}[1h]))",
            "percentunit",
            f"Objective: {100 * config.availability:g} %",
        ),
        _stat("TTFT p95", quantile(0.95, "ttft_seconds"), "s", "Streams, time in queues included"),
        _stat("Gateways up", f"sum(up{{{job}}})", "none"),
        _stat(
            "Alerts",
            'count(ALERTS{service="comptoir",alertstate="firing"}) or vector(0)',
            "none",
            "That fire now",
        ),
    ]


def _models() -> list[Panel]:
    return [
        Panel(
            "Requests by model",
            [Query(rate("comptoir_outcomes_total", WINDOW), "{{model}}")],
            "reqps",
        ),
        outcomes(),
        Panel("Time to the first token", quantiles("ttft_seconds"), "s", "Streams of all models"),
        Panel(
            "Output tokens by model", [Query(rate(OUTPUT, WINDOW), "{{model}}")], "suffix: tok/s"
        ),
        Panel("Waiting in the gateways", [Query(QUEUE, "{{model}}")], "short"),
        Panel(
            "Errors, share of requests",
            [Query(slo.errors(5 * slo.MINUTE), "{{model}}")],
            "percentunit",
            "Failed or broken, over five minutes",
        ),
    ]


def _failing() -> list[Panel]:
    wanted = "max by (model) (comptoir_replicas_wanted)"
    return [
        Panel(
            "Replicas",
            [
                Query("min by (model) (comptoir_replicas)", "{{model}} running"),
                Query(wanted, "{{model}} wanted"),
            ],
            "short",
        ),
        Panel(
            "Breakers",
            [Query(per_replica("comptoir_breaker_state"), "{{model}} {{replica}}")],
            "none",
            "0 closed, 1 half open, 2 open",
            maximum=2,
        ),
        Panel(
            "Retries and fallbacks",
            [
                Query(rate("comptoir_retries_total", WINDOW), "{{model}} retries"),
                Query(
                    rate("comptoir_failovers_total", WINDOW, "failed_model, failure"),
                    "{{failed_model}} {{failure}}",
                ),
            ],
            "ops",
            "Requests given to another replica, and to another model",
        ),
        Panel(
            "Refused with 429, by reason",
            [Query(rate("comptoir_rejected_total", WINDOW, "reason"), "{{reason}}")],
            "reqps",
        ),
    ]


def _gateways(job: str) -> list[Panel]:
    name = "{{instance}} {{gateway}}"
    return [
        Panel(
            "Gateways' CPU",
            [Query(f"rate(process_cpu_seconds_total{{{job}}}[{WINDOW}])", name)],
            "percentunit",
            "Of one core. A gateway uses one; near 100 % it is the bottleneck: run another",
        ),
        Panel(
            "Gateways' memory", [Query(f"process_resident_memory_bytes{{{job}}}", name)], "bytes"
        ),
    ]


def tenant() -> Dashboard:
    """Who uses the endpoint, and what they get. A tenant is the name of an API key."""
    return Dashboard(
        "tenant",
        "tenants",
        "Who uses the endpoint and what they get; a tenant is the name of an API key",
        [Row("Now", _of_tenants()), Row("In the chosen time range", [_tokens()])],
        [TENANTS],
    )


def _of_tenants() -> list[Panel]:
    output = f'comptoir_tenant_tokens_total{{kind="output",{CHOSEN}}}'
    cached = (
        f'sum by (tenant) (rate(comptoir_tenant_tokens_total{{kind="cached",{CHOSEN}}}[{WINDOW}]))'
    )
    prompt = (
        f'sum by (tenant) (rate(comptoir_tenant_tokens_total{{kind="prompt",{CHOSEN}}}[{WINDOW}]))'
    )
    requests = f"comptoir_tenant_outcomes_total{{{CHOSEN}}}"
    bad = rate(f"comptoir_tenant_outcomes_total{{{slo.BAD},{CHOSEN}}}", WINDOW, "tenant")
    busy = rate(f'comptoir_tenant_outcomes_total{{outcome="busy",{CHOSEN}}}', WINDOW, "tenant")
    total = rate(requests, WINDOW, "tenant")
    return [
        Panel("Requests by tenant", [Query(total, "{{tenant}}")], "reqps"),
        outcomes(CHOSEN, "tenant_outcomes"),
        Panel(
            "Output tokens", [Query(rate(output, WINDOW, "tenant"), "{{tenant}}")], "suffix: tok/s"
        ),
        Panel(
            "Prompt tokens found in the prefix cache",
            [Query(f"{cached} / ({prompt} > 0)", "{{tenant}}")],
            "percentunit",
            maximum=1,
        ),
        Panel("Turned away: busy", [Query(f"{busy} / ({total} > 0)", "{{tenant}}")], "percentunit"),
        Panel("Failed or broken", [Query(f"{bad} / ({total} > 0)", "{{tenant}}")], "percentunit"),
    ]


def _tokens() -> Panel:
    used = f"sum by (tenant, kind) (increase(comptoir_tenant_tokens_total{{{CHOSEN}}}[$__range]))"
    return Panel(
        "Tokens in the time range",
        [Query(used, "{{tenant}} {{kind}}")],
        "short",
        "As the engines counted them: an estimate; bills come from the ledger",
        kind="bargauge",
        width=24,
        height=10,
    )
