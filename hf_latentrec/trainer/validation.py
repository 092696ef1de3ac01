"""What evaluation is to recommenders: ranks of validation users, and a start that training has to beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .lora import unwrap_lora


class ValidatingTrainer(Trainer):
    """
    Adds the metrics of an evaluator's users to the Trainer's evaluation, and makes the model that training starts from
    a candidate for the best checkpoint.

    Args:
        evaluator (`RecEvaluator`, *optional*): of the validation users.
        kwargs: for [`~transformers.Trainer`].
    """

    def __init__(self, *, evaluator: Any = None, **kwargs):
        if evaluator is not None and kwargs.get("eval_dataset") is None:
            kwargs["eval_dataset"] = {}  # no losses to compute; with None the Trainer would refuse to evaluate
        super().__init__(**kwargs)
        self.evaluator = evaluator
        self._ranking: dict[str, float] = {}
        if evaluator is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                f"{type(self).__name__}: an evaluator needs the whole model on each process; use DDP, or leave it out"
            )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """
        See [`~transformers.Trainer.evaluate`]. Where there is an evaluator, the metrics of its users are added, unless
        another `eval_dataset` is passed.
        """
        if self.evaluator is None or eval_dataset is not None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        ranking = self._rank_users(metric_key_prefix)
        if not isinstance(self.eval_dataset, dict):
            self._ranking = ranking
            return super().evaluate(None, ignore_keys, metric_key_prefix)
        # Each of several data sets logs its own loss; the users are ranked once for all of them.
        metrics = super().evaluate(None, ignore_keys, metric_key_prefix)
        self.log(ranking)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, ranking)
        return {**metrics, **ranking}

    def _rank_users(self, metric_key_prefix: str) -> dict[str, float]:
        recommender = unwrap_lora(self.accelerator.unwrap_model(self.model))
        with self.accelerator.autocast():
            metrics = self.evaluator.evaluate(recommender).metrics
        return {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}

    def evaluation_loop(self, *args, **kwargs):
        """Adds the ranking that [`evaluate`] left, so that losses and ranks are one entry of the log."""
        ranking, self._ranking = self._ranking, {}
        output = super().evaluation_loop(*args, **kwargs)
        output.metrics.update(ranking)
        return output

    def _evaluate(self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False):
        # The Trainer skips the scheduler in the evaluation on start only, and there it neither compares nor saves.
        if not skip_scheduler:
            return super()._evaluate(trial, ignore_keys_for_eval)
        if self.state.log_history:
            return {}  # a resumed run: its checkpoint was evaluated, and early stopping would count it twice
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)
        if self.args.load_best_model_at_end:
            self._determine_best_metric(metrics, trial)
            # The Trainer takes step 0 for no step, and would not look for its checkpoint.
            folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            self.state.best_model_checkpoint = str(folder)
            self._save_checkpoint(self.model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        return metrics

    # Early stopping, also of a run that is resumed

    def train(self, *args, **kwargs):
        """See [`~transformers.Trainer.train`]."""
        for callback in self._early_stopping():
            callback.early_stopping_patience_counter = 0  # of the training before; that of a checkpoint comes back
        # Between the trials of a search there is no model on the main process.
        if self.model is not None and self.args.world_size > 1 and not self.is_fsdp_enabled:
            # An evaluation before marks the bare model as prepared; accelerate would train it without DDP.
            vars(self.model).pop("_is_accelerate_prepared", None)
        return super().train(*args, **kwargs)

    def _load_callback_state(self) -> None:
        super()._load_callback_state()
        patience = self.args.early_stopping_patience
        for callback in self._early_stopping() if patience is not None else ():
            callback.early_stopping_patience = patience  # came back with that of the checkpoint

    def _run_epoch(self, *args, **kwargs):
        # A run that had stopped early, and was cut before it was tested, would train on.
        if any(
            stop.early_stopping_patience_counter >= stop.early_stopping_patience for stop in self._early_stopping()
        ):
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _early_stopping(self) -> list[EarlyStoppingCallback]:
        return [
            callback for callback in self.callback_handler.callbacks if isinstance(callback, EarlyStoppingCallback)
        ]


__all__ = ["ValidatingTrainer"]
