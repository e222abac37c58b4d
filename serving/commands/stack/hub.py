"""Whether this machine reaches the model hub: one bounded request, and none where the site forbids it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from serving import http_client
from serving.errors import ConfigError

TIMEOUT_S = 2.0


class HubProbe:
    """Asks in the background, so that nothing waits for the answer."""

    def __init__(self, ask: Callable[[], bool] | None = None) -> None:
        self._is_reachable = False
        self._ask = ask or is_reachable
        self._thread = threading.Thread(target=self._run, daemon=True, name="hub probe")
        self._thread.start()

    def answer(self) -> bool:
        """Whether the hub has answered; not yet means no."""
        # Names are looked up without a time limit, which the thread alone may wait for.
        self._thread.join(TIMEOUT_S)
        return self._is_reachable and not self._thread.is_alive()

    def _run(self) -> None:
        self._is_reachable = self._ask()


def is_reachable() -> bool:
    """Whether the hub answers, with whatever status; HF_ENDPOINT names another, HF_HUB_OFFLINE forbids."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        http_client.ask(constants.ENDPOINT, timeout_s=TIMEOUT_S, method="HEAD")
    except (http_client.Unreachable, http_client.NotHttp, ConfigError):
        return False
    return True
