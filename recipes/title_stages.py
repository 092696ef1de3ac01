"""What recipes over titles do alike: how a stage starts and trains, and the whole job from data to report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publishing import describe_source, finish_cards, open_hub, publish_outcome
from showing import show_recommendations
from title_evaluation import TABLE_COLUMNS, evaluate_stage, make_evaluators, time_thoughts
from training_setup import build_model, build_processor, load_splits, model_settings
from training_stages import (
    Stage,
    check_same_settings,
    check_stages,
    close,
    describe_data,
    describe_other_tests,
    describe_outcome,
    load_start,
    report,
    run_stages,
    stage_settings,
    trained,
)
from trl import get_peft_config


if TYPE_CHECKING:
    from datasets import DatasetDict

    from hf_latentrec import LatentRecProcessor
    from hf_latentrec.evaluation import RecEvaluator


@dataclass(frozen=True)
class TitleStage(Stage):
    """
    A stage of a recipe over titles.

    Args:
        algorithm (`str`, *optional*): what trains it, by the name that a trainer and its settings share (`"LRGRPO"` of
            `LRGRPOTrainer` and `LRGRPOConfig`); `None` for no training. One that ends with `"GRPO"` is reinforcement
            learning, all others fine-tune.
        reasoner (`dict`, *optional*): the reasoner's settings beside `num_thoughts`; a stage that starts from another
            keeps those of its model, which must be these.
        settings (`dict`, *optional*): of the trainer, beside the shared ones.
    """

    algorithm: str | None = "LatentSFT"
    reasoner: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)

    @property
    def reinforces(self) -> bool:
        """Whether the stage is reinforcement learning."""
        return self.algorithm is not None and self.algorithm.endswith("GRPO")


def title_processor(data: Any, splits: DatasetDict, args: Any, model_args: Any) -> LatentRecProcessor:
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


def starting_model(stage: TitleStage, processor: LatentRecProcessor, args: Any, folder: Path):
    """The model that a stage starts from, with the stage's thoughts."""
    if stage.start_from is not None:
        loading = {"dtype": args.dtype, "attn_implementation": args.attn_implementation}
        model = load_start(stage, processor, model_settings(args), folder, **loading)
        check_same_settings(folder / stage.start_from, model.config.to_dict()["reasoner_config"], stage.reasoner)
        model.config.num_thoughts = stage.num_thoughts
        return model
    settings = {"reasoner_config": {**stage.reasoner, "num_thoughts": stage.num_thoughts}}
    loading = {"revision": args.model_revision, "dtype": args.dtype, "attn_implementation": args.attn_implementation}
    return build_model(processor, args, settings, **loading)


def rl_changes(stage: TitleStage, stage_args: Any, args: Any) -> dict[str, Any]:
    """What a stage of reinforcement learning changes in the plain settings."""
    tunes_everything = not stage.settings.get("train_only_reasoner", args.train_only_reasoner)
    learning_rate = stage_args.full_learning_rate if tunes_everything else args.learning_rate
    return {"learning_rate": learning_rate, "per_device_eval_batch_size": args.per_device_train_batch_size}


def sft_changes(stage_args: Any) -> dict[str, Any]:
    """What a stage of fine-tuning changes in the plain settings."""
    return {
        "num_train_epochs": stage_args.sft_num_train_epochs,
        "learning_rate": stage_args.sft_learning_rate,
        "per_device_train_batch_size": stage_args.sft_batch_size,
        "per_device_eval_batch_size": stage_args.sft_batch_size,
        "max_steps": -1,
        "train_sampling_strategy": "group_by_length",
        "pack_histories": stage_args.pack_histories,
        "early_stopping_patience": stage_args.sft_early_stopping_patience,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "eval_on_start": False,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
    }


def make_trainer(
    stage: TitleStage,
    model: Any,
    processor: LatentRecProcessor,
    splits: DatasetDict,
    validation: RecEvaluator,
    model_args: Any,
    stage_args: Any,
    args: Any,
):
    """The trainer of a stage, with the shared settings and the stage's own in their place."""
    import hf_latentrec.trainer
    from hf_latentrec.data import NextItemCollator

    trainer_class = getattr(hf_latentrec.trainer, f"{stage.algorithm}Trainer")
    config_class = getattr(hf_latentrec.trainer, f"{stage.algorithm}Config")
    changes = rl_changes(stage, stage_args, args) if stage.reinforces else sft_changes(stage_args)
    changes |= {"output_dir": str(Path(args.output_dir) / stage.name), **stage.settings}
    config = stage_settings(args, config_class, **changes)
    shared = {
        "train_dataset": splits["train"],
        "eval_dataset": validation.examples,  # in RL, its rewards beside its ranks
        "processing_class": processor,
    }
    if not stage.reinforces:
        return trainer_class(model, config, peft_config=get_peft_config(model_args), **shared)
    peft_config = None if config.train_only_reasoner else get_peft_config(model_args)
    collator = NextItemCollator(processor)
    return trainer_class(
        model, config, data_collator=collator, evaluator=validation, peft_config=peft_config, **shared
    )


