"""Reads which metrics a PromQL expression names; writes the few forms that rules and dashboards share.

It knows the expressions that this package writes, not all of PromQL; Prometheus itself is asked in the tests.
"""

from __future__ import annotations

import re

_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"")
_NAME = re.compile(r"(?<![\w:$.])[A-Za-z_:][\w:]*")
# Parts in which names are labels or times: matchers, ranges, and the lists after these words.
_NO_METRICS = re.compile(
    r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
)
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring"})
_WORDS |= {"group_left", "group_right", "inf", "nan", "Inf", "NaN"}
_SUFFIXES = ("_bucket", "_count", "_sum")


def metrics_in(expr: str) -> set[str]:
    """Names of the metrics in an expression, as they are written there."""
    bare = _NO_METRICS.sub(" ", _QUOTED.sub('""', expr))
    return {
        found[0]
        for found in _NAME.finditer(bare)
        if found[0] not in _WORDS and not bare[found.end() :].lstrip().startswith("(")
    }


def family(metric: str) -> str:
    """A metric's name without a histogram's suffix, as an exposition declares it."""
    for suffix in _SUFFIXES:
        if metric.endswith(suffix):
            return metric.removesuffix(suffix)
    return metric


def rate(metric: str, window: str, by: str = "model") -> str:
    """Events per second of all gateways together."""
    return f"sum by ({by}) (rate({metric}[{window}]))"


def per_replica(metric: str) -> str:
    """A figure that all gateways report alike about a replica, counted once."""
    return f"max by (model, replica) ({metric})"
