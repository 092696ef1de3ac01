"""
Train LASAR: ground the items (stage 1), align thoughts with a teacher's text (stage 2), reinforce, test each stage.

    accelerate launch recipes/train_lasar.py                                   # synthetic data, CPU, minutes
    accelerate launch recipes/train_lasar.py --config recipes/configs/lasar_beauty.yaml --data_dir DATA
    accelerate launch recipes/train_lasar.py ... --resume_from_checkpoint true  # go on where a run stopped

Stages: `stage1` (no thoughts). From it `stage2` (thoughts of adaptive depth, aligned by KL divergence) and, with other
alignments, `stage2_none`, `stage2_cosine`, `stage2_mse` (Table 2). From stage2 `grpo` (terminal KL and REINFORCE) and
`grpo_plain` (neither), `grpo_terminal` (no REINFORCE), `grpo_repair` (all, and groups without a hit get the target;
Table 3). Controls with the same steps and no thoughts: `stage2_control`, from it `grpo_control`. `mixed` learns items
and thoughts in one stage, and `explicit_cot`, from stage1, to write the teacher's text before the answer.

Teacher's text, segments and anchors are made before the first stage that needs them, or by the stage `anchors`. A
stage that is complete is not run again when a run is resumed; a stage that was cut continues from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lasar_anchors import open_anchors, teacher_text, with_text
from lasar_arguments import CoTArguments, LasarConfig, LasarModelArguments, LasarStageArguments
from lasar_evaluation import evaluate_stage, make_evaluators, report, save_history
from lasar_stages import ANCHORS, LasarStage, code_processor, make_trainer, plan, starting_model
from publishing import describe_source, finish_cards, open_hub, publish_outcome
from showing import show_recommendations
from training_setup import DataArguments, HelpFormatter, load_splits, some_users
from training_stages import (
    check_stages,
    close,
    describe_data,
    describe_other_tests,
    describe_outcome,
    is_complete,
    run_stages,
    trained,
)
from trl import TrlParser


if TYPE_CHECKING:
    from datasets import Dataset

    from hf_latentrec.cot import AnchorStore


class LasarRecipe:
    """
    The whole job: data, stages, evaluation, report.

    Args:
        data_args, model_args, cot_args, stage_args, args: as parsed.
    """

    def __init__(
        self,
        data_args: DataArguments,
        model_args: LasarModelArguments,
        cot_args: CoTArguments,
        stage_args: LasarStageArguments,
        args: LasarConfig,
    ):
        self.data_args, self.model_args, self.cot_args = data_args, model_args, cot_args
        self.stage_args, self.args = stage_args, args
        self.folder, self.resume = Path(args.output_dir), args.resume_from_checkpoint is not None
        self.plan = plan(model_args.num_thoughts)

    def __call__(self) -> None:
        """Runs the stages that are not complete and prints what came out of all that are."""
        from accelerate import PartialState

        self.state = PartialState()
        names = [name for name in self.stage_args.stages if name != ANCHORS]
        self.check(names)
        open_hub(self.args)
        self.data, self.splits = load_splits(self.data_args, item_tokenization="semantic_id")
        self.processor = code_processor(self.data, self.splits, self.data_args, self.model_args)
        self.print(describe_data(self.data, len(self.splits["train"]), self.processor))
        results = run_stages(
            self.plan, names, self.folder, self.run_stage, self.tests(), self.processor.split_fingerprint
        )
        if ANCHORS in self.stage_args.stages:
            _ = self.anchors
        if results:
            self.finish_cards(results)
            self.print(self.closing_words(results))
        close(self.state)
        if results:
            publish_outcome(self.args, self.folder / self.main(results))

    def check(self, names: list[str]) -> None:
        """Before anything is loaded: the stages can run, and every forced depth is one that a model may have."""
        check_stages(self.plan, names, self.folder, self.resume)
        if ANCHORS in self.stage_args.stages and "stage1" not in names and not is_complete(self.folder / "stage1"):
            raise ValueError(f"anchors are made by {self.folder / 'stage1'}, which is not complete; run stage1 first")
        deepest = max(self.stage_args.force_thoughts, default=0)
        if deepest > self.model_args.num_thoughts:
            raise ValueError(
                f"force_thoughts holds {deepest}, but num_thoughts (N_max) is {self.model_args.num_thoughts}, so no "
                "stage has learned from so many thoughts; pass smaller depths"
            )

    def run_stage(self, stage: LasarStage) -> dict[str, dict[str, float]]:
        """Trains and tests a stage; its metrics."""
        from transformers import set_seed

        from hf_latentrec.data import training_popularity

        anchors = self.anchors if stage.uses_anchors else None
        set_seed(self.args.seed)
        model = starting_model(stage, self.processor, self.model_args, self.folder)
        trainer = make_trainer(
            stage,
            model,
            self.processor,
            *self.examples(stage),
            anchors,
            self.model_args,
            self.stage_args,
            self.cot_args,
            self.args,
        )
        model = trained(trainer, self.resume)
        if stage.reinforces and self.state.is_main_process:
            print(save_history(trainer.state.log_history, self.folder / stage.name))
        evaluators = make_evaluators(
            stage, self.processor, self.splits["test"], self.stage_args, self.cot_args.max_cot_tokens
        )
        popularity = training_popularity(self.splits["train"], self.processor.catalog.item_ids)
        ranks_folder, protocols = self.folder / "ranks", self.stage_args.eval_protocols
        return evaluate_stage(stage, model, evaluators, ranks_folder, protocols, popularity)

    def examples(self, stage: LasarStage) -> tuple[Dataset, Dataset | None]:
        """What a stage learns, and what validates it; with text, where it writes some."""
        train = self.splits["train"]
        validation = some_users(self.splits["validation"], self.stage_args.validation_users)
        if not stage.writes_text:
            return train, validation
        share = self.cot_args.max_missing_cot
        train = with_text(train, self.text, share, "training")
        if self.stage_args.sft_early_stopping_patience is None:
            return train, None
        return train, with_text(validation, self.write(validation), share, "validation")

    @cached_property
    def text(self) -> Dataset:
        """The teacher's text of the training examples."""
        return self.write(self.splits["train"])

    def write(self, examples: Dataset) -> Dataset:
        """The teacher's text of some examples."""
        return teacher_text(self.cot_args.cot_file, examples, self.data.items, self.print)

    @cached_property
    def anchors(self) -> AnchorStore:
        """The anchors of stage 1, made where there are none yet."""
        return open_anchors(
            self.folder,
            self.text,
            self.cot_args.segmenter,
            self.model_args.num_thoughts,
            self.cot_args.rebuild_anchors,
            self.args.device,
            self.print,
        )

    def closing_words(self, results: Mapping[str, dict]) -> str:
        """The tables, and where the model is."""
        args = self.stage_args
        users, all_users = len(some_users(self.splits["test"], args.eval_users)), len(self.splits["test"])
        who = f"{users:,} users" if users == all_users else f"{users:,} of {all_users:,} users drawn at random"
        header = (
            f"\nTest, {self.data_args.split}, {who}, whole catalog, {args.eval_num_beams} beams, "
            f"seed {self.args.seed}, mean N: thoughts of a user"
        )
        labels = {name: self.plan[name].label for name in results}
        tables = report(results, labels, header + describe_other_tests(self.folder, labels, self.tests()))
        model_folder = self.folder / self.main(results)
        words = [tables, describe_outcome(model_folder, self.folder / "ranks")]
        if args.show_users:
            words.append(show_recommendations(model_folder, self.splits["test"], self.data.items, args.show_users))
        return "\n\n".join(words)

    def main(self, results: Mapping[str, dict]) -> str:
        """The stage that the run is about."""
        return "grpo" if "grpo" in results else list(results)[-1]

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

    def tests(self) -> dict[str, int]:
        """How stages are tested in this run."""
        users = len(some_users(self.splits["test"], self.stage_args.eval_users))
        return {"users": users, "beams": self.stage_args.eval_num_beams, "seed": self.args.seed}

    def print(self, text: str) -> None:
        """Once, however many processes there are."""
        if self.state.is_main_process:
            print(text, flush=True)


def main(
    data_args: DataArguments,
    model_args: LasarModelArguments,
    cot_args: CoTArguments,
    stage_args: LasarStageArguments,
    args: LasarConfig,
):
    """The whole job, for parsed arguments."""
    LasarRecipe(data_args, model_args, cot_args, stage_args, args)()


ARGUMENTS = (DataArguments, LasarModelArguments, CoTArguments, LasarStageArguments, LasarConfig)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
