"""Listens until the process is ended; as a child, `python -m loadtests.reference.listening JSON`.

The command line is for people; who starts the server as a child gives its configuration as JSON, and does
not wait for the command line's libraries.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys

from loadtests.processes.child import raise_open_files_limit
from loadtests.reference.config import ReferenceConfig
from loadtests.reference.server import serve
from serving.errors import ConfigError

OPEN_FILES = 65_536


def listen(config: ReferenceConfig) -> None:
    """Print where, and serve.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def announce(port: int) -> None:
        # Nothing here makes cycles for long, and a collection would delay every stream.
        gc.freeze()
        gc.disable()
        url = f"http://{config.host}:{port}"
        print(json.dumps({"url": url, "port": port, "pid": os.getpid()}), flush=True)

    raise_open_files_limit(OPEN_FILES)
    try:
        asyncio.run(serve(config, announce))
    except OSError as error:
        raise ConfigError(f"host, port: cannot listen: {error.strerror}") from None


if __name__ == "__main__":
    listen(ReferenceConfig.model_validate_json(sys.argv[1]))
