"""The table of the API is whole, and the only place where a path of it stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from serving import api
from serving.config.routing import When
from serving.engine.access import ENDPOINTS as BEHIND_THE_DOOR
from serving.settings import RequestLimits
from serving.trust.fields import endpoints

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path("serving/api.py")
PATHS = sorted(
    value for name, value in vars(api).items() if name.isupper() and str(value).startswith("/")
)


@cache
def modules() -> dict[Path, str]:
    """Every Python file of the project but its tests."""
    found = [
        path
        for folder in ("serving", "loadtests", "scripts")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(found) > 300
    return {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in found}


def strings(text: str) -> Iterator[str]:
    """What a module's strings hold, docstrings left out."""
    tree = ast.parse(text)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in prose:
            if isinstance(node.value, bytes):
                yield node.value.decode("latin-1")
            elif isinstance(node.value, str):
                yield node.value


def is_in(path: str, text: str) -> bool:
    """Whether it stands there as a path, not as the end or the middle of another word."""
    return re.search(rf"(?<![\w.\-/]){re.escape(path)}(?![\w\-])", text) is not None


@pytest.mark.parametrize("path", PATHS)
def test_a_path_stands_in_one_module_only(path: str) -> None:
    # Docstrings may say /status; a path under /v1 stands in none of them either.
    found = []
    for module, text in modules().items():
        if path in text:
            said = [text] if path.startswith("/v1/") else strings(text)
            found += [str(module)] if any(is_in(path, each) for each in said) else []
    assert found == [str(TABLE)]


def test_every_path_is_found_where_it_stands() -> None:
    assert {*api.ENDPOINTS, api.MODELS, api.HEALTH, api.METRICS, api.STATUS} <= set(PATHS)
    assert is_in("/status", "GET /status?all=1")
    assert not is_in("/status", "https://example.org/status")


def test_the_order_of_limits_stands_in_the_table_only() -> None:
    name = f'"(?:{"|".join(api.OUTPUT_LIMITS)})"'
    listed = re.compile(rf"\({name},\s+{name}")
    assert [str(module) for module, text in modules().items() if listed.search(text)] == [
        str(TABLE)
    ]


def test_every_kind_is_one_path_and_can_be_named_by_a_rule() -> None:
    assert [row.kind for row in api.ENDPOINTS.values()] == list(get_args(api.Kind))
    for row in api.ENDPOINTS.values():
        assert When.model_validate({"endpoint": [row.kind]}).endpoint == (row.kind,)


def test_what_is_checked_is_what_the_table_has() -> None:
    checked = endpoints(RequestLimits())
    assert list(checked) == list(api.ENDPOINTS)
    for path, row in api.ENDPOINTS.items():
        fields = checked[path].fields
        assert {*row.output_limits, *row.prompt_roots} <= fields.keys(), path
        assert fields.keys() & set(api.OUTPUT_LIMITS) == set(row.output_limits), path
        assert ("stream" in fields) == row.generates, path


def test_the_door_of_a_replica_lets_in_what_the_table_has() -> None:
    assert {path for method, path in BEHIND_THE_DOOR if method == "POST"} == set(api.ENDPOINTS)


def test_every_task_has_an_endpoint() -> None:
    assert {task for row in api.ENDPOINTS.values() for task in row.tasks} == set(get_args(api.Task))


def test_a_limit_that_is_newer_counts_before_the_one_that_it_replaces() -> None:
    assert api.ENDPOINTS[api.CHAT].output_limits == ("max_completion_tokens", "max_tokens")
    assert api.OUTPUT_LIMITS == ("max_completion_tokens", "max_tokens", "max_output_tokens")
