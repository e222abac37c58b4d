"""What the operator says that changes, and the args that come of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.revisions import public_name, revision_name, revision_number
from serving.errors import ConfigError
from serving.rollout.changes import changed_args, public_args, revised_args

PRESENT: dict[str, Any] = {
    "id": "qwen3",
    "aliases": ["said"],
    "adapters": {"law": "/adapters/law"},
    "engine_args": {"max_num_seqs": 4},
    "revision": "abc",
}


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("revision=main", "revision", "main"),
        ("revision=20260101", "revision", "20260101"),
        ("layout=2", "layout", 2),
        ("kv_cache_gib=1.5", "kv_cache_gib", 1.5),
        (
            "engine_args.max_model_len=8192",
            "engine_args",
            {"max_num_seqs": 4, "max_model_len": 8192},
        ),
        (
            "engine_args.enforce_eager=true",
            "engine_args",
            {"max_num_seqs": 4, "enforce_eager": True},
        ),
        ("env.NAME=value=with=equals", "env", {"NAME": "value=with=equals"}),
        ('replicas={"min": 2, "max": 4}', "replicas", {"min": 2, "max": 4}),
        ("engine_args.max_num_seqs=null", "engine_args", {}),
    ],
)
def test_an_assignment_sets_one_key(assignment: str, key: str, value: Any) -> None:
    assert changed_args(PRESENT, [assignment]) == PRESENT | {key: value}


def test_null_takes_a_key_away_and_nothing_else_moves() -> None:
    changed = changed_args(PRESENT, ["revision=null", "layout=1"])
    assert changed == {key: PRESENT[key] for key in PRESENT if key != "revision"} | {"layout": 1}
    assert PRESENT["revision"] == "abc"


@pytest.mark.parametrize("wrong", ["revision", "=main", "engine_args.=1", "revision.deep=1"])
def test_what_is_no_assignment_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="--to"):
        changed_args(PRESENT, [wrong])


def test_only_the_names_differ_from_what_is_wanted() -> None:
    wanted = PRESENT | {"revision": "def"}
    args = revised_args(PRESENT, wanted, 2)
    assert args["id"] == "qwen3--r2"
    assert args["catalogue"] == "qwen3"
    assert args["adapters"] == {"law--r2": "/adapters/law"}
    assert "aliases" not in args
    assert public_args(args) == public_args(wanted)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (PRESENT, "would be the present one"),
        (PRESENT | {"id": "other"}, "id: a rollout keeps the names"),
        (PRESENT | {"aliases": ["other"]}, "aliases: a rollout keeps the names"),
        (PRESENT | {"adapters": {}}, "adapters: a rollout keeps their names.*law"),
        (PRESENT | {"adapters": {"law": "/a", "more": "/b"}}, "adapters: a rollout keeps"),
        (PRESENT | {"revison": "def"}, "revison: unknown key; known"),
        (PRESENT | {"engine_args": {"trust_remote_code": True}}, "trust_remote_code cannot be set"),
    ],
)
def test_a_change_that_cannot_be_is_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        revised_args(PRESENT, wanted, 2)


@given(st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True), st.integers(1, 9999))
def test_a_revisions_name_says_which_one_it_is(name: str, number: int) -> None:
    made = revision_name(name, number)
    assert (public_name(made), revision_number(made)) == (name, number)


@pytest.mark.parametrize(
    "name", ["qwen3", "qwen3-r2", "deepseek-r1", "deepseek--r", "a--r0", "--r2"]
)
def test_other_names_are_their_own(name: str) -> None:
    assert (public_name(name), revision_number(name)) == (name, 1)
