"""
Train LatentR³: fine-tune a model that thinks before it writes the next title, reinforce its thoughts, test each stage.

    accelerate launch recipes/train_latentr3.py                                   # synthetic data, CPU, minutes
    accelerate launch recipes/train_latentr3.py --config recipes/configs/latentr3_scientific.yaml --data_dir DATA
    accelerate launch recipes/train_latentr3.py ... --resume_from_checkpoint true  # go on where a run stopped

Stages: `base` (the pretrained model, prompted), `no_reasoning` (fine-tuned without thoughts: BIGRec, D³), `sft` (with
N thoughts), `lr_grpo` (from sft), and the ablations `group_advantage`, `original_grpo`, `more_thoughts` (N + 1, from
lr_grpo), `no_latentratt`, `no_latentratt_grpo`. All fine-tuning has the same budget, and so has all reinforcement.
Runs of several seeds are put together by compare_seeds.py.
"""

from __future__ import annotations

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
from title_evaluation import evaluate_stage, make_evaluators, report, time_thoughts
from training_setup import build_model, build_processor, load_splits
from training_stages import (
    check_stages,
    close,
    describe_data,
    describe_outcome,
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
        batch_size = args.per_device_train_batch_size
        changes = {"output_dir": output_dir, "per_device_eval_batch_size": batch_size, **stage.settings}
        if tunes_everything := not stage.settings.get("train_only_reasoner", args.train_only_reasoner):
            changes["learning_rate"] = stages.full_learning_rate
        config = stage_settings(args, LRGRPOConfig, **changes)
        peft_config = get_peft_config(model_args) if tunes_everything else None
        collator = NextItemCollator(processor)
        return LRGRPOTrainer(
            model,
            config,
            data_collator=collator,
            evaluator=validation,
            eval_dataset=validation.examples,  # its rewards, beside its ranks
            peft_config=peft_config,
            **data,
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
    return LatentSFTTrainer(model, config, eval_dataset=validation.examples, peft_config=peft_config, **data)


def trained(trainer: Any, resume: bool):
    """Trains and saves a stage; its plain model, with LoRA's weights merged into it."""
    from peft import PeftModel

    from hf_latentrec.trainer import merge_lora

    train_stage(trainer, resume)
    if isinstance(trainer.model, PeftModel):
        trainer.model = merge_lora(trainer.model)
    save_stage(trainer)
    return trainer.model


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
        return evaluate_stage(stage, model, tests, folder / "ranks")

    results = run_stages(plan_by_name, stage_args.stages, folder, run)
    if state.is_main_process:
        header = (
            f"Test, {data_args.split}, {len(splits['test']):,} examples, whole catalog, {stage_args.eval_num_beams} "
            f"beams, probabilities over the {stage_args.eval_normalize}, seed {args.seed}, N thoughts (0: none)"
        )
        labels = {name: plan_by_name[name].label for name in results}
        print("", report(results, labels, header), sep="\n")
        histories = list(splits["test"]["history"][: stage_args.latency_users])
        thinking = [name for name in results if plan_by_name[name].num_thoughts > 0]
        if histories and thinking:
            print("", time_thoughts(folder / thinking[0], histories, stage_args.eval_num_beams, args.device), sep="\n")
        final = "lr_grpo" if "lr_grpo" in results else list(results)[-1]
        print("", describe_outcome(folder / final, folder / "ranks"), sep="\n")
    close(state)


if __name__ == "__main__":
    parser = TrlParser((TitleDataArguments, TitleModelArguments, LatentR3StageArguments, LatentR3Config))
    main(*parser.parse_args_and_config())
