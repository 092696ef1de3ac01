"""How evaluate.py finds a model, checks what it was trained on, and reads what its training left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluate_arguments import EvaluationArguments
from evaluate_models import ItemRecommender, LanguageRecommender, Recommender
from transformers import AutoConfig, AutoModel, AutoProcessor

from hf_latentrec import LatentRecProcessor
from hf_latentrec.hub.integrity import CHECKSUMS_FILE, check_files
from hf_latentrec.models.lares.configuration_sequential import SequentialConfig
from hf_latentrec.models.latent_reasoning.configuration_latent_reasoning import LatentRecConfigMixin
from hf_latentrec.trainer import last_complete_checkpoint


def load_recommender(args: EvaluationArguments) -> Recommender:
    """
    The model that the arguments name, in evaluation mode.

    Raises:
        ValueError: there is none, it is no recommender of this library, its files are not those that its checksums
            name, or the arguments do not fit it.
    """
    if Path(args.model, CHECKSUMS_FILE).is_file():
        check_files(args.model)
    try:
        config = AutoConfig.from_pretrained(args.model)
    except OSError as error:
        raise ValueError(
            f"model {args.model!r} cannot be loaded ({error}); pass a folder that a training recipe wrote, or a "
            "repository on the Hub"
        ) from error
    if isinstance(config, LatentRecConfigMixin):
        processor = AutoProcessor.from_pretrained(args.model)
        if not isinstance(processor, LatentRecProcessor):
            raise ValueError(
                f"{args.model} has no processor with a catalog, but a {type(processor).__name__}; save the model's "
                "processor beside it"
            )
        return LanguageRecommender(AutoModel.from_pretrained(args.model), processor, args)
    if isinstance(config, SequentialConfig):
        return ItemRecommender(AutoModel.from_pretrained(args.model), args)
    raise ValueError(
        f"{args.model} is a {config.model_type!r} model, and no recommender of hf_latentrec; pass one that a training "
        "recipe wrote"
    )


def check_trained_on(recommender: Recommender, found: Mapping[str, str]) -> None:
    """
    The model was trained on what it is to be tested on.

    Args:
        recommender ([`Recommender`]): the model.
        found (`Mapping`): fingerprints that the data have.
    """
    for what, now in found.items():
        before = recommender.trained_on[what]
        if before != now:
            raise ValueError(
                f"{recommender.args.model} was trained on the {what} {before}, but this data gives {now}; use the "
                "--data_dir, --min_rating, --k_core, --split, --max_history, --window_stride and --on_short of the "
                "training run"
            )


def read_log(model: str) -> list[dict[str, Any]] | None:
    """What the training of a model in a folder logged: its own state, its log, or the state of its last checkpoint."""
    folder = Path(model)
    if (path := folder / "trainer_state.json").is_file():
        return json.loads(path.read_text())["log_history"]
    if (path := folder / "log_history.json").is_file():
        return json.loads(path.read_text())
    checkpoint = last_complete_checkpoint(folder)
    return checkpoint and json.loads(Path(checkpoint, "trainer_state.json").read_text())["log_history"]


def read_training_seed(model: str) -> int | None:
    """The seed of a model's training, where its folder tells."""
    path = Path(model, "training_args.json")
    return json.loads(path.read_text()).get("seed") if path.is_file() else None


__all__ = ["check_trained_on", "load_recommender", "read_log", "read_training_seed"]
