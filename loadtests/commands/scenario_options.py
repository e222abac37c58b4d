"""The scenario of a command: a shipped one or a file, with changes from the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.workload.scenario import Scenario
from serving.config.base import validated
from serving.errors import ConfigError

SHIPPED = Path(__file__).parents[1] / "workload" / "scenarios"
# The variable in which every command looks for the key of an endpoint.
KEY_VARIABLE = "COMPTOIR_API_KEY"


@dataclass(frozen=True)
class Asked:
    """Overrides for every class: model and lengths. `has_key`: there is a key in KEY_VARIABLE."""

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    has_key: bool = False

    def change(self, document: dict[str, Any], scenario: Scenario) -> None:
        """Change a scenario's document."""
        lengths = (self.input_tokens, self.output_tokens)
        if document["arrivals"].get("kind") == "trace" and lengths != (None, None):
            option = "--input" if self.input_tokens is not None else "--output"
            raise ConfigError(f"{option}: the lengths are those of the trace", param=option)
        if self.model is not None and not self.model.strip():
            raise ConfigError("--model: give the name that the endpoint lists", param="--model")
        for one in document["classes"]:
            if self.model is not None:
                one["model"] = self.model
            _set_lengths(one, *lengths)
        if self.has_key:
            keys = document["target"].setdefault("keys", {})
            for each in scenario.classes:
                keys.setdefault(each.tenant, KEY_VARIABLE)


def export_key(key: str | None) -> bool:
    """Give the key to the processes that send, through their environment; returns whether there is one.

    Raises:
        ConfigError: it cannot stand in a header. The message does not repeat it.
    """
    if key is None:
        return False
    if not (key.isascii() and key.isprintable()) or key != key.strip() or not key:
        raise ConfigError(
            "--key: not a key: visible ASCII characters, without spaces around them", param="--key"
        )
    os.environ[KEY_VARIABLE] = key
    return True


def load(name: str) -> Scenario:
    """A file, or a shipped scenario by its name.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return Scenario.load(path)
    shipped = SHIPPED / f"{name}.yaml"
    if not shipped.exists():
        known = ", ".join(sorted(one.stem for one in SHIPPED.glob("*.yaml")))
        raise ConfigError(
            f"there is no scenario '{name}'; shipped: {known}; or name a YAML file",
            param="SCENARIO",
        )
    return Scenario.load(shipped)


def adjusted(
    scenario: Scenario,
    url: str | None,
    rate: float | None,
    users: int | None,
    duration_s: float | None,
    seed: int | None,
    key_env: list[str] | None,
    *,
    asked: Asked | None = None,
) -> Scenario:
    """The scenario with the command line's changes; checked again.

    Raises:
        ConfigError: it does not fit.
    """
    document = scenario.model_dump(mode="json", exclude_unset=True)
    target = document.setdefault("target", {})
    arrivals = document.setdefault("arrivals", {})
    if url is not None:
        target["url"] = url
    for pair in key_env or ():
        tenant, variable = _key_variable(scenario, pair)
        target.setdefault("keys", {})[tenant] = variable
    if rate is not None:
        if arrivals.get("kind", "poisson") not in ("constant", "poisson", "gamma"):
            arrivals["kind"] = "poisson"
        arrivals["rate_per_s"] = rate
    if users is not None:
        arrivals |= {"kind": "closed", "users": users}
    if duration_s is not None:
        document["duration_s"] = duration_s
        document["warmup_s"] = min(scenario.warmup_s, duration_s / 5)
    if seed is not None:
        document["seed"] = seed
    if asked is not None:
        asked.change(document, scenario)
    return validated(Scenario, document, scenario.name)


def _key_variable(scenario: Scenario, pair: str) -> tuple[str, str]:
    tenant, _, variable = pair.partition("=")
    tenants = {one.tenant for one in scenario.classes}
    if not tenant or not variable:
        problem = f"'{pair}' is not TENANT=VARIABLE"
    elif tenant not in tenants:
        problem = f"no class has the tenant '{tenant}'; available: {', '.join(sorted(tenants))}"
    elif not os.environ.get(variable):
        # Not its value, should somebody write the key itself here.
        problem = (
            f"the environment variable of '{tenant}' is not set: export it with the tenant's key"
        )
    else:
        return tenant, variable
    raise ConfigError(f"--key-env: {problem}", param="--key-env")


def one_class(
    scenario: Scenario, name: str | None, input_tokens: int | None, output_tokens: int | None
) -> Scenario:
    """The scenario with one class only, whose lengths may be set.

    Raises:
        ConfigError: there is no such class, or there are several and none is named.
    """
    known = ", ".join(one.name for one in scenario.classes)
    if name is None and len(scenario.classes) > 1:
        raise ConfigError(f"--class: the scenario has several: {known}; name one", param="--class")
    found = [one for one in scenario.classes if name in (None, one.name)]
    if not found:
        raise ConfigError(
            f"--class: there is no class '{name}'; available: {known}", param="--class"
        )
    document = found[0].model_dump(mode="json", exclude_unset=True)
    _set_lengths(document, input_tokens, output_tokens)
    whole = scenario.model_dump(mode="json", exclude_unset=True)
    return validated(Scenario, whole | {"classes": [document]}, scenario.name)


def _set_lengths(
    document: dict[str, Any], input_tokens: int | None, output_tokens: int | None
) -> None:
    if input_tokens is not None:
        document["input_tokens"] = {"mean": input_tokens}
    if output_tokens is not None:
        document["output_tokens"] = {"mean": output_tokens}


def default_folder(name: str) -> Path:
    """A new folder under runs/."""
    return Path("runs") / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
