from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.catalogue.catalogue import load_catalogue
from serving.catalogue.jurisdictions import EU_MEMBERS
from serving.catalogue.licences import assess_licence, check_licence
from serving.errors import LicenceError
from tests.catalogue.builders import entry, licence

CATALOGUE = load_catalogue()
NAMES = sorted(one.name for one in CATALOGUE.licences.values())
DUTY = [{"name": "display", "text": "show the name"}]
BLOCK: dict[str, Any] = {
    "verdict": "block",
    "clause": "not in the EU",
    "excluded_jurisdictions": ["EU", "UK", "KR"],
}


def test_an_ordinary_licence_passes_without_a_word() -> None:
    verdict = check_licence(entry(), licence(), "EU")
    assert verdict.allowed
    assert verdict.duties == ()


@pytest.mark.parametrize("code", ["EU", "DE", "FR", "RE", "UK", "GB", "KR"])
def test_a_blocked_licence_is_refused_where_it_grants_nothing(code: str) -> None:
    with pytest.raises(LicenceError) as error:
        check_licence(entry(), licence(**BLOCK), code, frozenset({"Example License"}))
    assert error.value.param == "site.jurisdiction"
    assert error.value.status == 500
    for part in ("example-7b", "Example License", "not in the EU", "a test", "another model"):
        assert part in error.value.message


def test_a_blocked_licence_elsewhere_still_wants_its_name() -> None:
    with pytest.raises(LicenceError) as error:
        check_licence(entry(), licence(**BLOCK), "CH")
    assert error.value.param == "site.acknowledged_licences"
    assert check_licence(entry(), licence(**BLOCK), "CH", frozenset({"Example License"})).allowed


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "duty", "clause": "show it", "duties": DUTY},
        {"verdict": "gate", "clause": "not for commerce"},
        {"verdict": "ok", "verified": False},
    ],
    ids=["duty", "gate", "not read"],
)
def test_duties_gates_and_unread_texts_need_the_licence_acknowledged_by_name(
    changes: dict[str, Any],
) -> None:
    terms = licence(**changes)
    for acknowledged in [frozenset[str](), {"example"}, {"example license"}, {"MIT License"}]:
        with pytest.raises(LicenceError) as error:
            check_licence(entry(), terms, "EU", frozenset(acknowledged))
        assert error.value.param == "site.acknowledged_licences"
        assert 'site.acknowledged_licences: ["Example License"]' in error.value.message
    assert check_licence(entry(), terms, "EU", frozenset({"Example License"})).allowed


def test_the_refusal_names_each_duty_and_says_when_the_text_was_not_read() -> None:
    terms = licence(verdict="duty", clause="show it", duties=DUTY, verified=False)
    with pytest.raises(LicenceError, match=r"Duty \(display\): show the name.*") as error:
        check_licence(entry(), terms, "EU")
    assert "second-hand" in error.value.message


def test_only_the_licences_own_words_stand_in_quotation_marks() -> None:
    for quoted, expected in [(True, 'It says: "not here".'), (False, "It says: not here.")]:
        terms = licence(verdict="gate", clause="not here.", quoted=quoted)
        with pytest.raises(LicenceError) as error:
            check_licence(entry(), terms, "EU")
        assert expected in error.value.message


def test_a_licence_other_than_the_entry_names_is_refused() -> None:
    with pytest.raises(LicenceError, match="is under licence 'example', not 'mit'"):
        check_licence(entry(), licence(id="mit"), "EU")


def test_assessing_does_not_refuse() -> None:
    assert assess_licence(entry(), licence(**BLOCK), "EU").outcome == "excluded"
    assert assess_licence(entry(), licence(**BLOCK), "CH").outcome == "needs-acknowledgement"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "block", "clause": "x"}, "excluded_jurisdictions"),
        ({"excluded_jurisdictions": ["EU"]}, "excluded_jurisdictions"),
        ({"verdict": "gate"}, "clause"),
        ({"verdict": "duty", "clause": "x"}, "duties"),
    ],
)
def test_a_licence_that_does_not_say_what_it_rests_on_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        licence(**changes)


# ---- the shipped licences, and properties


@settings(deadline=None)
@given(
    spec=st.sampled_from(CATALOGUE.list()),
    code=st.sampled_from(["EU", "EL", "UK", "GB", "KR", "RE", *sorted(EU_MEMBERS)]),
    acknowledged=st.frozensets(st.sampled_from(NAMES) | st.text(max_size=20)),
)
def test_no_excluded_model_passes_whatever_is_acknowledged(
    spec: Any, code: str, acknowledged: frozenset[str]
) -> None:
    terms = CATALOGUE.licence_of(spec)
    if not terms.excludes(code):
        return
    with pytest.raises(LicenceError):
        check_licence(spec, terms, code, acknowledged | {terms.name, terms.id, "*"})


@settings(deadline=None)
@given(
    verdict=st.sampled_from(["ok", "duty", "gate", "block"]),
    verified=st.booleans(),
    code=st.sampled_from(["EU", "DE", "UK", "CH", "US", "CN"]),
    acknowledged=st.frozensets(st.sampled_from(["Example License", "example", "Other"])),
)
def test_only_plain_licences_and_acknowledged_ones_ever_pass(
    verdict: str, verified: bool, code: str, acknowledged: frozenset[str]
) -> None:
    excluded = ["EU"] if verdict == "block" else []
    terms = licence(
        verdict=verdict,
        verified=verified,
        clause="x",
        duties=DUTY,
        excluded_jurisdictions=excluded,
    )
    try:
        check_licence(entry(), terms, code, acknowledged)
    except LicenceError:
        passed = False
    else:
        passed = True
    free = verdict == "ok" and verified
    barred = verdict == "block" and code in ("EU", "DE")
    assert passed == (not barred and (free or "Example License" in acknowledged))


@pytest.mark.parametrize(
    ("model_id", "standing"),
    [
        ("qwen3-32b", "ok"),
        ("deepseek-v3.2", "ok"),
        ("hy3", "ok"),
        ("deepseek-v3", "duty"),
        ("minimax-m2.5", "duty"),
        ("kimi-k2.5", "duty"),
        ("minimax-m2.7", "gate"),
        ("qwen3.8-flash-next", "gate"),
        ("kimi-k3", "gate"),
        ("telechat3-36b-thinking", "gate"),
        ("hunyuan-a13b-instruct", "no"),
        ("hy3-preview", "no"),
        ("openpangu-embedded-7b", "no"),
    ],
)
def test_known_models_stand_where_their_licences_put_them(model_id: str, standing: str) -> None:
    assert CATALOGUE.licence_of(CATALOGUE.get(model_id)).standing("EU") == standing


def test_every_model_of_a_blocking_vendor_release_names_its_own_licence() -> None:
    blocked = {spec.id for spec in CATALOGUE if CATALOGUE.licence_of(spec).excludes("EU")}
    assert {spec.id for spec in CATALOGUE.filter(family="Hunyuan")} <= blocked
    assert {spec.id for spec in CATALOGUE.filter(vendor="Huawei")} <= blocked
