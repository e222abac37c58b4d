"""A machine that answers nothing has vanished; one whose process does not read has not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.gateway.peer import PEER_TIMEOUT_S, has_vanished
from serving.tcp import TcpInfo

QUIET = TcpInfo(
    retransmits=0,
    probes=0,
    unacked=0,
    unsent_bytes=0,
    acked_bytes=1000,
    last_sent_ms=60_000,
    last_ack_ms=60_000,
)
LOST = replace(QUIET, unacked=3, retransmits=4, last_sent_ms=2_000, last_ack_ms=60_000)
CLOSED_WINDOW = replace(QUIET, unsent_bytes=500, last_sent_ms=59_000, last_ack_ms=6_000)
LONG = PEER_TIMEOUT_S + 1.0


@pytest.mark.parametrize(
    ("info", "waited_s", "vanished"),
    [
        (QUIET, LONG, False),
        (LOST, LONG, True),
        (LOST, PEER_TIMEOUT_S - 1.0, False),
        (replace(LOST, last_ack_ms=3_000), LONG, False),
        (replace(LOST, last_ack_ms=1_000), LONG, False),
        (replace(LOST, retransmits=1), LONG, False),
        (CLOSED_WINDOW, LONG, False),
        (replace(CLOSED_WINDOW, probes=1), LONG, False),
        (replace(CLOSED_WINDOW, probes=2), LONG, True),
        (replace(LOST, last_sent_ms=40_000, last_ack_ms=39_999), LONG, False),
        (replace(LOST, last_sent_ms=1, last_ack_ms=39_999), LONG, False),
    ],
    ids=[
        "nothing under way",
        "sent again and again without an answer",
        "not for long",
        "the last but one was answered lately",
        "the last one was answered",
        "one packet lost",
        "window closed, last probe answered",
        "one probe lost",
        "window closed, probes unanswered",
        "window closed again, last retransmission answered",
        "an answer may be on its way",
    ],
)
def test_who_has_vanished(info: TcpInfo, waited_s: float, vanished: bool) -> None:
    assert has_vanished(info, waited_s) is vanished
