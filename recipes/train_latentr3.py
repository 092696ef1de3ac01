"""
Train LatentR³: fine-tune a model that thinks before it writes the next title, reinforce its thoughts, test each stage.

    accelerate launch recipes/train_latentr3.py                                   # synthetic data, CPU, minutes
    accelerate launch recipes/train_latentr3.py --config recipes/configs/latentr3_scientific.yaml --data_dir DATA
    accelerate launch recipes/train_latentr3.py ... --resume_from_checkpoint true  # go on where a run stopped

Stages: `base` (the pretrained model, prompted), `no_reasoning` (fine-tuned without thoughts: BIGRec, D³), `sft` (with N
thoughts), `lr_grpo` (from sft), and the ablations `group_advantage`, `original_grpo`, `more_thoughts` (N + 1, from
lr_grpo), `no_latentratt`, `no_latentratt_grpo`. All fine-tuning has the same budget, and so has all reinforcement.
Runs of several seeds are put together by compare_seeds.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentr3_arguments import (
    LatentR3Config,
    LatentR3Stage,
    LatentR3StageArguments,
    TitleDataArguments,
    TitleModelArguments,
    plan,
)
from training_setup import build_model, build_processor, load_splits
from training_stages import (
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
from trl import TrlParser, get_peft_config


if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_latentrec import LatentRecProcessor
    from hf_latentrec.evaluation import RecEvaluator


CUTOFFS = (5, 10)
TABLE_COLUMNS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10", "popular NDCG@10", "long-tail NDCG@10")
LATENCY_FILE = "latency.json"


def title_processor(
    data: Any, splits: DatasetDict, args: TitleDataArguments, model_args: TitleModelArguments
) -> LatentRecProcessor:
    """The pretrained model's tokenizer, or one learned from the titles; catalog, trie and prompt."""
    from transformers import AutoTokenizer

    from hf_latentrec.models.latent_reasoning.tokenization import build_bpe_tokenizer

    if model_args.model_name_or_path is None:
        titles = [title or "" for title in data.items["title"]]
        tokenizer = build_bpe_tokenizer(titles, model_args.bpe_vocab_size)
    else:
        tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    return build_processor(
        data, splits, tokenizer, args, item_tokenization="title", prompt_template=model_args.prompt_template
    )


def starting_model(stage: LatentR3Stage, processor: LatentRecProcessor, args: TitleModelArguments, folder: Path):
    """The model that a stage starts from, with the stage's thoughts."""
    if stage.start_from is not None:
        model = load_start(stage, processor, folder)
        model.config.num_thoughts = stage.num_thoughts
        return model
    settings = {"reasoner_config": {**stage.reasoner, "num_thoughts": stage.num_thoughts}}
    loading = {"revision": args.model_revision, "dtype": args.dtype, "attn_implementation": args.attn_implementation}
    return build_model(processor, args, settings, **loading)


def make_trainer(
    stage: LatentR3Stage,
    model,
    processor: LatentRecProcessor,
    splits: DatasetDict,
    validation: RecEvaluator,
    model_args: TitleModelArguments,
    stages: LatentR3StageArguments,
    args: LatentR3Config,
):
    """The trainer of a stage, with the shared settings and the stage's own in their place."""
    from hf_latentrec.data import NextItemCollator
    from hf_latentrec.trainer import LatentSFTConfig, LatentSFTTrainer, LRGRPOConfig, LRGRPOTrainer

    output_dir = str(Path(args.output_dir) / stage.name)
    data = {"train_dataset": splits["train"], "processing_class": processor}
    if stage.kind == "rl":
        changes = {"output_dir": output_dir, **stage.settings}
        if tunes_everything := not stage.settings.get("train_only_reasoner", args.train_only_reasoner):
            changes["learning_rate"] = stages.full_learning_rate
        config = stage_settings(args, LRGRPOConfig, **changes)
        peft_config = get_peft_config(model_args) if tunes_everything else None
        collator = NextItemCollator(processor)
        return LRGRPOTrainer(
            model, config, data_collator=collator, evaluator=validation, peft_config=peft_config, **data
        )
    config = stage_settings(
        args,
        LatentSFTConfig,
        output_dir=output_dir,
        num_train_epochs=stages.sft_num_train_epochs,
        learning_rate=stages.sft_learning_rate,
        per_device_train_batch_size=stages.sft_batch_size,
        per_device_eval_batch_size=stages.sft_batch_size,
        max_steps=-1,
        train_sampling_strategy="group_by_length",
        pack_histories=stages.pack_histories,
        early_stopping_patience=stages.sft_early_stopping_patience,
        eval_strategy="epoch",
        save_strategy="epoch",
        eval_on_start=False,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
    )
    peft_config = get_peft_config(model_args)
    return LatentSFTTrainer(model, config, eval_dataset=splits["validation"], peft_config=peft_config, **data)


def trained(trainer: Any, resume: bool):
    """Trains and saves a stage; its plain model, with LoRA's weights merged into it."""
    from peft import PeftModel

    from hf_latentrec.trainer import merge_lora

    train_stage(trainer, resume)
    if isinstance(trainer.model, PeftModel):
        trainer.model = merge_lora(trainer.model)
    save_stage(trainer)
    return trainer.model


