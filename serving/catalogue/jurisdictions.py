"""Which law a site is under: country codes, and what "EU" covers.

A licence that excludes the European Union must not be got round by writing `DE`, and a typing error
must not open the gate: codes are checked against ISO 3166-1 and everything else is refused.
"""

from __future__ import annotations

from serving.errors import ConfigError

_CODES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS
BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE
EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM
HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC
LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA
NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW
SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO
TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
_ISO_3166 = frozenset(_CODES.split())

_MEMBERS = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EU_MEMBERS = frozenset(_MEMBERS.split())

# Territories with their own ISO code in which EU law applies (outermost regions, and Åland).
_EU_TERRITORIES = frozenset({"AX", "GF", "GP", "MF", "MQ", "RE", "YT"})

_SPELLINGS = {"GB": "UK", "EL": "GR"}


def normalise(code: str) -> str:
    """The catalogue's spelling of a jurisdiction: `EU`, `UK`, or an ISO 3166-1 code in capitals.

    Raises:
        ConfigError: the code is not one; `param` is `site.jurisdiction`.
    """
    upper = code.strip().upper()
    upper = _SPELLINGS.get(upper, upper)
    if upper in ("EU", "UK") or upper in _ISO_3166:
        return upper
    raise ConfigError(
        f"jurisdiction {code!r} is unknown: write EU, UK, or a two-letter country code such as DE",
        param="site.jurisdiction",
    )


def is_in_eu(code: str) -> bool:
    """Whether EU law applies there; `code` is normalised first."""
    known = normalise(code)
    return known == "EU" or known in EU_MEMBERS or known in _EU_TERRITORIES


def overlaps(jurisdiction: str, region: str) -> bool:
    """Whether a site in `jurisdiction` is, in whole or in part, inside `region`.

    A site that only says `EU` may stand in any member state, so it overlaps each of them.
    """
    here, there = normalise(jurisdiction), normalise(region)
    if here == there:
        return True
    return "EU" in (here, there) and is_in_eu(here) and is_in_eu(there)
