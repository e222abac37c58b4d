"""The licence gate: whether a site in this jurisdiction may offer this model.

A licence is `ok` (pass), `duty` (do something, say that you do), `gate` (an agreement or a purpose
may be required, say that you have it) or `block` (no rights are granted in some jurisdictions).
This is a guard against mistakes, not legal advice: each refusal quotes the clause and its source.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from serving.catalogue.frozen import Frozen
from serving.catalogue.jurisdictions import normalise, overlaps
from serving.catalogue.spec import ModelSpec
from serving.errors import LicenceError

Standing = Literal["ok", "duty", "gate", "no"]

ACKNOWLEDGE_KEY = "site.acknowledged_licences"


class Duty(Frozen):
    """One thing a licence asks of whoever offers the model."""

    name: str = Field(min_length=1)
    text: str = Field(min_length=1)


class Licence(Frozen):
    """A licence as the catalogue knows it.

    `verified` means that its own text was read; `quoted` that `clause` is in its own words.
    """

    id: str = Field(pattern=r"^[a-z0-9]+(?:[.-][a-z0-9]+)*$")
    name: str = Field(min_length=1)
    verdict: Literal["ok", "duty", "gate", "block"]
    excluded_jurisdictions: tuple[str, ...] = ()
    clause: str = ""
    quoted: bool = True
    source: str = Field(min_length=1)
    verified: bool
    duties: tuple[Duty, ...] = ()

    @field_validator("excluded_jurisdictions")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(normalise(code) for code in value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.verdict == "block") != bool(self.excluded_jurisdictions):
            raise ValueError("verdict `block` and excluded_jurisdictions go together")
        if self.verdict != "ok" and not self.clause:
            raise ValueError("clause: quote or summarise what the verdict rests on")
        if self.verdict == "duty" and not self.duties:
            raise ValueError("duties: verdict `duty` needs at least one")
        return self

    @property
    def clause_text(self) -> str:
        """The clause for a sentence: in quotation marks only where it is one."""
        text = self.clause.removesuffix(".")
        return f'"{text}"' if self.quoted and text else text

    def excludes(self, jurisdiction: str) -> bool:
        """Whether the licence grants no rights there."""
        return any(overlaps(jurisdiction, region) for region in self.excluded_jurisdictions)

    def standing(self, jurisdiction: str) -> Standing:
        """One word for listings: `ok` passes, `duty` and `gate` need a name, `no` is refused."""
        if self.excludes(jurisdiction):
            return "no"
        if self.verdict == "ok":
            return "ok" if self.verified else "duty"
        return "duty" if self.verdict == "duty" else "gate"


class LicenceVerdict(Frozen):
    """The gate's verdict on one model at one site."""

    model_id: str
    licence_name: str
    jurisdiction: str
    outcome: Literal["allowed", "needs-acknowledgement", "excluded"]
    reason: str
    duties: tuple[Duty, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the site may offer the model as configured."""
        return self.outcome == "allowed"


_WHY_ACKNOWLEDGE = {
    "ok": "its text has not been read by the makers of this catalogue",
    "duty": "it imposes duties on whoever offers the model",
    "gate": "it may require a separate agreement or forbid commercial use",
    "block": "it grants rights in some jurisdictions only",
}


def assess_licence(
    spec: ModelSpec, licence: Licence, jurisdiction: str, acknowledged: frozenset[str] = frozenset()
) -> LicenceVerdict:
    """Judge without refusing: for listings and plans.

    Raises:
        LicenceError: `licence` is not the one the entry names.
        ConfigError: the jurisdiction is unknown.
    """
    if spec.licence != licence.id:
        raise LicenceError(
            f"{spec.id} is under licence {spec.licence!r}, not {licence.id!r}", param="licence"
        )
    here = normalise(jurisdiction)
    outcome: Literal["allowed", "needs-acknowledgement", "excluded"]
    if licence.excludes(here):
        # Before anything else: no acknowledgement makes up for rights that were never granted.
        outcome, reason = "excluded", f"it grants no rights in {here}"
    elif licence.verdict == "ok" and licence.verified:
        outcome, reason = "allowed", "no duty beyond its notices"
    elif licence.name in acknowledged:
        outcome, reason = "allowed", f"acknowledged in {ACKNOWLEDGE_KEY}"
    else:
        outcome, reason = "needs-acknowledgement", _WHY_ACKNOWLEDGE[licence.verdict]
    return LicenceVerdict(
        model_id=spec.id,
        licence_name=licence.name,
        jurisdiction=here,
        outcome=outcome,
        reason=reason,
        duties=licence.duties,
    )


def check_licence(
    spec: ModelSpec, licence: Licence, jurisdiction: str, acknowledged: frozenset[str] = frozenset()
) -> LicenceVerdict:
    """The gate: returns a verdict that allows, or refuses.

    Args:
        jurisdiction: `EU`, `UK` or a country code; EU also covers its member states.
        acknowledged: names of licences, exactly as written in `site.acknowledged_licences`.

    Raises:
        LicenceError: the message quotes the clause, names its source and says what can be done;
            `param` is `site.jurisdiction` where nothing can be acknowledged, else
            `site.acknowledged_licences`.
    """
    verdict = assess_licence(spec, licence, jurisdiction, acknowledged)
    if verdict.allowed:
        return verdict
    lines = [f"{spec.id}: licence {licence.name!r}: {verdict.reason}."]
    if licence.clause:
        lines.append(f"It says: {licence.clause_text}.")
    unread = "" if licence.verified else "; second-hand: read the licence itself before you decide"
    lines.append(f"Source: {licence.source}{unread}.")
    if verdict.outcome == "excluded":
        lines.append(
            f"This cannot be acknowledged away in {verdict.jurisdiction}: choose another model "
            "(`comptoir catalogue list --eu-ok` lists candidates)."
        )
        raise LicenceError(" ".join(lines), param="site.jurisdiction")
    lines += [f"Duty ({duty.name}): {duty.text}." for duty in licence.duties]
    lines.append(
        f"If you may use it so, add its name to {ACKNOWLEDGE_KEY}: [{_yaml_string(licence.name)}]."
    )
    raise LicenceError(" ".join(lines), param=ACKNOWLEDGE_KEY)


def _yaml_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
