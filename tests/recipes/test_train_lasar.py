"""The LASAR recipe as a user runs it, on very little data."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel, AutoProcessor
from trl import TrlParser

from hf_latentrec.evaluation import PROTOCOLS, load_ranks, ranking_metrics
from hf_latentrec.models.latent_reasoning.processing_latentrec import INSTRUCTION_TEMPLATE


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

import train_lasar as recipe  # noqa: E402
from lasar_anchors import with_text  # noqa: E402
from lasar_evaluation import report, some_users  # noqa: E402
from lasar_stages import DEFAULT_STAGES, code_levels, plan, sft_changes  # noqa: E402


CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
SYSTEMS = ("lasar", "minionerec", "coconut", "explicit_cot")
SMALL = [
    "--use_cpu", "--disable_tqdm=true", "--stage1_num_train_epochs=1", "--stage2_num_train_epochs=1", "--max_steps=2",
    "--hidden_size=16", "--num_hidden_layers=1", "--intermediate_size=32", "--num_thoughts=3", "--eval_num_beams=20",
    "--logging_steps=1", "--max_cot_tokens=6",
]  # fmt: skip
ONE_PROTOCOL = ["--eval_protocols", "nothing filtered"]
ABLATIONS = ["stage2_none", "stage2_cosine", "grpo_plain", "grpo_terminal", "grpo_repair", "mixed", "explicit_cot"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Thirty users with six items each, out of twenty items with two codes."""
    folder = tmp_path_factory.mktemp("data")
    inter = {str(u): [(u * 3 + 7 * k) % 20 for k in range(6)] for u in range(30)}
    (folder / "Toy.inter.json").write_text(json.dumps(inter))
    (folder / "Toy.index.json").write_text(json.dumps({str(i): [f"<a_{i // 5}>", f"<b_{i % 5}>"] for i in range(20)}))
    return folder


def parse(*arguments):
    return TrlParser(recipe.ARGUMENTS).parse_args_and_config([*SMALL, *map(str, arguments)])


def run(*arguments):
    recipe.main(*parse(*arguments))


@pytest.fixture(scope="module")
def out(data_dir, tmp_path_factory):
    """A run of the default stages."""
    folder = tmp_path_factory.mktemp("out")
    run(f"--data_dir={data_dir}", f"--output_dir={folder}", "--force_thoughts", "0", "2")
    return folder


@pytest.fixture(scope="module")
def ablations(data_dir, out):
    """All other stages, in the same folder."""
    run(f"--data_dir={data_dir}", f"--output_dir={out}", *ONE_PROTOCOL, "--stages", *ABLATIONS)
    return out


def saved(folder: Path, stage: str, name: str):
    return json.loads((folder / stage / name).read_text())


def test_metrics_are_those_of_the_ranks(out):
    for stage in DEFAULT_STAGES:
        metrics = saved(out, stage, "test_metrics.json")
        forced = ["forced N=0, ", "forced N=2, "] if plan()[stage].num_thoughts else []
        assert list(metrics) == [f"{depth}{protocol}" for depth in ["", *forced] for protocol in PROTOCOLS]
        for setting, row in metrics.items():
            ranks = load_ranks(out / "ranks" / f"{stage}_{setting.replace(',', '').replace(' ', '_')}.parquet")
            expected = {**ranking_metrics(ranks.ranks), "mean N": ranks.num_thoughts.mean()}
            assert row == pytest.approx(expected) and len(ranks.user_ids) == 30
    assert saved(out, "grpo", "test_metrics.json")["forced N=2, nothing filtered"]["mean N"] == 2
    assert saved(out, "grpo_control", "test_metrics.json")["nothing filtered"]["mean N"] == 0
    processor = AutoProcessor.from_pretrained(out / "grpo")
    assert ranks.metadata["split_fingerprint"] == processor.split_fingerprint and len(processor.catalog) == 20


def test_targets_are_as_popular_as_in_all_of_training(data_dir, out):
    """The first item of a user, which is no target, counts as for the item-ID models."""
    users = json.loads((data_dir / "Toy.inter.json").read_text()).values()
    counts = Counter(str(item) for items in users for item in items[:-2])
    columns = load_ranks(out / "ranks" / "grpo_nothing_filtered.parquet").columns
    assert columns["target_popularity"].tolist() == [counts[target] for target in columns["target"]]


