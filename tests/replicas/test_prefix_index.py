"""What is remembered of prompts: bounded, what was used last, and corrected."""

from __future__ import annotations

import tracemalloc

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.replicas.prefix_index import NO_MATCH, Match, PrefixIndex
from serving.replicas.prompt_prefix import PromptPrefix

unhurried = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])


def prompt(*hashes: int) -> PromptPrefix:
    ends = tuple(1000 * (index + 1) for index in range(len(hashes)))
    return PromptPrefix(hashes, ends, 1000 * len(hashes))


def test_the_longest_beginning_and_all_who_have_it_are_found() -> None:
    index = PrefixIndex(1000)
    index.add(prompt(1, 2, 3), "a")
    index.add(prompt(1, 2), "b")
    index.add(prompt(1, 2, 3), "c")
    assert index.longest(prompt(1, 2, 3, 4), "abc") == Match(3000, ("a", "c"))
    assert index.longest(prompt(1, 2, 9), "abc") == Match(2000, ("a", "b", "c"))
    assert index.longest(prompt(1, 2, 3, 4), "b") == Match(2000, ("b",))
    assert index.longest(prompt(7, 8), "abc") == NO_MATCH
    assert index.longest(prompt(), "abc") == NO_MATCH


def test_what_one_replica_has_is_known() -> None:
    index = PrefixIndex(1000)
    index.add(prompt(1, 2), "a")
    assert index.known(prompt(1, 2, 3), "a")[0] == 2000
    assert index.known(prompt(4), "a") == (0, 0)
    assert index.known(prompt(1, 2, 3), "b") == (0, 0)


def test_what_was_used_longest_ago_is_dropped_first_ends_before_beginnings() -> None:
    index = PrefixIndex(6)
    index.add(prompt(1, 2, 3), "a")
    index.add(prompt(4, 5, 6), "a")
    index.add(prompt(1, 2, 3), "a")
    index.add(prompt(7, 8), "a")
    assert index.known(prompt(1, 2, 3), "a")[0] == 3000
    assert index.known(prompt(4, 5, 6), "a")[0] == 1000
    index.add(prompt(9), "a")
    assert index.known(prompt(4, 5, 6), "a")[0] == 0


def test_a_replica_that_comes_gets_its_share_of_the_entries() -> None:
    index = PrefixIndex(6)
    index.add(prompt(1, 2, 3, 4, 5, 6), "a")
    index.add(prompt(1, 2, 3, 4, 5, 6), "b")
    assert [index.known(prompt(1, 2, 3, 4, 5, 6), name)[0] for name in "ab"] == [3000, 3000]
    assert len(index) == 6


def test_a_prompt_that_is_gone_takes_all_older_ones_along() -> None:
    index = PrefixIndex(1000)
    for number in (1, 2, 3):
        index.add(prompt(number), "a")
        index.add(prompt(number), "b")
    _, tick = index.known(prompt(2), "a")
    index.forget_until("a", tick)
    assert [index.known(prompt(number), "a")[0] for number in (1, 2, 3)] == [0, 0, 1000]
    assert [index.known(prompt(number), "b")[0] for number in (1, 2, 3)] == [1000, 1000, 1000]


def test_forgetting_what_nobody_has_does_nothing() -> None:
    index = PrefixIndex(1000)
    index.forget_until("a", 99)
    index.add(prompt(1), "a")
    index.forget_until("a", 99)
    index.forget_until("a", 99)
    assert len(index) == 0


def test_replicas_that_are_gone_are_forgotten() -> None:
    index = PrefixIndex(1000)
    index.add(prompt(1), "a")
    index.add(prompt(1), "b")
    index.keep({"b", "c"})
    assert index.longest(prompt(1), "ab") == Match(1000, ("b",))
    assert len(index) == 1


ADD = st.tuples(
    st.just("add"), st.lists(st.integers(0, 50), max_size=8, unique=True), st.sampled_from("abcd")
)
KEEP = st.tuples(st.just("keep"), st.sets(st.sampled_from("abcd")), st.none())
FORGET = st.tuples(st.just("forget"), st.integers(0, 20), st.sampled_from("abcd"))


@unhurried
@given(st.integers(1, 30), st.lists(ADD | KEEP | FORGET, max_size=40))
def test_there_are_never_more_entries_than_configured(most: int, steps: list) -> None:
    index = PrefixIndex(most)
    for kind, what, replica in steps:
        if kind == "add":
            index.add(prompt(*what), replica)
        elif kind == "keep":
            index.keep(what)
        else:
            index.forget_until(replica, what)
        assert len(index) <= most


def test_an_entry_costs_as_much_memory_as_the_docs_say() -> None:
    entries, first = 20_000, 1 << 62
    index = PrefixIndex(entries)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(3 * entries // 10):
            hashes = [first + 10 * number + offset for offset in range(10)]
            index.add(prompt(*hashes), "abcd"[number % 4])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) == entries
    assert (after - before) / entries < 260
