"""One gateway process over a static directory with one model and one replica, the null engine.

Run as a process: `python -m loadtests.bench.null.gateway ENGINE_URL TOKEN KEY_HASH...`; it prints its port.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import uvloop

from serving.discovery.directory import Directory, Model, Replica
from serving.gateway.asgi import build_asgi
from serving.gateway.services import Services
from serving.listener import Listener
from serving.replica_facts import ModelCard
from serving.settings import GatewayConfig, KeyConfig

MODEL = "null"


async def serve(engine_url: str, token: str, *key_hashes: str) -> None:
    """Listen on a free loopback port until cancelled, and print the port."""
    replica = Replica("null-1", engine_url, token)
    directory = Directory([Model(MODEL, ModelCard(task="chat", vendor="bench"), (replica,))])
    keys = (KeyConfig(name=f"bench-{n}", hash=one) for n, one in enumerate(key_hashes))
    config = GatewayConfig(keys=tuple(keys))
    services = Services.build(config, lambda: directory)
    listener = Listener(build_asgi(services), "127.0.0.1")
    await listener.start()
    # As in a Serve replica: RAY_SERVE_FREEZE_GC_ON_STARTUP.
    gc.collect()
    gc.freeze()
    print(listener.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
