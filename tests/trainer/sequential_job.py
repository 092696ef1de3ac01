"""Two steps of plain SGD by each algorithm, so that the weights move by the gradients; the second batch is uneven.

Run as `sequential_job.py OUT` on any number of processes; the main one writes the change of every weight and the logs.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from accelerate import PartialState
from safetensors.torch import save_file

from hf_latentrec.data import SequenceDataset
from hf_latentrec.models.lares.sequential_recommender import SequentialRecommender
from tests.models.lares.toy_models import MAX_HISTORY, make_items, make_model
from tests.models.sequential import toy_baselines
from tests.trainer.sequential_runs import make_examples, make_trainer


CONTRASTIVE = ("duorec", "cl4srec")
# What is drawn at random is turned off: it differs from process to process.
BASELINES = {
    "bert4rec": {"last_only_probability": 1.0},
    "bsarec": {}, "caser": {}, "fmlp": {}, "gru4rec": {},
    "tedrec": {"num_text_experts": 1, "text_dropout": 0.0},  # one gate has nothing to be noisy about
    "rearec-erl": {},
    "rearec-prl": {"noise_std": 0.0, "temperature": 20.0},  # at a low one no negative counts
}  # fmt: skip
ALGORITHMS = ("sasrec", *CONTRASTIVE, "lares", *BASELINES)
# Seven rows of one to three targets: batches of 4, then of 3, which are 2 and 1 on two processes.
SEQUENCES = [[1, 2, 6], [3, 4, 5, 6], [7, 2], [8, 9, 1, 2], [5, 2], [6, 1, 5], [11, 4]]


def toy_model(algorithm: str) -> SequentialRecommender:
    """Without dropout, in training mode."""
    if algorithm == "lares":
        return make_model("lares", initial_std=0.0)
    if algorithm not in BASELINES:
        return make_model("sasrec")
    settings = {"max_history": MAX_HISTORY, "dropout": 0.0, "attention_dropout": 0.0, **BASELINES[algorithm]}
    return toy_baselines.make_model(algorithm, **settings).train()


def run(algorithm: str, out: Path) -> None:
    model = toy_model(algorithm)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    settings = {
        "max_steps": 2, "per_device_train_batch_size": 4 // int(os.environ["WORLD_SIZE"]), "optim": "sgd",
        "learning_rate": 0.1, "max_grad_norm": 0.0, "weight_decay": 0.0,
    }  # fmt: skip
    if algorithm == "lares":
        settings |= {"tla_weight": 0.5, "sla_weight": 0.5}
    elif algorithm in CONTRASTIVE:
        settings |= {"contrastive": algorithm, "contrastive_weight": 0.5, "similarity": "cosine", "temperature": 0.5}
    # A user has several rows, on both processes: samples of a user are no negatives of each other, wherever they are.
    dataset = SequenceDataset(make_examples(SEQUENCES, 3), make_items(), MAX_HISTORY, model.causal)
    trainer = make_trainer(out / "run", "lares" if algorithm == "lares" else "sasrec", model, dataset, **settings)
    trainer.train()
    if trainer.is_world_process_zero():
        out.mkdir(parents=True, exist_ok=True)
        moved = {
            name: (parameter.detach() - before[name]).contiguous() for name, parameter in model.named_parameters()
        }
        save_file(moved, out / "moved.safetensors")
        logs = [log for log in trainer.state.log_history if "loss" in log]
        (out / "logs.json").write_text(json.dumps({"world_size": trainer.args.world_size, "steps": logs}))


def resume(out: Path) -> None:
    """A run of three epochs of two steps each, and one that goes on in the middle of the second; with dropout."""

    def train(folder: Path, **settings) -> list[float]:
        settings = {"max_steps": 6, "save_steps": 1, "save_strategy": "steps", **settings}
        model = make_model("lares", dropout=0.3, attention_dropout=0.3)
        dataset = SequenceDataset(make_examples(SEQUENCES), make_items(), MAX_HISTORY)
        batch_size = 4 // int(os.environ["WORLD_SIZE"])
        trainer = make_trainer(folder, "lares", model, dataset, per_device_train_batch_size=batch_size, **settings)
        trainer.train(resume_from_checkpoint=str(out / "whole" / "checkpoint-3") if folder.name == "resumed" else None)
        return [log["loss"] for log in trainer.state.log_history if "loss" in log]

    losses = {name: train(out / name) for name in ("whole", "resumed")}
    if PartialState().is_main_process:
        (out / "losses.json").write_text(json.dumps(losses))


def search(out: Path) -> None:
    """A search of two trials, each worth its last loss of training."""
    import optuna

    dataset = SequenceDataset(make_examples(SEQUENCES, 3), make_items(), MAX_HISTORY)
    batch_size = 4 // int(os.environ["WORLD_SIZE"])
    settings = {"max_steps": 2, "optim": "sgd", "per_device_train_batch_size": batch_size, "eval_dataset": dataset}
    trainer = make_trainer(out / "run", "lares", toy_model("lares"), dataset, **settings)
    trainer.model_init = lambda trial=None: toy_model("lares")
    losses = []

    def last_loss(metrics: dict[str, float]) -> float:
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log][-1])
        return losses[-1]

    trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 0.1, 1.0)},
        compute_objective=last_loss,
        n_trials=2,
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    if PartialState().is_main_process:
        (out / "losses.json").write_text(json.dumps(losses))


def main(out: Path) -> None:
    for algorithm in ALGORITHMS:
        run(algorithm, out / algorithm)
    resume(out / "resume")
    if find_spec("optuna") is not None:
        search(out / "search")
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
    # Background threads of the backends now and then abort the interpreter's teardown, after the result is written.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
