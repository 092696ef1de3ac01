"""
Train and test recommenders of item ids: SASRec, GRU4Rec, Caser, BERT4Rec, FMLP-Rec, BSARec, CL4SRec, DuoRec, TedRec,
ReaRec, and, without training, popularity and item-KNN.

    python recipes/train_sequential.py --model sasrec                               # synthetic data, CPU, a minute
    python recipes/train_sequential.py --config recipes/configs/sasrec_beauty.yaml --data_dir DATA
    accelerate launch recipes/train_sequential.py --model popularity gru4rec sasrec duorec
    python recipes/train_sequential.py ... --resume_from_checkpoint true             # go on where a run stopped

Every model has a folder of its own in output_dir, with test_metrics.json; per-user ranks are in ranks/. Training keeps
the epoch that is best for the validation users. Tables show all models that output_dir holds, so more can be added
one by one. Runs of several seeds are put together by compare_seeds.py; LARES has a recipe of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from publishing import describe_source, finish_cards, open_hub, publish_outcome
from sequential_arguments import (
    SequentialDataArguments,
    SequentialModelArguments,
    SequentialRunConfig,
    SequentialTestArguments,
    check_metric,
)
from sequential_setup import SequentialSetup
from sequential_stages import SequentialStage, plan
from showing import show_recommendations
from training_setup import HelpFormatter
from training_stages import (
    check_stages,
    close,
    describe_other_tests,
    describe_outcome,
    evaluate_protocols,
    is_complete,
    report,
    run_stages,
    trained,
)
from trl import TrlParser


class SequentialRecipe:
    """
    The whole job: data, models, evaluation, report.

    Args:
        data_args, model_args, test_args, args: as parsed.
    """

    def __init__(
        self,
        data_args: SequentialDataArguments,
        model_args: SequentialModelArguments,
        test_args: SequentialTestArguments,
        args: SequentialRunConfig,
    ):
        self.data_args, self.test_args, self.args = data_args, test_args, args
        self.names = model_args.model
        self.settings = {"max_history": data_args.max_history, **model_args.given()}
        self.folder, self.resume = Path(args.output_dir), args.resume_from_checkpoint is not None
        self.plan = plan()

    def __call__(self) -> None:
        """Trains and tests the models that are not complete and prints what came out of all that are."""
        from accelerate import PartialState

        from hf_latentrec.models.sequential.item_knn import import_cosine

        state = PartialState()
        check_stages(self.plan, self.names, self.folder, self.resume)
        check_metric(self.args.metric_for_best_model, self.test_args.cutoffs)
        open_hub(self.args)
        self.setup = SequentialSetup.load(self.data_args, self.test_args)
        for name in self.names:  # not when the models before it are trained
            self.setup.config(self.plan[name], self.settings)
            if name == "item_knn" and not is_complete(self.folder / name):
                import_cosine()
        if state.is_main_process:
            print(self.setup.describe(), flush=True)
        results = run_stages(
            self.plan, self.names, self.folder, self.run_stage, self.tests(), self.setup.test.split_fingerprint
        )
        self.finish_cards(results)
        if state.is_main_process:
            print(self.closing_words(results))
        close(state)
        publish_outcome(self.args, self.folder / self.names[-1])

    def run_stage(self, stage: SequentialStage) -> dict[str, dict[str, float]]:
        """Trains and tests a model; its metrics by protocol."""
        from accelerate import PartialState
        from transformers import set_seed

        set_seed(self.args.seed)
        model = self.setup.model(stage, self.settings)
        if stage.is_trained:
            model = trained(self.setup.trainer(stage, model, self.args), self.resume)
        else:
            model = model.to(self.args.device)
            model.save_pretrained(self.folder / stage.name, is_main_process=PartialState().is_main_process)
        results = evaluate_protocols(
            self.setup.test,
            model,
            stage,
            self.folder / "ranks",
            protocols=self.test_args.eval_protocols,
            seed=self.args.seed,
        )
        cold = {"cold targets": self.setup.num_cold_targets}
        return {protocol: {**result.metrics, **cold} for protocol, result in results.items()}

    def closing_words(self, results: Mapping[str, dict]) -> str:
        """The tables, and where the model is."""
        users, all_users = len(self.setup.test.examples), len(self.setup.splits["test"])
        who = f"{users:,} examples" if users == all_users else f"{users:,} of {all_users:,} examples drawn at random"
        header = f"\nTest, {self.data_args.split}, {who}, whole catalog, seed {self.args.seed}"
        labels = {name: self.plan[name].label for name in results}
        header += describe_other_tests(self.folder, labels, self.tests())
        columns = [f"{metric}@{k}" for k in self.test_args.cutoffs for metric in ("HR", "NDCG")]
        tables = report(results, labels, header, columns)
        outcome = describe_outcome(self.folder / self.names[-1], self.folder / "ranks", has_processor=False)
        words = [tables, outcome]
        if self.test_args.show_users:
            model_folder, test = self.folder / self.names[-1], self.setup.splits["test"]
            words.append(show_recommendations(model_folder, test, self.setup.data.items, self.test_args.show_users))
        return "\n\n".join(words)

    def finish_cards(self, results: Mapping[str, dict]) -> None:
        """Data and test results, in the cards of all models."""
        finish_cards(
            self.folder,
            self.names[-1],
            results,
            {name: stage.label for name, stage in self.plan.items()},
            describe_source(self.setup.data, self.data_args),
            self.tests(),
        )

    def tests(self) -> dict[str, int]:
        """How models are tested in this run."""
        return {"users": len(self.setup.test.examples), "seed": self.args.seed}


def main(
    data_args: SequentialDataArguments,
    model_args: SequentialModelArguments,
    test_args: SequentialTestArguments,
    args: SequentialRunConfig,
):
    """The whole job, for parsed arguments."""
    SequentialRecipe(data_args, model_args, test_args, args)()


ARGUMENTS = (SequentialDataArguments, SequentialModelArguments, SequentialTestArguments, SequentialRunConfig)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
