"""Which cloud regions lie in the European Union. Pure.

Names are not enough: providers call London and Zurich `eu-west-2` and `europe-west6`.
"""

from __future__ import annotations

import re

# Countries of the EU, as providers abbreviate them at the front of a region's name: fr-par, de/fra, nl-ams.
_PREFIX = re.compile(
    r"(eu|europe|at|be|bg|cy|cz|de|dk|ee|es|fi|fr|gr|hr|hu|ie|it|lt|lu|lv|mt|nl|pl|pt|ro|se|si|sk)"
    r"([-/]|\d|$)"
)
# Azure puts the country or the point of the compass first, without a dash.
_AZURE = re.compile(
    r"(west|north)europe|(austria|belgium|denmark|finland|france|germany|greece|italy|poland|spain|sweden)"
    r"(central|east|north|south|west|westcentral)"
)
_NOT_EU = {
    "eu-west-2": "London",
    "eu-central-2": "Zurich",
    "europe-west2": "London",
    "europe-west6": "Zurich",
}


def european_problem(region: str, vouched: frozenset[str] = frozenset()) -> str | None:
    """The reason why a region does not count as one in the EU; None when it does."""
    if region in vouched:
        return None
    if region in _NOT_EU:
        return f"{region!r} is {_NOT_EU[region]}, outside the EU"
    if _PREFIX.match(region) or _AZURE.fullmatch(region):
        return None
    return f"{region!r} is not known to be in the EU"
