"""Reads YAML files; what cannot be read or is not YAML is answered with the file, the line and the column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from serving.errors import ConfigError


def read_mapping(path: Path, param: str | None = None, *, holding: str = "") -> dict[str, Any]:
    """The mapping in a file.

    Args:
        param: what the error is about; by default the file.
        holding: what the mapping must hold, for the error.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    param = param or str(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", param=param) from None
    # ValueError: text that is not UTF-8, or a date that does not exist.
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{path}: is not YAML{where}", param=param) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping{holding}", param=param)
    return document