def test_codes_without_codebooks_bring_no_tokens_but_those_in_use(data_dir, out):
    assert code_levels(None) == code_levels(str(data_dir)) == []
    tokenizer = AutoProcessor.from_pretrained(out / "stage1").tokenizer
    codes = {token for codes in json.loads((data_dir / "Toy.index.json").read_text()).values() for token in codes}
    assert len(tokenizer) == 258 + len(codes) + 3


def test_models_have_the_thoughts_of_their_stages(ablations):
    for name, stage in plan(3).items():
        if name == "stage2_mse":
            continue
        reasoner = AutoModel.from_pretrained(ablations / name).config.reasoner_config
        assert (reasoner.num_thoughts, reasoner.adaptive_depth) == (stage.num_thoughts, stage.adaptive_depth)
        assert stage.num_thoughts in (0, 3) and stage.adaptive_depth == (stage.num_thoughts > 0 and name != "mixed")


def test_settings_reach_the_trainers(ablations):
    def settings(stage, *names):
        return tuple(saved(ablations, stage, "training_args.json").get(name) for name in names)

    assert [settings(stage, "alignment", "policy_weight") for stage in ("stage2", "stage2_none", "stage2_cosine")] == [
        ("kl", 0.1), ("none", 0.1), ("cosine", 0.1),
    ]  # fmt: skip
    names = ("terminal_kl_weight", "reinforce_coef", "group_repair")
    assert settings("grpo", *names) == (None, None, "none")  # the trainer's defaults: both are on
    assert settings("grpo_repair", *names) == (None, None, "target")
    assert settings("grpo_terminal", *names) == (None, 0.0, "none")
    assert settings("grpo_plain", *names) == settings("grpo_control", *names) == (0.0, 0.0, "none")
    assert settings("mixed", "num_train_epochs", "learning_rate") == (2.0, 3e-3)
    assert settings("explicit_cot", "num_train_epochs") == settings("stage2_control", "num_train_epochs") == (1.0,)


def test_each_loss_is_there_where_its_stage_has_it(ablations):
    def logged(stage):
        return {name.removeprefix("loss/") for row in saved(ablations, stage, "log_history.json") for name in row}

    assert {"policy", "kl", "terminal_kl", "reinforce", "depth/mean", "depth/share_3"} <= logged("grpo")
    assert "frac_repaired" in logged("grpo_repair") and "frac_repaired" not in logged("grpo")
    assert "terminal_kl" in logged("grpo_terminal") and "reinforce" not in logged("grpo_terminal")
    assert not {"terminal_kl", "reinforce"} & logged("grpo_plain")
    assert not any(name.startswith("depth/") for name in logged("grpo_control"))
    assert (ablations / "grpo" / "training.png").stat().st_size > 0


def test_a_complete_run_has_nothing_left_to_do(out, data_dir, capsys):
    arguments = [f"--data_dir={data_dir}", f"--output_dir={out}"]
    with pytest.raises(ValueError, match="exists; pass --resume_from_checkpoint"):
        run(*arguments)
    card = (out / "stage1" / "README.md").read_text()
    run(*arguments, "--resume_from_checkpoint=true", "--eval_num_beams=7", "--eval_users=8")
    printed = capsys.readouterr().out
    assert "===" not in printed and "8 of 30 users drawn at random, whole catalog, 7 beams" in printed
    assert (
        "stage 1: of an earlier run, users 30, beams" in printed and (out / "stage1" / "README.md").read_text() == card
    )
    run(*arguments, "--resume_from_checkpoint=true")
    printed = capsys.readouterr().out
    assert "===" not in printed and "30 users, whole catalog" in printed and "of an earlier run" not in printed
    for label in ("stage 1", "stage 2, KL (LASAR)", "LASAR (+ terminal KL + REINFORCE), forced N=2"):
        assert sum(line.startswith(f"{label}  ") for line in printed.splitlines()) == len(PROTOCOLS)
    assert f'AutoModel.from_pretrained("{out / "grpo"}")' in printed


def test_some_users_are_always_the_same(data_dir, tmp_path, capsys):
    shared = [f"--data_dir={data_dir}", *ONE_PROTOCOL, "--stages", "stage1", "--eval_users=8"]
    for seed in (1, 2):
        run(*shared, f"--output_dir={tmp_path / str(seed)}", f"--seed={seed}")
    assert "8 of 30 users drawn at random" in capsys.readouterr().out
    users = [
        load_ranks(tmp_path / str(seed) / "ranks" / "stage1_nothing_filtered.parquet").user_ids for seed in (1, 2)
    ]
    assert users[0] == users[1] != sorted(users[0], key=int)[:8]
    everyone = Dataset.from_dict({"user_id": ["a", "b"]})
    assert some_users(everyone, None) is some_users(everyone, 2) is everyone


