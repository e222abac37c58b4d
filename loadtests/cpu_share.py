"""Gives processes a fixed share of a core, so that replicas on one machine are as far apart as on several."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# Short: a process that has used up its share waits for the rest of the period.
PERIOD_US = 5000


@contextlib.contextmanager
def limited(pids: Sequence[int], cores: float, root: Path = ROOT) -> Iterator[None]:
    """Together, these processes and what they start get so many cores at most (cgroups(7), version 1 or 2).

    Raises:
        PermissionError: this user may not, or the machine has no controller for it.
    """
    is_second = (root / "cgroup.controllers").exists()
    parent = root if is_second else root / "cpu"
    group = parent / f"comptoir-{os.getpid()}-{pids[0]}"
    quota_us = round(cores * PERIOD_US)
    try:
        if is_second:
            (parent / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
        if is_second:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        _remove(group, parent)
        raise PermissionError(
            f"no share of a core can be given to processes here ({error.strerror}): run as root on a "
            "machine with the cpu controller of cgroups"
        ) from None
    try:
        yield
    finally:
        _remove(group, parent)


def _remove(group: Path, parent: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (parent / "cgroup.procs").write_text(pid)
    with contextlib.suppress(OSError):
        group.rmdir()
