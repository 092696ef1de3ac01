"""The LASAR recipe as a user runs it, on very little data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from transformers import AutoModel, AutoProcessor
from trl import TrlParser

from hf_latentrec.evaluation import load_ranks, ranking_metrics


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import train_lasar as recipe  # noqa: E402


SMALL = [
    "--use_cpu", "--disable_tqdm=true", "--stage1_num_train_epochs=1", "--stage2_num_train_epochs=1", "--max_steps=2",
    "--hidden_size=16", "--num_hidden_layers=1", "--intermediate_size=32", "--num_thoughts=2", "--eval_num_beams=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Thirty users with six items each, out of twenty items with two codes."""
    folder = tmp_path_factory.mktemp("data")
    inter = {str(u): [(u * 3 + 7 * k) % 20 for k in range(6)] for u in range(30)}
    (folder / "Toy.inter.json").write_text(json.dumps(inter))
    (folder / "Toy.index.json").write_text(json.dumps({str(i): [f"<a_{i // 5}>", f"<b_{i % 5}>"] for i in range(20)}))
    return folder


def run(*arguments):
    parser = TrlParser((recipe.DataArguments, recipe.BackboneArguments, recipe.StageArguments, recipe.LasarConfig))
    recipe.main(*parser.parse_args_and_config([*SMALL, *map(str, arguments)]))


def test_all_stages_then_nothing_left_to_do(data_dir, tmp_path, capsys):
    arguments = [f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'out'}"]
    run(*arguments)
    printed = capsys.readouterr().out
    for label in ("stage 1", "stage 2, N=2", "after GRPO, N=2", "control of stage 2", "control of GRPO"):
        for protocol in ("nothing filtered", "seen items excluded"):
            assert any(label in line and protocol in line for line in printed.splitlines())
    assert f'AutoModel.from_pretrained("{tmp_path / "out" / "grpo"}")' in printed

    model = AutoModel.from_pretrained(tmp_path / "out" / "grpo")
    processor = AutoProcessor.from_pretrained(tmp_path / "out" / "grpo")
    assert model.config.num_thoughts == 2 and len(processor.catalog) == 20
    assert AutoModel.from_pretrained(tmp_path / "out" / "stage2_control").config.num_thoughts == 0
    ranks = load_ranks(tmp_path / "out" / "ranks" / "grpo_nothing_filtered.parquet")
    metrics = json.loads((tmp_path / "out" / "grpo" / "test_metrics.json").read_text())
    assert ranking_metrics(ranks.ranks) == pytest.approx(metrics["nothing filtered"])
    assert ranks.metadata["split_fingerprint"] == processor.split_fingerprint and len(ranks.user_ids) == 30

    with pytest.raises(ValueError, match="exists; pass --resume_from_checkpoint"):
        run(*arguments)
    run(*arguments, "--resume_from_checkpoint=true")
    assert "=== stage" not in capsys.readouterr().out


def test_a_stage_needs_the_one_before_and_the_same_data(data_dir, tmp_path):
    out = f"--output_dir={tmp_path / 'out'}"
    with pytest.raises(ValueError, match="is not complete; run stage1 first"):
        run(f"--data_dir={data_dir}", out, "--stages=stage2")
    run(f"--data_dir={data_dir}", out, "--stages=stage1")
    other = tmp_path / "other"
    other.mkdir()
    (other / "Toy.index.json").write_text((data_dir / "Toy.index.json").read_text())
    inter = json.loads((data_dir / "Toy.inter.json").read_text())
    (other / "Toy.inter.json").write_text(json.dumps({user: items[::-1] for user, items in inter.items()}))
    with pytest.raises(ValueError, match="_fingerprint"):
        run(f"--data_dir={other}", out, "--stages=stage2")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("Toy.inter.json", '{"0": [0, 1, 99]}', "99"),
        ("Toy.inter.json", '{"0": [0, 1, 2], "1": []}', "'1'"),
        ("Toy.inter.json", '{"0": [0, 1]}', "fewer"),
        ("Toy.inter.json", '{"0": [0, 1, 2', "Toy.inter.json"),
        ("Toy.inter.json", "", "Toy.inter.json"),
        ("Toy.index.json", '{"0": ["<a_0>"], "1": ["<a_1>", "<b_1>"], "2": ["<a_2>", "<b_2>"]}', "<a_0>|codes|depth"),
        ("Toy.index.json", '{"0": ["<a_0>"], "0": ["<a_1>"], "1": ["<a_2>"], "2": ["<a_3>"]}', "'0'"),
        ("Toy.index.json", '{"0": ["<a_0>"], "1": [], "2": ["<a_3>"]}', "'1'"),
        ("Toy.index.json", '{"0": ["<a_0>"], "1": ["<a_0>"], "2": ["<a_3>"]}', "on_collision"),
    ],
)
def test_bad_data_is_one_clear_error_before_training(tmp_path, file, content, message):
    (tmp_path / "Toy.inter.json").write_text('{"0": [0, 1, 2, 0]}')
    (tmp_path / "Toy.index.json").write_text('{"0": ["<a_0>"], "1": ["<a_1>"], "2": ["<a_2>"]}')
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        run(f"--data_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}")
    assert not (tmp_path / "out" / "stage1").exists()
