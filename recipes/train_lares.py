"""
Train LARES: self-supervised pre-training (SPT), choice of samples, reinforcement post-training (RPT), test each stage.

    accelerate launch recipes/train_lares.py                                    # synthetic data, CPU, minutes
    accelerate launch recipes/train_lares.py --config recipes/configs/lares_beauty.yaml --data_dir DATA
    accelerate launch recipes/train_lares.py ... --resume_from_checkpoint true   # go on where a run stopped

Stages: `spt`, and from it `rpt`. Table 2: `spt_no_sla`, `spt_no_tla`, `spt_no_alignment` (neither), `spt_fixed_depth`,
`spt_no_pre_block`. Fig. 3: `spt_steps_1` ... `spt_steps_8`, and from each `rpt_steps_1` ... Fig. 4: `rpt_hybrid`,
`rpt_top`. Fig. 6: `rpt_ndcg`. `rpt_all_samples` learns from samples that the pre-trained model cannot reach, too.
`rpt_no_reward` is the control of `rpt`: the same steps with the divergence alone. `rpt_no_alignment` starts from
`spt_no_alignment`. Two stages train nothing: `selection` chooses the samples of `rpt` (done before it in any case),
and `depths` tests the weights of `spt` and `rpt` after every number of steps.

A stage that is complete is not run again when a run is resumed; one that was cut continues from its last checkpoint.
Tests are random, since the initial state is: every stage is tested from several, and tables show mean and spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lares_arguments import LaresModelArguments, LaresRunConfig, LaresStageArguments
from lares_depth import PICTURE, study_depths
from lares_evaluation import evaluate_states, report, table_columns
from lares_selection import selected_samples
from lares_stages import DEPTHS, SELECTION, LaresStage, make_trainer, plan, starting_model, training_settings
from publishing import describe_source, finish_cards, open_hub, publish_outcome
from sequential_arguments import SequentialDataArguments
from sequential_setup import SequentialSetup
from showing import show_recommendations
from train_sequential import check_metric
from training_setup import HelpFormatter
from training_stages import (
    check_stages,
    close,
    describe_other_tests,
    describe_outcome,
    is_complete,
    run_stages,
    trained,
)
from trl import TrlParser

from hf_latentrec.models.lares.configuration_lares import CAUSAL_BACKBONES


class LaresRecipe:
    """
    The whole job: data, stages, evaluation, report.

    Args:
        data_args, model_args, stage_args, args: as parsed.
    """

    def __init__(
        self,
        data_args: SequentialDataArguments,
        model_args: LaresModelArguments,
        stage_args: LaresStageArguments,
        args: LaresRunConfig,
    ):
        self.data_args, self.stage_args, self.args = data_args, stage_args, args
        self.settings = {"max_history": data_args.max_history, **model_args.given()}
        self.folder, self.resume = Path(args.output_dir), args.resume_from_checkpoint is not None
        self.plan = plan(model_args.mean_steps)

    def __call__(self) -> None:
        """Runs the stages that are not complete and prints what came out of all that are."""
        from accelerate import PartialState

        self.state = PartialState()
        wanted = self.stage_args.stages
        names = [name for name in wanted if name in self.plan]
        check_stages(self.plan, names, self.folder, self.resume)
        check_metric(self.args.metric_for_best_model, self.stage_args.cutoffs)
        packed = self.settings["backbone"] in CAUSAL_BACKBONES
        for name in names:  # wrong settings of post-training are found before hours of pre-training
            training_settings(self.plan[name], packed, self.stage_args, self.args, self.folder)
        if SELECTION in wanted and "spt" not in names and not is_complete(self.folder / "spt"):
            raise ValueError(f"samples are selected by {self.folder / 'spt'}, which is not complete; run spt first")
        if DEPTHS in wanted and not any(name in names or is_complete(self.folder / name) for name in ("spt", "rpt")):
            raise ValueError(f"depths tests spt and rpt, of which {self.folder} holds neither; run spt first")
        open_hub(self.args)
        self.setup = SequentialSetup.load(self.data_args, self.stage_args)
        self.print(self.setup.describe())
        results = run_stages(
            self.plan, names, self.folder, self.run_stage, self.tests(), self.setup.test.split_fingerprint
        )
        if SELECTION in wanted:
            self.select()
        if results:
            self.finish_cards(results)
            self.print(self.closing_words(results))
        if DEPTHS in wanted:
            self.study_depths()
        close(self.state)
        if results:
            publish_outcome(self.args, self.folder / self.main(results))

    def run_stage(self, stage: LaresStage) -> dict[str, dict[str, float]]:
        """Trains and tests a stage; its mean metrics by protocol."""
        from transformers import set_seed

        set_seed(self.args.seed)
        model = starting_model(stage, self.setup, self.settings, self.stage_args, self.folder)
        trainer = make_trainer(stage, model, self.setup, self.stage_args, self.args, self.folder)
        model = trained(trainer, self.resume)
        return evaluate_states(stage, model, self.setup.test, self.stage_args, self.folder, self.args.seed)

    def select(self) -> None:
        """Chooses the samples of `rpt`, where that is not done yet."""
        from hf_latentrec.data import SequenceDataset

        model = starting_model(self.plan["rpt"], self.setup, self.settings, self.stage_args, self.folder)
        max_history = model.config.max_history
        rows = SequenceDataset(self.setup.splits["train"], self.setup.items, max_history, packed=model.causal)
        selected_samples(self.folder / "spt", model.to(self.args.device), rows, self.stage_args, self.args.seed)

    def study_depths(self) -> None:
        """Tests the weights of `spt` and `rpt` after every number of steps."""
        names = [name for name in ("spt", "rpt") if is_complete(self.folder / name)]
        models = {self.plan[name].label: self.folder / name for name in names}
        study_depths(models, self.setup.test, self.stage_args, self.folder / PICTURE, self.args.device)

    def closing_words(self, results: Mapping[str, dict]) -> str:
        """The tables, and where the model is."""
        examples, all_examples = len(self.setup.test.examples), len(self.setup.splits["test"])
        who = f"{examples:,} examples" + ("" if examples == all_examples else f" of {all_examples:,} drawn at random")
        header = (
            f"\nTest, {self.data_args.split}, {who}, whole catalog, seed {self.args.seed}, mean and spread over "
            f"{self.stage_args.eval_seeds} initial states"
        )
        labels = {name: self.plan[name].label for name in results}
        header += describe_other_tests(self.folder, labels, self.tests())
        outcome = describe_outcome(self.folder / self.main(results), self.folder / "ranks", has_processor=False)
        words = [report(self.folder, labels, header, table_columns(self.stage_args.cutoffs)), outcome]
        if self.stage_args.show_users:
            model_folder, test = self.folder / self.main(results), self.setup.splits["test"]
            words.append(show_recommendations(model_folder, test, self.setup.data.items, self.stage_args.show_users))
        return "\n\n".join(words)

    def main(self, results: Mapping[str, dict]) -> str:
        """The stage that the run is about."""
        return "rpt" if "rpt" in results else list(results)[-1]

    def finish_cards(self, results: Mapping[str, dict]) -> None:
        """Data and test results, in the cards of all stages."""
        finish_cards(
            self.folder,
            self.main(results),
            results,
            {name: stage.label for name, stage in self.plan.items()},
            describe_source(self.setup.data, self.data_args),
            self.tests(),
        )

    def tests(self) -> dict[str, int]:
        """How stages are tested in this run."""
        return {
            "users": len(self.setup.test.examples),
            "initial states (the metrics are means over them)": self.stage_args.eval_seeds,
            "seed": self.args.seed,
        }

    def print(self, text: str) -> None:
        """Once, however many processes there are."""
        if self.state.is_main_process:
            print(text, flush=True)


def main(
    data_args: SequentialDataArguments,
    model_args: LaresModelArguments,
    stage_args: LaresStageArguments,
    args: LaresRunConfig,
):
    """The whole job, for parsed arguments."""
    LaresRecipe(data_args, model_args, stage_args, args)()


ARGUMENTS = (SequentialDataArguments, LaresModelArguments, LaresStageArguments, LaresRunConfig)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
