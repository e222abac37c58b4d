"""What names mean, and how one picture of the site follows another."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.discovery.directory import Directory, Model
from serving.errors import ModelNotFoundError
from serving.replica_facts import ModelCard

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def model(name: str, *aliases: str) -> Model:
    return Model(name, ModelCard.parse({"task": "chat", "aliases": list(aliases)}))


IDS = st.text("abcdef", min_size=1, max_size=2)


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
    unknown = Model("m", ModelCard())
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