class TitleRecipe:
    """
    The whole job: data, stages, evaluation, report.

    Args:
        plan (`Mapping[str, TitleStage]`): all stages by name.
        main_stage (`str`): the stage whose model the last words point to, where there is one.
        timed_stage (`str`): the stage whose thoughts are timed, where there is one; else the first that thinks.
        data_args, model_args, stage_args, args: as parsed: `TitleDataArguments`, `TitleModelArguments`,
            `TitleStageArguments` with `stages`, and the settings of reinforcement learning.
    """

    def __init__(
        self,
        plan: Mapping[str, TitleStage],
        main_stage: str,
        timed_stage: str,
        data_args: Any,
        model_args: Any,
        stage_args: Any,
        args: Any,
    ):
        self.plan, self.main_stage, self.timed_stage = plan, main_stage, timed_stage
        self.data_args, self.model_args, self.stage_args, self.args = data_args, model_args, stage_args, args
        self.folder = Path(args.output_dir)
        self.resume = args.resume_from_checkpoint is not None

    def __call__(self) -> None:
        """Runs the stages that are not complete and prints what came out of all that are."""
        from accelerate import PartialState

        state = PartialState()
        self.check()
        open_hub(self.args)
        self.data, self.splits = load_splits(self.data_args, item_tokenization="title")
        self.processor = title_processor(self.data, self.splits, self.data_args, self.model_args)
        if state.is_main_process:
            print(describe_data(self.data, len(self.splits["train"]), self.processor))
        self.evaluators, self.validation = make_evaluators(self.processor, self.splits, self.stage_args)
        results = run_stages(
            self.plan,
            self.stage_args.stages,
            self.folder,
            self.run_stage,
            self.tests(),
            self.processor.split_fingerprint,
        )
        self.finish_cards(results)
        if state.is_main_process:
            for paragraph in self.closing_words(results):
                print("", paragraph, sep="\n")
        close(state)
        publish_outcome(self.args, self.folder / self.main(results))

    def check(self) -> None:
        """Before anything is loaded: the stages can run."""
        names = self.stage_args.stages
        check_stages(self.plan, names, self.folder, self.resume)
        untrained = [name for name in names if self.plan[name].algorithm is None]
        if untrained and self.model_args.model_name_or_path is None:
            raise ValueError(
                f"stage {untrained[0]} prompts a pretrained model; pass --model_name_or_path, or leave the stage out"
            )

    def run_stage(self, stage: TitleStage) -> dict[str, dict[str, float]]:
        """Trains and tests a stage; its metrics."""
        from transformers import set_seed

        from hf_latentrec.data import training_popularity

        set_seed(self.args.seed)
        model = starting_model(stage, self.processor, self.model_args, self.folder)
        if stage.algorithm is None:
            model = model.to(self.args.device)
        else:
            trainer = make_trainer(
                stage,
                model,
                self.processor,
                self.splits,
                self.validation,
                self.model_args,
                self.stage_args,
                self.args,
            )
            model = trained(trainer, self.resume)
        popularity = training_popularity(self.splits["train"], self.processor.catalog.item_ids)
        ranks_folder, protocols = self.folder / "ranks", self.stage_args.eval_protocols
        return evaluate_stage(stage, model, self.evaluators, ranks_folder, protocols, popularity)

    def closing_words(self, results: Mapping[str, dict]) -> list[str]:
        """Tables, the time that thoughts take, and where the model is."""
        args = self.stage_args
        header = (
            f"Test, {self.data_args.split}, {len(self.splits['test']):,} examples, whole catalog, "
            f"{args.eval_num_beams} beams, probabilities over the {args.eval_normalize}, seed {self.args.seed}, "
            "N thoughts (0: none)"
        )
        labels = {name: self.plan[name].label for name in results}
        header += describe_other_tests(self.folder, labels, self.tests())
        words = [report(results, labels, header, TABLE_COLUMNS)]
        histories = list(self.splits["test"]["history"][: args.latency_users])
        thinking = [name for name in results if self.plan[name].num_thoughts > 0]
        if histories and thinking:
            timed = self.timed_stage if self.timed_stage in thinking else thinking[0]
            words.append(time_thoughts(self.folder / timed, histories, args.eval_num_beams, self.args.device))
        model_folder = self.folder / self.main(results)
        words.append(describe_outcome(model_folder, self.folder / "ranks"))
        if args.show_users:
            words.append(show_recommendations(model_folder, self.splits["test"], self.data.items, args.show_users))
        return words

    def main(self, results: Mapping[str, dict]) -> str:
        """The stage that the run is about."""
        return self.main_stage if self.main_stage in results else list(results)[-1]

    def finish_cards(self, results: Mapping[str, dict]) -> None:
        """Data and test results, in the cards of all stages."""
        finish_cards(
            self.folder,
            self.main(results),
            results,
            {name: stage.label for name, stage in self.plan.items()},
            describe_source(self.data, self.data_args),
            self.tests(),
            self.model_args.model_name_or_path,
        )

    def tests(self) -> dict[str, Any]:
        """How stages are tested in this run."""
        return {
            "users": len(self.splits["test"]),
            "beams": self.stage_args.eval_num_beams,
            "probabilities over the": self.stage_args.eval_normalize,
            "seed": self.args.seed,
        }


__all__ = ["TitleRecipe", "TitleStage"]
