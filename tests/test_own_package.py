"""Which `serving` a Python process gets: the one that this package lies in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import serving
from serving import own_package
from serving.own_package import PLACE, other_package, with_own_package


def test_the_folder_of_this_package_goes_before_what_was_there() -> None:
    assert with_own_package({}) == {"PYTHONPATH": str(PLACE)}
    assert with_own_package({"PYTHONPATH": f"/x:{PLACE}:"}) == {"PYTHONPATH": f"{PLACE}:/x"}


def test_an_installed_package_needs_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_package, "PLACE", Path("/venv/lib/python3/site-packages"))
    assert with_own_package({}) == {}
    assert with_own_package({"PYTHONPATH": "/x"}) == {"PYTHONPATH": "/x"}


@pytest.mark.parametrize("name", ["serving/__init__.py", "serving.py"])
def test_another_package_at_hand_is_seen_and_not_run(tmp_path: Path, name: str) -> None:
    found = tmp_path / name
    found.parent.mkdir(exist_ok=True)
    found.write_text("raise SystemExit(9)")
    assert other_package(tmp_path) == found
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import serving; print(serving.__file__)"],
        cwd=tmp_path,
        env=with_own_package({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == serving.__file__


def test_our_own_checkout_is_no_other_package(tmp_path: Path) -> None:
    assert other_package(PLACE) is None
    (tmp_path / "serving").symlink_to(PLACE / "serving")
    assert other_package(tmp_path) is None
    (tmp_path / "a" / "serving").mkdir(parents=True)
    # Without __init__.py it never goes before a package.
    assert other_package(tmp_path / "a") is None
