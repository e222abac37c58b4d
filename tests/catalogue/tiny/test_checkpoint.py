from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from serving.catalogue import tiny
from serving.catalogue.tiny import checkpoint
from serving.errors import CatalogueError

NAMES = [family.name for family in tiny.families()]
PAGE = Path(__file__).parents[3] / "docs" / "tiny-models.md"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_names_are_those_that_others_rely_on() -> None:
    assert {
        "qwen3",
        "qwen3-moe",
        "deepseek-v3",
        "kimi-k2",
        "glm4-moe",
        "hunyuan-dense",
        "hy-v3",
        "ernie4.5",
        "pangu-embedded",
        "seed-oss",
        "qwen3-embedding",
        "qwen3-reranker",
    } <= set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_describes_the_family(name: str) -> None:
    family = tiny.family(name)
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{family.id}`")]
    assert len(rows) == 1
    assert family.architecture in rows[0]
    assert family.stands_for in rows[0]


def test_a_family_is_found_by_its_name_and_by_its_id() -> None:
    assert tiny.family("tiny-kimi-k2") is tiny.family("kimi-k2")
    assert tiny.family("kimi-k2").id == "tiny-kimi-k2"


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(CatalogueError, match=r"'gpt'.*qwen3.*kimi-k2"):
        tiny.family("gpt")


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_complete_and_holds_safetensors_only(name: str, cache: Path) -> None:
    family = tiny.family(name)
    folder = tiny.build(family, cache)
    files = {path.name for path in folder.iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl", ".py"))]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [family.architecture]
    assert "auto_map" not in config
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        assert weights.metadata() == {"format": "pt"}
        names = weights.keys()
        slices = {key: weights.get_slice(key) for key in names}
    assert {piece.get_dtype() for piece in slices.values()} == {"BF16"}
    assert slices["model.embed_tokens.weight"].get_shape() == [1024, config["hidden_size"]]
    assert ("chat_template.jinja" in files) == (family.task == "chat")


def test_the_same_model_has_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    family = tiny.family("deepseek-v3")
    one, two = (tiny.build(family, tmp_path / place) for place in ("one", "two"))
    assert one.name == two.name
    assert sorted(path.name for path in one.iterdir()) == sorted(p.name for p in two.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_families_of_one_architecture_differ_in_their_weights(cache: Path) -> None:
    folders = [tiny.build(tiny.family(name), cache) for name in ("yi", "pangu-embedded")]
    weights = [(folder / "model.safetensors").read_bytes()[-4096:] for folder in folders]
    assert weights[0] != weights[1]


def test_the_folder_is_named_after_everything_the_model_is_made_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    family = tiny.family("qwen3")
    names = [tiny.built_path(family, tmp_path)]
    deeper = family.model_copy(
        update={"layout": family.layout.model_copy(update={"interleaved": True})}
    )
    names.append(tiny.built_path(deeper, tmp_path))
    read = checkpoint.read_data
    for changed in ("corpus.txt", "chat_template.jinja", "configs/qwen3.json"):

        def altered(name: str, changed: str = changed) -> str:
            text = read(name)
            return text.replace('"hidden_size": 128', '"hidden_size": 256') + (
                " " if name == changed and not name.endswith(".json") else ""
            )

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "read_data", altered)
            if changed.endswith(".json"):
                patch.setattr("serving.catalogue.tiny.architectures.read_data", altered)
            names.append(tiny.built_path(family, tmp_path))
    assert len(set(names)) == len(names)
    assert tiny.built_path(family, tmp_path) == names[0]


def test_a_second_call_builds_nothing(cache: Path) -> None:
    family = tiny.family("qwen3")
    folder = tiny.build(family, cache)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    assert tiny.build(family, cache, progress=said.append) == folder
    assert said == []
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_force_builds_again_and_leaves_nothing_beside_the_model(tmp_path: Path) -> None:
    family = tiny.family("qwen3")
    folder = tiny.build(family, tmp_path)
    (folder / "stray").write_text("")
    said: list[str] = []
    assert tiny.build(family, tmp_path, force=True, progress=said.append) == folder
    assert said
    assert not (folder / "stray").exists()
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_building_at_the_same_time_gives_one_complete_model(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.catalogue import tiny\n"
        "sys.stdin.readline()\n"
        "built = []\n"
        "tiny.build(tiny.family('kimi-k2'), Path(sys.argv[1]), progress=built.append)\n"
        "print(len(built))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda racer=racer: answers.append(racer.communicate("go\n")[0]))
        for racer in racers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sorted(int(answer) for answer in answers) == [0, 0, 2]
    folder = tiny.built_path(tiny.family("kimi-k2"), tmp_path)
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_a_failed_build_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "_write_safetensors", full)
    with pytest.raises(OSError, match="no space"):
        tiny.build(tiny.family("qwen3"), tmp_path)
    assert [path for path in (tmp_path / "tiny").iterdir() if path.is_dir()] == []


def test_remove_takes_all_versions_of_one_model_and_nothing_else(tmp_path: Path) -> None:
    kept = tiny.build(tiny.family("qwen3-moe"), tmp_path)
    new = tiny.build(tiny.family("qwen3"), tmp_path)
    old = new.with_name("qwen3-0123456789ab")
    old.mkdir()
    other = new.with_name("qwen3-notes")
    other.mkdir()
    assert tiny.remove(tiny.family("qwen3"), tmp_path) == sorted([new, old])
    assert kept.is_dir()
    assert other.is_dir()
    assert not new.exists()


def test_building_imports_neither_torch_nor_transformers_nor_vllm(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serving.catalogue import tiny\n"
        "assert 'numpy' not in sys.modules and 'tokenizers' not in sys.modules\n"
        "tiny.build(tiny.family('qwen3'), Path(sys.argv[1]))\n"
        "print([name for name in ('torch', 'transformers', 'vllm') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_engine_arguments_say_what_the_cpu_needs(name: str) -> None:
    family = tiny.family(name)
    assert family.engine_args["enforce_eager"] is True
    assert (family.engine_args.get("runner") == "pooling") == (family.task != "chat")
    compilation = family.engine_args.get("compilation_config", {})
    latent = "kv_lora_rank" in family.config
    assert ("-rotary_embedding" in compilation.get("custom_ops", [])) == latent
    assert family.parity_exact or family.parity_note
