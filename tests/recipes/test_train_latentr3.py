"""The LatentR³ recipe as a user runs it, on very little data with titles as found in the wild."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel
from trl import TrlParser

from hf_latentrec.evaluation import load_ranks, ranking_metrics

from .title_runs import SMALL, write_title_data


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import train_latentr3 as recipe  # noqa: E402
from latentr3_arguments import plan  # noqa: E402


CONSTRAINED = "length penalty 0, nothing filtered"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_title_data(tmp_path_factory.mktemp("data"))


def run(*arguments):
    classes = (
        recipe.TitleDataArguments,
        recipe.LatentR3ModelArguments,
        recipe.LatentR3StageArguments,
        recipe.LatentR3Config,
    )
    recipe.main(*TrlParser(classes).parse_args_and_config([*SMALL, *map(str, arguments)]))


@pytest.fixture(scope="module")
def out(data_dir, tmp_path_factory):
    """A run of every stage that needs no pretrained model."""
    folder = tmp_path_factory.mktemp("out")
    stages = [name for name in plan(1) if name != "base"]
    run(
        f"--data_dir={data_dir}", f"--output_dir={folder}", "--split=published", "--stages", *stages,
        "--decoders", "constrained", "grounding",
    )  # fmt: skip
    return folder


def read_metrics(folder: Path, stage: str) -> dict:
    return json.loads((folder / stage / "test_metrics.json").read_text())


def test_every_stage_is_trained_tested_and_saved(out, data_dir):
    events = pl.read_parquet(data_dir / "events.parquet").filter(pl.col("split") == "train")
    in_training = Counter(events["item_id"])
    for stage in plan(1).values():
        if stage.name == "base":
            continue
        config = AutoModel.from_pretrained(out / stage.name).config
        assert config.num_thoughts == stage.num_thoughts
        metrics = read_metrics(out, stage.name)
        assert [setting.split(", ")[0] for setting in metrics] == ["length penalty 0"] * 2 + ["grounding"] * 2
        for setting, row in metrics.items():
            ranks = load_ranks(out / "ranks" / f"{stage.name}_{setting.replace(',', '').replace(' ', '_')}.parquet")
            expected = ranking_metrics(ranks.ranks, (5, 10))
            assert {name: row[name] for name in expected} == pytest.approx(expected)
            assert row["popular users"] + row["long-tail users"] == len(ranks.ranks) == 16
            # The two items that occur most often in training, of those with as many the first in the catalog.
            popular = sorted(range(10), key=lambda item: -in_training[str(item)])[:2]
            assert row["popular users"] == sum(int(target) in popular for target in ranks.columns["target"])
            assert ranks.metadata["checkpoint"] == stage.name and setting.endswith(ranks.metadata["protocol"])
    assert AutoModel.from_pretrained(out / "sft").config.reasoner_config.reasoner == "latent_attention"
    assert AutoModel.from_pretrained(out / "no_latentratt").config.reasoner_config.thought_markers is False
    assert json.loads((out / "latency.json").read_text())["num_thoughts"] == 1


@pytest.mark.parametrize("stage", ["lr_grpo", "group_advantage", "original_grpo", "no_latentratt_grpo"])
def test_reinforcement_is_validated_and_trains_what_it_should(out, stage):
    start = load_file(out / plan(1)[stage].start_from / "model.safetensors")
    last = load_file(out / stage / "checkpoint-2" / "model.safetensors")
    moved = {name.split(".")[0] for name in start if not torch.equal(start[name], last[name])}
    everything = {name.split(".")[0] for name in start}
    assert moved == ({"reasoner"} if stage in ("lr_grpo", "group_advantage") else everything)
    history = json.loads((out / stage / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "eval_NDCG@10" in entry] == [0, 1, 2]


def test_a_finished_run_is_reported_again_and_a_cut_stage_goes_on(out, data_dir, capsys):
    arguments = [f"--data_dir={data_dir}", f"--output_dir={out}", "--split=published"]
    with pytest.raises(ValueError, match="exists; pass --resume_from_checkpoint"):
        run(*arguments)
    before = read_metrics(out, "lr_grpo"), load_file(out / "lr_grpo" / "model.safetensors")
    for file in ("test_metrics.json", "model.safetensors"):
        (out / "lr_grpo" / file).unlink()
    run(*arguments, "--resume_from_checkpoint=true", "--decoders", "constrained", "grounding")
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("===")] == ["=== SFT + LR-GRPO, N=1 ==="]
    for label in ("no reasoning (BIGRec, D³)", "SFT, N=1", "SFT + LR-GRPO, N=1", "LR-GRPO again, N=2"):
        assert sum(line.startswith(label + " ") for line in printed.splitlines()) == 4
    assert "ms per user with 1 thought(s)" in printed
    assert f'AutoModel.from_pretrained("{out / "lr_grpo"}")' in printed
    after = read_metrics(out, "lr_grpo"), load_file(out / "lr_grpo" / "model.safetensors")
    assert before[0] == after[0] and all(torch.equal(before[1][name], after[1][name]) for name in before[1])


def test_base_is_the_pretrained_model_untouched(out, data_dir, tmp_path):
    run(
        f"--data_dir={data_dir}", f"--output_dir={tmp_path}", "--split=published", "--stages=base",
        f"--model_name_or_path={out / 'no_reasoning'}", "--eval_protocols", "nothing filtered",
    )  # fmt: skip
    # And a protocol that is left out is not tested.
    assert read_metrics(tmp_path, "base") == {CONSTRAINED: read_metrics(out, "no_reasoning")[CONSTRAINED]}
    assert [file.name for file in (tmp_path / "ranks").iterdir()] == ["base_length_penalty_0_nothing_filtered.parquet"]
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == ["test_metrics.json", "test_settings.json"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_lora_leaves_a_plain_model(out, data_dir, tmp_path):
    pretrained = out / "no_reasoning"
    run(
        f"--data_dir={data_dir}", f"--output_dir={tmp_path}", "--split=temporal", "--stages", "sft", "lr_grpo",
        f"--model_name_or_path={pretrained}", "--use_peft", "--lora_r=2", "--sft_learning_rate=0.01",
    )  # fmt: skip
    assert not list((tmp_path / "sft").glob("adapter*"))
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path / "sft"))
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved and all("q_proj" in name or "v_proj" in name for name in moved)
    # By time, a user can have several test examples, which the rank file tells apart.
    users = load_ranks(tmp_path / "ranks" / "sft_length_penalty_0_nothing_filtered.parquet").user_ids
    assert len(users) == len(set(users))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages=base"], "base prompts a pretrained model; pass --model_name_or_path"),
        (["--stages=lr_grpo"], "starts from .*sft, which is not complete; run sft first"),
        (["--num_thoughts=0"], "num_thoughts is 0"),
        (["--load_in_4bit"], "quantized"),
        (["--split=published"], "no column 'split'"),
        (["--bpe_vocab_size=100"], "vocab_size is 100"),
    ],
)
def test_what_cannot_work_is_one_clear_error_before_training(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(f"--output_dir={tmp_path / 'out'}", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages: [sft, thinking]", "stages holds 'thinking'; choose from"),
        ("stages: thinking", "stages holds 'thinking'; choose from"),
        ("stages: []", "stages is empty"),
        ("split: random", "split is 'random'; choose one of"),
        ("decoders: [greedy]", "decoders holds 'greedy'; choose from"),
        ("eval_protocols: [seen]", "eval_protocols holds 'seen'; choose from"),
        ("eval_protocols: []", "eval_protocols is empty"),
    ],
)
def test_a_config_file_is_checked_like_the_command_line(tmp_path, setting, message):
    config = tmp_path / "config.yaml"
    config.write_text(setting)
    with pytest.raises(ValueError, match=message):
        run("--config", config, f"--output_dir={tmp_path / 'out'}")


def test_validation_needs_a_length_penalty():
    with pytest.raises(ValueError, match="length_penalty is empty"):
        recipe.LatentR3StageArguments(length_penalty=[])


@pytest.mark.parametrize(
    ("titles", "message"),
    [(["a", "b", ""], "'2' .row 2. has an empty title"), (None, "no column 'title'")],
)
def test_items_without_titles_are_named(tmp_path, titles, message):
    rows = {"user_id": ["u"] * 4, "item_id": ["0", "1", "2", "0"], "position": [0, 1, 2, 3]}
    pl.DataFrame(rows).write_parquet(tmp_path / "events.parquet")
    items = {"item_id": ["0", "1", "2"], **({"title": titles} if titles else {})}
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match=message):
        run(f"--data_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}")


@pytest.mark.parametrize("config", sorted((Path(recipe.__file__).parent / "configs").glob("latentr3_*.yaml")))
def test_configs_are_settings_that_exist(config):
    classes = (
        recipe.TitleDataArguments,
        recipe.LatentR3ModelArguments,
        recipe.LatentR3StageArguments,
        recipe.LatentR3Config,
    )
    *_, stages, args = TrlParser(classes).parse_args_and_config(["--config", str(config), "--bf16=false"])
    assert args.load_best_model_at_end and args.metric_for_best_model == "NDCG@10"
    assert set(stages.stages) <= set(plan(1))
