"""Every body of a client that vLLM's own server answers is answered through the gateway's checks, too."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from serving import api
from serving.errors import RequestError
from serving.gateway.blame import judge
from serving.replica_facts import ModelCard
from serving.settings import RequestLimits
from serving.trust.fields import endpoints
from serving.trust.fitting import fit
from tests.clients.bodies import Case, cases
from tests.engine.real.conftest import LOOP, Running

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope=LOOP),
]

ENDPOINTS = endpoints(RequestLimits())
MODEL = "qwen3"


async def answer(running: Running, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """The status, also of what is refused inside a stream, and the answer."""
    status, raw = await running.post(path, body)
    refusal = judge(status, raw).refusal
    return (status if refusal is None else refusal.status), raw


def ours(case: Case, card: ModelCard) -> dict[str, Any]:
    """What a gateway sends to an engine."""
    kept = ENDPOINTS[case.path].check(deepcopy(case.body))
    limits = api.ENDPOINTS[case.path].output_limits
    return kept | fit(kept, limits, card.max_model_len, card.capabilities).instead


@pytest.mark.parametrize("running", [MODEL], indirect=True)
async def test_what_vllms_own_server_answers_is_answered_here(running: Running) -> None:
    card = ModelCard.parse(running.facts["card"])
    assert card.max_model_len is not None
    worse, answered = [], 0
    for case in cases():
        raw = {**case.body, "model": MODEL}
        theirs, _ = await answer(running, case.path, raw)
        try:
            status, text = await answer(running, case.path, ours(case, card) | {"model": MODEL})
        except RequestError as error:
            status, text = 400, error.message.encode()
        answered += status == 200
        if status != 200:
            worse.append((case.id, theirs, status, text[:300]))
    assert not worse, "\n".join(map(str, worse))
    assert answered >= 200
