"""The order of replicas for a key."""

from __future__ import annotations

from serving.replicas.ring import Ring


def test_a_ring_walks_over_each_replica_once_and_not_over_those_that_are_gone() -> None:
    ring = Ring()
    for name in ("a", "b", "c", "a"):
        ring.add(name)
    assert sorted(ring.walk("key")) == ["a", "b", "c"]
    order = list(ring.walk("key"))
    ring.keep({"a", "c", "d"})
    assert list(ring.walk("key")) == [name for name in order if name != "b"]
    ring.keep(())
    assert list(ring.walk("key")) == []
