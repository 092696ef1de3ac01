"""What saving and publishing are to recommenders: no pickle, a card, and all of a model or nothing."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer
from transformers.trainer_utils import HubStrategy

from ..hub.card_callback import ModelCardCallback
from ..hub.publishing import PublishError, open_repository, publish


logger = logging.getLogger(__name__)


class PublishingTrainer(Trainer):
    """
    Saves a model with its card and without pickles, and publishes it as [`publish`] does.

    With `push_to_hub=True`, `save_model()` publishes, and with `hub_strategy="every_save"` so does every checkpoint:
    the recommender of that step, without the optimizer.

    Args:
        kwargs: for [`~transformers.Trainer`].

    Raises:
        ValueError: for a `hub_strategy` that would publish optimizer states and pickles.
    """

    def __init__(self, **kwargs):
        args, strategies = kwargs["args"], (HubStrategy.END, HubStrategy.EVERY_SAVE)
        if args.push_to_hub and args.hub_strategy not in strategies:
            raise ValueError(
                f"{type(self).__name__}: hub_strategy {args.hub_strategy.value!r} would publish optimizer states and "
                "pickles; choose 'end' or 'every_save'"
            )
        super().__init__(**kwargs)
        self.model_card = ModelCardCallback(self)
        self.add_callback(self.model_card)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # The Trainer pickles its arguments beside the weights, and a model folder should hold no pickle.
        super()._save(output_dir, state_dict)
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        if self.args.should_save:
            (folder / "training_args.bin").unlink(missing_ok=True)
            (folder / "training_args.json").write_text(self.args.to_json_string(), encoding="utf-8")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in transformers, with the card of the model; with `push_to_hub=True` it is published."""
        super().save_model(output_dir, _internal_call=True)
        if _internal_call:  # a checkpoint, whose state is not saved yet
            return
        if self.args.should_save:
            self.model_card.write(Path(self.args.output_dir if output_dir is None else output_dir))
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save")

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | None = None,
    ) -> None:
        """
        Writes the card of the model into `output_dir`.

        Args:
            language (`str`, *optional*): of the items' texts.
            license (`str`, *optional*): of the model.
            tags (`str` or `list[str]`, *optional*): beside those of the system.
            model_name (`str`, *optional*): heading of the card.
            finetuned_from (`str`, *optional*): model of the Hub that training started from.
            dataset_tags (`str` or `list[str]`, *optional*): data sets of the Hub.
            dataset (`str`, *optional*): name of the data.
        """
        facts = {
            "language": language,
            "license": license,
            "tags": [tags] if isinstance(tags, str) else tags,
            "title": model_name,
            "base_model": finetuned_from,
            "datasets": [dataset_tags] if isinstance(dataset_tags, str) else dataset_tags,
        }
        data = {"name": dataset} if dataset else None
        self.model_card.update(data, **{name: value for name, value in facts.items() if value})
        if self.is_world_process_zero():
            self.model_card.write(self.args.output_dir)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        run: Any = None,
        **kwargs,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """
        Saves the model in `output_dir` and publishes the complete recommender from there; see [`publish`].

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`): of the commit.
            blocking (`bool`, *optional*, defaults to `True`): whether to wait until it is published.
            token (`str`, *optional*): by default `hub_token`.
            revision (`str`, *optional*): branch; by default `hub_revision`.
            private (`bool`, *optional*): by default `hub_private_repo`.
            run (`EvaluationRun`, `str` or `Path`, *optional*): an evaluation of this model, or its folder.
            kwargs: for [`create_model_card`].

        Returns:
            `CommitInfo`, or a `Future` of it if not `blocking`; None on all processes but the main one.

        Raises:
            PublishError: the Hub refused, or was lost on the way; nothing is half published.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        super().save_model(_internal_call=True)  # on all processes: weights may be sharded
        self.create_model_card(**kwargs)
        if not self.is_world_process_zero():
            return None
        job = (self._publish, self.args.output_dir, commit_message, token, revision, private, run)
        return job[0](*job[1:]) if blocking else HfApi().run_as_future(*job)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository where there is none, so that a missing token stops a run before it trains."""
        if self.is_world_process_zero():
            args = self.args
            private = args.hub_private_repo if private is None else private
            self.hub_model_id = open_repository(self._repository(), private=private, token=token or args.hub_token)
            self.push_in_progress = None

    def _publish(
        self, folder: str, message: str | None, token: str | None, revision: str | None, private: bool | None, run: Any
    ) -> CommitInfo:
        args = self.args
        return publish(
            folder,
            self._repository(),
            run=run,
            private=args.hub_private_repo if private is None else private,
            token=token or args.hub_token,
            revision=revision or args.hub_revision,
            commit_message=message,
        )

    def _repository(self) -> str:
        return self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).absolute().name

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # The Trainer copies weights to output_dir, pickles its arguments there, and uploads in the background while
        # checkpoints are rotated away.
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.model_card.write(checkpoint_folder)
        try:
            message = f"Training in progress, step {self.state.global_step}"
            self._publish(checkpoint_folder, message, None, None, None, None)
        except (PublishError, ValueError) as error:  # no reason to lose a training run
            logger.warning(f"{error}; training goes on")


__all__ = ["PublishingTrainer"]
