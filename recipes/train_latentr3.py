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

from latentr3_arguments import LatentR3Config, LatentR3ModelArguments, LatentR3StageArguments, plan
from title_arguments import TitleDataArguments
from title_stages import TitleRecipe
from training_setup import HelpFormatter
from trl import TrlParser


def main(
    data_args: TitleDataArguments,
    model_args: LatentR3ModelArguments,
    stage_args: LatentR3StageArguments,
    args: LatentR3Config,
):
    """The whole job: data, stages, evaluation, report."""
    TitleRecipe(plan(model_args.num_thoughts), "lr_grpo", "sft", data_args, model_args, stage_args, args)()


ARGUMENTS = (TitleDataArguments, LatentR3ModelArguments, LatentR3StageArguments, LatentR3Config)

if __name__ == "__main__":
    main(*TrlParser(ARGUMENTS, description=__doc__, formatter_class=HelpFormatter).parse_args_and_config())
