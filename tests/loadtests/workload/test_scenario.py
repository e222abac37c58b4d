"""Scenarios: those that are shipped can be loaded and planned; what is wrong is answered by its key."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from loadtests.commands.scenario_options import (
    SHIPPED,
    Asked,
    adjusted,
    export_key,
    load,
    one_class,
)
from loadtests.workload.bodies import Composer, Turns
from loadtests.workload.conversations import plan, user_plan
from loadtests.workload.scenario import (
    ArrivalsConfig,
    ClassConfig,
    Scenario,
    SloConfig,
    TargetConfig,
    TokensConfig,
    ValidityConfig,
)
from serving.catalogue.tiny import architectures
from serving.errors import ConfigError

NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "load-testing-scenarios.md").read_text(encoding="utf-8")
MINIMAL = {"name": "a", "classes": [{"name": "c", "model": "m"}]}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_can_be_planned(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.description
    # Tokenizers are made by the stack; the plan does not need them.
    without = scenario.model_copy(
        update={"target": scenario.target.model_copy(update={"tokenizers": {}})}
    )
    composer = Composer(without)
    if scenario.arrivals.kind == "closed":
        conversations = [next(user_plan(without, user)) for user in range(20)]
    else:
        conversations = list(plan(without).conversations)
        assert len(conversations) > 20
    kinds = {one.name: one for one in scenario.classes}
    for one in conversations[:20]:
        turns = Turns()
        for number in range(len(one.turns)):
            path, body = composer.compose(kinds[one.class_name], one, number, turns)
            assert path.startswith("/v1/")
            assert body["model"] == kinds[one.class_name].model
            turns.answered("yes")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_fits_the_local_stack(name: str) -> None:
    stack = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text(encoding="utf-8"))
    served = {one["name"]: one["args"] for one in stack["applications"]}
    scenario = load(name)
    assert scenario.target.url == f"http://127.0.0.1:{served['gateway']['port']}"
    for kind in scenario.classes:
        family = served[kind.model]["catalogue"].removeprefix(architectures.ID_PREFIX)
        assert scenario.target.tokenizers[kind.model] == f"tiny:{family}"
        context = architectures.family(family).engine_args["max_model_len"]
        asked, answered = map(longest, (kind.input_tokens, kind.output_tokens))
        if kind.kind == "embeddings":
            answered = 0
        # Beside the texts there are the chat template and the tools' definitions.
        assert kind.shared_prefix_tokens + kind.turns * (asked + answered) + 600 <= context


def longest(tokens: TokensConfig) -> int:
    return tokens.max if tokens.cv else round(tokens.mean)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"clases": []}, r"clases: unknown key; known: name, description, target, classes"),
        ({"classes": []}, r"classes: must have 1 item or more"),
        ({"duration_s": 5, "warmup_s": 5}, r"warmup_s \(5\) leaves nothing of duration_s \(5\)"),
        ({"arrivals": {"kind": "ramp"}}, r"arrivals: a ramp needs to_per_s"),
        ({"arrivals": {"kind": "steps"}}, r"arrivals: steps need rates_per_s"),
        ({"arrivals": {"kind": "trace"}}, r"arrivals: a trace needs the key trace"),
        ({"arrivals": {"rate_per_s": 0}}, r"arrivals\.rate_per_s: must be above 0"),
        ({"arrivals": {"kind": "poison"}}, r"arrivals\.kind: must be 'closed'"),
        ({"classes": MINIMAL["classes"] * 2}, r"two classes have the same name"),
        (
            {"classes": [{"name": "c", "model": "m", "turns": 2}]},
            r"turns needs kind multi_turn or agent, not chat",
        ),
        (
            {
                "classes": [
                    {"name": "c", "model": "m", "input_tokens": {"mean": 5, "min": 9, "max": 3}}
                ]
            },
            r"min \(9\) is larger than max \(3\)",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | change))
    with pytest.raises(ConfigError, match=complaint):
        Scenario.load(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("[1]", "must be a mapping"), ("a: b: c", "is not YAML"), (None, "No such file")],
)
def test_what_is_no_scenario_file_is_refused(
    tmp_path: Path, text: str | None, complaint: str
) -> None:
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        Scenario.load(path)


def test_the_command_line_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_KEY", "k")
    scenario = adjusted(load("ramp"), "http://x:1", 7.0, None, 30.0, 9, ["default=WEB_KEY"])
    assert (scenario.target.url, scenario.duration_s, scenario.seed) == ("http://x:1", 30.0, 9)
    assert (scenario.arrivals.kind, scenario.arrivals.rate_per_s) == ("poisson", 7.0)
    assert scenario.target.keys == {"default": "WEB_KEY"}
    assert adjusted(load("chat"), None, None, 5, None, None, None).arrivals.users == 5
    assert adjusted(load("bursts"), None, 9.0, None, None, None, None).arrivals.kind == "gamma"


def test_every_class_asks_for_the_model_and_the_lengths_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RESEARCH", "k")
    asked = Asked("theirs", 100, 20, has_key=True)
    scenario = adjusted(
        load("mixed-tenants"), None, None, None, None, None, ["research=RESEARCH"], asked=asked
    )
    assert {one.model for one in scenario.classes} == {"theirs"}
    assert {(one.input_tokens.mean, one.input_tokens.cv) for one in scenario.classes} == {(100, 0)}
    assert {one.output_tokens.mean for one in scenario.classes} == {20}
    # A tenant's own key goes before the one for all.
    assert scenario.target.keys == {
        "web": "COMPTOIR_API_KEY",
        "research": "RESEARCH",
        "batch": "COMPTOIR_API_KEY",
    }
    assert [one.slo for one in scenario.classes] == [
        one.slo for one in load("mixed-tenants").classes
    ]


def test_without_them_a_class_stays_as_it_is() -> None:
    chat = load("chat")
    assert adjusted(chat, None, None, None, None, None, None, asked=Asked()) == chat


@pytest.mark.parametrize(
    ("scenario", "asked", "complaint"),
    [
        ("trace-azure", Asked(input_tokens=9), "--input: the lengths are those of the trace"),
        ("trace-azure", Asked(output_tokens=9), "--output: the lengths are those of the trace"),
        ("chat", Asked(" "), "--model: give the name that the endpoint lists"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(scenario: str, asked: Asked, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        adjusted(load(scenario), None, None, None, None, None, None, asked=asked)


def test_lengths_are_free_where_a_rate_replaces_the_trace() -> None:
    asked = Asked(input_tokens=9)
    scenario = adjusted(load("trace-azure"), None, 2.0, None, None, None, None, asked=asked)
    assert scenario.classes[0].input_tokens.mean == 9


@pytest.mark.parametrize("key", ["", " ", "sk-canary\r\nx: y", "sk-canary ", "sk-canäry"])
def test_a_key_that_no_header_takes_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.delenv("COMPTOIR_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="--key: not a key") as raised:
        export_key(key)
    assert "can" not in raised.value.message.replace("cannot", "")
    assert "COMPTOIR_API_KEY" not in os.environ


def test_a_key_reaches_the_processes_that_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPTOIR_API_KEY", "before")
    assert export_key("sk-1")
    assert os.environ["COMPTOIR_API_KEY"] == "sk-1"
    assert not export_key(None)


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        ("web", "'web' is not TENANT=VARIABLE"),
        ("web=SET", "no class has the tenant 'web'; available: default"),
        ("default=sk-canary", "the environment variable of 'default' is not set"),
    ],
)
def test_a_key_that_would_not_be_sent_is_refused(
    monkeypatch: pytest.MonkeyPatch, pair: str, complaint: str
) -> None:
    monkeypatch.setenv("SET", "k")
    with pytest.raises(ConfigError, match=complaint) as raised:
        adjusted(load("chat"), None, None, None, None, None, [pair])
    assert "canary" not in raised.value.message


def test_one_class_of_several_is_named() -> None:
    mixed = load("mixed-tenants")
    with pytest.raises(ConfigError, match="has several: web-chat, research-talk, batch-summaries"):
        one_class(mixed, None, None, None)
    with pytest.raises(ConfigError, match="there is no class 'web'; available: web-chat"):
        one_class(mixed, "web", None, None)
    (kind,) = one_class(mixed, "web-chat", 100, 20).classes
    assert (kind.input_tokens.mean, kind.input_tokens.cv, kind.output_tokens.mean) == (100, 0, 20)
    assert kind.slo.ttft_ms == 600


def test_files_are_found_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        yaml.safe_dump(
            MINIMAL
            | {
                "arrivals": {"kind": "trace", "trace": "t.jsonl"},
                "classes": [{"name": "c", "model": "m", "prompts": "p.jsonl"}],
            }
        )
    )
    scenario = Scenario.load(tmp_path / "x.yaml")
    assert scenario.arrivals.trace == str(tmp_path / "t.jsonl")
    assert scenario.classes[0].prompts == str(tmp_path / "p.jsonl")


def test_an_unknown_scenario_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no scenario 'chart'; shipped: agent, bursts, chat"):
        load("chart")


# ---- docs/load-testing-scenarios.md ------------------------------------------------------------------


def section(title: str) -> str:
    parts = re.split(r"^#{1,3} ", DOCUMENT, flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(title + "\n"))


def plain(value: Any) -> Any:
    """As it stands in a file."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True) or None
    return value or None if isinstance(value, str | tuple | dict) else value


