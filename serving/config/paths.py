"""Paths as people write them: `~` is a home folder, where there is one."""

from __future__ import annotations

from pathlib import Path

from serving.errors import ConfigError


def expanded(path: Path, param: str) -> Path:
    """The path with `~` carried out.

    Raises:
        ConfigError: this user has no home folder, as in a container with a user of its own.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{param}: {str(path)!r} means a home folder, and this user has none: set HOME, or give an "
            "absolute path",
            param=param,
        ) from None
