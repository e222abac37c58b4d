"""loadtests/cpu_share.py: what is written where, on a folder that looks like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.cpu_share import PERIOD_US, limited


def group(root: Path) -> Path:
    [found] = root.glob("comptoir-*")
    return found


def test_version_1_gets_a_quota_and_the_processes(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    with limited([11, 12], 0.3, root=tmp_path):
        made = group(tmp_path / "cpu")
        assert (made / "cpu.cfs_quota_us").read_text() == str(round(0.3 * PERIOD_US))
        assert (made / "cpu.cfs_period_us").read_text() == str(PERIOD_US)
        assert (made / "cgroup.procs").read_text() == "12"
    assert (tmp_path / "cpu" / "cgroup.procs").read_text() == "12", "given back at the end"


def test_version_2_gets_both_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    with limited([11], 0.5, root=tmp_path):
        assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
        made = group(tmp_path)
        assert (made / "cpu.max").read_text() == f"{PERIOD_US // 2} {PERIOD_US}"


def test_where_there_is_no_controller_it_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="run as root"), limited([11], 0.5, root=tmp_path):
        pass
