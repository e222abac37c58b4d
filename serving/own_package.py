"""Where this package lies, so that child processes run it and not another `serving` that is at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import serving

# The folder that holds `serving/`: a checkout, or site-packages.
PLACE = Path(serving.__file__).resolve().parents[1]


def with_own_package(environment: Mapping[str, str]) -> dict[str, str]:
    """PYTHONPATH for a Python child: what was there, and before it the folder of this package."""
    old = environment.get("PYTHONPATH") or ""
    if PLACE.name in ("site-packages", "dist-packages"):
        # Python finds it there by itself; as PYTHONPATH, everything else there would go before Python's own.
        return {"PYTHONPATH": old} if old else {}
    rest = [one for one in old.split(os.pathsep) if one and one != str(PLACE)]
    return {"PYTHONPATH": os.pathsep.join([str(PLACE), *rest])}


def other_package(folder: Path) -> Path | None:
    """What `import serving` would find in a folder, if it is not this package."""
    for found in (folder / "serving" / "__init__.py", folder / "serving.py"):
        if found.exists() and found.resolve() != Path(serving.__file__).resolve():
            return found
    return None
