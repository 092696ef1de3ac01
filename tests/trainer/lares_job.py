"""Two steps of reinforcement post-training by plain SGD, so that the weights move by the gradient.

Run as `lares_job.py OUT` on any number of processes; the main one writes the change of every weight.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from accelerate import PartialState
from safetensors.torch import save_file

from hf_latentrec.evaluation import SequentialEvaluator
from hf_latentrec.trainer import LaresGRPOConfig, LaresGRPOTrainer, SelectedSamples, select_samples
from tests.trainer.lares_toys import make_toy


def main(out: Path) -> None:
    model, dataset, splits = make_toy(num_users=24)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    state = PartialState(cpu=True)
    samples = select_samples(model, dataset, num_trials=2, top=30, batch_size=7)
    num_processes = state.num_processes
    # Two micro-batches a step of histories with different numbers of targets; the last step is uneven.
    args = LaresGRPOConfig(
        out / "run", use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=1, max_steps=2,
        max_grad_norm=0.0, per_device_train_batch_size=8 // num_processes, gradient_accumulation_steps=2,
        optim="sgd", learning_rate=0.01, beta=0.05, reward_k=25, policy="hybrid",
    )  # fmt: skip
    trainer = LaresGRPOTrainer(model, args, train_dataset=SelectedSamples(dataset, samples))
    assert len(trainer.train_dataset) % 16 not in (0, 8)
    trainer.train()
    ranks = SequentialEvaluator(splits["test"], batch_size=5, seed=1).evaluate(trainer.model).ranks
    if state.is_main_process:
        moved = {
            name: (parameter.detach() - before[name]).contiguous() for name, parameter in model.named_parameters()
        }
        save_file(moved, out / "moved.safetensors")
        logs = [log for log in trainer.state.log_history if "loss" in log]
        found = {"logs": logs, "samples": samples.tolist(), "ranks": ranks.tolist(), "world_size": num_processes}
        (out / "found.json").write_text(json.dumps(found))
    state.wait_for_everyone()
    state.destroy_process_group()
    # Background threads of the backends now and then abort the interpreter's teardown, after the result is written.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
