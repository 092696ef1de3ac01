"""What a text about items calls them: names, codes, groups and brands, from whatever metadata there are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from datasets import Dataset


MAX_TITLE = 80  # letters of a title that enter a text


@dataclass(frozen=True)
class ItemText:
    """
    Words for items, by item id.

    Args:
        names (`dict[str, str]`): title and codes; the codes alone, or the item id, where there is no more.
        codes (`dict[str, str]`): the joined tokens of the semantic ID; the name where there is none.
        groups (`dict[str, str]`): the most specific category; else the first code, which is the coarsest cluster;
            else the brand; else the name.
        brands (`dict[str, str]`): the brand; `""` where there is none.
        has_titles (`bool`): whether any item has a title.
    """

    names: dict[str, str]
    codes: dict[str, str]
    groups: dict[str, str]
    brands: dict[str, str]
    has_titles: bool

    @classmethod
    def from_items(cls, items: Dataset) -> ItemText:
        """
        Reads the columns `item_id, title, brand, category` (or `categories`) and `semantic_id`, all but the first
        optional.

        Args:
            items (`datasets.Dataset`): one row per item, see [`RecData`].

        Example:
            >>> from datasets import Dataset
            >>> rows = {"item_id": ["7"], "title": ["Desk lamp"], "semantic_id": [["<a_3>", "<b_0>"]]}
            >>> text = ItemText.from_items(Dataset.from_dict(rows))
            >>> text.names["7"], text.codes["7"], text.groups["7"]
            ('Desk lamp <a_3><b_0>', '<a_3><b_0>', '<a_3>')
        """
        columns = items.with_format(None).to_dict()
        empty = [None] * len(items)
        ids = columns["item_id"]
        titles = [_one_line(title) for title in columns.get("title", empty)]
        brands = [_one_line(brand) for brand in columns.get("brand", empty)]
        categories = [_category(value) for value in columns.get("category", columns.get("categories", empty))]
        semantic_ids = [list(codes or []) for codes in columns.get("semantic_id", empty)]
        codes = ["".join(tokens) for tokens in semantic_ids]
        names = [" ".join(filter(None, parts)) or item_id for item_id, *parts in zip(ids, titles, codes, strict=True)]
        groups = [
            category or (tokens[0] if tokens else brand or name)
            for category, tokens, brand, name in zip(categories, semantic_ids, brands, names, strict=True)
        ]
        return cls(
            names=dict(zip(ids, names, strict=True)),
            codes={item_id: code or name for item_id, code, name in zip(ids, codes, names, strict=True)},
            groups=dict(zip(ids, groups, strict=True)),
            brands=dict(zip(ids, brands, strict=True)),
            has_titles=any(titles),
        )


def _one_line(text: str | None) -> str:
    """Text without line breaks and without what would end a sentence, at most `MAX_TITLE` letters of whole words."""
    words = re.sub(r"[.!?]+(?=\s|$)", "", " ".join((text or "").split()))
    return words if len(words) <= MAX_TITLE else words[: MAX_TITLE + 1].rsplit(" ", 1)[0][:MAX_TITLE]


def _category(value: str | list | None) -> str:
    """The last, most specific one of a list, of a list as text, or of a path `Beauty > Skin > Serum`."""
    if isinstance(value, str) and value.startswith("["):
        value = value.strip("[]").split(",")[-1].strip(" '\"")
    while isinstance(value, list):
        value = value[-1] if value else ""
    return _one_line((value or "").split(">")[-1])


__all__ = ["ItemText"]
