"""What is left out of requests: told to the client, counted by known names only."""

from __future__ import annotations

import pytest

from serving.gateway.dropped import DroppedFields, is_strict, listed
from serving.telemetry.metrics import GatewayMetrics
from serving.trust.known_names import KNOWN
from serving.trust.leftovers import MAX_NAMED, OTHERS, is_identifier

CHAT = "/v1/chat/completions"


def test_each_name_counts_once_a_request_and_unknown_ones_are_counted_together() -> None:
    metrics = GatewayMetrics()
    dropped = DroppedFields(metrics)
    dropped.count(CHAT, ["messages[].prefix", "messages[].tool_calls[].prefix", "canary", "x.y"])
    dropped.count(CHAT, ["tools[web_search]", OTHERS])
    dropped.count("/v1/messages", ["thread"])
    assert dropped.counts == {
        CHAT: {"prefix": 1, OTHERS: 2, "web_search": 1},
        "/v1/messages": {"thread": 1},
    }
    text = metrics.render().decode()
    assert f'comptoir_dropped_fields_total{{field="prefix",path="{CHAT}"}} 1.0' in text
    assert "canary" not in text


def test_clients_make_no_more_series_than_there_are_known_names() -> None:
    dropped = DroppedFields(GatewayMetrics())
    for number in range(1000):
        dropped.count(CHAT, [f"field_{number}", f"tools[kind_{number}]", f"a[].b_{number}"])
    assert dropped.counts[CHAT] == {OTHERS: 1000}


def test_all_known_names_can_be_named() -> None:
    assert all(map(is_identifier, KNOWN))


@pytest.mark.parametrize(
    ("header", "strict"),
    [(None, False), ("true", True), (" True ", True), ("1", True), ("false", False), ("", False)],
)
def test_a_client_asks_for_strictness_by_a_header(header: str | None, strict: bool) -> None:
    assert is_strict(header) is strict


def test_the_header_of_an_answer_stays_short() -> None:
    longest = [f"{'a' * 40}[].{'b' * 36}{number:04}" for number in range(MAX_NAMED)]
    assert len(listed([*longest, OTHERS])) < 4096
