"""A step or two of plain SGD with learning rate 1, so that the weights move by the gradient.

Run as `distributed_job.py OUT ALGORITHM ...` on any number of processes, with some of sft, evaluated_sft, grpo,
lasar_sft, lasar_grpo, lr_grpo_batch, lr_grpo_group, flr_sft, flr_grpo; the main one writes the change of every weight
to OUT/ALGORITHM.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from accelerate import PartialState
from safetensors.torch import save_file

from hf_latentrec.data import NextItemCollator, PackedHistoryCollator, pack_examples
from hf_latentrec.evaluation import RecEvaluator
from hf_latentrec.trainer import (
    FLRGRPOConfig,
    FLRGRPOTrainer,
    FLRSFTConfig,
    FLRSFTTrainer,
    LASARGRPOConfig,
    LASARGRPOTrainer,
    LASARSFTConfig,
    LASARSFTTrainer,
    LatentSFTConfig,
    LatentSFTTrainer,
    LRGRPOConfig,
    LRGRPOTrainer,
)
from tests.tiny import make_tiny_recommender
from tests.trainer.memory_anchors import MemoryAnchors


THOUGHTS = {
    "lr_grpo_batch": (2, "latent_attention"),
    "lr_grpo_group": (2, "latent_attention"),
    "flr_sft": (1, "factorized_attention"),
    "flr_grpo": (1, "factorized_attention"),
}


def train(algorithm: str, out: Path) -> None:
    num_thoughts, reasoner = THOUGHTS.get(algorithm, (2, "feedback"))
    reasoner_config, kwargs = {"reasoner": reasoner}, {}
    if algorithm.startswith("lasar"):
        num_thoughts, reasoner_config = 3, {"reasoner": reasoner, "num_thoughts": 3, "adaptive_depth": True}
    model, processor, splits = make_tiny_recommender(
        num_thoughts, reasoner_config=reasoner_config, initializer_range=0.2
    )
    if algorithm.startswith("lasar"):
        answers = list(zip(splits["train"]["user_id"], splits["train"]["target"], strict=True))
        # The first users have no text, so a process may be without any; others have more segments than thoughts.
        segments = [0 if row < 20 else row % 5 for row in range(len(answers))]
        kwargs["anchors"] = MemoryAnchors.draw(answers, segments, model.config.hidden_size)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    settings = {
        "output_dir": str(out / "run"), "max_steps": 1,
        "per_device_train_batch_size": 8 // int(os.environ["WORLD_SIZE"]),
        "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "warmup_steps": 0, "max_grad_norm": 0.0,
        "weight_decay": 0.0, "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
    }  # fmt: skip
    if algorithm.endswith("sft"):
        # Histories hold different numbers of targets, so the processes hold different numbers of tokens.
        dataset, collator = pack_examples(splits["train"]), PackedHistoryCollator(processor)
        if algorithm == "lasar_sft":
            # Two steps of two micro-batches, the last ones uneven: 3 histories, then 2 and 1 on two processes.
            dataset = dataset.select(range(15))
            settings |= {"max_steps": 2, "gradient_accumulation_steps": 2, "learning_rate": 0.2}
            settings["per_device_train_batch_size"] = 4 // int(os.environ["WORLD_SIZE"])
            config = LASARSFTConfig(**settings, align_weight=1.0, policy_weight=1.0, max_missing_cot=0.9)
            trainer_class = LASARSFTTrainer
        elif algorithm == "flr_sft":
            trainer_class, config = FLRSFTTrainer, FLRSFTConfig(**settings)
        else:
            trainer_class, config = LatentSFTTrainer, LatentSFTConfig(**settings)
    elif algorithm == "lr_grpo_group":
        dataset, collator = splits["train"], NextItemCollator(processor)
        settings |= {"noise_std": 0.5, "advantage": "group", "beta": 0.1, "train_only_reasoner": False}
        trainer_class, config = LRGRPOTrainer, LRGRPOConfig(**settings)
    elif algorithm == "lasar_grpo":
        # As below, an uneven step last; each prompt at the depth that was drawn for it.
        dataset, collator = splits["train"].select(range(17, 28)), NextItemCollator(processor)
        settings |= {"max_steps": 2, "gradient_accumulation_steps": 2, "learning_rate": 0.2}
        settings["per_device_train_batch_size"] = 4 // int(os.environ["WORLD_SIZE"])
        settings |= {"num_generations": 30, "beta": 0.1, "terminal_kl_weight": 1.0, "reinforce_coef": 1.0}
        trainer_class, config = LASARGRPOTrainer, LASARGRPOConfig(**settings, group_repair="target")
    elif algorithm in THOUGHTS:
        # A step of two micro-batches, and one of a single uneven one: 2 and 1 prompts on two processes.
        dataset, collator = splits["train"].select(range(11)), NextItemCollator(processor)
        settings |= {"max_steps": 2, "gradient_accumulation_steps": 2, "noise_std": 0.5}
        settings["per_device_train_batch_size"] = 4 // int(os.environ["WORLD_SIZE"])
        if algorithm == "flr_grpo":
            # The losses of factors have larger gradients. Log-probabilities over the catalog tell thoughts apart.
            settings |= {"learning_rate": 0.1, "beta": 0.1, "normalize": "catalog"}
            trainer_class, config = FLRGRPOTrainer, FLRGRPOConfig(**settings)
        else:
            trainer_class, config = LRGRPOTrainer, LRGRPOConfig(**settings)
    else:
        dataset, collator = splits["train"], NextItemCollator(processor)
        # Half of the catalog as candidates, so that targets are among them and rewards differ.
        trainer_class, config = LASARGRPOTrainer, LASARGRPOConfig(**settings, num_generations=30, beta=0.1)
    trainer = trainer_class(
        model, config, train_dataset=dataset, data_collator=collator, processing_class=processor, **kwargs
    )
    ranks = RecEvaluator(processor, splits["test"], num_beams=60, batch_size=4).evaluate(model).ranks
    if algorithm == "evaluated_sft":
        trainer.evaluate(dataset.select(range(2)))
    trainer.train()
    if trainer.is_world_process_zero():
        out.mkdir(parents=True, exist_ok=True)
        moved = {
            name: (parameter.detach() - before[name]).contiguous() for name, parameter in model.named_parameters()
        }
        save_file(moved, out / "moved.safetensors")
        logs = [log for log in trainer.state.log_history if "loss" in log][-1]
        logs |= {"world_size": trainer.args.world_size, "ranks": ranks.tolist()}
        (out / "logs.json").write_text(json.dumps(logs))
    PartialState().wait_for_everyone()


def main(out: Path, algorithms: list[str]) -> None:
    for algorithm in algorithms:
        train(algorithm, out / algorithm)
    PartialState().destroy_process_group()
    # Background threads of the backends now and then abort the interpreter's teardown, after the result is written.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
