"""Monitoring: Prometheus rules and Grafana dashboards, generated from the names of our metrics. Pure.

The numbers themselves come from `serving.telemetry`, in the gateway's process.
"""
