"""
Train LASAR: ground the items (stage 1), turn thinking on (stage 2), reinforce (GRPO), and evaluate each on test.

    accelerate launch recipes/train_lasar.py                                   # synthetic data, CPU, minutes
    accelerate launch recipes/train_lasar.py --config recipes/configs/lasar_beauty.yaml --data_dir DATA
    accelerate launch recipes/train_lasar.py ... --resume_from_checkpoint true  # go on where a run stopped

Every stage has its control: the same number of steps without thoughts. A stage that is complete is not run again when
a run is resumed; a stage that was cut continues from its last checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from trl import TrlParser

from hf_latentrec.trainer import LASARGRPOConfig, LatentSFTConfig


if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_latentrec import LatentRecProcessor


METRICS_FILE = "test_metrics.json"  # written last: a stage that has it is complete


@dataclass
class DataArguments:
    """Where the interactions come from and how they become examples."""

    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder or file with interactions and semantic IDs; the synthetic data set if not given."},
    )
    max_history: int = field(default=20, metadata={"help": "Newest items of a history that enter a prompt."})
    window_stride: int = field(
        default=1,
        metadata={
            "help": "Histories beyond max_history start at multiples of this, so that more training targets share one "
            "pass; 1 is the exact sliding window."
        },
    )
    on_short: str = field(
        default="error",
        metadata={
            "help": "Users with fewer than 3 interactions: 'error', or 'drop' them.",
            "choices": ["error", "drop"],
        },
    )
    on_collision: str = field(
        default="error",
        metadata={
            "help": "Items with the same semantic ID: 'error', or 'share' one answer and rank by popularity.",
            "choices": ["error", "share"],
        },
    )


@dataclass
class BackboneArguments:
    """The language model: a pretrained one, or a small one from scratch."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Pretrained Qwen2, Qwen3 or Llama (hub id or folder); from scratch if not given."},
    )
    backbone: str = field(
        default="qwen3", metadata={"help": "Architecture from scratch.", "choices": ["qwen2", "qwen3", "llama"]}
    )
    hidden_size: int = field(default=64, metadata={"help": "Hidden size from scratch."})
    intermediate_size: int = field(default=192, metadata={"help": "Width of the feed-forward blocks from scratch."})
    num_hidden_layers: int = field(default=2, metadata={"help": "Layers from scratch."})
    num_attention_heads: int = field(default=2, metadata={"help": "Attention heads from scratch."})
    embedding_dropout: float = field(default=0.1, metadata={"help": "Dropout on token embeddings in training."})
    attention_dropout: float = field(default=0.0, metadata={"help": "Dropout on attention weights in training."})
    num_thoughts: int = field(default=4, metadata={"help": "Thoughts N from stage 2 on."})
    prompt_template: str = field(
        default="{history}", metadata={"help": "Prompt with {history} once; text after it rules out packed histories."}
    )


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


@dataclass
class Stage:
    """One training run of the pipeline: where it starts, how many thoughts it has, where it goes."""

    name: str
    start_from: str | None
    num_thoughts: int
    label: str


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


def load_splits(args: DataArguments):
    """Interactions and items, and their leave-one-out split."""
    from hf_latentrec.data import load_data, make_synthetic, split_leave_one_out, validate

    data = make_synthetic() if args.data_dir is None else load_data(args.data_dir)
    validate(data, require_codes=True)
    splits = split_leave_one_out(data, args.max_history, window_stride=args.window_stride, on_short=args.on_short)
    return data, splits


def build_processor(data, splits: DatasetDict, args: DataArguments, backbone: BackboneArguments) -> LatentRecProcessor:
    """Tokenizer with the items' codes, catalog, trie and prompt."""
    from collections import Counter

    from transformers import AutoTokenizer

    from hf_latentrec import ItemCatalog, LatentRecProcessor
    from hf_latentrec.data import split_fingerprint
    from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer

    if backbone.model_name_or_path is None:
        tokenizer = build_byte_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(backbone.model_name_or_path)
    add_item_tokens(tokenizer, data.items["semantic_id"])
    catalog = ItemCatalog.from_items(
        data.items,
        tokenizer,
        item_tokenization="semantic_id",
        popularity=Counter(splits["train"]["target"]),
        on_collision=args.on_collision,
    )
    return LatentRecProcessor(
        tokenizer,
        catalog,
        prompt_template=backbone.prompt_template,
        max_history=args.max_history,
        split_fingerprint=split_fingerprint(splits),
    )


