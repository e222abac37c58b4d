"""Reading YAML: a mapping, or the file, the line and what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serving.config import yaml_file
from serving.config.yaml_file import parse, parse_all, parse_json, read, read_mapping
from serving.errors import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a: 1\nb: [", r"x\.yaml: is not YAML \(line 2, column 5\)"),
        (b"\xff\xfe\x00\x01", r"x\.yaml: is not YAML: it is not UTF-8 text$"),
        (b"a:\n\tb: 1", r"x\.yaml: is not YAML \(line 2, column 1\): a tab; indent with spaces$"),
        (b"at: 2026-99-99", r"x\.yaml: is not YAML$"),
        (b"n: " + b"1" * 5000, r"x\.yaml: is not YAML$"),
        (b"a: !!python/object:os.system {}", r"x\.yaml: is not YAML \(line 1, column 4\)$"),
        (b"? [a]\n: b", r"x\.yaml: is not YAML"),
        (b"- a", r"x\.yaml: must be a mapping with keys$"),
        (b"", r"x\.yaml: must be a mapping with keys$"),
        (b"a: 1\n---\nb: 1\n", r"x\.yaml: must be one document, not 2$"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as refused:
        read_mapping(path, "settings", holding=" with keys")
    assert refused.value.param == "settings"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file") as refused:
        read_mapping(path)
    assert refused.value.param == str(path)


def test_a_mapping_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("\ufeffa: {b: 1}")
    assert read_mapping(path) == {"a": {"b": 1}}


def test_a_text_may_hold_several_documents() -> None:
    assert parse_all("a: 1\n---\n- b\n", "input") == [{"a": 1}, ["b"]]
    assert parse_all("", "input") == []
    assert parse("", "input") is None


# ---- keys that appear twice ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("keys: [a]\nlimits: {}\nkeys: []", "the key 'keys' appears twice, in lines 1 and 3"),
        (
            "a:\n  b:\n  - users: 1\n    x: 2\n    users: 2",
            "'users' appears twice, in lines 3 and 5",
        ),
        ("{a: 1, a: 2}", "the key 'a' appears twice in line 1"),
        ("a: 1\n'a': 2\n", "the key 'a' appears twice, in lines 1 and 2"),
        ("1: a\n0x1: b", "the key '1' appears twice, in lines 1 and 2"),
        ("1: a\ntrue: b", "appears twice, in lines 1 and 2"),
        ("ok: 1\n---\na: 1\na: 2", "the key 'a' appears twice, in lines 3 and 4"),
        ("x: &x {a: 1, a: 2}", "the key 'a' appears twice in line 1"),
        (
            "x: &x {a: 1}\ny: &y {b: 1}\nz:\n  <<: *x\n  <<: *y",
            "the key '<<' appears twice, in lines 4 and 5: give it a list, `<<: [*a, *b]`",
        ),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        parse_all(text, "x.yaml")


def test_one_key_in_several_mappings_stands_once_in_each() -> None:
    assert parse("- {a: 1}\n- {a: {a: 2}}", "x") == [{"a": 1}, {"a": {"a": 2}}]
    assert parse("1: a\n'1': b", "x") == {1: "a", "1": "b"}


def test_merged_keys_give_way_to_those_that_are_written() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 3}"
    assert parse(text, "x")["z"] == {"a": 3, "b": 1, "c": 2}


def test_a_key_that_stands_twice_in_json_is_refused() -> None:
    assert parse_json('{"a": {"a": 1}}') == {"a": {"a": 1}}
    with pytest.raises(ConfigError, match="the key 'b' appears twice"):
        parse_json('{"a": {"b": 1, "b": 1}}')


# ---- texts that grow ---------------------------------------------------------------------------------


def laughs(levels: int) -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_aliases_may_repeat_and_not_multiply() -> None:
    assert len(parse(laughs(3), "x")["l2"]) == 10
    with pytest.raises(ConfigError, match=r"x: its aliases make more than 1000000 values of it"):
        parse(laughs(9), "x")


def test_an_alias_to_what_it_stands_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="an alias leads to what it stands in"):
        parse("a: &a [*a]", "x")


@pytest.mark.parametrize("text", ["[" * 200_000, "- " * 200_000, "{a: " * 200_000])
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(ConfigError, match=r"x: is nested more than 100 deep \(line 1\)"):
        parse(text, "x")


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_file, "MAX_BYTES", 2**20)
    path = tmp_path / "x.yaml"
    path.write_text("a: " + "x" * 2**20)
    with pytest.raises(ConfigError, match=r"x\.yaml: is longer than 1 MiB"):
        read(path)


# ---- nobody else reads YAML --------------------------------------------------------------------------

LOADERS = re.compile(
    r"\byaml\.(?:\w*load\w*|scan|parse|compose\w*|\w*Loader)\b|from yaml|ruamel|json\.load\b"
)


def test_the_pattern_finds_loaders() -> None:
    assert LOADERS.search("x = yaml.safe_load(text)")
    assert LOADERS.search("yaml.load_all(text, Loader=yaml.CSafeLoader)")
    assert not LOADERS.search("yaml.safe_dump(x)")


def test_every_yaml_file_is_read_here() -> None:
    others = [
        str(path.relative_to(ROOT))
        for folder in ("serving", "loadtests", "scripts")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != Path(yaml_file.__file__)
        and re.search(r"\byaml\b", path.read_text(encoding="utf-8"))
        and LOADERS.search(path.read_text(encoding="utf-8"))
    ]
    assert others == []
