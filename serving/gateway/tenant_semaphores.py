"""Bounds how many large bodies of one tenant are worked on at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# Large bodies of one tenant that are in objects at the same time.
PLACES = 2


class TenantSemaphores:
    """Where large bodies are worked on: of each tenant a few at a time, so that the others stay texts."""

    def __init__(self) -> None:
        self._semaphores: dict[str, _TenantSemaphore] = {}

    @asynccontextmanager
    async def hold(self, tenant: str) -> AsyncIterator[None]:
        """Wait for one of the tenant's places and hold it for as long as the context lasts."""
        semaphore = self._semaphores.setdefault(tenant, _TenantSemaphore())
        semaphore.users += 1
        try:
            async with semaphore.places:
                yield
        finally:
            semaphore.users -= 1
            if not semaphore.users:
                del self._semaphores[tenant]


@dataclass(slots=True)
class _TenantSemaphore:
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PLACES))
    users: int = 0
