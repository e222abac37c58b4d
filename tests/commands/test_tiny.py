from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving import cli
from serving.catalogue import tiny


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """Run `comptoir tiny ...`; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["comptoir", "tiny", *args])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPTOIR_CACHE_DIR", str(tmp_path))


def test_build_prints_the_folder_and_path_finds_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "build", "qwen3", "tiny-yi") == 0
    printed = capsys.readouterr().out.split()
    assert printed == [
        str(tiny.built_path(tiny.family(name), tmp_path)) for name in ("qwen3", "yi")
    ]
    assert run(monkeypatch, "path", "qwen3") == 0
    assert capsys.readouterr().out.strip() == printed[0]


def test_list_says_what_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "build", "qwen3")
    capsys.readouterr()
    assert run(monkeypatch, "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows if row["built"]] == ["tiny-qwen3"]
    assert len(rows) == len(tiny.families())


@pytest.mark.parametrize("command", ["build", "path", "clean"])
def test_an_unknown_name_ends_with_two_and_names_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, command, "gpt") == 2
    assert "deepseek-v3" in capsys.readouterr().err


def test_a_wrong_name_among_several_builds_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(monkeypatch, "build", "qwen3", "gpt") == 2
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("args", [(), ("qwen3", "--all")])
def test_build_wants_names_or_all(monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]) -> None:
    assert run(monkeypatch, "build", *args) == 2


def test_path_of_an_absent_model_says_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "path", "yi") == 2
    assert "comptoir tiny build yi" in capsys.readouterr().err


def test_clean_removes_the_named_models_or_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(monkeypatch, "build", "qwen3", "yi", "qwen2")
    assert run(monkeypatch, "clean", "yi") == 0
    left = {path.name.rsplit("-", 1)[0] for path in (tmp_path / "tiny").iterdir() if path.is_dir()}
    assert left == {"qwen3", "qwen2"}
    assert run(monkeypatch, "clean") == 0
    assert not [path for path in (tmp_path / "tiny").iterdir() if path.is_dir()]
