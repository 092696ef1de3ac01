"""A saved model brings its code: it loads and recommends where nothing but transformers and torch is installed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hf_latentrec import (
    ItemCatalog,
    ItemTable,
    LaresConfig,
    LaresForSequentialRecommendation,
    LatentRecProcessor,
    LlamaForLatentReasoningRec,
    LlamaLatentRecConfig,
    Qwen2ForLatentReasoningRec,
    Qwen2LatentRecConfig,
    SASRecConfig,
    SASRecForSequentialRecommendation,
)
from hf_latentrec.models.latent_reasoning.tokenization import build_byte_tokenizer
from tests.tiny import make_tiny_recommender


ROOT = Path(__file__).resolve().parents[2]
TITLES = ["Soap", "Soap bar", "Crème ✓", "Shampoo", "Comb", "Brush", "Sponge", "Soap dish"]
BACKBONES = ("sasrec", "fmlp", "bsarec", "tedrec")
LLM_FOLDER = ROOT / "hf_latentrec" / "models" / "latent_reasoning"
LARES_FOLDER = ROOT / "hf_latentrec" / "models" / "lares"


def needed_by(*names: str) -> set[str]:
    """The distributions that come along where some are installed, without their extras."""
    needed, waiting = set(), [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        try:
            lines = [] if name in needed else importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        needed.add(name)
        requirements = (Requirement(line) for line in lines)
        waiting += [
            canonicalize_name(requirement.name)
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    return needed


def modules_of_others() -> list[str]:
    """Modules of all that is installed but not needed by transformers or torch."""
    needed = needed_by("transformers", "torch")
    installed = importlib.metadata.packages_distributions()
    others = [name for name, owners in installed.items() if not needed & set(map(canonicalize_name, owners))]
    return sorted({"hf_latentrec", "tests", *others})


def save_title_recommender(folder: Path, ids: list[str], config_class, model_class, reasoner: dict) -> None:
    """A small model that answers with titles."""
    tokenizer = build_byte_tokenizer()
    items = [{"item_id": item_id, "title": title} for item_id, title in zip(ids, TITLES, strict=True)]
    catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="title", popularity={ids[0]: 3})
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = config_class(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        reasoner_config=reasoner,
        **sizes,
    )
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    LatentRecProcessor(tokenizer, catalog).save_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict:
    """Folders of models of one catalog, and histories of its items."""
    folder = tmp_path_factory.mktemp("models")
    tiny = make_tiny_recommender(num_thoughts=2)
    ids = tiny.processor.catalog.item_ids
    tiny.model.save_pretrained(folder / "qwen3")
    tiny.processor.save_pretrained(folder / "qwen3")
    titles = {
        "qwen2": (Qwen2LatentRecConfig, Qwen2ForLatentReasoningRec, {"reasoner": "latent_attention"}),
        "llama": (LlamaLatentRecConfig, LlamaForLatentReasoningRec, {"reasoner": "factorized_attention"}),
    }
    for name, (config_class, model_class, reasoner) in titles.items():
        save_title_recommender(
            folder / name, ids[: len(TITLES)], config_class, model_class, reasoner | {"num_thoughts": 1}
        )
    items = ItemTable(ids[: len(TITLES)], TITLES)
    for name, backbone in zip(("lares", *BACKBONES[1:]), BACKBONES, strict=True):
        config = LaresConfig(num_items=len(items), max_history=4, backbone=backbone, mean_steps=2, text_size=3)
        torch.manual_seed(0)
        model = LaresForSequentialRecommendation(config, items)
        if backbone == "tedrec":
            model.model.fusion.set_texts(torch.randn(len(items), 3), items.is_cold)
        model.save_pretrained(folder / name)
    baseline = SASRecForSequentialRecommendation(SASRecConfig(num_items=len(items)), items)
    baseline.save_pretrained(folder / "baseline")
    names = ("qwen3", *titles, "lares", *BACKBONES[1:])
    return {
        "folders": {name: str(folder / name) for name in names},
        "baseline": str(folder / "baseline"),
        "histories": [ids[:2], ids[3:4], [ids[7], ids[1], ids[5]]],
    }


def put_into_hub_cache(folder: str, cache: Path, name: str) -> None:
    """What a download of `me/name` leaves on this machine."""
    repository, commit = cache / f"models--me--{name}", "0123456789" * 4
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


@pytest.fixture(scope="module")
def results(saved, tmp_path_factory) -> dict[str, dict]:
    """What a process with the library says, and at the same time one with transformers and torch alone."""
    waiting = {}
    for name, hidden in (("library", []), ("alone", modules_of_others())):
        out = tmp_path_factory.mktemp(name)
        (out / "job.json").write_text(json.dumps({**saved, "hidden": hidden, "out": str(out)}))
        for model in ("qwen3", "lares"):
            put_into_hub_cache(saved["folders"][model], out / "hub", model)
        paths = {"HF_MODULES_CACHE": str(out / "modules"), "HF_HUB_CACHE": str(out / "hub")}
        paths["PYTHONPATH"] = str(ROOT) if name == "library" else ""
        waiting[name] = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fresh_process.py")), str(out / "job.json")],
            cwd=out,
            env={**os.environ, **paths, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    answers = {}
    for name, process in waiting.items():
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output[-4000:]
        answers[name] = json.loads((Path(process.args[-1]).parent / "result.json").read_text())
    return answers


def test_what_is_installed(results):
    assert results["alone"]["found"] == []
    assert {"hf_latentrec", "pyarrow", "datasets"} <= set(results["library"]["found"])


@pytest.mark.parametrize("name", ["qwen3", "qwen2", "llama", "lares", *BACKBONES[1:]])
def test_same_items_and_scores_with_and_without_the_library(results, name):
    library, alone = (results[where]["models"][name] for where in ("library", "alone"))
    assert all(module.startswith("hf_latentrec.") for module in library["modules"])
    assert all(module.startswith("transformers_modules.") for module in alone["modules"])
    assert alone["recommended"] == library["recommended"]
    assert [len(user) for user in alone["recommended"]] == [5, 5, 5]
    assert len({json.dumps(user) for user in alone["recommended"]}) == 3


@pytest.mark.parametrize("name", ["qwen3", "lares"])
@pytest.mark.parametrize("where", ["library", "alone"])
def test_the_same_from_the_hub(results, where, name):
    assert results[where]["from the Hub"][name] == results["library"]["models"][name]["recommended"]


@pytest.mark.parametrize("where", ["library", "alone"])
def test_saved_again_it_is_the_same_model(results, where):
    for model in results[where]["models"].values():
        assert model["after saving again"] == model["recommended"]


def test_the_installed_library_wins(results):
    assert all(module.startswith("hf_latentrec.") for module in results["library"]["modules where trusted"])
    assert results["library"]["distrusted"] == ""


def test_code_is_run_only_where_it_is_trusted(results):
    assert results["alone"]["distrusted"].startswith("ValueError")
    assert "trust_remote_code=True" in results["alone"]["distrusted"]


def test_a_baseline_needs_the_library(saved, results):
    files = {path.name for path in Path(saved["baseline"]).iterdir()}
    assert files == {"config.json", "items.json", "model.safetensors"}
    assert "auto_map" not in json.loads(Path(saved["baseline"], "config.json").read_text())
    assert results["library"]["baseline"] == ""
    assert "model type `sasrec` but Transformers does not recognize this architecture" in results["alone"]["baseline"]


@pytest.mark.parametrize(
    ("name", "source", "missing"),
    [
        ("qwen3", LLM_FOLDER, {"__init__.py", "explicit_cot.py", "logits_process.py"}),
        ("lares", LARES_FOLDER, {"__init__.py"}),
    ],
)
def test_the_code_is_copied_as_it_is(saved, name, source, missing):
    copied = {path.name: path.read_text() for path in Path(saved["folders"][name]).glob("*.py")}
    assert copied == {path.name: path.read_text() for path in source.glob("*.py") if path.name not in missing}
