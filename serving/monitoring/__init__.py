"""Monitoring: Prometheus rules and Grafana dashboards, generated from what the gateway measures. Pure."""
