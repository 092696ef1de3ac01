"""What a trained recommender recommends to some users of the test split, for a recipe to print."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training_setup import some_users


if TYPE_CHECKING:
    from datasets import Dataset


LATEST, TOP_K, TITLE_WIDTH = 5, 5, 60


def show_recommendations(model_folder: Path, test: Dataset, items: Dataset, num_users: int) -> str:
    """
    For some users, drawn at random, always the same: their latest items, and what is recommended that they have not
    had yet.

    Args:
        model_folder (`Path`): of a trained recommender.
        test (`Dataset`): rows of `user_id, history, target`.
        items (`Dataset`): the catalog: `item_id`, and `title` where there are titles.
        num_users (`int`): how many.
    """
    from transformers import pipeline

    recommend = pipeline("next-item-recommendation", model=str(model_folder))
    users = some_users(test, num_users)
    top_k = min(TOP_K, len(items))
    recommended = recommend(users["history"][:], top_k=top_k, exclude_seen=True)
    names = items["title"] if "title" in items.column_names else items["item_id"]
    title_of = dict(zip(items["item_id"], names, strict=True))
    lines = [f"What the model in {model_folder} recommends, seen items excluded:"]
    for user, ranking in zip(users, recommended, strict=True):
        lines += ["", *_describe(user["user_id"], user["history"], ranking, user["target"], title_of)]
    return "\n".join(lines)


def _describe(
    user_id: str, history: Sequence[str], ranking: Sequence[dict], target: str, title_of: dict[str, str]
) -> list[str]:
    def name(item_id: str) -> str:
        return textwrap.shorten(title_of[item_id] or item_id, TITLE_WIDTH, placeholder=" ...")

    latest = history[-LATEST:]
    lines = [f"User {user_id}, the latest {len(latest)} of {len(history)} items:"]
    lines += [f"     - {name(item_id)}" for item_id in latest]
    lines.append("  is recommended:")
    for rank, item in enumerate(ranking, start=1):
        mark = "   <- the next item" if item["item_id"] == target else ""
        lines.append(f"    {rank}. {name(item['item_id'])}  ({item['score']:.2f}){mark}")
    if all(item["item_id"] != target for item in ranking):
        lines.append(f"  The next item was: {name(target)}")
    return lines


__all__ = ["show_recommendations"]
