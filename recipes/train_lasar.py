"""
Train LASAR: ground the items (stage 1), turn thinking on (stage 2), reinforce (GRPO), and evaluate each on test.

    accelerate launch recipes/train_lasar.py                                   # synthetic data, CPU, minutes
    accelerate launch recipes/train_lasar.py --config recipes/configs/lasar_beauty.yaml --data_dir DATA
    accelerate launch recipes/train_lasar.py ... --resume_from_checkpoint true  # go on where a run stopped

Every stage has its control: the same number of steps without thoughts. A stage that is complete is not run again when
a run is resumed; a stage that was cut continues from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from training_setup import BackboneArguments, DataArguments, build_model, build_processor, load_splits
from training_stages import (
    Stage,
    check_stages,
    close,
    describe_data,
    describe_outcome,
    evaluate_protocols,
    load_start,
    run_stages,
    save_stage,
    stage_settings,
    train_stage,
)
from trl import TrlParser

from hf_latentrec.trainer import LASARGRPOConfig, LatentSFTConfig


if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_latentrec import LatentRecProcessor


@dataclass
class StageArguments:
    """Settings of single stages; all others are shared. GRPO takes the plain names (learning_rate, max_steps, ...)."""

    stage1_num_train_epochs: float = field(default=12.0, metadata={"help": "Epochs of stage 1."})
    stage1_learning_rate: float = field(default=3e-3, metadata={"help": "Peak learning rate of stage 1."})
    stage1_batch_size: int = field(default=64, metadata={"help": "Rows per process and step of stage 1."})
    stage2_num_train_epochs: float = field(default=8.0, metadata={"help": "Epochs of stage 2."})
    stage2_learning_rate: float = field(default=3e-3, metadata={"help": "Peak learning rate of stage 2."})
    stage2_batch_size: int = field(default=64, metadata={"help": "Rows per process and step of stage 2."})
    pack_histories: bool | None = field(
        default=None,
        metadata={
            "help": "Stages 1 and 2 learn all targets of a history in one row; default: where the template allows it."
        },
    )
    stages: list[str] = field(
        default_factory=lambda: ["stage1", "stage2", "grpo", "stage2_control", "grpo_control"],
        metadata={
            "help": "Stages to run, in this order; a stage needs the one it starts from in output_dir. The controls "
            "take the same steps without thoughts.",
            "choices": ["stage1", "stage2", "grpo", "stage2_control", "grpo_control"],
        },
    )
    eval_num_beams: int = field(default=50, metadata={"help": "Beams per user in evaluation."})
    eval_batch_size: int = field(default=64, metadata={"help": "Users per process and batch in evaluation."})


@dataclass
class LasarConfig(LASARGRPOConfig):
    """GRPO's settings with the defaults of the small CPU run."""

    output_dir: str | None = field(default="outputs/lasar", metadata={"help": "Folder for checkpoints and results."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Prompts per process and step in GRPO."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate of GRPO."})
    max_steps: int = field(default=100, metadata={"help": "Steps of GRPO; -1 for num_train_epochs."})
    logging_steps: float = field(default=20, metadata={"help": "Log every X steps."})
    save_steps: float = field(default=100, metadata={"help": "Save a checkpoint every X steps."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept per stage."})


def plan(num_thoughts: int) -> dict[str, Stage]:
    """All stages by name; a control shares stage 1 and then takes the same steps without thoughts."""
    stages = [
        Stage("stage1", None, 0, "stage 1, N=0"),
        Stage("stage2", "stage1", num_thoughts, f"stage 2, N={num_thoughts}"),
        Stage("grpo", "stage2", num_thoughts, f"after GRPO, N={num_thoughts}"),
        Stage("stage2_control", "stage1", 0, "control of stage 2, N=0"),
        Stage("grpo_control", "stage2_control", 0, "control of GRPO, N=0"),
    ]
    return {stage.name: stage for stage in stages}


def code_processor(data, splits: DatasetDict, args: DataArguments, backbone: BackboneArguments) -> LatentRecProcessor:
    """Tokenizer with the items' codes, catalog, trie and prompt."""
    from transformers import AutoTokenizer

    from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer

    if backbone.model_name_or_path is None:
        tokenizer = build_byte_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(backbone.model_name_or_path)
    add_item_tokens(tokenizer, data.items["semantic_id"])
    return build_processor(
        data,
        splits,
        tokenizer,
        args,
        item_tokenization="semantic_id",
        prompt_template=backbone.prompt_template,
    )


def starting_model(stage: Stage, processor: LatentRecProcessor, backbone: BackboneArguments, folder: Path):
    """The model that a stage starts from, with the stage's number of thoughts."""
    from hf_latentrec.models.latent_reasoning.tokenization import thought_token_ids

    if stage.start_from is None:
        markers = thought_token_ids(processor.tokenizer)
        names = ("start_thought_token_id", "end_thought_token_id")
        model = build_model(processor, backbone, {name: markers[name] for name in names})
    else:
        model = load_start(stage, processor, folder)
    model.config.num_thoughts = stage.num_thoughts
    return model


def make_trainer(stage: Stage, model, processor, splits: DatasetDict, args: LasarConfig, stages: StageArguments):
    """The trainer of a stage, with the shared settings and the stage's own in their place."""
    from hf_latentrec.data import NextItemCollator
    from hf_latentrec.trainer import LASARGRPOTrainer, LatentSFTTrainer

    output_dir = str(Path(args.output_dir) / stage.name)
    data = {"train_dataset": splits["train"], "processing_class": processor}
    if stage.name.startswith("grpo"):
        config = stage_settings(args, LASARGRPOConfig, output_dir=output_dir)
        return LASARGRPOTrainer(model, config, data_collator=NextItemCollator(processor), **data)
    prefix = stage.name.removesuffix("_control")
    config = stage_settings(
        args,
        LatentSFTConfig,
        output_dir=output_dir,
        num_train_epochs=getattr(stages, f"{prefix}_num_train_epochs"),
        learning_rate=getattr(stages, f"{prefix}_learning_rate"),
        per_device_train_batch_size=getattr(stages, f"{prefix}_batch_size"),
        max_steps=-1,
        normalize="vocabulary",
        train_sampling_strategy="group_by_length",
        pack_histories=stages.pack_histories,
    )
    return LatentSFTTrainer(model, config, **data)


def report(
    results: dict[str, dict], plan_by_name: dict[str, Stage], folder: Path, num_users: int, num_beams: int
) -> str:
    """The closing words: the table, the folder, and how to load the model."""
    from hf_latentrec.evaluation import PROTOCOLS, format_metric_table

    rows = {
        f"{plan_by_name[name].label}, {protocol}": results[name][protocol]
        for protocol in PROTOCOLS
        for name in results
    }
    final = list(results)[-1] if "grpo" not in results else "grpo"
    return "\n".join(
        [
            "",
            f"Test, leave-one-out, {num_users:,} users, whole catalog, {num_beams} beams, N thoughts (0: none)",
            format_metric_table(rows),
            "",
            describe_outcome(folder / final, folder / "ranks"),
        ]
    )


def main(data_args: DataArguments, backbone_args: BackboneArguments, stage_args: StageArguments, args: LasarConfig):
    """The whole job: data, stages, evaluation, report."""
    from accelerate import PartialState
    from transformers import set_seed

    from hf_latentrec.evaluation import RecEvaluator

    state = PartialState()
    folder = Path(args.output_dir)
    resume = args.resume_from_checkpoint is not None
    plan_by_name = plan(backbone_args.num_thoughts)
    check_stages(plan_by_name, stage_args.stages, folder, resume)
    data, splits = load_splits(data_args, item_tokenization="semantic_id")
    processor = code_processor(data, splits, data_args, backbone_args)
    if state.is_main_process:
        print(describe_data(data, len(splits["train"]), processor))
    evaluator = RecEvaluator(processor, splits["test"], stage_args.eval_num_beams, stage_args.eval_batch_size)

    def run(stage: Stage) -> dict:
        set_seed(args.seed)
        model = starting_model(stage, processor, backbone_args, folder)
        trainer = make_trainer(stage, model, processor, splits, args, stage_args)
        train_stage(trainer, resume)
        save_stage(trainer)
        results = evaluate_protocols(evaluator, model, stage, folder / "ranks")
        return {protocol: result.metrics for protocol, result in results.items()}

    results = run_stages(plan_by_name, stage_args.stages, folder, run)
    if state.is_main_process:
        print(report(results, plan_by_name, folder, len(splits["test"]), stage_args.eval_num_beams))
    close(state)


if __name__ == "__main__":
    parser = TrlParser((DataArguments, BackboneArguments, StageArguments, LasarConfig))
    main(*parser.parse_args_and_config())
