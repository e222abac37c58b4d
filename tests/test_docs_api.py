"""docs/api.md says what the code does: every field, code and limit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import errors
from serving.gateway.render import anthropic_error
from serving.settings import RequestLimits
from serving.trust.common_fields import DROPPED, EVERYWHERE, REFUSED
from serving.trust.endpoint import Endpoint, Fate
from serving.trust.fields import endpoints

TEXT = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
ENDPOINTS = endpoints(RequestLimits())
NOT_FOR_CLIENTS = (errors.ConfigError, errors.StackError)


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    _, found, rest = TEXT.partition(f"# {title}\n")
    assert found, f"no heading '{title}'"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without the heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set("".join(row)) <= {"-"}]


def names(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_0-9]+)`", text))


def client_errors(
    base: type[errors.ComptoirError] = errors.ComptoirError,
) -> Iterator[type[errors.ComptoirError]]:
    """Every error of the tree that has a code and reaches clients."""
    if issubclass(base, NOT_FOR_CLIENTS):
        return
    if base.code:
        yield base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from client_errors(child)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=list(ENDPOINTS))
def test_every_field_of_an_endpoint_is_documented_and_no_other(endpoint: Endpoint) -> None:
    table = rows(section(f"POST {endpoint.path}"))
    documented = [name for row in table for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(documented) == sorted(endpoint.fields)
    required = {name for row in table if "required" in row[1][:8] for name in names(row[0])}
    assert required == set(endpoint.required)


def test_dropped_and_refused_fields_are_named() -> None:
    text = section("Fields")
    before, _, after = text.partition("**Refused**")
    dropped = names(before.partition("**Dropped**")[2].partition("None reaches")[0])
    assert dropped == DROPPED, f"docs/api.md, Dropped: {sorted(dropped ^ DROPPED)}"
    refused = {name for row in rows(after) for name in names(row[-1])}
    assert refused == set(REFUSED), f"docs/api.md, Refused: {sorted(refused ^ set(REFUSED))}"


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=list(ENDPOINTS))
def test_what_is_dropped_or_refused_is_so_on_every_endpoint(endpoint: Endpoint) -> None:
    spelt = {spelling.name for spelling in endpoint.spellings}
    own = {
        name
        for name, row in endpoint.rows.items()
        if row.fate is not Fate.FORWARDED and row not in EVERYWHERE
    }
    assert own == spelt, f"move {sorted(own - spelt)} to serving/trust/common_fields.py"


def test_every_error_is_in_the_table_as_it_is_sent() -> None:
    table = [tuple(row[:3]) for row in rows(section("Errors"))[1:]]
    sent = [(str(e.status), f"`{e.code}`", f"`{e.type}`") for e in client_errors()]
    assert sorted(table) == sorted(sent)


def test_anthropics_types_are_documented() -> None:
    text = section("Errors")
    for error in client_errors():
        kind = anthropic_error(error("x"))["error"]["type"]
        assert f"`{kind}`" in text
        if kind != "api_error" and error.status != 400:
            assert f"`{kind}` ({error.status})" in text


def test_the_default_limits_are_documented() -> None:
    limits = RequestLimits()
    chat = section("POST /v1/chat/completions")
    assert f"1 to {limits.max_output_tokens}" in chat
    assert f"1 to {limits.max_n}" in chat
    assert f"up to {limits.max_stop}" in chat
    assert f"up to {limits.max_inputs}" in section("POST /v1/embeddings")
    assert f"{limits.max_body_bytes // 2**20} MiB" in section("Errors")
