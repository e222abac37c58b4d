"""Dashboards about requests: the whole fleet, and who sends them."""

from __future__ import annotations

from serving.monitoring import slo
from serving.monitoring.alerts import QUEUE
from serving.monitoring.boards.parts import WINDOW, outcomes, quantile, quantiles
from serving.monitoring.grafana import Dashboard, Panel, Query, Row, Variable
from serving.monitoring.promql import per_replica, rate
from serving.monitoring.settings import MonitoringConfig

TENANTS = Variable("tenant", "Tenant", "label_values(comptoir_tenant_outcomes_total, tenant)")


def _stat(title: str, expr: str, unit: str, about: str = "") -> Panel:
    return Panel(title, [Query(expr, title)], unit, about, kind="stat", width=4, height=4)


def fleet(config: MonitoringConfig) -> Dashboard:
    """Is the endpoint well, and if not, where."""
    job = f'job="{config.job}"'
    tokens = 'comptoir_tokens_total{kind="output"}'
    good = f"1 - sum(rate(comptoir_outcomes_total{{{slo.BAD}}}[1h]))"
    now = [
        _stat("Requests", f"sum(rate(comptoir_outcomes_total[{WINDOW}]))", "reqps"),
        _stat("Output tokens", f"sum(rate({tokens}[{WINDOW}]))", "suffix: tok/s"),
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
    models = [
        Panel(
            "Requests by model",
            [Query(rate("comptoir_outcomes_total", WINDOW), "{{model}}")],
            "reqps",
        ),
        outcomes(),
        Panel("Time to the first token", quantiles("ttft_seconds"), "s", "Streams of all models"),
        Panel(
            "Output tokens by model", [Query(rate(tokens, WINDOW), "{{model}}")], "suffix: tok/s"
        ),
        Panel("Waiting in the gateways", [Query(QUEUE, "{{model}}")], "short"),
        Panel(
            "Errors, share of requests",
            [Query(slo.errors(5 * slo.MINUTE), "{{model}}")],
            "percentunit",
            "Failed or broken, over five minutes",
        ),
    ]
    return Dashboard(
        "fleet",
        "fleet",
        "Health of the endpoint: all models, all gateways",
        [
            Row("Now", now),
            Row("Models", models),
            Row("Replicas", _failing()),
            Row("Gateways", _gateways(job)),
        ],
    )


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
            "Retries and stand-ins",
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
    chosen = 'tenant=~"$tenant"'
    used = f"sum by (tenant, kind) (increase(comptoir_tenant_tokens_total{{{chosen}}}[$__range]))"
    output = f'comptoir_tenant_tokens_total{{kind="output",{chosen}}}'
    cached = (
        f'sum by (tenant) (rate(comptoir_tenant_tokens_total{{kind="cached",{chosen}}}[{WINDOW}]))'
    )
    prompt = (
        f'sum by (tenant) (rate(comptoir_tenant_tokens_total{{kind="prompt",{chosen}}}[{WINDOW}]))'
    )
    requests = f"comptoir_tenant_outcomes_total{{{chosen}}}"
    bad = rate(f"comptoir_tenant_outcomes_total{{{slo.BAD},{chosen}}}", WINDOW, "tenant")
    busy = rate(f'comptoir_tenant_outcomes_total{{outcome="busy",{chosen}}}', WINDOW, "tenant")
    total = rate(requests, WINDOW, "tenant")
    panels = [
        Panel("Requests by tenant", [Query(total, "{{tenant}}")], "reqps"),
        outcomes(chosen, "tenant_outcomes"),
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
    range_ = [
        Panel(
            "Tokens in the time range",
            [Query(used, "{{tenant}} {{kind}}")],
            "short",
            "As the engines counted them: an estimate; bills come from the ledger",
            kind="bargauge",
            width=24,
            height=10,
        )
    ]
    return Dashboard(
        "tenant",
        "tenants",
        "Who uses the endpoint and what they get; a tenant is the name of an API key",
        [Row("Now", panels), Row("In the chosen time range", range_)],
        [TENANTS],
    )
