"""Every body that a client sends is accepted, and only what docs name is left out of it."""

from __future__ import annotations

from copy import deepcopy

import pytest

from serving.errors import UnsupportedFieldError
from serving.settings import RequestLimits
from serving.trust.fields import endpoints
from serving.trust.leftovers import OTHERS, Leftovers
from tests.clients.bodies import Case, cases

ENDPOINTS = endpoints(RequestLimits())
CASES = list(cases())


def test_there_are_many_clients() -> None:
    assert len(CASES) >= 200
    assert len({case.client.partition(",")[0] for case in CASES}) >= 40


def test_a_grammar_is_refused_by_name_because_it_can_stop_an_engine() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    with pytest.raises(UnsupportedFieldError) as raised:
        ENDPOINTS["/v1/chat/completions"].check(
            body | {"structured_outputs": {"grammar": 'root ::= "yes" | "no"'}}
        )
    assert raised.value.param == "structured_outputs.grammar"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_clients_body_is_accepted(case: Case) -> None:
    left = Leftovers()
    kept = ENDPOINTS[case.path].check(deepcopy(case.body), left)
    assert {"model"} <= kept.keys()
    assert OTHERS not in left.named
    again = Leftovers(is_strict=True)
    assert ENDPOINTS[case.path].check(deepcopy(kept), again) == kept
    assert again.is_empty