def test_a_stage_needs_the_one_before_and_the_same_data(data_dir, tmp_path):
    out = f"--output_dir={tmp_path / 'out'}"
    for stage, start in [("stage2", "stage1"), ("grpo_plain", "stage2"), ("grpo_control", "stage2_control")]:
        with pytest.raises(ValueError, match=f"is not complete; run {start} first"):
            run(f"--data_dir={data_dir}", out, f"--stages={stage}")
    with pytest.raises(ValueError, match="anchors are made by .*stage1, which is not complete"):
        run(f"--data_dir={data_dir}", out, "--stages=anchors")
    run(f"--data_dir={data_dir}", out, *ONE_PROTOCOL, "--stages=stage1")
    other = tmp_path / "other"
    other.mkdir()
    (other / "Toy.index.json").write_text((data_dir / "Toy.index.json").read_text())
    inter = json.loads((data_dir / "Toy.inter.json").read_text())
    (other / "Toy.inter.json").write_text(json.dumps({user: items[::-1] for user, items in inter.items()}))
    with pytest.raises(ValueError, match="_fingerprint"):
        run(f"--data_dir={other}", out, "--stages=stage2_control")


def test_anchors_of_another_stage_1_are_refused_or_replaced(data_dir, tmp_path, capsys):
    folder = tmp_path / "out"
    shared = [f"--data_dir={data_dir}", f"--output_dir={folder}", *ONE_PROTOCOL]
    run(*shared, "--stages", "stage1", "anchors")
    assert "Teacher: TEMPLATES" in capsys.readouterr().out
    first = (folder / "anchors" / "index.json").read_text()
    (folder / "stage1").rename(tmp_path / "old")
    run(*shared, "--stages=stage1", "--seed=7")
    with pytest.raises(ValueError, match="anchors in .* are stale.*--rebuild_anchors"):
        run(*shared, "--stages=stage2")
    assert (folder / "anchors" / "index.json").read_text() == first
    run(*shared, "--stages=stage2", "--rebuild_anchors=true")
    assert (folder / "anchors" / "index.json").read_text() != first


def test_text_of_the_users_own(out, data_dir, tmp_path):
    """A text for 27 of 30 users; a tenth of the examples has none."""
    texts = [{"user_id": str(user), "target": None, "cot": "Likes soap. Wants more."} for user in range(27)]
    (tmp_path / "cot.jsonl").write_text("\n".join(map(json.dumps, texts)))
    shared = [f"--data_dir={data_dir}", f"--cot_file={tmp_path / 'cot.jsonl'}", *ONE_PROTOCOL]
    (tmp_path / "stage1").symlink_to(out / "stage1")
    run(*shared, f"--output_dir={tmp_path}", "--stages", "stage2", "explicit_cot", "--sft_early_stopping_patience=1")
    index = saved(tmp_path, "anchors", "index.json")
    assert (index["num_examples"], index["num_segments"], index["num_anchors"]) == (27, 54, 2)
    settings = saved(tmp_path, "stage2", "training_args.json")
    assert (settings["early_stopping_patience"], settings["metric_for_best_model"]) == (1, "loss/cross_entropy")
    with pytest.raises(ValueError, match=r"9 of 90 training examples .*max_missing_cot is 0.05"):
        run(*shared, f"--output_dir={tmp_path}", "--stages=stage2_none", "--max_missing_cot=0.05")


@pytest.mark.parametrize(
    ("stage", "weights", "metric"),
    [
        ("stage2", ["--policy_weight=0"], "loss/cross_entropy"),
        ("stage2", ["--align_weight=0"], "loss/cross_entropy"),
        ("stage2", ["--align_weight=0", "--policy_weight=0"], "loss"),
        ("stage2_none", ["--policy_weight=0"], "loss"),
    ],
)
def test_the_best_epoch_is_chosen_by_the_cross_entropy(stage, weights, metric):
    """Which is the whole loss where there is no other term, and has no name of its own then."""
    _, _, cot_args, stage_args, _ = parse("--sft_early_stopping_patience=1", *weights)
    assert sft_changes(plan()[stage], stage_args, cot_args)["metric_for_best_model"] == metric


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_lora_is_merged_at_the_end_of_a_stage(data_dir, tmp_path):
    run(
        f"--data_dir={data_dir}", f"--output_dir={tmp_path}", *ONE_PROTOCOL, "--stages", "stage1", "stage2", "grpo",
        "--use_peft=true", "--lora_r=2", "--stage2_num_train_epochs=3", "--max_steps=3",
    )  # fmt: skip
    states = [AutoModel.from_pretrained(tmp_path / stage).state_dict() for stage in ("stage1", "stage2", "grpo")]
    for before, after in zip(states, states[1:], strict=False):
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert any("q_proj" in name for name in changed) and not any("mlp" in name for name in changed)
    assert not torch.equal(states[1]["depth_policy.out_proj.weight"], states[2]["depth_policy.out_proj.weight"])


