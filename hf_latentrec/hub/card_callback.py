"""The card of a model in training, written with every checkpoint."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .card_facts import CardFacts, changed_settings, describe_model
from .model_card import was_edited, write_card
from .systems import system_of


if TYPE_CHECKING:
    from ..trainer import RecTrainer

_NO_METRICS = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


class ModelCardCallback(TrainerCallback):
    """
    Writes `README.md` beside the model into every checkpoint, from what the trainer knows; [`RecTrainer`] has one and
    writes the card of `save_model` by it, too.

    What a trainer cannot know is told by [`update`]: the title, the name and the licence of the data, and so on.

    Args:
        trainer ([`RecTrainer`]): whose model it is.
    """

    def __init__(self, trainer: RecTrainer):
        self.trainer = trainer
        self.told: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.finished = False

    def update(self, data: dict[str, Any] | None = None, **facts: Any) -> None:
        """
        Tells the card what the trainer cannot know.

        Args:
            data (`dict`, *optional*): fields of [`DataFacts`].
            facts: fields of [`CardFacts`].
        """
        self.data.update(data or {})
        self.told.update(facts)

    def on_train_begin(self, args, state, control, **kwargs):
        """From here on the weights are those of the last step."""
        self.finished = False

    def on_train_end(self, args, state, control, **kwargs):
        """From here on the weights may be those of the best checkpoint."""
        self.finished = True

    def on_save(self, args, state, control, **kwargs):
        """The card of a checkpoint."""
        folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        if args.should_save and folder.is_dir():  # trials of a search have folders of their own
            self.write(folder)

    def write(self, folder: str | Path, location: str | None = None) -> None:
        """Writes the card of the model as it is now, unless somebody wrote one by hand; see [`write_card`]."""
        if was_edited(folder):
            self.facts().save(folder)
        else:
            write_card(folder, self.facts(), location)

    def facts(self) -> CardFacts:
        """All that is known now."""
        trainer, model = self.trainer, self._model()
        facts = self._of_model
        system = system_of(
            model.config, self._item_tokenization(), trainer_class=type(trainer).__name__, training_args=trainer.args
        )
        facts = replace(
            facts,
            system=system,
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),  # LoRA may be merged meanwhile
            trainer=type(trainer).__name__,
            training=self._training(),
            hyperparameters=changed_settings(trainer.args),
            validation=self._validation(),
        )
        return replace(facts, **self.told).with_data(**self.data)

    @cached_property
    def _of_model(self) -> CardFacts:
        # Once: collisions of a large catalog take a while, and nothing of this changes in training.
        return describe_model(self._model(), self.trainer.processing_class)

    def _model(self) -> Any:
        from ..trainer.lora import unwrap_lora

        return unwrap_lora(self.trainer.accelerator.unwrap_model(self.trainer.model))

    def _item_tokenization(self) -> str | None:
        catalog = getattr(self.trainer.processing_class, "catalog", None)
        return None if catalog is None else catalog.item_tokenization

    def _training(self) -> dict[str, Any]:
        args, state = self.trainer.args, self.trainer.state
        per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        return {
            "examples": self._num_examples,
            "steps": self._step(),
            "epochs": round(state.epoch or 0.0, 2),
            "rows per step": per_step,
            "processes": args.world_size,
        }

    @cached_property
    def _num_examples(self) -> int:
        """Targets that are learned; a row of a packed data set holds several."""
        dataset = self.trainer.train_dataset
        if dataset is None:
            return 0
        if hasattr(dataset, "num_samples"):  # sequences of item ids
            return dataset.num_samples
        if "targets" in (getattr(dataset, "column_names", None) or ()):
            return sum(map(len, dataset["targets"]))
        return len(dataset)

    def _step(self) -> int:
        """Of which step the weights are."""
        args, state = self.trainer.args, self.trainer.state
        took_best = self.finished and args.load_best_model_at_end and state.best_model_checkpoint is not None
        if not took_best:
            return state.global_step
        return int(Path(state.best_model_checkpoint).name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-"))

    def _validation(self) -> dict[str, float]:
        """The metrics of the evaluation of these weights, where there was one."""
        step, found = self._step(), {}
        for entry in self.trainer.state.log_history:
            if entry.get("step") == step:
                found |= {
                    name.removeprefix("eval_"): value
                    for name, value in entry.items()
                    if name.startswith("eval_") and name not in _NO_METRICS
                }
        return found


__all__ = ["ModelCardCallback"]
