"""Names of metrics are found in expressions, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from serving.monitoring.promql import family, metrics_in


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ("up", {"up"}),
        (
            'sum by (model) (rate(a_total{x="b_total",y=~"c"}[5m])) / b:c:rate5m',
            {"a_total", "b:c:rate5m"},
        ),
        ("max(a) and on (model, replica) (b > 0) or vector(0)", {"a", "b"}),
        ("a * 1e6 / 3.6e+09 * $pue", {"a"}),
        (
            'histogram_quantile(0.95, sum by (le) (rate(a_bucket{m="}"}[$__rate_interval])))',
            {"a_bucket"},
        ),
        ('absent(up{job="x"} == 1)', {"up"}),
        ("deriv(a:b:c[10m]) > 0.5\nand a:b:c > 10", {"a:b:c"}),
        ("1 - a unless ignoring(x) b", {"a", "b"}),
    ],
)
def test_metrics_are_found(expr: str, names: set[str]) -> None:
    assert metrics_in(expr) == names


def test_a_histograms_parts_belong_to_one_family() -> None:
    assert {family(f"a_seconds{end}") for end in ("_bucket", "_sum", "_count")} == {"a_seconds"}
    assert family("a_total") == "a_total"