def test_examples_without_text_are_left_out_or_too_many():
    examples = Dataset.from_dict(
        {"user_id": ["u", "u", "v", "w"], "history": [["a"]] * 4, "target": ["1", "2", "1", "1"]}
    )
    text = Dataset.from_dict(
        {"user_id": ["u", "u", "v"], "target": ["2", None, "1"], "cot": ["own", "general", "of v"]}
    )
    found = with_text(examples, text, 0.25, "training")
    assert found["cot"][:] == ["general", "own", "of v"] and found["target"][:] == ["1", "2", "1"]
    with pytest.raises(ValueError, match="1 of 4 training examples have no text.*'w', target '1'"):
        with_text(examples, text, 0.2, "training")


def test_tables_hold_what_was_tested():
    row = dict.fromkeys(("HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20"), 0.5) | {"mean N": 2.25}
    results = {"a": {"nothing filtered": row, "forced N=1, nothing filtered": row}, "b": {"seen items excluded": row}}
    lines = report(results, {"a": "first", "b": "second"}, "Header").splitlines()
    assert [line.split("  ")[0] for line in lines if line.endswith("2.2500")] == [
        "first",
        "first, forced N=1",
        "second",
    ]
    assert lines[2] == "nothing filtered" and lines.index("seen items excluded") > 6


@pytest.mark.parametrize("name", sorted(file.name for system in SYSTEMS for file in CONFIGS.glob(f"{system}_*.yaml")))
def test_every_configuration_is_understood(name, tmp_path):
    """A key that is unknown, or a value that is refused, would raise."""
    text = (CONFIGS / name).read_text().replace("bf16: true", "bf16: false")  # which needs a GPU
    (tmp_path / name).write_text(text)
    parser = TrlParser(recipe.ARGUMENTS)
    data, model, cot, stages, args = parser.parse_args_and_config(["--config", str(tmp_path / name), "--use_cpu"])
    recipe.LasarRecipe(data, model, cot, stages, args).check([stage for stage in stages.stages if stage != "anchors"])
    assert args.output_dir == f"outputs/{name.removesuffix('.yaml')}"
    if model.model_name_or_path is not None:
        assert model.prompt_template == INSTRUCTION_TEMPLATE
        assert 8 * args.per_device_train_batch_size * args.gradient_accumulation_steps == 512
        assert stages.stage1_batch_size == stages.stage2_batch_size == args.per_device_train_batch_size
        assert model.use_peft == ("lora" in name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_thoughts=0"], r"num_thoughts \(N_max\) is 0; pass at least 1"),
        (["--force_thoughts", "1", "4"], r"force_thoughts holds 4, but num_thoughts \(N_max\) is 3"),
        (["--force_thoughts=-1"], "force_thoughts holds -1"),
        (["--eval_users=0"], "eval_users is 0"),
        (["--max_missing_cot=1.5"], "max_missing_cot is 1.5"),
        (["--max_cot_tokens=0"], "max_cot_tokens is 0"),
        (["--config", "CONFIG"], "stages holds 'stage3'; choose from"),
        (["--config", "NOTHING"], "stages is empty"),
        (["--stages=stage1", "--cot_file=absent.jsonl", "--load_in_4bit=true"], "quantized"),
    ],
)
def test_bad_arguments_are_one_clear_error(data_dir, tmp_path, arguments, message):
    for name, text in (("CONFIG", "stages: [stage3]\n"), ("NOTHING", "stages: []\n")):
        (tmp_path / name).write_text(text)
        arguments = [argument.replace(name, str(tmp_path / name)) for argument in arguments]
    with pytest.raises(ValueError, match=message):
        run(f"--data_dir={data_dir}", f"--output_dir={tmp_path / 'out'}", *arguments)
    assert not (tmp_path / "out" / "stage1").exists()


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
