"""Metrics can be read by Prometheus and carry what happened."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.metrics import PIECE_ROWS, GatewayMetrics


def samples(
    metrics: GatewayMetrics, *gauges: tuple[str, dict[str, str], float]
) -> dict[str, float]:
    text = metrics.render(gauges).decode()
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_was_counted_can_be_read() -> None:
    metrics = GatewayMetrics()
    metrics.requests.labels("m", "200").inc()
    metrics.queue_wait.labels("m", "batch").observe(0.3)
    found = samples(metrics)
    assert found["comptoir_requests_total|m|200"] == 1
    assert found["comptoir_queue_wait_seconds_count|m|batch"] == 1


def test_gauges_show_the_moment_and_nothing_older() -> None:
    metrics = GatewayMetrics()
    first = samples(metrics, ("in_flight", {"replica": "a"}, 3), ("in_flight", {"replica": "b"}, 1))
    assert (first["comptoir_in_flight|a"], first["comptoir_in_flight|b"]) == (3, 1)
    second = samples(metrics, ("in_flight", {"replica": "b"}, 2))
    assert second["comptoir_in_flight|b"] == 2
    assert "comptoir_in_flight|a" not in second


def test_two_gateways_in_one_process_do_not_mix() -> None:
    one, other = GatewayMetrics(), GatewayMetrics()
    one.rejected.labels("m").inc()
    assert "comptoir_rejected_total|m" not in samples(other)


def test_a_scrape_in_parts_is_the_same_as_a_whole_one() -> None:
    metrics = GatewayMetrics("g1")
    metrics.expect("m")
    metrics.tenant("shop")["ok"].inc()
    moments = [("in_flight", {"model": "m", "replica": "a"}, 3.0)]
    for number in range(1000):
        metrics.tenant(f"k{number}")
    parts = list(metrics.parts(moments))
    assert max(part.count(b"\n") for part in parts) <= PIECE_ROWS + 2
    families = list(text_string_to_metric_families(b"".join(parts).decode()))
    assert len({family.name for family in families}) == len(families) > 30
    rows = {str(row) for family in families for row in family.samples}
    assert len(rows) == sum(len(family.samples) for family in families) > 9000
    found = samples(metrics, *moments)
    assert found["comptoir_in_flight|g1|m|a"] == 3
    assert found["comptoir_tenant_outcomes_total|g1|ok|shop"] == 1
    # What has not happened yet is zero, so that its first time is a growth.
    assert found["comptoir_tenant_outcomes_total|g1|failed|shop"] == 0
    assert found["comptoir_outcomes_total|g1|m|failed"] == 0


def test_who_sees_few_rows_waits_for_few_to_be_made() -> None:
    metrics = GatewayMetrics()
    for number in range(100):
        metrics.tenant(f"k{number}")
    moments = [("in_flight", {"model": "m", "replica": "a"}, 3.0)]
    text = b"".join(metrics.parts(moments, lambda labels: labels.get("tenant") == "k7")).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == 9
    assert all('tenant="k7"' in line for line in lines)
