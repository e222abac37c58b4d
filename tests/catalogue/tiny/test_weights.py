from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.catalogue import tiny
from serving.catalogue.tiny.attention import LAGS, SHARPNESS
from serving.catalogue.tiny.tokenizer import TURN_END_ID

QUESTION = "What is the capital of France? Please explain in one sentence."


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def _load(name: str, cache: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny.build(tiny.family(name), cache)
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return model


def _margins(model: Any, ids: Any) -> Any:
    import torch

    with torch.inference_mode():
        best = model(ids).logits[:, 4:].float().topk(2).values
    return best[..., 0] - best[..., 1]


def _tokens(seed: int, length: int = 500) -> Any:
    import torch

    return torch.randint(20, 1000, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "name", [family.name for family in tiny.families() if family.task == "chat"]
)
def test_transformers_finds_all_tensors_and_each_choice_has_a_margin(
    name: str, cache: Path
) -> None:
    margins = _margins(_load(name, cache), _tokens(1))
    # Rounding to bfloat16 moves a logit by about 0.06.
    assert margins.min() > 0.5
    assert margins.median() > 2


@pytest.mark.parametrize(("angles", "part"), [(8, "half"), (16, "all"), (32, "latent")])
def test_every_head_prefers_one_position_clearly_wherever_the_text_ends(
    angles: int, part: str
) -> None:
    turns = 10000.0 ** (-np.arange(angles) / angles)
    back = np.arange(8192)
    for lag, echo in LAGS:
        found = np.cos(np.outer(back - lag, turns)).sum(1) + echo * np.cos(
            np.outer(back, turns)
        ).sum(1)
        found *= SHARPNESS * 16 / angles
        assert found[lag] - np.delete(found, lag).max() > 3, (part, lag)
        for length in range(2, lag + 1):
            first, second = np.sort(found[:length])[-2:][::-1]
            assert first - second > 3, (part, lag, length)


def test_a_text_depends_on_what_stands_far_back(cache: Path) -> None:
    import torch

    model = _load("qwen3", cache)
    ids = _tokens(2, 300)[:1]
    other = ids.clone()
    other[0, 100:104] = torch.tensor([700, 701, 702, 703])
    with torch.inference_mode():
        made = [
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=64,
                do_sample=False,
            )[0, 300:].tolist()
            for prompt in (ids, other)
        ]
    assert made[0] != made[1]


def test_an_answer_is_long_varied_and_printable(cache: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    model = _load("qwen3", cache)
    tokenizer = AutoTokenizer.from_pretrained(tiny.build(tiny.family("qwen3"), cache))
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        made = model.generate(**ids, max_new_tokens=64, do_sample=False)[0]
    answer = made[ids["input_ids"].shape[1] :].tolist()
    assert len(answer) == 64
    assert TURN_END_ID not in answer
    assert len(set(answer)) > 32
    assert tokenizer.decode(answer).isprintable()


def test_answers_sometimes_end_by_themselves(cache: Path) -> None:
    import torch

    model = _load("qwen3", cache)
    with torch.inference_mode():
        chosen = torch.cat([model(_tokens(seed, 1000)).logits.argmax(-1) for seed in (3, 4, 5)])
    share = float((chosen == TURN_END_ID).float().mean())
    assert 1 / 10000 < share < 1 / 400


def test_texts_with_the_same_words_have_close_embeddings(cache: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tiny.build(tiny.family("qwen3-embedding"), cache)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = []
    for text in (
        "The library is open from nine to six.",
        "When is the library open?",
        "Bake the bread in a very hot oven.",
        "Let the dough rest, then bake the bread in the oven.",
    ):
        with torch.inference_mode():
            state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1].float()
        vectors.append(state / state.norm())
    library, opening, bread, dough = vectors
    assert library @ opening > library @ dough + 0.2
    assert bread @ dough > bread @ library + 0.2