def build_model(processor: LatentRecProcessor, args: BackboneArguments):
    """A recommender without thoughts yet; its vocabulary holds the items' codes and the thought markers."""
    from transformers import AutoConfig

    import hf_latentrec
    from hf_latentrec.models.latent_reasoning.tokenization import thought_token_ids

    markers = thought_token_ids(processor.tokenizer)
    settings = {
        "start_thought_token_id": markers["start_thought_token_id"],
        "end_thought_token_id": markers["end_thought_token_id"],
        "embedding_dropout": args.embedding_dropout,
        "attention_dropout": args.attention_dropout,
    }
    pretrained = None if args.model_name_or_path is None else AutoConfig.from_pretrained(args.model_name_or_path)
    family = args.backbone if pretrained is None else pretrained.model_type.removesuffix("_latentrec")
    names = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}
    if family not in names:
        raise ValueError(f"model_name_or_path is a {family!r} model; choose one of {sorted(names)}")
    model_class = getattr(hf_latentrec, f"{names[family]}ForLatentReasoningRec")
    if pretrained is not None:
        known = {key: value for key, value in pretrained.to_dict().items() if key != "model_type"}
        config = model_class.config_class(**{**known, **settings})
        model = model_class.from_pretrained(args.model_name_or_path, config=config)
        model.resize_token_embeddings(max(len(processor.tokenizer), config.vocab_size))
        return model
    head_dim = args.hidden_size // args.num_attention_heads
    config = model_class.config_class(
        vocab_size=len(processor.tokenizer),
        hidden_size=args.hidden_size,
        intermediate_size=args.intermediate_size,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.num_attention_heads,
        num_key_value_heads=args.num_attention_heads,
        **({} if family == "qwen2" else {"head_dim": head_dim}),
        max_position_embeddings=1024,
        pad_token_id=processor.tokenizer.pad_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
        **settings,
    )
    return model_class(config)


def stage_config(stage: Stage, args: LasarConfig, stages: StageArguments):
    """The trainer's settings of one stage: the shared ones, with the stage's own in their place."""
    shared = {f.name: getattr(args, f.name) for f in fields(args) if f.init}
    shared["output_dir"] = str(Path(args.output_dir) / stage.name)
    if stage.name.startswith("grpo"):
        return LASARGRPOConfig(**{f.name: shared[f.name] for f in fields(LASARGRPOConfig) if f.init})
    prefix = stage.name.removesuffix("_control")
    shared |= {
        "num_train_epochs": getattr(stages, f"{prefix}_num_train_epochs"),
        "learning_rate": getattr(stages, f"{prefix}_learning_rate"),
        "per_device_train_batch_size": getattr(stages, f"{prefix}_batch_size"),
        "max_steps": -1,
        "normalize": "vocabulary",
        "train_sampling_strategy": "group_by_length",
        "pack_histories": stages.pack_histories,
    }
    return LatentSFTConfig(**{f.name: shared[f.name] for f in fields(LatentSFTConfig) if f.init})


def train_stage(stage: Stage, model, processor, splits: DatasetDict, config, resume: bool) -> None:
    """Trains one stage and saves model and processor in its folder."""
    from hf_latentrec.data import NextItemCollator
    from hf_latentrec.trainer import LASARGRPOTrainer, LatentSFTTrainer, last_complete_checkpoint

    data = {"train_dataset": splits["train"], "processing_class": processor}
    if stage.name.startswith("grpo"):
        trainer = LASARGRPOTrainer(model, config, data_collator=NextItemCollator(processor), **data)
    else:
        trainer = LatentSFTTrainer(model, config, **data)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(config.output_dir) if resume else None)
    trainer.save_model()
    trainer.accelerator.wait_for_everyone()


