"""The scraper beside a run says what its key does not let it see, once."""

from __future__ import annotations

import httpx
import pytest

from loadtests.generator.scrape import VIEW_HEADER, scrape
from serving.gateway import routes

TEXT = 'comptoir_tokens_total{model="m"} 3.0\n'
URL = "http://127.0.0.1:8000/metrics"


def answering(status: int, view: str | None) -> httpx.Client:
    headers = {VIEW_HEADER: view} if view else {}
    transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, text=TEXT))
    return httpx.Client(transport=transport)


def test_the_header_is_the_gateways() -> None:
    assert VIEW_HEADER == routes.VIEW_HEADER


@pytest.mark.parametrize(
    ("status", "view", "said"),
    [
        (200, "site", ""),
        (200, None, ""),
        (200, "tenant", "its own rows"),
        (401, None, "status 401"),
        (403, None, "status 403"),
    ],
)
def test_what_a_key_does_not_see_is_said_once(
    status: int, view: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, str] = {}
    for _ in range(3):
        found = [one for one in scrape({URL: answering(status, view)}, {}, told) if one[0] == URL]
        assert bool(found) == (status == 200)
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("target.metrics_key") == bool(said)
