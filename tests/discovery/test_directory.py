"""What names mean and which replica is chosen."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.discovery.directory import Directory, Model, Replica, least_loaded
from serving.errors import ModelNotFoundError

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def replica(name: str, running: float = 0, waiting: float = 0) -> Replica:
    return Replica(name, f"http://{name}", "t", {"running": running, "waiting": waiting})


def model(name: str, *aliases: str) -> Model:
    return Model(name, {"task": "chat", "aliases": list(aliases)})


IDS = st.text("abcdef", min_size=1, max_size=2)
REPLICAS = st.dictionaries(IDS, st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8).map(
    lambda drawn: [replica(name, *load) for name, load in drawn.items()]
)
COUNTS = st.dictionaries(IDS, st.integers(0, 20))


def load(one: Replica, in_flight: dict[str, int]) -> float:
    return max(in_flight.get(one.id, 0), one.stats["running"] + one.stats["waiting"])


@unhurried
@given(REPLICAS, COUNTS, st.sets(IDS))
def test_the_choice_is_allowed_and_no_other_has_less_to_do(
    replicas: list[Replica], in_flight: dict[str, int], excluded: set[str]
) -> None:
    allowed = [one for one in replicas if one.id not in excluded]
    chosen = least_loaded(replicas, in_flight, excluded)
    if not allowed:
        assert chosen is None
        return
    assert chosen in allowed
    assert load(chosen, in_flight) == min(load(one, in_flight) for one in allowed)


@unhurried
@given(REPLICAS.flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(drawn))), COUNTS)
def test_the_choice_does_not_depend_on_the_order(
    orders: tuple[list[Replica], list[Replica]], in_flight: dict[str, int]
) -> None:
    one, other = orders
    assert least_loaded(one, in_flight) == least_loaded(other, in_flight)


def test_the_own_count_shows_what_the_engine_has_not_reported_yet() -> None:
    replicas = [replica("a"), replica("b", running=1)]
    assert least_loaded(replicas, {"a": 2}) == replicas[1]


def test_the_engines_report_shows_what_other_gateways_sent() -> None:
    replicas = [replica("a", running=3, waiting=4), replica("b")]
    assert least_loaded(replicas, {"b": 2}) == replicas[1]


def test_filling_replicas_one_by_one_keeps_them_even() -> None:
    replicas = [replica(name) for name in "abc"]
    in_flight = dict.fromkeys("abc", 0)
    for _ in range(30):
        chosen = least_loaded(replicas, in_flight)
        assert chosen is not None
        in_flight[chosen.id] += 1
    assert set(in_flight.values()) == {10}


def test_a_replica_that_has_reported_nothing_counts_as_idle() -> None:
    assert Replica("a", "http://a", "t").load == 0.0
    assert Replica("a", "http://a", "t", {"kv_cache_use": 0.9}).load == 0.0


def test_a_name_and_an_alias_give_the_same_model() -> None:
    directory = Directory([model("m", "vendor/m", "fast"), model("n")])
    assert directory.resolve("fast") is directory.resolve("m") is directory.models["m"]


def test_a_models_own_name_wins_over_anothers_alias() -> None:
    for order in ([model("m"), model("n", "m")], [model("n", "m"), model("m")]):
        assert Directory(order).resolve("m").id == "m"


@pytest.mark.parametrize("name", ["", "canary", "M", "m "])
def test_an_unknown_name_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        Directory([model("m")]).resolve(name)
    assert "canary" not in raised.value.message
    assert raised.value.param == "model"


def test_a_model_of_which_nobody_has_said_anything_has_no_task() -> None:
    unknown = Model("m", {})
    assert unknown.task is None
    assert unknown.aliases == ()


@unhurried
@given(
    st.dictionaries(IDS, st.lists(IDS, max_size=2), max_size=5),
    st.lists(
        st.tuples(st.dictionaries(IDS, st.lists(IDS, max_size=2), max_size=3), st.sets(IDS)),
        max_size=4,
    ),
)
def test_a_picture_with_some_models_replaced_is_the_one_made_anew(
    first: dict[str, list[str]], changes: list[tuple[dict[str, list[str]], set[str]]]
) -> None:
    known = {name: model(name, *aliases) for name, aliases in first.items()}
    picture = Directory(known.values())
    for changed, gone in changes:
        made = {name: model(name, *aliases) for name, aliases in changed.items()}
        before = dict(picture.models)
        replaced = picture.replaced(list(made.values()), gone - made.keys())
        known = {
            name: one for name, one in (known | made).items() if name not in gone - made.keys()
        }
        anew = Directory(known.values())
        assert picture.models == before
        assert replaced.models == anew.models
        assert list(replaced.models) == list(anew.models)
        assert replaced._names == anew._names
        picture = replaced
