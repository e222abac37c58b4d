"""The state that all connections of a listener share."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from serving.config.connections import ConnectionsConfig
from serving.records import record

if TYPE_CHECKING:
    from serving.http.exchange import Exchange
    from serving.http.table import ConnectionTable


@record
class Server:
    """The application, the limits, and where its requests run."""

    app: Any
    limits: ConnectionsConfig
    table: ConnectionTable
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context

    def begin(self, exchange: Exchange) -> None:
        """Give a request to the application."""
        # Not in the context of whoever calls: a request that was sent ahead begins where another's task ends.
        coroutine = exchange.run(self.app)
        exchange.task = self.loop.create_task(coroutine, context=self.context.copy())