def evaluate_stage(stage: Stage, model, processor, splits: DatasetDict, args: StageArguments, folder: Path) -> dict:
    """Test metrics of a stage under both protocols; per-user ranks go to `ranks/`."""
    from accelerate import PartialState

    from hf_latentrec.evaluation import PROTOCOLS, RecEvaluator, save_ranks

    evaluator = RecEvaluator(processor, splits["test"], args.eval_num_beams, args.eval_batch_size)
    metrics = {}
    for protocol, exclude_seen in PROTOCOLS.items():
        result = evaluator.evaluate(model, exclude_seen, description=f"test of {stage.name}, {protocol}")
        metrics[protocol] = result.metrics
        if PartialState().is_main_process:
            save_ranks(
                folder / "ranks" / f"{stage.name}_{protocol.replace(' ', '_')}.parquet",
                result.user_ids,
                result.ranks,
                split_fingerprint=processor.split_fingerprint,
                protocol=protocol,
                num_beams=args.eval_num_beams,
                checkpoint=stage.name,
            )
    return metrics


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
    final = folder / list(results)[-1] if "grpo" not in results else folder / "grpo"
    return "\n".join(
        [
            "",
            f"Test, leave-one-out, {num_users:,} users, whole catalog, {num_beams} beams, N thoughts (0: none)",
            format_metric_table(rows),
            "",
            f"The model is in {final}, per-user ranks are in {folder / 'ranks'}. Load it with:",
            "",
            "    import hf_latentrec; from transformers import AutoModel, AutoProcessor",
            f'    model = AutoModel.from_pretrained("{final}").eval()',
            f'    processor = AutoProcessor.from_pretrained("{final}")',
        ]
    )


def starting_model(stage: Stage, processor, backbone_args: BackboneArguments, folder: Path):
    """The model that a stage starts from, with the stage's number of thoughts."""
    from transformers import AutoModel, AutoProcessor

    if stage.start_from is None:
        model = build_model(processor, backbone_args)
    else:
        start = folder / stage.start_from
        if not (start / METRICS_FILE).exists():
            raise ValueError(
                f"stage {stage.name} starts from {start}, which is not complete; run {stage.start_from} first"
            )
        before = AutoProcessor.from_pretrained(start)
        for what in ("catalog_fingerprint", "split_fingerprint"):
            old, new = before.to_dict()[what], processor.to_dict()[what]
            if old != new:
                raise ValueError(
                    f"{start} was trained with {what} {old}, but this data has {new}; use the same data and data "
                    "arguments, or another --output_dir"
                )
        model = AutoModel.from_pretrained(start)
    model.config.num_thoughts = stage.num_thoughts
    return model


def main(data_args: DataArguments, backbone_args: BackboneArguments, stage_args: StageArguments, args: LasarConfig):
    """The whole job: data, stages, evaluation, report."""
    from accelerate import PartialState
    from transformers import set_seed

    state = PartialState()
    folder = Path(args.output_dir)
    resume = args.resume_from_checkpoint is not None
    plan_by_name = plan(backbone_args.num_thoughts)
    for name in stage_args.stages:
        if name not in plan_by_name:
            raise ValueError(f"stages holds {name!r}; choose from {list(plan_by_name)}")
        if (folder / name).exists() and not resume:
            raise ValueError(
                f"{folder / name} exists; pass --resume_from_checkpoint true to go on with it, or choose another "
                "--output_dir"
            )
    data, splits = load_splits(data_args)
    processor = build_processor(data, splits, data_args, backbone_args)
    if state.is_main_process:
        print(
            f"{data.num_users:,} users, {data.num_items:,} items, {data.num_interactions:,} interactions, "
            f"{len(splits['train']):,} training targets\n{processor.catalog.describe_collisions()}"
        )
    for name in stage_args.stages:
        stage, metrics_file = plan_by_name[name], folder / name / METRICS_FILE
        if metrics_file.exists():
            continue
        if state.is_main_process:
            print(f"\n=== {stage.label} ===")
        config = stage_config(stage, args, stage_args)
        set_seed(args.seed)
        model = starting_model(stage, processor, backbone_args, folder)
        train_stage(stage, model, processor, splits, config, resume)
        metrics = evaluate_stage(stage, model, processor, splits, stage_args, folder)
        if state.is_main_process:
            metrics_file.write_text(json.dumps(metrics, indent=2))
        state.wait_for_everyone()
    if state.is_main_process:
        files = {name: folder / name / METRICS_FILE for name in plan_by_name}
        results = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
        print(report(results, plan_by_name, folder, len(splits["test"]), stage_args.eval_num_beams))
    # Left to the interpreter's exit, a process group can abort the process there.
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    parser = TrlParser((DataArguments, BackboneArguments, StageArguments, LasarConfig))
    main(*parser.parse_args_and_config())
