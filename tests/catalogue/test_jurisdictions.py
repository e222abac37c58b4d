from __future__ import annotations

import pytest

from serving.catalogue.jurisdictions import EU_MEMBERS, is_in_eu, normalise, overlaps
from serving.errors import ConfigError


def test_there_are_27_member_states_and_249_countries() -> None:
    from serving.catalogue import jurisdictions

    assert len(EU_MEMBERS) == 27
    assert len(jurisdictions._ISO_3166) == 249
    assert EU_MEMBERS <= jurisdictions._ISO_3166


@pytest.mark.parametrize("code", [*sorted(EU_MEMBERS), "EU", "EL", "RE", "AX", "de", " fr "])
def test_eu_law_covers_members_and_territories_however_spelt(code: str) -> None:
    assert is_in_eu(code)
    assert overlaps(code, "EU")


@pytest.mark.parametrize("code", ["UK", "GB", "CH", "NO", "US", "CN", "KR"])
def test_eu_law_does_not_cover_neighbours(code: str) -> None:
    assert not is_in_eu(code)
    assert not overlaps(code, "EU")


def test_the_united_kingdom_has_two_spellings() -> None:
    assert normalise("gb") == "UK"
    assert overlaps("GB", "UK")


def test_a_site_that_only_says_eu_may_stand_in_any_member_state() -> None:
    assert overlaps("EU", "DE")
    assert not overlaps("FR", "DE")


@pytest.mark.parametrize("code", ["", "ED", "XX", "DEU", "Germany", "E U", "*"])
def test_a_code_that_does_not_exist_is_refused_rather_than_let_through(code: str) -> None:
    with pytest.raises(ConfigError, match="is unknown") as error:
        normalise(code)
    assert error.value.param == "site.jurisdiction"
