"""Run the real engine on tiny models: imports vLLM once, then forks for each case named on stdin.

Each line is `FAMILY KIND CACHE_DIR`; each answer is one line of JSON on the original standard output.
Importing vLLM takes ten seconds and an engine two, so a fork per case is what keeps the tests short.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_COMPILE_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
QUESTIONS = (
    "Hello, who are you?",
    "Where is the library, and when does it open on Monday? " * 8,
    "请问你是谁?",
    "Count: " + ", ".join(str(number) for number in range(60)),
)
SENTENCES = (
    "The library is open from nine to six.",
    "The library opens at nine and closes at six.",
    "Bake the bread in a very hot oven.",
)
NEW_TOKENS = 48


def _chat_ids(path: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        for question in QUESTIONS
    ]


def _engine(family: Any, path: Path, **changes: Any) -> Any:
    from vllm import LLM

    args = family.engine_args | {
        "max_model_len": 2048,
        "block_size": 32,  # short enough for these prompts to leave whole blocks in the cache
        "kv_cache_memory_bytes": 64 << 20,
    }
    args |= changes
    return LLM(model=str(path), disable_log_stats=True, **args)


def _texts(engine: Any, prompts: list[list[int]], **sampling: Any) -> list[Any]:
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, **sampling)
    return list(
        engine.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    )


def _reference(path: Path, prompts: list[list[int]]) -> list[tuple[list[int], list[float]]]:
    """Transformers' greedy tokens and their log-probabilities."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    results = []
    for ids in prompts:
        with torch.inference_mode():
            made = model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        tokens = made.sequences[0, len(ids) :].tolist()
        logprobs = torch.log_softmax(torch.cat(made.logits), -1)
        results.append((tokens, logprobs[range(len(tokens)), tokens].tolist()))
    return results


def parity(family: Any, path: Path) -> dict[str, Any]:
    """Greedy tokens and their log-probabilities, in float32: transformers' next to the engine's."""
    prompts = _chat_ids(path)
    # First: the engine's Transformers backend patches the same model classes.
    reference = _reference(path, prompts)
    engine = _engine(family, path, dtype="float32")
    pairs = []
    outputs = _texts(engine, prompts, logprobs=1)
    for (tokens, logprobs), output in zip(reference, outputs, strict=True):
        ours = list(output.outputs[0].token_ids)
        steps = output.outputs[0].logprobs
        pairs.append(
            {
                "engine": ours,
                "transformers": tokens,
                "engine_logprobs": [
                    step[token].logprob for step, token in zip(steps, ours, strict=True)
                ],
                "transformers_logprobs": logprobs,
            }
        )
    return {"pairs": pairs}


def stability(family: Any, path: Path) -> dict[str, Any]:
    """The same prompts alone, together, and again when their beginning is cached."""
    prompts = _chat_ids(path)
    engine = _engine(family, path)
    alone = [_texts(engine, [ids], logprobs=2)[0] for ids in prompts]
    margins = []
    for output in alone:
        for step in output.outputs[0].logprobs:
            first, second = sorted((entry.logprob for entry in step.values()), reverse=True)[:2]
            margins.append(first - second)
    engine.reset_prefix_cache()
    together = _texts(engine, prompts * 3)
    again = _texts(engine, prompts)
    return {
        "alone": [output.outputs[0].text for output in alone],
        "together": [output.outputs[0].text for output in together],
        "again": [output.outputs[0].text for output in again],
        "cached_tokens": max(output.num_cached_tokens or 0 for output in again),
        "tokens": [len(output.outputs[0].token_ids) for output in alone],
        "smallest_margin": min(margins),
    }


def embedding(family: Any, path: Path) -> dict[str, Any]:
    """Sentence vectors in float32: last token, unit length."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    engine = _engine(family, path, dtype="float32")
    ours = [output.outputs.embedding for output in engine.embed(list(SENTENCES), use_tqdm=False)]
    tokenizer = AutoTokenizer.from_pretrained(path)
    reference = AutoModel.from_pretrained(path, dtype=torch.float32)
    theirs = []
    for sentence in SENTENCES:
        with torch.no_grad():
            state = reference(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0, -1]
        theirs.append((state / state.norm()).tolist())
    return {"engine": ours, "transformers": theirs}


def ranking(family: Any, path: Path) -> dict[str, Any]:
    """Scores of sentences against a query, in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    query = "When is the library open?"
    engine = _engine(family, path, dtype="float32")
    ours = [output.outputs.score for output in engine.score(query, list(SENTENCES), use_tqdm=False)]
    tokenizer = AutoTokenizer.from_pretrained(path)
    reference = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32)
    theirs = []
    for sentence in SENTENCES:
        with torch.no_grad():
            logits = reference(**tokenizer(query, sentence, return_tensors="pt")).logits
        theirs.append(float(torch.sigmoid(logits[0, 0])))
    return {"engine": ours, "transformers": theirs}


KINDS: dict[str, Callable[[Any, Path], dict[str, Any]]] = {
    "parity": parity,
    "stability": stability,
    "embedding": embedding,
    "ranking": ranking,
}


def _case(name: str, kind: str, cache_dir: str) -> dict[str, Any]:
    from serving.catalogue import tiny

    family = tiny.family(name)
    return KINDS[kind](family, tiny.build(family, Path(cache_dir)))


def _fork(line: str) -> dict[str, Any]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        status = 1
        try:
            with os.fdopen(write, "w") as pipe:
                json.dump(_case(*line.split()), pipe)
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)  # not exit(): the parent's cleanup handlers are not the child's
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return dict(json.loads(text)) if status == 0 else {"failed": f"exit status {status}"}


def main() -> None:
    """Serve cases until standard input ends."""
    os.environ.update(ENVIRONMENT)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engine prints must not mix with the answers
    # Imported here so that no child has to, and kept out of their garbage collections.
    import transformers  # noqa: F401
    import vllm.v1.worker.cpu_worker  # noqa: F401

    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(_fork(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
