"""Metrics of other exporters that dashboards use: their source and meaning."""

from __future__ import annotations

from collections.abc import Mapping

# Prometheus' own.
PROMETHEUS: Mapping[str, str] = {
    "up": "1 while Prometheus can scrape the target",
    "ALERTS": "1 for each alert that is pending or firing",
}
# NVIDIA's DCGM exporter; all are on in its default list of counters.
DCGM: Mapping[str, str] = {
    "DCGM_FI_DEV_POWER_USAGE": "power of a GPU, in watts",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "energy that a GPU has used, in millijoules",
    "DCGM_FI_DEV_GPU_UTIL": "share of time in which a kernel ran, in per cent",
    "DCGM_FI_DEV_GPU_TEMP": "temperature of a GPU, in degrees Celsius",
    "DCGM_FI_DEV_FB_USED": "GPU memory in use, in MiB",
    "DCGM_FI_DEV_FB_FREE": "GPU memory that is free, in MiB",
}
# Ray's exporter, on every node; it puts `ray_` before every name.
RAY: Mapping[str, str] = {
    "ray_comptoir_autoscaling_changes_total": "changes of the number of replicas, by reason",
    "ray_resources": "resources of nodes and their use",
    "ray_node_cpu_utilization": "CPU use of a node, in per cent",
    "ray_node_mem_used": "memory in use on a node, in bytes",
    "ray_node_mem_total": "memory of a node, in bytes",
    "ray_serve_deployment_replica_starts_total": "starts of replicas",
}
EXTERNAL: Mapping[str, str] = {**PROMETHEUS, **DCGM, **RAY}
