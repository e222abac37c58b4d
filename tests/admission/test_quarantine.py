"""What was the cause of failures is held for a while, for its tenant only, and the table stays small."""

from __future__ import annotations

import dataclasses

import pytest

from serving.admission.quarantine import Quarantine, Suspect
from serving.config.admission import QuarantineConfig

POISON = Suspect("a", "m", "/v1/responses", b'{"input": []}')


def quarantine(**config: float) -> Quarantine:
    return Quarantine(QuarantineConfig.model_validate(config))


def test_a_request_is_held_for_a_minute_and_then_sent_again() -> None:
    held = quarantine()
    assert held.left_s(POISON, 0.0) == 0
    held.add(POISON, 0.0)
    assert held.left_s(POISON, 20.0) == 40.0
    assert held.left_s(POISON, 60.0) == 0
    assert len(held) == 0


@pytest.mark.parametrize(
    "other",
    [{"tenant": "b"}, {"model_id": "n"}, {"path": "/v1/messages"}, {"body": b'{"input": {}}'}],
    ids=["another tenant", "another model", "another endpoint", "another body of that length"],
)
def test_nothing_else_is_held(other: dict[str, object]) -> None:
    held = quarantine()
    held.add(POISON, 0.0)
    assert held.left_s(dataclasses.replace(POISON, **other), 0.0) == 0  # type: ignore[arg-type]


def test_a_tenant_fills_its_own_part_of_the_table_only() -> None:
    held = quarantine(max_per_tenant=3)
    held.add(dataclasses.replace(POISON, tenant="b"), 0.0)
    for number in range(100):
        held.add(dataclasses.replace(POISON, body=b"%d" % number), 1.0)
    assert len(held) == 4
    assert held.left_s(dataclasses.replace(POISON, tenant="b"), 1.0) > 0
    assert held.left_s(dataclasses.replace(POISON, body=b"99"), 1.0) > 0
    assert held.left_s(dataclasses.replace(POISON, body=b"0"), 1.0) == 0


def test_what_fails_again_is_held_anew() -> None:
    held = quarantine()
    held.add(POISON, 0.0)
    held.add(POISON, 30.0)
    assert held.left_s(POISON, 70.0) == 20.0
    assert len(held) == 1


def test_it_can_be_switched_off() -> None:
    held = quarantine(hold_s=0)
    held.add(POISON, 0.0)
    assert held.left_s(POISON, 0.0) == 0
