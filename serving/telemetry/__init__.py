"""Telemetry: this process's figures about itself. Never a word of a request.

`serving.monitoring` is the other side: rules and dashboards for those who read the numbers.
"""
