"""Paths as Azure's clients write them: the name of the model stands in the path.

https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.gateway.reading import MODEL_HEADER

# `/openai/deployments/NAME/chat/completions?api-version=...`, and the newer `/openai/v1/chat/completions`.
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]{1,256})(/.+)")
_NEWER = "/openai/v1"


class AzurePaths:
    """ASGI middleware: rewrites these paths to the API's own, and `api-key` to `x-api-key`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if found := _DEPLOYMENT.fullmatch(path):
                name = found[1].encode("latin-1", "replace")
                scope["headers"] = [*scope["headers"], (MODEL_HEADER.encode(), name)]
                scope["path"] = "/v1" + found[2]
            elif path.startswith(_NEWER + "/"):
                scope["path"] = "/v1" + path.removeprefix(_NEWER)
            scope["headers"] = [
                (b"x-api-key" if name == b"api-key" else name, value)
                for name, value in scope["headers"]
            ]
        await self._app(scope, receive, send)
