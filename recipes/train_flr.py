"""
Train FLR: fine-tune a model whose thought is made of factors, reinforce it, test each stage, measure the factors.

    accelerate launch recipes/train_flr.py                                   # synthetic data, CPU, minutes
    accelerate launch recipes/train_flr.py --config recipes/configs/flr_scientific.yaml --data_dir DATA
    accelerate launch recipes/train_flr.py ... --resume_from_checkpoint true  # go on where a run stopped

Stages: `no_reasoning` (fine-tuned without a thought), `latentr3` (with one thought of LatentR³), `flr` (with one of K
factors, all factor losses on); from flr `lr_grpo` and `flr_grpo`, from latentr3 `latentr3_lr_grpo`; and as ablations
`none`, `diversity`, `orthogonality`, `sparsity` and pairs such as `diversity_sparsity` (factor losses that are on),
`factors_1` to `factors_8` (K). All fine-tuning has the same budget, and so has all reinforcement.
Runs of several seeds are put together by compare_seeds.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from flr_arguments import TABLE_3, FLRConfig, FLRModelArguments, FLRStageArguments, plan
from flr_factors import factor_table, measure_stages
from title_arguments import TitleDataArguments
from title_stages import TitleRecipe
from training_setup import HelpFormatter
from trl import TrlParser


class FLRRecipe(TitleRecipe):
    """The whole job, with the factors of every model that has some."""

    def closing_words(self, results: Mapping[str, dict]) -> list[str]:
        """As of every recipe over titles, and a table of the factors."""
        tables, *words = super().closing_words(results)
        histories = list(self.splits["test"]["history"][: self.stage_args.factor_users])
        if histories:
            measure_stages(self.folder, results, histories, self.stage_args.eval_batch_size, self.args.device)
        return [tables, *factor_table(self.folder, {name: self.plan[name].label for name in results}), *words]


def check_weights(stages: list[str], args: FLRConfig) -> None:
    """Fixed weights are there for every loss of every row of Table 3."""
    if args.factor_loss_weights is None:
        return
    for stage in stages:
        if missing := sorted(set(TABLE_3.get(stage, [])) - set(args.factor_losses)):
            raise ValueError(
                f"stage {stage} needs a weight of {missing[0]!r}, but factor_losses is {args.factor_losses}, "
                f"factor_loss_weights {args.factor_loss_weights}; give all losses and a weight of each, or no weights "
                "(they are learned then)"
            )


def main(data_args: TitleDataArguments, model_args: FLRModelArguments, stage_args: FLRStageArguments, args: FLRConfig):
    """The whole job: data, stages, evaluation, report."""
    check_weights(stage_args.stages, args)
    stages = plan(model_args.num_factors, model_args.factor_iterations, args.factor_losses, args.factor_loss_weights)
    FLRRecipe(stages, "flr_grpo", "flr", data_args, model_args, stage_args, args)()


ARGUMENTS = (TitleDataArguments, FLRModelArguments, FLRStageArguments, FLRConfig)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
