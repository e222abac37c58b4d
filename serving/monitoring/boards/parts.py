"""Pictures and expressions that several dashboards share."""

from __future__ import annotations

from serving.monitoring.grafana import Panel, Query, Variable
from serving.monitoring.promql import per_replica, rate

WINDOW = "$__rate_interval"
MODEL = 'model=~"$model"'
MODELS = Variable("model", "Model", "label_values(comptoir_replicas, model)")


def quantile(share: float, histogram: str, matchers: str = "", by: str = "") -> str:
    """A quantile of a histogram over the dashboard's own interval."""
    groups = f"le, {by}" if by else "le"
    selected = f"comptoir_{histogram}_bucket{{{matchers}}}"
    return f"histogram_quantile({share}, sum by ({groups}) (rate({selected}[{WINDOW}])))"


def quantiles(histogram: str, matchers: str = "") -> list[Query]:
    """The usual three."""
    return [
        Query(quantile(share, histogram, matchers), f"p{100 * share:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def outcomes(matchers: str = "", metric: str = "outcomes") -> Panel:
    """Requests by how they ended."""
    return Panel(
        "Requests by outcome",
        [Query(rate(f"comptoir_{metric}_total{{{matchers}}}", WINDOW, "outcome"), "{{outcome}}")],
        "reqps",
        "ok; broken: the stream ended with an error; failed: 5xx; busy: 429 for lack of room; "
        "refused: errors of the client",
        stacked=True,
    )


def engine(signal: str, over: str = MODEL) -> str:
    """A figure of the engines' reports, once per replica."""
    return per_replica(f"comptoir_engine_{signal}{{{over}}}")
