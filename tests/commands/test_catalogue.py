from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.commands.catalogue import app


def run(*words: str, columns: int = 140) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": str(columns)})


def run_json(*words: str) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_list_shows_models_with_their_standing() -> None:
    result = run("list", "--vendor", "tencent")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if "Tencent" in line}
    assert " no " in lines["hunyuan-a13b-instruct"]
    assert " no? " in lines["hy3-preview"]
    assert " ok " in lines["hy3"]


def test_eu_ok_leaves_out_what_an_eu_site_may_not_offer() -> None:
    ids = {model["id"] for model in run_json("list", "--eu-ok")}
    assert {"qwen3-32b", "hy3", "minimax-m2.5"} <= ids
    assert not ids & {"hunyuan-7b-instruct", "minimax-m2.7", "qwen3.8-flash-next"}


def test_list_narrows_by_task() -> None:
    assert {model["task"] for model in run_json("list", "--task", "rerank")} == {"rerank"}


def test_show_quotes_the_clause_and_its_source() -> None:
    result = run("show", "openpangu-embedded-7b")
    assert result.exit_code == 0
    assert "openPangu Model License Agreement 1.0" in result.stdout
    assert "You represent and warrant that You will not" in result.stdout
    assert "section 3" in result.stdout
    assert "never sets trust_remote_code" in " ".join(result.stdout.split())


def test_show_follows_the_jurisdiction() -> None:
    assert run_json("show", "hunyuan-7b-instruct")["standing"] == "no"
    assert run_json("show", "hunyuan-7b-instruct", "--jurisdiction", "ch")["standing"] == "gate"


def test_show_prints_what_vllm_is_given() -> None:
    model = run_json("show", "deepseek-v4-flash")
    assert model["engine_args"]["tokenizer_mode"] == "deepseek_v4"
    assert model["weight_bytes"] == 159_040_000_000


def test_fit_lists_layouts_and_hides_the_excluded_until_asked() -> None:
    short, long = (
        run("fit", "--gpu", "H200", "--count", "8"),
        run("fit", "--gpu", "h200", "--count", "8", "--all"),
    )
    assert short.exit_code == long.exit_code == 0
    assert "deepseek-r1 " in short.stdout
    assert "hunyuan-a13b-instruct" not in short.stdout
    assert "excluded by their licence: --all lists them" in " ".join(short.stdout.split())
    assert "hunyuan-a13b-instruct" in long.stdout
    assert "kimi-k3: mxfp4 weights with headroom need" in long.stdout


def test_fit_as_json_says_which_are_usable() -> None:
    rows = {row["model_id"]: row for row in run_json("fit", "--gpu", "h100", "--count", "2")}
    assert rows["qwen3-32b"]["usable"]
    assert rows["qwen3-32b"]["layout"]["tensor_parallel"] == 2
    assert not rows["kimi-linear-48b-a3b-instruct"]["usable"]
    assert not rows["deepseek-r1"]["fits"]


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize(
    "words", [("list",), ("fit", "--gpu", "h200", "--count", "16"), ("show", "kimi-k2.5")]
)
def test_tables_keep_their_columns_whole_at_any_width(words: tuple[str, ...], columns: int) -> None:
    result = run(*words, columns=columns)
    assert result.exit_code == 0
    assert "…" not in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= columns


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "qwen3-23b"), "nearest: qwen3-32b"),
        (("fit", "--gpu", "b200"), "known: l40s, h100, h200"),
        (("fit", "--gpu", "h200", "--count", "0"), "count 0 is out of range"),
        (("list", "--vendor", "nobody"), "vendor 'nobody' is unknown; known: "),
        (("fit", "--gpu", "h200", "--jurisdiction", "Europe"), "jurisdiction 'Europe' is unknown"),
        (("list", "--task", "paint"), "known: chat, embed, rerank, guard"),
        (("list", "--file", "/nowhere.yaml"), "cannot be read"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(words: tuple[str, ...], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_an_own_file_is_listed_beside_the_shipped_models(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "families:\n"
        "  - {family: Own, vendor: We, vendor_jurisdiction: DE, licence: mit, models: [\n"
        "    {id: own-1b, name: Own, hf_repo: we/own, architecture: LlamaForCausalLM,\n"
        "     parameters_total_b: 1, parameters_active_b: 1, context_tokens: 4096,\n"
        "     native_dtype: bf16, verified: true, sources: [us]}]}\n",
        encoding="utf-8",
    )
    assert [model["id"] for model in run_json("list", "--vendor", "we", "--file", str(path))][
        -1:
    ] == ["own-1b"]


@pytest.mark.parametrize("words", [(), ("list",), ("show",), ("fit",)])
def test_help_teaches_by_example(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    if words:
        assert f"comptoir catalogue {words[0]}" in result.stdout


def test_it_starts_at_once_because_no_engine_is_imported() -> None:
    code = (
        "import sys, serving.commands.catalogue; "
        "print([name for name in ('ray', 'vllm', 'torch', 'transformers') if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 1.0
