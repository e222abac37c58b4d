"""The gateway of our own target: two tenants, one of whom is the attacker, and limits of a few seconds.

Run as a process: `python -m loadtests.hostile.gateway ENGINE_URL TOKEN KEY_HASH OTHER_HASH`.
It prints its port.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import uvloop

from loadtests.bench.null.gateway import MODEL
from serving.config.connections import ConnectionsConfig
from serving.discovery.directory import Directory, Model, Replica
from serving.gateway.asgi import build_asgi
from serving.gateway.services import Services
from serving.listener import Listener
from serving.replica_facts import ModelCard
from serving.settings import GatewayConfig, KeyConfig

# The attacker's key is not for this one.
OTHER_MODEL = "the-others-own"
# Within so many seconds a connection without progress is cut.
CUT_S = 4.0


async def serve(engine_url: str, token: str, key_hash: str, other_hash: str) -> None:
    """Listen on a free loopback port until cancelled, and print the port."""
    replica = Replica("null-1", engine_url, token)
    directory = Directory(
        Model(name, ModelCard(task="chat", vendor="test"), (replica,))
        for name in (MODEL, OTHER_MODEL)
    )
    config = GatewayConfig(
        keys=(
            KeyConfig(name="attacker", hash=key_hash, models=(MODEL,)),
            KeyConfig(name="other", hash=other_hash),
        ),
        connections=ConnectionsConfig(
            head_timeout_s=CUT_S,
            body_timeout_s=CUT_S,
            idle_timeout_s=CUT_S,
            write_stall_s=CUT_S,
            linger_s=CUT_S - 1,
        ),
    )
    services = Services.build(config, lambda: directory)
    listener = Listener(build_asgi(services), "127.0.0.1", connections=config.connections)
    await listener.start()
    gc.collect()
    gc.freeze()
    print(listener.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:5]))
