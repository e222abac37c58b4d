"""Dashboards about machines: capacity, and the cost of energy."""

from __future__ import annotations

from serving.monitoring.alerts import QUEUE
from serving.monitoring.boards.parts import MODEL, MODELS, WINDOW, engine
from serving.monitoring.grafana import Dashboard, Panel, Query, Row, Variable
from serving.monitoring.promql import per_replica, rate

POWER = "sum(DCGM_FI_DEV_POWER_USAGE)"
MILLIJOULES_PER_KWH = 3.6e9


def capacity() -> Dashboard:
    """Whether there is enough capacity, and which part is short."""
    return Dashboard(
        "capacity",
        "capacity",
        "Whether there are enough replicas and GPUs, and when there were too few",
        [
            Row("Replicas", [*_replicas(), *_slots()]),
            Row("Engines", _engines()),
            Row("Machines", [*_gpus(), *_nodes()]),
        ],
        [MODELS],
        since="now-24h",
    )


def _replicas() -> list[Panel]:
    running = f"min by (model) (comptoir_replicas{{{MODEL}}})"
    wanted = f"max by (model) (comptoir_replicas_wanted{{{MODEL}}})"
    changes = "ray_comptoir_autoscaling_changes_total"
    return [
        Panel(
            "Replicas",
            [Query(running, "{{model}} running"), Query(wanted, "{{model}} wanted")],
            "short",
        ),
        Panel(
            "Changes by the autoscaler",
            [
                Query(
                    rate(f"{changes}{{{MODEL}}}", "1h", "model, reason") + " * 3600",
                    "{{model}} {{reason}}",
                )
            ],
            "short",
            "Per hour; Ray's exporter",
        ),
    ]


def _slots() -> list[Panel]:
    taken = f"sum by (model) (comptoir_admission_open{{{MODEL}}})"
    slots = f"sum by (model) (comptoir_admission_slots{{{MODEL}}})"
    return [
        Panel(
            "Slots taken",
            [Query(f"{taken} / ({slots} > 0)", "{{model}}")],
            "percentunit",
            "At 100 % requests wait in the gateways",
            maximum=1,
        ),
        Panel("Waiting in the gateways", [Query(f"{QUEUE}{{{MODEL}}}", "{{model}}")], "short"),
        Panel(
            "The longest wait now",
            [
                Query(
                    f"max by (model) (comptoir_admission_oldest_wait_seconds{{{MODEL}}})",
                    "{{model}}",
                )
            ],
            "s",
        ),
        Panel(
            "Time that a replica took to start",
            [Query(f"max by (model) (comptoir_engine_start_seconds{{{MODEL}}})", "{{model}}")],
            "s",
            "A scale-up helps only after so long",
        ),
    ]


def _engines() -> list[Panel]:
    per_model = f"sum by (model) ({engine('tokens_per_second')})"
    return [
        Panel("Tokens generated", [Query(per_model, "{{model}}")], "suffix: tok/s"),
        Panel(
            "Requests in a replica, mean",
            [Query(f"avg by (model) ({engine('open_requests')})", "{{model}}")],
            "short",
        ),
        Panel(
            "KV cache in use, fullest replica",
            [Query(f"max by (model) ({engine('kv_cache_use')})", "{{model}}")],
            "percentunit",
            maximum=1,
        ),
        Panel(
            "KV cache in use, peak of a day",
            [
                Query(
                    f"max by (model) (max_over_time(comptoir_engine_kv_cache_use{{{MODEL}}}[1d]))",
                    "{{model}}",
                )
            ],
            "percentunit",
            "Far below 100 % for weeks: a smaller GPU, or fewer replicas, would do",
            maximum=1,
        ),
        Panel(
            "Waiting in the engines",
            [
                Query(
                    f"sum by (model) ({per_replica(f'comptoir_engine_waiting{{{MODEL}}}')})",
                    "{{model}}",
                )
            ],
            "short",
        ),
    ]