@pytest.mark.parametrize(
    ("title", "prefix", "model"),
    [
        ("The scenario", "", Scenario),
        ("The endpoint", "target.", TargetConfig),
        ("Classes", "classes.", ClassConfig),
        ("Token counts", "", TokensConfig),
        ("SLOs", "slo.", SloConfig),
        ("Arrivals", "arrivals.", ArrivalsConfig),
        ("Validity", "validity.", ValidityConfig),
    ],
)
def test_the_document_has_every_key_with_its_default(
    title: str, prefix: str, model: type[BaseModel]
) -> None:
    table = section(title).partition("| key | default | meaning |\n")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| (.+?) \| .+ \|$", table, re.MULTILINE))
    assert list(rows) == [prefix + name for name in model.model_fields]
    for name, field in model.model_fields.items():
        said = rows[prefix + name]
        if field.is_required():
            assert said == "required", name
        elif said.startswith("see "):
            assert isinstance(field.default, BaseModel), name
            assert section(re.findall('"(.+)"', said)[0]), name
        else:
            default = field.get_default(call_default_factory=True)
            wanted = None if said == "none" else yaml.safe_load(said.strip("`"))
            assert wanted == plain(default), name


def test_the_document_names_every_kind_format_and_shipped_scenario() -> None:
    for title, model, key in (
        ("Classes", ClassConfig, "kind"),
        ("Arrivals", ArrivalsConfig, "kind"),
        ("Arrivals", ArrivalsConfig, "format"),
    ):
        for choice in model.model_json_schema()["properties"][key]["enum"]:
            assert re.search(rf"^\| \[?`{choice}`", section(title), re.MULTILINE), choice
    shipped = section("Scenarios of load tests").partition("| shipped |")[2]
    assert sorted(re.findall("`([a-z-]+)`", shipped.partition("\n\n")[0])) == NAMES


def test_the_example_of_the_document_is_a_scenario(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.+?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    (tmp_path / "x.yaml").write_text(example, encoding="utf-8")
    scenario = Scenario.load(tmp_path / "x.yaml")
    assert plan(scenario).requests > 100
