from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.catalogue.catalogue import load_catalogue
from serving.errors import CatalogueError

ROOT = Path(__file__).parents[2]

GOOD = """
vendor: Example AI
vendor_jurisdiction: FR
families:
  - family: Example
    architecture: LlamaForCausalLM
    licence: mit
    context_tokens: 8192
    native_dtype: bf16
    verified: true
    sources: [a test]
    models:
      - id: example-7b
        name: Example 7B
        hf_repo: example/Example-7B
        parameters_total_b: 7
        parameters_active_b: 7
"""
VENDORS = """
Qwen DeepSeek Tencent Baidu Huawei ByteDance Moonshot Zhipu MiniMax StepFun Xiaomi Meituan Shanghai
Ant 01.AI OpenBMB IQuest Mistral Swiss EuroLLM
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "own.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_the_shipped_catalogue_is_valid_and_covers_its_vendors() -> None:
    catalogue = load_catalogue()
    assert len(catalogue) >= 45
    vendors = {spec.vendor for spec in catalogue}
    for word in VENDORS.split():
        assert any(word in vendor for vendor in vendors), word


def test_the_readme_counts_right() -> None:
    said = re.search(r"\*\*A catalogue\*\* of (\d+) models", (ROOT / "README.md").read_text())
    assert said is not None
    assert int(said[1]) == len(load_catalogue())


def test_every_entry_has_a_layout_and_a_licence() -> None:
    catalogue = load_catalogue()
    for spec in catalogue:
        assert spec.layouts, spec.id
        assert catalogue.licence_of(spec).source


def test_loading_is_fast() -> None:
    load_catalogue()
    best_s = 10.0
    for _ in range(5):
        start = time.process_time()
        load_catalogue()
        best_s = min(best_s, time.process_time() - start)
    assert best_s < 0.15


def test_an_unknown_model_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(CatalogueError, match=r"'qwen3-23b' is unknown; nearest: .*qwen3-32b"):
        load_catalogue().get("qwen3-23b")


def test_filters_narrow_by_vendor_family_and_task() -> None:
    catalogue = load_catalogue()
    assert {spec.task for spec in catalogue.filter(vendor="qwen", task="guard")} == {"guard"}
    assert {spec.vendor for spec in catalogue.filter(family="glm-4.5")} == {"Zhipu AI"}
    assert catalogue.filter(vendor="nobody") == ()
    assert catalogue.filter() == catalogue.list()


def test_an_operators_file_adds_models_with_what_the_family_says(write: Write) -> None:
    spec = load_catalogue([write(GOOD)]).get("example-7b")
    assert (spec.vendor, spec.licence, spec.context_tokens) == ("Example AI", "mit", 8192)


def test_a_model_overrides_its_family(write: Write) -> None:
    path = write(GOOD + "        context_tokens: 4096\n")
    assert load_catalogue([path]).get("example-7b").context_tokens == 4096


def test_an_operators_file_may_bring_its_own_licence(write: Write) -> None:
    text = GOOD.replace("licence: mit", "licence: house") + (
        "licences:\n"
        "  - {id: house, name: House License, verdict: ok, source: contract, verified: true}\n"
    )
    catalogue = load_catalogue([write(text)])
    assert catalogue.licence_of(catalogue.get("example-7b")).name == "House License"


@pytest.mark.parametrize("field", ["id: apache-2.0, name: Other", "id: other, name: MIT License"])
def test_an_operators_file_cannot_redefine_a_licence(write: Write, field: str) -> None:
    text = f"licences:\n  - {{{field}, verdict: ok, source: x, verified: true}}\n"
    with pytest.raises(CatalogueError, match="exists already"):
        load_catalogue([write(text)])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id: example-7b", "id: qwen3-32b", r"own\.yaml: qwen3-32b: id: another entry"),
        ("licence: mit", "licence: mitt", r"example-7b: licence: .*'mitt'.*nearest: mit"),
        ("native_dtype: bf16", "native_dtype: fp99", r"own\.yaml: example-7b: native_dtype: "),
        ("context_tokens", "context_token", r"example-7b: context_token.*nearest.*context_tokens"),
        ("        hf_repo: example/Example-7B\n", "", r"example-7b: hf_repo: is required"),
        ("families:", "familys:", r"own\.yaml: unknown key 'familys'; known: families"),
        ("    models:\n      - id", "    models: 7\n    x:\n      - id", r"models: must be a list"),
        ("vendor: Example AI", "vendor: [", r"own\.yaml: is not YAML \(line"),
    ],
)
def test_an_error_names_file_entry_and_field(
    write: Write, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(CatalogueError, match=message):
        load_catalogue([write(GOOD.replace(old, new, 1))])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"missing\.yaml.*No such file") as error:
        load_catalogue([tmp_path / "missing.yaml"])
    assert error.value.param == "catalogue_files"


def test_yaml_that_builds_python_objects_is_refused(write: Write) -> None:
    with pytest.raises(CatalogueError, match="not YAML"):
        load_catalogue([write("vendor: !!python/object/apply:os.getcwd []\n")])


def test_a_loaded_catalogue_cannot_be_changed() -> None:
    catalogue = load_catalogue()
    with pytest.raises(TypeError):
        catalogue.models["x"] = catalogue.list()[0]  # type: ignore[index]
    with pytest.raises(AttributeError):
        catalogue.models = {}  # type: ignore[misc]


def test_the_example_in_the_documentation_loads(write: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    example = page[page.index("vendor: Example AI") :].partition("```")[0]
    assert len(load_catalogue([write(example)]).get("example-70b-instruct").layouts) == 2