def _gpus() -> list[Panel]:
    gpus = 'ray_resources{Name="GPU"'
    return [
        Panel(
            "GPUs that Ray has allocated",
            [
                Query(f'sum({gpus},State="USED"}})', "used"),
                Query(f"sum({gpus}}})", "all"),
            ],
            "short",
            "Ray's exporter",
        ),
        Panel(
            "GPUs at work",
            [Query("DCGM_FI_DEV_GPU_UTIL", "{{Hostname}} {{gpu}}")],
            "percent",
            "NVIDIA's DCGM exporter: time in which a kernel ran",
            maximum=100,
        ),
        Panel(
            "GPU memory taken",
            [
                Query(
                    "DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)",
                    "{{Hostname}} {{gpu}}",
                )
            ],
            "percentunit",
            "Engines reserve their share at startup",
            maximum=1,
        ),
    ]


def _nodes() -> list[Panel]:
    return [
        Panel(
            "Nodes' CPU",
            [Query("avg by (instance) (ray_node_cpu_utilization)", "{{instance}}")],
            "percent",
            "Ray's exporter",
            maximum=100,
        ),
        Panel(
            "Nodes' memory",
            [
                Query(
                    "sum by (instance) (ray_node_mem_used) / sum by (instance) (ray_node_mem_total)",
                    "{{instance}}",
                )
            ],
            "percentunit",
            "Ray's exporter",
            maximum=1,
        ),
        Panel(
            "Replicas started",
            [
                Query(
                    "sum by (application) (increase(ray_serve_deployment_replica_starts_total[1h]))",
                    "{{application}}",
                )
            ],
            "short",
            "Per hour; a steady rate of starts means crashes",
        ),
    ]


def energy() -> Dashboard:
    """The power of GPUs, and the cost of a token in energy, money and carbon dioxide."""
    return Dashboard(
        "energy",
        "energy",
        "What GPUs draw and what a token costs; needs NVIDIA's DCGM exporter",
        [Row("In the chosen time range", _costs()), Row("Power", _power())],
        [
            Variable("pue", "PUE of the data centre", "1.3", "textbox"),
            Variable("price", "EUR per kWh", "0.20", "textbox"),
            Variable("carbon", "g CO2 per kWh", "300", "textbox"),
        ],
        since="now-24h",
    )


def _costs() -> list[Panel]:
    used = "sum(increase(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[$__range]))"
    kwh = f"{used} / {MILLIJOULES_PER_KWH:.6g} * $pue"
    tokens = 'sum(increase(comptoir_tokens_total{kind="output"}[$__range]))'
    per_million = f"{kwh} / ({tokens} > 0) * 1e6"
    return [
        _number("Energy in the time range", kwh, "kwatth"),
        _number("Energy for a million tokens", per_million, "kwatth"),
        _number("Cost of a million tokens", f"{per_million} * $price", "currencyEUR"),
        _number("Carbon dioxide for a million tokens", f"{per_million} * $carbon", "massg"),
    ]


def _power() -> list[Panel]:
    output = f'sum(rate(comptoir_tokens_total{{kind="output"}}[{WINDOW}]))'
    idle = "sum(DCGM_FI_DEV_POWER_USAGE and (DCGM_FI_DEV_GPU_UTIL < 5)) or vector(0)"
    return [
        Panel(
            "Power",
            [Query(f"{POWER} * $pue", "with the building"), Query(POWER, "GPUs")],
            "watt",
        ),
        Panel(
            "Power by machine",
            [Query("sum by (Hostname) (DCGM_FI_DEV_POWER_USAGE)", "{{Hostname}}")],
            "watt",
            stacked=True,
        ),
        Panel(
            "Tokens per joule",
            [Query(f"{output} / ({POWER} * $pue)", "tokens per joule")],
            "short",
            "Output tokens; higher is better, and full batches are what raises it",
        ),
        Panel(
            "Power of idle GPUs",
            [Query(idle, "idle")],
            "watt",
            "Below 5 % use; their model could sleep (docs/autoscaling.md)",
        ),
        Panel("Power of a GPU", [Query("DCGM_FI_DEV_POWER_USAGE", "{{Hostname}} {{gpu}}")], "watt"),
        Panel("Temperature", [Query("DCGM_FI_DEV_GPU_TEMP", "{{Hostname}} {{gpu}}")], "celsius"),
    ]


def _number(title: str, expr: str, unit: str) -> Panel:
    return Panel(title, [Query(expr, title)], unit, kind="stat", width=6, height=4)
