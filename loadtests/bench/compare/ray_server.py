"""Ray Serve LLM with one model, in a Ray of its own; stays until interrupted.

Run as a process: `python -m loadtests.bench.compare.ray_server MODEL PATH PORT FOLDER ENGINE_ARGS`.
What tunes it stands in the environment, which Ray's processes inherit.
"""

from __future__ import annotations

import json
import signal
import sys
import threading

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.llm import LLMConfig, build_openai_app

# Ray's counts of cores are only bookkeeping: enough for every actor, whatever the machine has.
CPUS = 8


def main() -> None:
    """Start Ray, Serve and the model, then wait."""
    model, path, port, folder, engine_args = sys.argv[1:6]
    stop = threading.Event()
    ray.init(
        address="local",
        num_cpus=CPUS,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=f"{folder}/ray",
        object_store_memory=128 * 1024 * 1024,
    )
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(port)))
    config = LLMConfig(
        model_loading_config={"model_id": model, "model_source": path},
        engine_kwargs=json.loads(engine_args),
        accelerator_config={"kind": "cpu"},
        deployment_config={"num_replicas": 1},
    )
    serve.run(build_openai_app({"llm_configs": [config]}), name="default", blocking=False)
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
