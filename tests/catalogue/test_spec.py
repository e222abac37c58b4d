from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from serving.catalogue.layouts import GpuLayout
from serving.errors import CatalogueError
from tests.catalogue.builders import entry


@pytest.mark.parametrize("name", ["Qwen3-32B", "qwen 3", "-qwen", "qwen--3", "qwen3\n", "", "a/b"])
def test_an_id_that_is_no_slug_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="slug"):
        entry(id=name)


def test_an_id_may_hold_a_version_number() -> None:
    assert entry(id="qwen2.5-0.5b-instruct").id == "qwen2.5-0.5b-instruct"


@pytest.mark.parametrize("revision", ["main", "c6157be", "g" * 40, "A" * 40, "a" * 41])
def test_a_revision_that_can_move_or_is_no_commit_is_refused(revision: str) -> None:
    with pytest.raises(ValidationError, match="40 hexadecimal"):
        entry(revision=revision)


def test_a_revision_is_handed_on_with_the_weights() -> None:
    checkpoint = entry(revision="0123456789abcdef" * 2 + "01234567").checkpoint()
    assert (checkpoint.repo, checkpoint.revision) == (
        "example/Example-7B",
        "0123456789abcdef0123456789abcdef01234567",
    )


@pytest.mark.parametrize("repo", ["Example-7B", "../etc/passwd", "a/b/c", "https://x/y", "/a/b"])
def test_a_repository_that_is_no_owner_and_name_is_refused(repo: str) -> None:
    with pytest.raises(ValidationError, match="OWNER/NAME"):
        entry(hf_repo=repo)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="trust"):
        entry(trust=True)


@pytest.mark.parametrize(
    "key", ["trust_remote_code", "tensor_parallel_size", "revision", "reasoning_parser"]
)
def test_engine_args_cannot_set_what_belongs_elsewhere(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        entry(engine_args={key: 1})


def test_more_active_than_total_parameters_are_refused() -> None:
    with pytest.raises(ValidationError, match="parameters_active_b"):
        entry(parameters_active_b=8)


def test_an_unverified_entry_must_say_what_was_not_seen() -> None:
    with pytest.raises(ValidationError, match="notes"):
        entry(verified=False)
    assert not entry(verified=False, notes=["licence from memory"]).verified


@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_a_task_without_generation_needs_the_pooling_runner(task: str) -> None:
    with pytest.raises(ValidationError, match="pooling"):
        entry(task=task)
    assert entry(task=task, engine_args={"runner": "pooling"}).task == task


def test_weights_follow_from_parameters_and_dtype() -> None:
    assert entry().weight_bytes == 14_000_000_000
    assert entry(native_dtype="fp8").weight_bytes == 7_000_000_000
    assert entry().weight_gib("int4") == pytest.approx(7e9 * 0.57 / 2**30)


def test_a_known_size_per_parameter_wins_for_the_published_weights_only() -> None:
    spec = entry(bytes_per_parameter=0.5)
    assert spec.weight_bytes == 3_500_000_000
    assert spec.weight_gib("fp8") == pytest.approx(7e9 / 2**30)


def test_a_mixture_is_told_by_its_active_parameters() -> None:
    assert entry(parameters_active_b=1).is_mixture
    assert not entry().is_mixture


# ---- layouts


def test_a_layout_may_be_written_in_words() -> None:
    assert GpuLayout.model_validate("h200 tp8 pp2 fp8 recipe") == GpuLayout(
        gpu="h200", tensor_parallel=8, pipeline_parallel=2, quantisation="fp8", source="recipe"
    )


def test_an_unknown_word_in_a_layout_is_named() -> None:
    with pytest.raises(ValidationError, match="'b200' is neither"):
        GpuLayout.model_validate("b200 tp8 fp8")


def test_a_layout_too_small_for_the_weights_is_refused_unless_someone_ran_it() -> None:
    big = {"parameters_total_b": 70, "parameters_active_b": 70}
    with pytest.raises(ValidationError, match=r"need 156 GiB and 1 x h100 have 79 GiB"):
        entry(**big, layouts=["h100 bf16"])
    assert entry(**big, layouts=["h100 bf16 recipe"]).layouts[0].tested
    assert not entry(**big, layouts=["h100 tp2 bf16"]).layouts[0].tested


def test_a_layout_needs_weights_in_its_quantisation() -> None:
    with pytest.raises(ValidationError, match="no checkpoint for 'int4'"):
        entry(layouts=["h100 int4"])
    spec = entry(layouts=["h100 int4"], checkpoints={"int4": "example/Example-7B-AWQ"})
    assert spec.checkpoint("int4").repo == "example/Example-7B-AWQ"


def test_a_layout_wider_than_the_model_can_be_split_is_refused() -> None:
    with pytest.raises(ValidationError, match="tensor_parallel exceeds 4"):
        entry(tensor_parallel_max=4, layouts=["h100 tp8 bf16"])


@pytest.mark.parametrize(
    ("checkpoints", "expected"),
    [
        ({}, {"quantization": "fp8"}),
        ({"fp8": "example/Example-7B-FP8"}, {}),
    ],
)
def test_vllm_quantises_while_loading_only_where_no_checkpoint_exists(
    checkpoints: dict[str, str], expected: dict[str, Any]
) -> None:
    spec = entry(checkpoints=checkpoints, layouts=["h200 tp2 fp8"])
    assert spec.engine_kwargs(spec.layouts[0]) == {
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        **expected,
    }


def test_weights_that_do_not_exist_are_named_with_those_that_do() -> None:
    with pytest.raises(CatalogueError, match=r"no weights for .*'mxfp4'; available: bf16") as error:
        entry().checkpoint("mxfp4")
    assert error.value.param == "quantisation"


# ---- immutability


def test_changing_what_an_entry_hands_out_does_not_change_the_entry() -> None:
    spec = entry(engine_args={"hf_overrides": {"a": [1]}})
    spec.engine_kwargs()["hf_overrides"]["a"].append(2)
    assert spec.engine_kwargs() == {"hf_overrides": {"a": [1]}}


def test_an_entry_cannot_be_changed() -> None:
    spec = entry(engine_args={"block_size": 256})
    with pytest.raises(TypeError):
        spec.engine_args["block_size"] = 1  # type: ignore[index]
    with pytest.raises(ValidationError, match="frozen"):
        spec.licence = "mit"  # type: ignore[misc]


def test_an_entry_survives_json_and_pickle() -> None:
    spec = entry(
        engine_args={"hf_overrides": {"a": [1]}},
        checkpoints={"fp8": "example/Example-7B-FP8"},
        layouts=["h200 tp2 fp8"],
    )
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    copied = pickle.loads(pickle.dumps(spec))  # noqa: S301 - its own bytes
    assert copied == spec
    assert len({spec, copied}) == 1


# ---- remote code


def test_an_entry_that_needs_remote_code_says_so_and_is_refused_until_converted() -> None:
    spec = entry(needs_remote_code=True, remote_code_note="its tokenizer is Python")
    assert spec.start_refusal is not None
    assert "its tokenizer is Python" in spec.start_refusal
    with pytest.raises(CatalogueError, match="never sets trust_remote_code") as error:
        spec.check_startable()
    assert error.value.param == "source"
    spec.check_startable(converted=True)


def test_an_ordinary_entry_starts() -> None:
    assert entry().start_refusal is None
    entry().check_startable()