def make_evaluators(
    processor: LatentRecProcessor, splits: DatasetDict, stages: LatentR3StageArguments
) -> tuple[dict[str, RecEvaluator], RecEvaluator]:
    """Evaluators of test, by what tables call their decoding, and the one of some validation users that watches RL."""
    from hf_latentrec.evaluation import RecEvaluator

    shared = {"num_beams": stages.eval_num_beams, "batch_size": stages.eval_batch_size, "ks": CUTOFFS}
    beams = {
        f"length penalty {penalty:g}": {"length_penalty": penalty, "normalize": stages.eval_normalize}
        for penalty in stages.length_penalty
    }
    settings = {
        **(beams if "constrained" in stages.decoders else {}),
        **({"grounding": {"decoder": "grounding"}} if "grounding" in stages.decoders else {}),
    }
    tests = {name: RecEvaluator(processor, splits["test"], **shared, **own) for name, own in settings.items()}
    # Always the same users, whatever the seed of training.
    users = splits["validation"].shuffle(seed=0)
    users = users.select(range(min(stages.validation_users, len(users))))
    return tests, RecEvaluator(processor, users, **shared, **next(iter(beams.values())))


def test_metrics(stage: LatentR3Stage, model, tests: dict[str, RecEvaluator], folder: Path) -> dict[str, dict]:
    """Metrics by decoding and protocol: of all users, and of those with a popular and with a long-tail target."""
    from hf_latentrec.evaluation import metrics_by_popularity

    metrics = {}
    for name, evaluator in tests.items():
        how = {"decoder": evaluator.decoder, "length_penalty": evaluator.length_penalty}
        results = evaluate_protocols(
            evaluator, model, stage, folder / "ranks", name, normalize=evaluator.normalize, **how
        )
        catalog = evaluator.processor.catalog
        targets = catalog.rows(evaluator.examples["target"])
        for protocol, result in results.items():
            row = dict(result.metrics)
            groups = metrics_by_popularity(result.ranks, targets, catalog.popularity, CUTOFFS)
            for group, members in groups.items():
                row |= {f"{group} {metric}": value for metric, value in members.metrics.items()}
                row[f"{group} users"] = members.num_users
            metrics[f"{name}, {protocol}"] = row
    return metrics


def time_thoughts(
    name: str, processor: LatentRecProcessor, histories: list, num_beams: int, folder: Path, device
) -> str:
    """One line on what the thoughts of a stage cost a user; the figures go to `latency.json`."""
    from transformers import AutoModel

    from hf_latentrec.evaluation import measure_latency

    model = AutoModel.from_pretrained(folder / name).to(device)
    latency = measure_latency(model, processor, histories, num_users=len(histories), num_beams=num_beams)
    (folder / LATENCY_FILE).write_text(json.dumps(asdict(latency), indent=2))
    return (
        f"Latency of {name}: {1000 * latency.thinking:.1f} ms per user with {latency.num_thoughts} thought(s), "
        f"{1000 * latency.not_thinking:.1f} ms without ({100 * latency.overhead:+.1f} %)"
    )


def report(results: dict[str, dict], plan_by_name: dict[str, LatentR3Stage], header: str) -> str:
    """One table per decoding and protocol, one row per stage."""
    from hf_latentrec.evaluation import format_metric_table

    lines = ["", header]
    for setting in dict.fromkeys(setting for metrics in results.values() for setting in metrics):
        rows = {plan_by_name[name].label: metrics[setting] for name, metrics in results.items() if setting in metrics}
        lines += ["", setting, format_metric_table(rows, columns=TABLE_COLUMNS)]
    return "\n".join(lines)


def main(
    data_args: TitleDataArguments,
    model_args: TitleModelArguments,
    stage_args: LatentR3StageArguments,
    args: LatentR3Config,
):
    """The whole job: data, stages, evaluation, report."""
    from accelerate import PartialState
    from transformers import set_seed

    state = PartialState()
    folder = Path(args.output_dir)
    resume = args.resume_from_checkpoint is not None
    plan_by_name = plan(model_args.num_thoughts)
    check_stages(plan_by_name, stage_args.stages, folder, resume)
    if "base" in stage_args.stages and model_args.model_name_or_path is None:
        raise ValueError("stage base prompts a pretrained model; pass --model_name_or_path, or leave the stage out")
    data, splits = load_splits(data_args, data_args.split, item_tokenization="title")
    processor = title_processor(data, splits, data_args, model_args)
    if state.is_main_process:
        print(describe_data(data, len(splits["train"]), processor))
    tests, validation = make_evaluators(processor, splits, stage_args)

    def run(stage: LatentR3Stage) -> dict:
        set_seed(args.seed)
        model = starting_model(stage, processor, model_args, folder)
        if stage.kind == "base":
            model = model.to(args.device)
        else:
            trainer = make_trainer(stage, model, processor, splits, validation, model_args, stage_args, args)
            model = trained(trainer, resume)
        return test_metrics(stage, model, tests, folder)

    results = run_stages(plan_by_name, stage_args.stages, folder, run)
    if state.is_main_process:
        header = (
            f"Test, {data_args.split}, {len(splits['test']):,} examples, whole catalog, {stage_args.eval_num_beams} "
            f"beams, probabilities over the {stage_args.eval_normalize}, seed {args.seed}, N thoughts"
        )
        print(report(results, plan_by_name, header))
        if thinking := next((name for name in ("lr_grpo", "sft") if name in results), None):
            histories = list(splits["test"]["history"][: stage_args.latency_users])
            if histories:
                print(
                    "",
                    time_thoughts(thinking, processor, histories, stage_args.eval_num_beams, folder, args.device),
                    sep="\n",
                )
            print("", describe_outcome(folder / thinking, folder / "ranks"), sep="\n")
    close(state)


if __name__ == "__main__":
    parser = TrlParser((TitleDataArguments, TitleModelArguments, LatentR3StageArguments, LatentR3Config))
    main(*parser.parse_args_and_config())
