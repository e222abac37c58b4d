"""Reading YAML: a mapping, or the file, the line and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.config.yaml_file import read_mapping
from serving.errors import ConfigError


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a: 1\nb: [", r"x\.yaml: is not YAML \(line 2, column 5\)"),
        (b"\xff\xfe\x00\x01", r"x\.yaml: is not YAML$"),
        (b"at: 2026-99-99", r"x\.yaml: is not YAML$"),
        (b"- a", r"x\.yaml: must be a mapping with keys$"),
        (b"", r"x\.yaml: must be a mapping with keys$"),
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
    path.write_text("a: {b: 1}")
    assert read_mapping(path) == {"a": {"b": 1}}
