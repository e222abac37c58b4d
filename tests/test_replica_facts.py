"""What a replica says of itself survives the way to the gateways, also between two builds."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.autoscaling.signals import ReplicaSignals
from serving.engine.metering import Meter
from serving.engine.signals import EngineSignals
from serving.replica_facts import ModelCard, ReplicaMetadata, ReplicaStats
from serving.telemetry.moment import ENGINE_SIGNALS

# As replicas said it before there were classes for it.
OLD_CARD: dict[str, Any] = {
    "task": "chat",
    "capabilities": ["json_schema", "tools"],
    "vendor": "Vendor",
    "vendor_jurisdiction": "FR",
    "licence": "MIT License",
    "notices": ["keep this"],
    "repository": "vendor/model",
    "revision": None,
    "aliases": ["fast"],
    "adapters": [],
    "entry": "model",
    "min_replicas": 0,
    "prefill_min_tokens": None,
    "max_model_len": 4096,
}
OLD_STATS = {"running": 2.0, "waiting": 1.0, "kv_cache_use": 0.25, "last_step_s": 7.5}

TEXTS = st.lists(st.text(max_size=9), max_size=3).map(tuple)
WHOLE = st.integers(0, 9)
CARDS = st.builds(
    ModelCard,
    task=st.none() | st.text(max_size=9),
    capabilities=st.none() | TEXTS,
    vendor=st.text(max_size=9),
    notices=TEXTS,
    revision=st.none() | st.text(max_size=9),
    aliases=TEXTS,
    adapters=TEXTS,
    min_replicas=st.none() | WHOLE,
    prefill_min_tokens=st.none() | WHOLE,
    max_model_len=st.none() | WHOLE,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def over_the_wire(value: Any) -> Any:
    """Ray pickles it, or writes JSON of it."""
    return json.loads(json.dumps(value))


@given(CARDS)
def test_a_card_survives_the_way(card: ModelCard) -> None:
    assert ModelCard.parse(over_the_wire(card.encode())) == card
    assert card.says(over_the_wire(card.encode()))


@given(
    st.builds(
        ReplicaStats, **{one.name: st.floats(0, 9) for one in fields(ReplicaStats) if one.init}
    )
)
def test_a_report_survives_the_way(stats: ReplicaStats) -> None:
    read = ReplicaStats.parse(over_the_wire(stats.encode()))
    assert read.encode() == stats.encode() == read.reported


def test_a_gateway_of_an_older_build_finds_each_fact_where_it_was() -> None:
    assert ModelCard.parse(OLD_CARD).encode().items() >= OLD_CARD.items()
    assert ReplicaStats.parse(OLD_STATS).encode().items() >= OLD_STATS.items()
    said = {"host": "10.0.0.1", "port": 4000, "token": "t", "card": OLD_CARD, "build": "b"}
    metadata = ReplicaMetadata.parse(said)
    assert metadata is not None
    assert metadata.encode() == said


def test_a_deployment_leaves_to_the_engine_what_only_that_knows() -> None:
    assert "max_model_len" not in ModelCard(task="chat").encode()
    assert ModelCard(max_model_len=9).says(ModelCard().encode())


def test_what_a_newer_build_says_beside_is_passed_over() -> None:
    assert ModelCard.parse(OLD_CARD | {"colour": "red"}) == ModelCard.parse(OLD_CARD)
    stats = ReplicaStats.parse({"running": 1.0, "temperature": 71.5, "colour": "red"})
    assert stats.running == 1.0
    assert stats.reported == {"running": 1.0, "temperature": 71.5}
    metadata = ReplicaMetadata.parse({"host": "h", "port": 1, "token": "t", "protocol": 2})
    assert metadata == ReplicaMetadata("h", 1, "t")


def test_what_an_older_build_does_not_say_has_a_default() -> None:
    assert ModelCard.parse({}) == ModelCard()
    assert ReplicaStats.parse({}) == ReplicaStats()
    assert ReplicaStats().last_step_s is None


@pytest.mark.parametrize("lacking", ["host", "port", "token"])
def test_a_replica_that_cannot_be_reached_is_none(lacking: str) -> None:
    said = {"host": "h", "port": 1, "token": "t"}
    del said[lacking]
    assert ReplicaMetadata.parse(said) is None


@given(
    st.dictionaries(st.sampled_from([one.name for one in fields(ModelCard)]), JSON),
    st.dictionaries(st.sampled_from([one.name for one in fields(ReplicaStats)]), JSON),
    st.dictionaries(st.sampled_from(["host", "port", "token", "build"]), JSON),
)
def test_a_fact_of_another_type_counts_as_not_said(
    card: dict[str, Any], stats: dict[str, Any], metadata: dict[str, Any]
) -> None:
    read = ModelCard.parse(card)
    assert isinstance(read.vendor, str)
    assert all(isinstance(name, str) for name in (*read.aliases, *read.adapters, *read.notices))
    json.dumps(ReplicaStats.parse(stats).encode())
    ReplicaMetadata.parse(metadata)


def test_a_card_says_what_another_states_and_no_more_is_asked() -> None:
    card = ModelCard.parse(OLD_CARD)
    assert card.says({})
    assert card.says({"task": "chat", "aliases": ["fast"], "unheard": 1})
    assert not card.says({"aliases": []})
    assert not card.says({"task": "chat", "revision": "abc"})


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(ReplicaMetadata("h", 1, "secret"))


@pytest.mark.parametrize(
    ("host", "url"), [("10.0.0.1", "http://10.0.0.1:80"), ("fd00::1", "http://[fd00::1]:80")]
)
def test_an_address_is_written_as_urls_have_it(host: str, url: str) -> None:
    assert ReplicaMetadata(host, 80, "t").base_url == url


def test_every_number_of_a_replica_has_a_field_and_every_reader_names_one() -> None:
    names = {one.name for one in fields(ReplicaStats)}
    snapshot, bills = EngineSignals().snapshot(0.0), Meter("m").stats()
    assert snapshot.keys() | bills.keys() <= names
    # As `ModelReplica.record_routing_stats` puts them together.
    assert ReplicaStats(**snapshot, **bills).running == 0.0
    assert ENGINE_SIGNALS.keys() <= names
    assert {one.name for one in fields(ReplicaSignals)} <= names
