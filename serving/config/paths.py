"""Paths as people write them: `~` is a home folder, where there is one; others begin with `/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from serving.errors import ConfigError


def expanded(path: Path, param: str) -> Path:
    """The path with `~` expanded.

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


def _absolute(path: Path) -> Path:
    if not path.is_absolute() and not str(path).startswith("~"):
        raise ValueError(
            "must be an absolute path: gateways and replicas start in folders of their own"
        )
    return path


# Of a file that another process reads than the one that was given the configuration.
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
