"""The code keeps its measures: short files and functions, return types, no folders that import each other."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREES = ("serving", "loadtests", "scripts")
FILE_LINES = 350
MEDIAN_LINES, P95_LINES, MOST_LINES = 8, 30, 60

Graph = Mapping[str, set[str]]


class Function(NamedTuple):
    """Where it stands, how long it is, and whether it says what it returns."""

    place: str
    lines: int
    is_typed: bool


@cache
def modules() -> Mapping[str, ast.Module]:
    """Every module of ours by its dotted name; a package by its own."""
    paths = (path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py")))
    return {dotted(path): ast.parse(path.read_bytes()) for path in paths}


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def functions() -> list[Function]:
    return [
        Function(
            f"{module}.{node.name}",
            (node.end_lineno or node.lineno) - node.lineno + 1,
            node.returns is not None,
        )
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_no_file_is_longer_than_a_person_reads_in_one_go() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for tree in TREES
        for path in (ROOT / tree).rglob("*.py")
    }
    assert len(lengths) > 300
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = sorted(each.lines for each in functions())
    assert len(lengths) > 3000
    assert median(lengths) <= MEDIAN_LINES
    assert lengths[int(0.95 * len(lengths))] <= P95_LINES


def test_no_function_is_long() -> None:
    assert [each for each in functions() if each.lines > MOST_LINES] == []


def test_every_function_says_what_it_returns() -> None:
    assert [each.place for each in functions() if not each.is_typed] == []


# ---- packages ----------------------------------------------------------------------------------------


def imports(module: str, tree: ast.Module) -> Iterator[str]:
    """Modules of ours that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            # What is imported from a module is none itself.
            name = name if name in modules() else name.rpartition(".")[0]
            if name in modules() and name != module:
                yield name


@cache
def neighbours() -> Graph:
    """Who imports whom, of those that stand in one folder: modules, and folders with all that is in them."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, tree in modules().items():
        for imported in imports(module, tree):
            ours, theirs = module.split("."), imported.split(".")
            common = 0
            while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
                common += 1
            # A folder and what stands in it are no neighbours.
            if common < min(len(ours), len(theirs)):
                found[".".join(ours[: common + 1])].add(".".join(theirs[: common + 1]))
    return found


def reached(graph: Graph, start: str) -> set[str]:
    """All that is imported by `start`, and by what it imports."""
    seen: set[str] = set()
    left = [start]
    while left:
        new = graph.get(left.pop(), set()) - seen
        seen |= new
        left += new
    return seen


def circles(graph: Graph) -> list[str]:
    return sorted(name for name in graph if name in reached(graph, name))


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == ["b", "c"]


@pytest.mark.parametrize("tree", TREES)
def test_no_folder_imports_a_neighbour_that_imports_it(tree: str) -> None:
    """import-linter proves it of the rooms, by their floors; here, of the folders inside them, too."""
    graph = {name: names for name, names in neighbours().items() if name.startswith(f"{tree}.")}
    folders = {module.rpartition(".")[0] for module in modules()}
    assert [name for name in circles(graph) if name in folders] == []
