"""The recipe that gives items semantic IDs, as a user runs it, up to a model that takes up new items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from transformers import AutoModel, AutoProcessor
from trl import TrlParser

from hf_latentrec.data import load_data
from hf_latentrec.semantic_ids.semantic_ids import SemanticIds


pytest.importorskip("sentence_transformers", reason="needs hf_latentrec[semantic-ids]")
pytest.importorskip("faiss", reason="needs hf_latentrec[semantic-ids]")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.semantic_ids.tiny_encoder import make_encoder  # noqa: E402


ROOT = Path(__file__).resolve().parents[2]

# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(ROOT / "recipes"))

import build_semantic_ids as recipe  # noqa: E402
import train_lasar  # noqa: E402


OURS = ("semantic_ids.index.json", "semantic_ids.json", "semantic_ids.safetensors")
SMALL = ["--num_levels=2", "--codebook_size=4"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def make_items(num_items: int) -> pl.DataFrame:
    """Every third item has the title of the one before."""
    titles = [f"word{row - (row % 3 == 2)} word{row // 3}" for row in range(num_items)]
    brands = [f"word{row % 3}" if row % 3 else "" for row in range(num_items)]
    return pl.DataFrame(
        {
            "item_id": [f"B{row}" for row in range(num_items)],
            "title": titles,
            "brand": brands,
            "categories": [["word9"]] * num_items,
        }
    )


def write_data(folder: Path, items: pl.DataFrame, num_users: int = 12) -> Path:
    """A prepared folder: five events of each user."""
    folder.mkdir(parents=True, exist_ok=True)
    events = [
        {"user_id": f"u{user:02}", "item_id": items["item_id"][(3 * user + 5 * k) % len(items)], "position": k}
        for user in range(num_users)
        for k in range(5)
    ]
    pl.DataFrame(events).write_parquet(folder / "events.parquet")
    items.write_parquet(folder / "items.parquet")
    (folder / "README.md").write_text("card")
    return folder


@pytest.fixture
def data_dir(tmp_path):
    return write_data(tmp_path / "data", make_items(15))


@pytest.fixture
def run(tmp_path, encoder):
    def run(*arguments):
        arguments = [f"--model_name_or_path={encoder}", f"--cache_dir={tmp_path / 'cache'}", *map(str, arguments)]
        recipe.main(*recipe.make_parser().parse_args_and_config(arguments))

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OURS}


def test_codes_lie_beside_the_data_and_are_read_with_them(run, data_dir, capsys):
    run(f"--data_dir={data_dir}", *SMALL)
    ids, out = SemanticIds.load(data_dir), capsys.readouterr().out
    data = load_data(data_dir)
    assert data.items["item_id"][:] == ids.item_ids and data.items["semantic_id"][:] == ids.tokens()
    assert len(np.unique(ids.codes_IL, axis=0)) == 15 and ids.codes_IL.shape == (15, 3)
    assert ids.text_fields == ("title", "brand", "categories") and ids.embedding_model.startswith("encoder@")
    assert "15 items to embed" in out and "15 items have codes, version 1\n" in out
    assert "Collisions" in out and f"train_lasar.py --data_dir {data_dir}\n" in out
    quality = json.loads((data_dir / "quality.json").read_text())
    assert quality["num_items"] == 15 and quality["after"]["rate"] == 0 < quality["before"]["rate"]
    assert quality["errors"] and quality["co_purchases"]["num_users"] == 12 and (data_dir / "quality.html").is_file()


def test_the_same_bytes_again_and_in_another_folder(run, data_dir, tmp_path):
    run(f"--data_dir={data_dir}", *SMALL)
    first = content(data_dir)
    run(f"--data_dir={data_dir}", *SMALL, "--overwrite")
    run(f"--data_dir={data_dir}", *SMALL, f"--output_dir={tmp_path / 'copy'}", f"--cache_dir={tmp_path / 'other'}")
    assert content(data_dir) == first == content(tmp_path / "copy")
    for name in ("events.parquet", "items.parquet", "README.md"):
        assert (tmp_path / "copy" / name).read_bytes() == (data_dir / name).read_bytes()


@pytest.mark.parametrize("policy", ["nearest_free", "share"])
def test_settings_arrive(run, data_dir, policy, capsys):
    run(
        f"--data_dir={data_dir}",
        *SMALL,
        f"--on_collision={policy}",
        "--seed=7",
        "--fields",
        "title",
    )
    ids = SemanticIds.load(data_dir)
    assert (ids.policy, ids.balanced, ids.seed, ids.text_fields) == (policy, True, 7, ("title",))
    assert ids.codes_IL.shape == (15, 2) and np.bincount(ids.raw_codes_IL[:, 0]).max() <= 4
    assert ("--on_collision share" in capsys.readouterr().out) == (policy == "share")


def test_data_of_another_form_are_copied(run, tmp_path, capsys):
    folder, out = tmp_path / "json", tmp_path / "out"
    folder.mkdir()
    (folder / "Toy.inter.json").write_text(json.dumps({str(u): [(u * 3 + k) % 9 for k in range(4)] for u in range(6)}))
    (folder / "Toy.index.json").write_text(json.dumps({str(i): [f"<a_{i}>"] for i in range(9)}))
    rows = "".join(f"{i}\tword{i}\n" for i in range(9))
    (folder / "Toy.item").write_text(f"item_id:token\ttitle:token_seq\n{rows}")
    with pytest.raises(ValueError, match="no events.parquet and items.parquet.*--output_dir"):
        run(f"--data_dir={folder}", *SMALL)
    run(f"--data_dir={folder}", *SMALL, f"--output_dir={out}")
    before, after = load_data(folder), load_data(out)
    assert after.interactions.to_dict() == before.interactions.to_dict()
    assert after.items["title"][:] == before.items["title"][:]
    assert after.items["semantic_id"][:] == SemanticIds.load(out).tokens()


def test_nothing_is_replaced_that_was_not_asked_for(run, data_dir, tmp_path):
    run(f"--data_dir={data_dir}", *SMALL)
    before = content(data_dir)
    with pytest.raises(ValueError, match="holds semantic_ids.index.json, semantic_ids.json already; pass --overwrite"):
        run(f"--data_dir={data_dir}", *SMALL, "--seed=1")
    assert content(data_dir) == before
    other = write_data(tmp_path / "other", make_items(6))
    with pytest.raises(ValueError, match=r"holds events.parquet, items.parquet, README.md already"):
        run(f"--data_dir={data_dir}", *SMALL, f"--output_dir={other}")
    own = {"README.md", "preparation.json", "quality.html", "quality.json", "quality-use.png"}
    for name in own:
        (tmp_path / "own" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "own" / name).write_text("mine")
    with pytest.raises(ValueError, match="own holds preparation.json, README.md, quality.html, .*quality-use.png"):
        run(f"--data_dir={data_dir}", *SMALL, f"--output_dir={tmp_path / 'own'}")
    assert {path.name for path in (tmp_path / "own").iterdir() if path.read_text() == "mine"} == own
    (other / "Public.index.json").write_text("{}")
    with pytest.raises(ValueError, match="holds codes already, Public.index.json, that are not of this recipe"):
        run(f"--data_dir={other}", *SMALL, "--overwrite")


def test_what_cannot_work_is_said_before_anything_is_embedded(run, data_dir, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="--output_dir .*file is a file; pass a folder"):
        run(f"--data_dir={data_dir}", *SMALL, f"--output_dir={tmp_path / 'file'}")
    (tmp_path / "run.yaml").write_text("on_collision: shared\n")
    with pytest.raises(ValueError, match="on_collision is 'shared'; choose one of .*'share'"):
        run("--config", tmp_path / "run.yaml", f"--data_dir={data_dir}", *SMALL)
    monkeypatch.setattr(recipe, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs faiss: pip install"):
        run(f"--data_dir={data_dir}", *SMALL)
    assert not (tmp_path / "cache").exists()


def test_items_are_added_in_place(run, data_dir, capsys):
    run(f"--data_dir={data_dir}", *SMALL)
    first = SemanticIds.load(data_dir)
    write_data(data_dir, make_items(19).sort("item_id"))  # new items among the old ones
    with pytest.raises(ValueError, match="--num_levels is 3.*have 2.*leave --num_levels out"):
        run(f"--data_dir={data_dir}", f"--add_items={data_dir}", "--num_levels=3")
    with pytest.raises(ValueError, match="--fields are .'title'.*leave them out"):
        run(f"--data_dir={data_dir}", f"--add_items={data_dir}", "--fields", "title")
    run(f"--data_dir={data_dir}", f"--add_items={data_dir}")
    second = SemanticIds.load(data_dir)
    assert second.version == 2 and second.item_ids == [*first.item_ids, "B15", "B16", "B17", "B18"]
    assert np.array_equal(second.codes_IL[:15], first.codes_IL)
    assert second.versions[0] == first.versions[0]
    assert "19 items have codes, version 2" in (out := capsys.readouterr().out) and "4 are new" in out
    codes = dict(zip(second.item_ids, second.tokens(), strict=True))
    assert all(item["semantic_id"] == codes[item["item_id"]] for item in load_data(data_dir).items)
    run(f"--data_dir={data_dir}", f"--add_items={data_dir}")  # nothing is new
    assert SemanticIds.load(data_dir).versions == second.versions


def test_items_of_newer_data_are_added_and_lost_ones_keep_their_codes(run, data_dir, tmp_path):
    run(f"--data_dir={data_dir}", *SMALL)
    newer = write_data(tmp_path / "newer", make_items(18)[2:])
    run(f"--data_dir={newer}", f"--add_items={data_dir}")
    ids, first = SemanticIds.load(newer), SemanticIds.load(data_dir)
    assert len(ids) == 18 and np.array_equal(ids.codes_IL[:15], first.codes_IL)
    assert set(load_data(newer).items["item_id"]) == {f"B{row}" for row in range(2, 18)}


def test_another_model_cannot_add(run, data_dir, tmp_path):
    run(f"--data_dir={data_dir}", *SMALL)
    write_data(data_dir, make_items(17))
    other = make_encoder(tmp_path, seed=1)
    with pytest.raises(ValueError, match="--model_name_or_path is encoder@.* are of encoder@.*the same model"):
        run(f"--data_dir={data_dir}", f"--add_items={data_dir}", f"--model_name_or_path={other}")


def test_a_model_trained_on_the_codes_takes_up_added_items(run, tmp_path):
    data_dir = write_data(tmp_path / "data", make_items(25))
    run(f"--data_dir={data_dir}", *SMALL)
    sizes = ["--hidden_size=16", "--num_hidden_layers=1", "--intermediate_size=16", "--eval_num_beams=5"]
    stages = ["--use_cpu", "--stages", "stage1", "--stage1_num_train_epochs=1", f"--output_dir={tmp_path / 'out'}"]
    arguments = [f"--data_dir={data_dir}", "--disable_tqdm=true", *sizes, *stages]
    train_lasar.main(*TrlParser(train_lasar.ARGUMENTS).parse_args_and_config(arguments))
    processor = AutoProcessor.from_pretrained(tmp_path / "out" / "stage1")
    levels = SemanticIds.load(data_dir).all_tokens(with_room=True)
    ids = processor.tokenizer.convert_tokens_to_ids([token for tokens in levels for token in tokens])
    assert ids == list(range(ids[0], ids[0] + len(ids)))  # all of them, whether an item has them or not
    assert len({token for codes in load_data(data_dir).items["semantic_id"] for token in codes}) < len(ids)

    write_data(data_dir, make_items(40))
    run(f"--data_dir={data_dir}", f"--add_items={data_dir}")
    known = set(processor.catalog.item_ids)
    new = load_data(data_dir).items.filter(lambda item: item["item_id"] not in known)
    grown = processor.with_items(new)
    model = AutoModel.from_pretrained(tmp_path / "out" / "stage1").eval()
    output = model.generate(**grown([["B39", "B0"]]), item_trie=grown.item_trie, num_beams=40)
    found = [item["item_id"] for item in grown.post_process_recommendations(output, top_k=40)[0]]
    assert sorted(found) == sorted(grown.catalog.item_ids) and len(found) == 40


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda items: pl.concat([items, items[3:4]]), [], r"items.parquet: item_id 'B3' appears more than.*3, 15"),
        (
            lambda items: items.with_columns(item_id=pl.when(pl.col("item_id") != "B2").then("item_id")),
            [],
            r"items.parquet: 1 row\(s\) without item_id, first row 2",
        ),
        (
            lambda items: items.select("item_id", title=pl.lit(""), brand=pl.lit(" "), categories=pl.lit("[]")),
            [],
            "15 of 15 items have no text in title, brand, categories, first 'B0'",
        ),
        (lambda items: items[:3], [], "3 items.*4 codes"),
        (lambda items: items, ["--fields", "title", "colour"], "no column 'colour'"),
        (lambda items: items.drop("title", "brand", "categories"), [], "no column 'title'"),
        (lambda items: items[:0], [], "0 rows"),
        (lambda items: items.rename({"item_id": "id"}), [], "expected items with item_id"),
    ],
)  # fmt: skip
def test_bad_items(run, tmp_path, change, arguments, message):
    folder = write_data(tmp_path / "data", make_items(15))
    change(make_items(15)).write_parquet(folder / "items.parquet")
    with pytest.raises(ValueError, match=message):
        run(f"--data_dir={folder}", *SMALL, *arguments)
    assert not any((folder / name).exists() for name in OURS)


def test_one_text_for_half_of_the_catalog_is_a_warning(run, tmp_path, caplog):
    items = make_items(30).with_columns(
        title=pl.when(pl.int_range(pl.len()) < 16).then(pl.lit("word1")).otherwise("title")
    )
    folder = write_data(tmp_path / "data", items)
    run(f"--data_dir={folder}", *SMALL, "--balanced=false", "--fields", "title")
    assert "16 of 30 items (53.3%) have the same text 'word1'" in caplog.text
    ids = SemanticIds.load(folder)
    assert len(np.unique(ids.codes_IL, axis=0)) == 30 and ids.level_sizes[-1] >= 16


def test_embeddings_that_are_not_finite_are_named(run, data_dir, tmp_path):
    broken = make_encoder(tmp_path)
    path = next(broken.rglob("model.safetensors"))
    tensors = load_file(path)
    tensors["embeddings.word_embeddings.weight"][2:].fill_(float("nan"))
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ValueError, match="15 of 15 texts have embeddings by .* that are not finite"):
        run(f"--data_dir={data_dir}", *SMALL, f"--model_name_or_path={broken}")


def test_help_and_missing_folder(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        recipe.make_parser().parse_args_and_config(["--help"])
    assert "--add_items" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run(f"--data_dir={tmp_path / 'none'}")


def test_two_processes_give_the_codes_of_one(run, data_dir, encoder, tmp_path):
    run(f"--data_dir={data_dir}", *SMALL, f"--output_dir={tmp_path / 'one'}")
    arguments = [f"--data_dir={data_dir}", f"--model_name_or_path={encoder}", f"--cache_dir={tmp_path / 'two_cache'}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", recipe.__file__]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*command, *arguments, *SMALL], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("15 items have codes") == 1
    one, two = SemanticIds.load(tmp_path / "one"), SemanticIds.load(data_dir)
    assert np.array_equal(one.codes_IL, two.codes_IL) and one.item_ids == two.item_ids
