"""Counts the fields that requests lose on their way to engines, by endpoint and name."""

from __future__ import annotations

from collections.abc import Iterable

from serving.telemetry.metrics import GatewayMetrics
from serving.trust.known_names import KNOWN
from serving.trust.leftovers import OTHERS

# Of an answer: what was left out of its request.
DROPPED_HEADER = "x-comptoir-dropped"
# Of a request: refuse it rather than leave a field out.
STRICT_HEADER = "x-comptoir-strict"


def is_strict(header: str | None) -> bool:
    """Whether the client asks to be refused."""
    return header is not None and header.strip().lower() in ("true", "1", "yes")


def listed(places: Iterable[str]) -> str:
    """The header of an answer."""
    return ", ".join(places)


class DroppedFields:
    """Since the start of this process; names are words of a fixed list, so that clients can make none."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._counted = metrics.dropped_fields

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """By path and name."""
        found: dict[str, dict[str, int]] = {}
        for metric in self._counted.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    of_path = found.setdefault(sample.labels["path"], {})
                    of_path[sample.labels["field"]] = int(sample.value)
        return found

    def count(self, path: str, places: Iterable[str]) -> None:
        """One request has lost these, as in `messages[].prefix`."""
        for name in {_known(place) for place in places}:
            self._counted.labels(path, name).inc()


def _known(place: str) -> str:
    name = (
        place.rpartition("[")[2].removesuffix("]")
        if place.endswith("]")
        else place.rpartition(".")[2]
    )
    return name if name in KNOWN else OTHERS
