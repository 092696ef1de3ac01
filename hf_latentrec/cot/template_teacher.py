"""A teacher that needs no model: the five stages of reasoning (LASAR App. E.2), filled in from item metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from ..data.schema import to_dataset, to_polars
from .item_text import ItemText


if TYPE_CHECKING:
    from datasets import Dataset


TEMPLATE_TEACHER = "template"
MAX_EVIDENCE = 2  # interests with a line of their own
MAX_DENOISED = 4  # newest items of the denoised sequence


def write_template_text(examples: Dataset, items: Dataset) -> Dataset:
    """
    Teacher text from templates, one line per stage and 2 to 6 lines, the more the more there is in the history.

    ```
    Behavioral evidence   a line for each interest met at least twice (at most 2), else one for the newest item
    Latent preferences    where there are several interests: the strongest first
    Intent                from two items on: to stay with a known interest, or to turn to a new one
    Recommendation        the target
    Denoised sequence     where items of no recurring interest are left out: the others, then the target
    ```

    An interest is a group of items ([`ItemText`]). How many lines there are depends on the history alone, never on
    the target, so that a depth policy can learn it. Semantic IDs stand in the text as their tokens, and lines end in
    them where they can: they are all that a model from scratch can read. The target is named, so the text is
    supervision for training and for nothing else.

    Args:
        examples (`datasets.Dataset`): `user_id, history, target`; of several with one user and target the last counts.
        items (`datasets.Dataset`): the catalog's metadata.

    Returns:
        `datasets.Dataset`: `user_id, target, cot` and `teacher`, which is `"template"`.

    Raises:
        ValueError: an example names an item without metadata.

    Example:
        >>> from datasets import Dataset
        >>> items = Dataset.from_dict({"item_id": ["a", "b"], "semantic_id": [["<a_1>", "<b_1>"], ["<a_1>", "<b_2>"]]})
        >>> examples = Dataset.from_dict({"user_id": ["u"], "history": [["a"]], "target": ["b"]})
        >>> print(write_template_text(examples, items)[0]["cot"])
        Behavioral evidence: the newest item is <a_1><b_1>
        Recommendation: <a_1><b_2>
    """
    frame = to_polars(examples).select("user_id", "history", "target")
    frame = frame.unique(["user_id", "target"], keep="last", maintain_order=True)
    text = ItemText.from_items(items)
    named = pl.concat([frame["target"], frame["history"].list.explode()]).drop_nulls().unique(maintain_order=True)
    if unknown := [item_id for item_id in named if item_id not in text.names]:
        raise ValueError(
            f"write_template_text: {len(unknown)} item(s) of the examples have no row in items, first {unknown[0]!r}; "
            "add them"
        )
    pairs = zip(frame["history"].to_list(), frame["target"].to_list(), strict=True)
    cot = pl.Series("cot", ["\n".join(_stages(history, target, text)) for history, target in pairs], dtype=pl.String)
    return to_dataset(frame.select("user_id", "target", cot, teacher=pl.lit(TEMPLATE_TEACHER)))


def _stages(history: Sequence[str], target: str, text: ItemText) -> list[str]:
    groups = [text.groups[item_id] for item_id in history]
    counts = Counter(groups)
    last_place = {group: place for place, group in enumerate(groups)}
    interests = sorted(counts, key=lambda group: (-counts[group], -last_place[group]))
    recurring = [group for group in interests if counts[group] > 1][:MAX_EVIDENCE]

    lines = [
        f"Behavioral evidence: {counts[group]} items of {group}, the newest {text.names[history[last_place[group]]]}"
        for group in recurring
    ] or [f"Behavioral evidence: the newest item is {text.names[history[-1]]}"]
    if len(interests) > 1:
        lines.append(_preferences(history, interests, text))
    if len(history) > 1:
        lines.append(_intent(text.groups[target], counts, interests[0]))
    lines.append(f"Recommendation: {text.names[target]}")
    kept = [item_id for item_id, group in zip(history, groups, strict=True) if group in recurring]
    if kept and len(kept) < len(history):
        sequence = ", ".join(text.codes[item_id] for item_id in kept[-MAX_DENOISED:])
        lines.append(f"Denoised sequence: {sequence}, then {text.codes[target]}")
    return lines


def _preferences(history: Sequence[str], interests: Sequence[str], text: ItemText) -> str:
    brands = Counter(brand for item_id in history if (brand := text.brands[item_id]))
    favourite = next((brand for brand, count in brands.most_common(1) if count > 1), None)
    start = f"a liking for {favourite}, and " if favourite else ""
    return f"Latent preferences: {start}{interests[0]} above {', '.join(interests[1:3])}"


def _intent(wanted: str, counts: Counter, strongest: str) -> str:
    if wanted in counts:
        return f"Intent: to go on with {wanted}"
    return f"Intent: to turn from {strongest} to {wanted}"


__all__ = ["TEMPLATE_TEACHER", "write_template_text"]
