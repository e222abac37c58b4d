"""docs/kubernetes.md says what is so: keys, rules, names, options, commands."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
import yaml

from serving.commands.k8s.cli import app
from serving.kubernetes.config import (
    Edge,
    KubernetesConfig,
    Neighbours,
    Redis,
    Upgrade,
    Weights,
)
from serving.kubernetes.overlays import OVERLAYS, site_config
from serving.kubernetes.policy import RULES
from serving.kubernetes.walk import strings
from tests.k8s.checking import ROOT, SHIPPED, rendered

TEXT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.S))


def section(title: str) -> str:
    return re.split(r"^#+ ", TEXT.partition(f" {title}\n")[2], maxsplit=1, flags=re.M)[0]


def first_cells(text: str) -> list[str]:
    return [
        cell
        for row in re.findall(r"^\|(.*?)\|", text, re.M)
        for cell in re.findall(r"`([^`]+)`", row)
    ]


def test_every_setting_is_in_the_table_and_no_other() -> None:
    named = {cell.partition(".")[0] for cell in first_cells(section("Settings"))}
    assert named == set(KubernetesConfig.model_fields) - {"overlay"}
    kinds = {
        "redis": Redis,
        "edge": Edge,
        "upgrade": Upgrade,
        "neighbours": Neighbours,
        "weights": Weights,
    }
    for key, kind in kinds.items():
        fields = set(kind.model_fields)
        row = re.search(rf"^\| `{key}` \|.*$", section("Settings"), re.M)
        assert row is not None
        assert fields <= set(re.findall(r"`(\w+)`", row[0])), key


def test_the_example_of_settings_is_right() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    config = site_config("eu-multi-node", yaml.safe_load(example))
    assert config.regions == ("fr-par", "nl-ams")


def test_every_rule_of_the_lint_is_in_the_table_and_no_other() -> None:
    assert set(first_cells(section("Lint"))) == {
        *RULES,
        "default-deny",
        "reference",
        "schema",
        "kuberay",
        "serve",
    }


def test_the_overlays_are_as_the_table_says() -> None:
    rows = {
        cells[0].strip(): [cell.strip() for cell in cells[1:4]]
        for cells in (line.strip("|").split("|") for line in section("Overlays").splitlines())
        if len(cells) == 4
    }
    for column, overlay in enumerate(OVERLAYS):
        config = site_config(overlay)
        assert rows[""][column] == f"`{overlay}`"
        regions = ", ".join(f"`{region}`" for region in config.regions) or "anywhere"
        assert rows["regions"][column] == regions
        assert rows["gateway pods"][column] == str(config.gateway_pods)
        assert rows["head's state in Redis"][column] == ("yes" if config.redis else "no")
        assert rows["[upgrades](#upgrade)"][column] == f"`{config.upgrade.strategy}`"
        made_of = rows["in `k8s/overlays`, made of"][column].strip("`")
        assert ROOT / made_of == SHIPPED[overlay]


def test_the_strategies_are_the_ones_there_are() -> None:
    strategies = Upgrade.model_fields["strategy"].annotation.__args__  # type: ignore[union-attr]
    assert [cell for cell in first_cells(section("Upgrade")) if cell in strategies] == list(
        strategies
    )


def test_secrets_that_are_created_are_the_ones_that_manifests_name() -> None:
    created = set(re.findall(r"create secret generic (\S+)", SHELL))
    manifests = rendered("eu-multi-node", "weights in a bucket")
    named = {
        text
        for manifest in manifests
        for path, text in strings(manifest)
        if path.endswith(("secretName", "secretKeyRef.name"))
    }
    assert created == named
    keys = {
        text
        for manifest in manifests
        for path, text in strings(manifest)
        if path.endswith("secretKeyRef.key")
    }
    assert keys <= set(re.findall(r"--from-file=(\w+)=", SHELL))


def test_objects_that_are_explained_exist() -> None:
    manifests = [one for overlay in OVERLAYS for one in rendered(overlay)]
    manifests += rendered("eu-multi-node", "weights in a bucket")
    there = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    policies = {name.removeprefix("comptoir-") for kind, name in there if kind == "NetworkPolicy"}
    rows = section("The objects and their purpose").splitlines()
    explained: set[str] = set()
    kind = ""
    for row in rows:
        first = row.strip("|").partition("|")[0]
        kind = (re.match(r" ([A-Z]\w+) ", first) or [None, kind])[1] or kind
        for name in re.findall(r"`([\w-]+)`", first):
            if name.startswith("comptoir"):
                wanted = name.replace("TYPE", "h200").lower()
                assert (kind, wanted) in there, (kind, wanted)
            else:
                explained.add(name)
    assert {name.replace("weights-GROUP", "weights-gpu-h200") for name in explained} <= policies
    assert {name for name in policies if not name.startswith("weights")} <= explained


def commands() -> list[list[str]]:
    joined = re.sub(r"\\\n\s*", " ", SHELL)
    lines = [re.split(r"\||&&|#", line)[0].strip() for line in joined.splitlines()]
    lines += [part.strip() for line in joined.splitlines() for part in line.split("|")[1:]]
    return [shlex.split(line) for line in lines if line.startswith("comptoir k8s ")]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[2:5]))
def test_options_that_are_shown_exist(words: list[str]) -> None:
    group = typer.main.get_command(app)
    command = group.commands[words[2]]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_there_are_commands_to_check() -> None:
    assert {words[2] for words in commands()} == {"render", "lint"}


def test_files_that_are_named_exist() -> None:
    for name in re.findall(r"\b(?:k8s|deployments|requirements)/[\w./-]+", TEXT):
        if "my-site" not in name and not name.endswith("NAME"):
            assert (ROOT / name.rstrip(".")).exists(), name
