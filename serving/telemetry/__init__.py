"""Telemetry: what this process says of itself, in numbers. Never a word of a request.

`serving.monitoring` is the other side: rules and dashboards for those who read the numbers.
"""
