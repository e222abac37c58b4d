"""`comptoir route explain`: what it shows, what it never shows, and that the page about routing is true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from pydantic import BaseModel
from typer.testing import CliRunner

from serving.cli import app
from serving.commands.output import console
from serving.config.routing import (
    Alias,
    Arm,
    AutoRule,
    Choose,
    Fallback,
    ModelFacts,
    RoutingConfig,
    When,
)
from serving.deployment_file import load_deployment_file
from serving.routing.unknown_models import unknown_models
from serving.settings import ProcessSettings, hash_key

CANARY = "zebracanary"
ROUTING: dict[str, Any] = {
    "aliases": {
        "chat": [{"model": "one", "weight": 95}, {"model": "two", "weight": 5}],
        "even": [{"model": "one"}, {"model": "two"}],
        "ending": {
            "arms": [{"model": "one"}],
            "deprecated_on": "2026-09-01",
            "retired_on": "2026-12-01",
            "successor": "chat",
        },
    },
    "models": {"one": {"cost": 2}, "two": {"cost": 1}, "image": {"capabilities": ["vision"]}},
    "fallbacks": {"one": {"to": ["two"], "after": ["saturated"]}},
    "auto": [
        {"name": "tools", "when": {"tools": True}, "choose": {"need": ["tools"]}},
        {"name": "default", "choose": {}},
    ],
}
KEYS = [
    {"name": "acme", "hash": hash_key("a"), "models": ["one"]},
    {"name": "lab", "hash": hash_key("b")},
]


def site(folder: Path, **gateway: Any) -> Path:
    def application(name: str, builder: str, args: dict[str, Any]) -> dict[str, Any]:
        path = f"serving.app:build_{builder}"
        return {"name": name, "route_prefix": None, "import_path": path, "args": args}

    models = {"one": "tiny-qwen3", "two": "tiny-deepseek-v3", "vectors": "tiny-qwen3-embedding"}
    args = {"routing": ROUTING, "keys": KEYS} | gateway
    applications = [application("gateway", "gateway", args)] + [
        application(name, "model", {"id": name, "catalogue": entry})
        for name, entry in models.items()
    ]
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"applications": applications}))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return site(tmp_path)


def run(config: Path, body: Any, *words: str) -> Result:
    """Ask, with the body on standard input, unless it is a path."""
    source = str(body) if isinstance(body, Path) else "-"
    given = (
        None if isinstance(body, Path) else body if isinstance(body, bytes) else json.dumps(body)
    )
    return CliRunner().invoke(
        app,
        ["route", "explain", source, "--config", str(config), *words],
        input=given,
        env={"COLUMNS": "120"},
    )


def chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": CANARY}]} | fields


def shown(config: Path, body: Any, *words: str) -> dict[str, Any]:
    result = run(config, body, "--json", *words)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


TOOL = {"type": "function", "function": {"name": CANARY, "parameters": {"type": "object"}}}


# ---- what it shows -------------------------------------------------------------------------------------


def test_a_model_that_is_named_answers_and_its_fallback_stands_behind(config: Path) -> None:
    found = shown(config, chat("one", max_tokens=7))
    assert found["features"]["max_output_tokens"] == 7
    assert [(one["model"], one["reason"], one["takes_over"]) for one in found["candidates"]] == [
        ("one", "named", {}),
        ("two", "fallback", {"one": ["saturated"]}),
    ]
    first = found["candidates"][0]
    assert (first["context_tokens"], first["cost"]) == (8192, 2.0)
    assert first["capabilities"] == ["json_schema", "tools"]
    assert found["replica_policy"] == "prefix"


def test_the_arm_of_an_alias_follows_the_session(config: Path) -> None:
    arms = [shown(config, chat("even"), "--session", str(number))["arm"] for number in range(6)]
    assert set(arms) == {"one", "two"}
    assert shown(config, chat("even"), "--session", "0")["arm"] == arms[0]
    # The user is what sticks where there is no session.
    users = [shown(config, chat("even", user=str(number)))["arm"] for number in range(6)]
    assert set(users) == {"one", "two"}


def test_the_rule_that_acts_is_shown_and_why_the_earlier_ones_do_not(config: Path) -> None:
    found = shown(config, chat("auto"))
    assert found["rule"] == "default"
    assert [(one["rule"], one["acts"]) for one in found["rules"]] == [
        ("tools", False),
        ("default", True),
    ]
    assert found["rules"][0]["because"] == "it requires tools true; the request has false"
    assert [one["model"] for one in found["candidates"]] == ["two", "one"]
    assert found["not_chosen"] == {"image": "it is not deployed"}
    assert shown(config, chat("auto", tools=[TOOL]))["rule"] == "tools"


def test_a_key_sees_what_its_owner_would_get(config: Path) -> None:
    found = shown(config, chat("auto"), "--key-name", "acme")
    assert [one["model"] for one in found["candidates"]] == ["one"]
    assert found["not_chosen"]["two"] == "the key does not allow it"
    assert shown(config, chat("chat"), "--key-name", "acme")["share"] == 1.0
    refused = run(config, chat("two"), "--key-name", "acme")
    assert refused.exit_code == 2
    assert "the gateway would answer 403 (model_not_allowed)" in refused.stderr


def test_another_day_shows_what_will_be(config: Path) -> None:
    headers = shown(config, chat("ending"), "--on", "2026-11-30")["headers"]
    assert set(headers) == {"deprecation", "sunset", "link"}
    refused = run(config, chat("ending"), "--on", "2026-12-01")
    assert refused.exit_code == 2
    assert "404 (model_not_found): this model was retired" in refused.stderr
    assert "use 'chat' instead" in refused.stderr


def test_another_endpoint_is_asked_for_by_its_path(config: Path) -> None:
    body = {"model": "vectors", "input": [CANARY]}
    found = shown(config, body, "--path", "/v1/embeddings")
    assert found["features"]["kind"] == "embeddings"
    assert found["candidates"][0]["capabilities"] == []
    assert "400 (unsupported_endpoint)" in run(config, chat("vectors")).stderr


def test_people_get_it_in_words(config: Path) -> None:
    words = run(config, chat("ending", tools=[TOOL], stream=True), "--on", "2026-10-01").stdout
    assert words.startswith("one answers: an arm of the alias 'ending', its share is 100 %\n")
    for part in (
        "asks for     1 tool(s), a stream",
        "after one: saturated",
        "Tue, 01 Dec 2026 00:00:00 GMT",
        "the policy 'prefix' picks one",
    ):
        assert part in words


def test_a_request_may_stand_in_a_file(config: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps(chat("two")))
    assert run(config, request).stdout.startswith("two answers: the request names it\n")


# ---- what it refuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words", "telling"),
    [
        (chat(CANARY), (), "names in this file: auto, chat, ending, even, one, two, vectors)"),
        (b"{", (), "standard input: is not JSON (line 1, column 2)"),
        (b"\xff", (), "standard input: is not JSON"),
        ([], (), "standard input: must hold a JSON object"),
        (
            {"model": "one"},
            (),
            "the gateway would answer 400 (missing_required_parameter): 'messages'",
        ),
        (chat("one", temperature=CANARY), (), "'temperature' must be a number"),
        (chat("one"), ("--key-name", "nobody"), "no API key has this name; available: acme, lab"),
        (chat("one"), ("--path", "/v1/nothing"), "--path is one of: /v1/chat/completions, "),
        (chat("one") | {"x": "y" * 3_000_000}, (), "has more than 2097152 bytes"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    config: Path, body: Any, words: tuple[str, ...], telling: str
) -> None:
    result = run(config, body, *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert telling in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_file_that_is_not_there_is_named(config: Path, tmp_path: Path) -> None:
    result = run(config, tmp_path / "none.json")
    assert result.exit_code == 2
    assert "none.json: cannot be read (No such file or directory): name a file" in result.stderr
    result = run(tmp_path / "none.yaml", chat("one"))
    assert result.exit_code == 2
    assert "none.yaml: cannot be read" in result.stderr


def test_a_wrong_configuration_is_named_by_its_key(tmp_path: Path) -> None:
    path = site(tmp_path, routing={"fallbacks": {"a": {"to": ["b"]}, "b": {"to": ["a"]}}})
    result = run(path, chat("one"))
    assert result.exit_code == 2
    assert "routing: fallbacks: go in a circle: a -> b -> a" in result.stderr


@pytest.mark.parametrize(
    "body",
    [
        chat("auto", tools=[TOOL], user=CANARY),
        chat("chat"),
        chat(CANARY),
        chat("one", stop=[CANARY, 7]),
        chat("one", **{CANARY: 1}),
        b'{"model": "one", "messages": "' + CANARY.encode(),
    ],
)
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_text_of_the_request_is_never_shown(
    config: Path, body: Any, words: tuple[str, ...]
) -> None:
    assert CANARY not in run(config, body, *words).output


def test_help_teaches_with_an_example() -> None:
    result = CliRunner().invoke(app, ["route", "explain", "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "Example: comptoir route explain request.json --config" in result.output


# ---- the page ------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[3] / "docs" / "model-routing.md").read_text(encoding="utf-8")


@pytest.fixture
def page_site(tmp_path: Path) -> Path:
    found = re.search(r"^```yaml\n(.+?)^```", PAGE, re.M | re.S)
    assert found
    path = tmp_path / "site.yaml"
    path.write_text(found.group(1), encoding="utf-8")
    return path


def test_the_pages_file_is_right_and_names_only_its_own_models(page_site: Path) -> None:
    file = load_deployment_file(page_site, ProcessSettings())
    assert unknown_models(file.gateway.routing, {model.id for model in file.models}) == []
    result = CliRunner().invoke(app, ["check", str(page_site)])
    assert result.exit_code == 0, result.output


def test_the_pages_example_prints_what_the_page_says(
    page_site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its own width is what COLUMNS said when the process began: a test process of several has 80.
    monkeypatch.setattr(console, "width", 110)
    found = re.search(r"^\$ cat request\.json\n(.+?)^\$ .+?\n(.+?)^```", PAGE, re.M | re.S)
    assert found
    request, printed = found.groups()
    result = CliRunner().invoke(
        app,
        ["route", "explain", "-", "--config", str(page_site)],
        input=request,
    )
    assert [line.rstrip() for line in result.stdout.splitlines()] == printed.splitlines()


def test_the_pages_headers_are_those_of_its_file(page_site: Path) -> None:
    headers = shown(page_site, chat("summaries"), "--on", "2026-10-01")["headers"]
    found = re.search(r"^```http\n(.+?)^```", PAGE, re.M | re.S)
    assert found
    assert found.group(1).splitlines() == [f"{name}: {value}" for name, value in headers.items()]


def test_the_page_has_every_key_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \| .+ \|$", PAGE, re.M))
    tree: dict[str, type[BaseModel]] = {
        "": RoutingConfig,
        "aliases.": Alias,
        "aliases.arms.": Arm,
        "models.": ModelFacts,
        "fallbacks.": Fallback,
        "auto.": AutoRule,
        "auto.choose.": Choose,
    }
    wanted = {
        prefix + name: field
        for prefix, model in tree.items()
        for name, field in model.model_fields.items()
    }
    assert set(wanted) <= set(rows)
    assert {name for name in rows if "." in name} <= set(wanted)
    for name, field in wanted.items():
        if field.is_required():
            assert rows[name] == "required", name
        elif isinstance(field.default, int | float | str):
            assert rows[name] == f"`{field.default}`", name


def test_the_page_has_every_condition() -> None:
    table = PAGE.partition("| condition |")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert set(re.findall(r"`([a-z_]+)`", "".join(first))) == set(When.model_fields)
