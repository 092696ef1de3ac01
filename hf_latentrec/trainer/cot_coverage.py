"""What the anchors of reasoning texts have for a data set, before training starts on it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import polars as pl
from torch import nn

from ..data.schema import to_polars
from .sft_trainer import PACKED_COLUMNS


if TYPE_CHECKING:
    from ..cot.anchors import AnchorStore

logger = logging.getLogger(__name__)


def check_anchors(name: str, anchors: AnchorStore, model: nn.Module) -> None:
    """
    Raises a `ValueError` where thoughts cannot be compared with anchors.

    Args:
        name (`str`): of the trainer, for the message.
        anchors (`AnchorStore`): of the training data.
        model (`PreTrainedModel`): the recommender.
    """
    if model.config.num_thoughts == 0:
        raise ValueError(
            f"{name}: the model's num_thoughts is 0, so there are no thoughts to align with the anchors; load it with "
            'reasoner_config={"num_thoughts": 8, "adaptive_depth": True}, or switch alignment off'
        )
    if anchors.hidden_size != model.config.hidden_size:
        raise ValueError(
            f"{name}: anchors have hidden_size {anchors.hidden_size}, but the model has {model.config.hidden_size}; "
            "build the anchors with the stage-1 model that this one comes from"
        )


def check_coverage(name: str, anchors: AnchorStore, dataset: Any, max_missing: float = 1.0) -> None:
    """
    Counts the examples that have no reasoning text: a warning where there are some, a `ValueError` where there are too
    many or no other ones.

    Args:
        name (`str`): of the trainer, for the messages.
        anchors (`AnchorStore`): of the training data.
        dataset (`datasets.Dataset`): `user_id, history, target`, or packed `user_id, items, targets`.
        max_missing (`float`, *optional*, defaults to 1.0): the largest share of examples without text.
    """
    user_ids, targets = _answers(dataset)
    if user_ids is None:
        logger.warning(
            f"{name}: the training data has no columns user_id and target, so missing texts are not counted"
        )
        return
    missing = anchors.num_segments(user_ids.to_list(), targets.to_list()) == 0
    if not missing.any():
        return
    share, row = missing.mean(), int(missing.argmax())
    found = (
        f"{missing.sum()} of {len(missing)} training examples ({share:.1%}) have no reasoning text, the first: user "
        f"{user_ids[row]!r}, target {targets[row]!r}"
    )
    if missing.all():
        raise ValueError(f"{name}: {found}; build the anchors from texts of these users and targets")
    if share > max_missing:
        raise ValueError(
            f"{name}: {found}; max_missing_cot is {max_missing}: write the missing texts, or raise it to train these "
            "examples without alignment"
        )
    logger.warning(f"{name}: {found}; these are trained without alignment")


def _answers(dataset: Any) -> tuple[pl.Series | None, pl.Series | None]:
    """User and target of every example of a data set, packed or not; None where it does not say."""
    columns = set(getattr(dataset, "column_names", None) or ())
    if columns >= PACKED_COLUMNS | {"user_id"}:
        rows = to_polars(dataset.select_columns(["user_id", *sorted(PACKED_COLUMNS)]))
        rows = rows.select("user_id", pl.col("items").list.gather("targets").alias("target")).explode("target")
    elif columns >= {"user_id", "target"}:
        rows = to_polars(dataset.select_columns(["user_id", "target"]))
    else:
        return None, None
    return rows["user_id"], rows["target"]


__all__ = ["check_anchors", "check_coverage"]
