"""ItemCatalog: what can be recommended, and the token sequence that stands for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerFast

from .item_records import code_sequences, columns_to_json, drop_duplicate_items, items_to_columns, title_sequences
from .item_trie import ItemTrie
from .similar_ids import similar_ids


ITEM_TOKENIZATIONS = ("semantic_id", "title")
_METADATA_KEY = "item_catalog"


class ItemCatalog:
    """
    Ordered items: an id, text columns, a popularity and one token sequence (the answer) each.

    With `item_tokenization="semantic_id"` the sequence is the item's codes, of one depth for all. With `"title"` it is
    the title as plain text, ended by the tokenizer's EOS, because a title may be the beginning of another.

    Build one with [`ItemCatalog.from_items`], read one with [`ItemCatalog.load`].

    Args:
        columns (`dict[str, list]`): `item_id` (strings) and any other columns, one value per item.
        flat_tokens (`np.ndarray` of shape `[sum of lengths]`): All sequences, end to end.
        offsets (`np.ndarray` of shape `[I + 1]`): Sequence of row `r` is `flat_tokens[offsets[r]:offsets[r + 1]]`.
        popularity (`np.ndarray` of shape `[I]`): Interactions of each item in the training data.
        item_tokenization (`str`): `"semantic_id"` or `"title"`.
        terminal_token_id (`int`, *optional*): The token that ends every sequence, if one does.
        earlier_versions (`list[dict]`, *optional*): `num_items` and `fingerprint` of the catalogs that this one has
            grown from with [`ItemCatalog.with_items`], oldest first.

    Example:
        >>> from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer
        >>> items = [
        ...     {"item_id": "B1", "title": "Shampoo", "semantic_id": ["<a_1>", "<b_7>"]},
        ...     {"item_id": "B2", "title": "Soap", "semantic_id": ["<a_1>", "<b_2>"]},
        ... ]
        >>> tokenizer = build_byte_tokenizer()
        >>> codes = add_item_tokens(tokenizer, [item["semantic_id"] for item in items])
        >>> catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="semantic_id")
        >>> catalog.rows(["B2", "B1"]).tolist(), catalog[1]
        ([1, 0], {'item_id': 'B2', 'title': 'Soap'})
        >>> tokenizer.convert_ids_to_tokens(catalog.answer_tokens(0))
        ['<a_1>', '<b_7>']
    """

    def __init__(
        self,
        columns: dict[str, list],
        flat_tokens: np.ndarray,
        offsets: np.ndarray,
        *,
        popularity: np.ndarray,
        item_tokenization: str,
        terminal_token_id: int | None = None,
        earlier_versions: Sequence[Mapping[str, Any]] = (),
    ):
        self.columns = columns
        self.flat_tokens, self.offsets = flat_tokens.astype(np.int32), offsets.astype(np.int64)
        self.popularity = popularity.astype(np.int64)
        self.item_tokenization = item_tokenization
        self.terminal_token_id = terminal_token_id
        self.earlier_versions = list(earlier_versions)
        self.item_ids: list[str] = columns["item_id"]
        self._row_of = {item_id: row for row, item_id in enumerate(self.item_ids)}

    @classmethod
    def from_items(
        cls,
        items: Any,
        tokenizer: PreTrainedTokenizerFast,
        *,
        item_tokenization: str,
        popularity: Mapping[str, int] | None = None,
        on_collision: str = "error",
        on_duplicate: str = "error",
    ) -> ItemCatalog:
        """
        Builds a catalog from item records.

        Args:
            items (`datasets.Dataset`, `pyarrow.Table` or `list[dict]`): Columns `item_id` and `title` (list of tokens
                `semantic_id` instead, or as well, for `"semantic_id"`); other columns are kept.
            tokenizer (`PreTrainedTokenizerFast`): The model's tokenizer; it holds the code tokens already (see
                [`add_item_tokens`]).
            item_tokenization (`str`): `"semantic_id"` or `"title"`.
            popularity (`Mapping[str, int]`, *optional*): Training interactions per `item_id`; others count 0.
            on_collision (`str`, *optional*, defaults to `"error"`): Several items with one sequence are an error, or
                `"share"` a leaf: they take consecutive ranks, by popularity, then by catalog order.
            on_duplicate (`str`, *optional*, defaults to `"error"`): A repeated `item_id` is an error, or the `"first"`
                one is kept.

        Returns:
            `ItemCatalog`: the catalog.

        Raises:
            `ValueError`: missing or duplicate ids, an item without codes or title, codes of different depth, a code
                that the tokenizer does not hold, colliding sequences, a column that JSON does not hold.
        """
        _check_choice("item_tokenization", item_tokenization, ITEM_TOKENIZATIONS)
        _check_choice("on_collision", on_collision, ("error", "share"))
        _check_choice("on_duplicate", on_duplicate, ("error", "first"))
        columns = drop_duplicate_items(items_to_columns(items), on_duplicate)
        if item_tokenization == "semantic_id":
            flat, offsets, terminal = *code_sequences(columns, tokenizer), None
        else:
            flat, offsets, terminal = title_sequences(columns, tokenizer)
        kept = {name: column for name, column in columns.items() if name != "semantic_id"}
        columns_to_json(kept)  # what cannot be saved is an error now, not after training
        catalog = cls(
            kept,
            flat,
            offsets,
            popularity=np.zeros(len(kept["item_id"])),
            item_tokenization=item_tokenization,
            terminal_token_id=terminal,
        )
        if popularity:
            catalog.popularity[catalog.rows(list(popularity))] = list(popularity.values())
        if on_collision == "error":
            catalog._check_distinct()
        return catalog

    def with_items(
        self,
        items: Any,
        tokenizer: PreTrainedTokenizerFast,
        *,
        popularity: Mapping[str, int] | None = None,
        on_collision: str = "error",
    ) -> ItemCatalog:
        """
        The next version of the catalog: its items in their rows, and new ones behind them.

        Args:
            items (`datasets.Dataset`, `pyarrow.Table` or `list[dict]`): The new items, as in
                [`ItemCatalog.from_items`]; a column that one side lacks is None there.
            tokenizer (`PreTrainedTokenizerFast`): The model's tokenizer, as it was trained.
            popularity (`Mapping[str, int]`, *optional*): Interactions per new `item_id`; others count 0.
            on_collision (`str`, *optional*, defaults to `"error"`): As in [`ItemCatalog.from_items`].

        Returns:
            `ItemCatalog`: the grown catalog; this one stays as it is.

        Raises:
            `ValueError`: an item that the catalog has already, codes of another depth, a code that the tokenizer does
                not hold, colliding sequences, and whatever else [`ItemCatalog.from_items`] refuses.
        """
        _check_choice("on_collision", on_collision, ("error", "share"))
        new = ItemCatalog.from_items(
            items, tokenizer, item_tokenization=self.item_tokenization, popularity=popularity, on_collision="share"
        )
        if known := [item_id for item_id in new.item_ids if item_id in self._row_of]:
            raise ValueError(
                f"ItemCatalog: {len(known)} of {len(new)} items are in the catalog already, first {known[:3]}; their "
                "sequences stay as the model learned them, so pass new items only"
            )
        if self.item_tokenization == "semantic_id" and new.offsets[1] != self.offsets[1]:
            raise ValueError(
                f"ItemCatalog: the new items have {new.offsets[1]} codes each, the catalog's {self.offsets[1]}; take "
                "both from the same semantic IDs"
            )
        names = {**self.columns, **new.columns}
        sides = [(part.columns, [None] * len(part)) for part in (self, new)]
        catalog = ItemCatalog(
            {name: [value for columns, none in sides for value in columns.get(name, none)] for name in names},
            np.concatenate([self.flat_tokens, new.flat_tokens]),
            np.concatenate([self.offsets, self.offsets[-1] + new.offsets[1:]]),
            popularity=np.concatenate([self.popularity, new.popularity]),
            item_tokenization=self.item_tokenization,
            terminal_token_id=self.terminal_token_id,
            earlier_versions=[*self.earlier_versions, {"num_items": len(self), "fingerprint": self.fingerprint}],
        )
        if on_collision == "error":
            catalog._check_distinct()
        return catalog

    @property
    def version(self) -> int:
        """1 for a catalog as it was built, one more each time that it has grown."""
        return len(self.earlier_versions) + 1

    def __len__(self) -> int:
        return len(self.item_ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """The columns of one item."""
        return {name: column[row] for name, column in self.columns.items()}

    @cached_property
    def titles(self) -> list[str | None]:
        """Title of every item; None where there is none."""
        return self.columns.get("title", [None] * len(self))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides a recommendation: ids, sequences, how they were made, and popularity."""
        header = json.dumps([self.item_tokenization, self.terminal_token_id, self.item_ids])
        digest = hashlib.sha256(header.encode())
        for array in (self.flat_tokens, self.offsets, self.popularity):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def find(self, item_ids: Sequence[str]) -> np.ndarray:
        """Catalog rows of item ids, `[N]` int64; -1 for an unknown id."""
        row_of = self._row_of.get
        return np.fromiter((row_of(item_id, -1) for item_id in item_ids), dtype=np.int64, count=len(item_ids))

    def rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """
        Catalog rows of item ids.

        Args:
            item_ids (`list[str]` of length N): Ids.

        Returns:
            `np.ndarray` of shape `[N]`, int64.

        Raises:
            `ValueError`: an id that is not in the catalog; names the closest ones.
        """
        rows = self.find(item_ids)
        if (rows < 0).any():
            position = int(np.argmin(rows))
            raise ValueError(f"ItemCatalog: {self.describe_unknown(item_ids[position])} (position {position})")
        return rows

    def describe_unknown(self, item_id: Any) -> str:
        """What to tell about an id that is not in the catalog."""
        closest = similar_ids(item_id, self.item_ids)
        return f"item_id {item_id!r} is not in the catalog of {len(self):,} items; closest: {closest}"

    def answer_tokens(self, row: int) -> np.ndarray:
        """Token sequence of an item, with its terminal, `[T]` int32."""
        return self.flat_tokens[self.offsets[row] : self.offsets[row + 1]]

    def prompt_tokens(self, row: int) -> np.ndarray:
        """Token sequence of an item inside of a prompt: without the terminal, `[T]` int32."""
        end = self.offsets[row + 1] - (self.terminal_token_id is not None)
        return self.flat_tokens[self.offsets[row] : end]

    def build_trie(self) -> ItemTrie:
        """The prefix tree of all sequences; items of a shared leaf are ordered by popularity, then by row."""
        return ItemTrie.from_sequences(
            (self.flat_tokens, self.offsets), priority=self.popularity, catalog_fingerprint=self.fingerprint
        )

    def collisions(self) -> list[list[int]]:
        """Rows of the items that share one sequence, group by group, in the order in which they are recommended."""
        trie = self.build_trie()
        shared = (trie.row_ptr.diff() == 0) & (trie.leaf_end - trie.leaf_start > 1)
        start, end = trie.leaf_start[shared].tolist(), trie.leaf_end[shared].tolist()
        return [trie.item_order[a:b].tolist() for a, b in zip(start, end, strict=True)]

    def _check_distinct(self) -> None:
        if collisions := self.collisions():
            groups = "; ".join(", ".join(repr(self.item_ids[row]) for row in rows) for rows in collisions[:3])
            more = "; ..." if len(collisions) > 3 else ""
            raise ValueError(
                f"ItemCatalog: {sum(map(len, collisions))} items share their {self.item_tokenization} sequence with "
                f'another ({groups}{more}); pass on_collision="share" or make them distinct'
            )

    def describe_collisions(self) -> str:
        """One line on the items that share a sequence, for a training script to print."""
        groups = self.collisions()
        if not groups:
            return f"The {len(self):,} items have distinct sequences."
        return (
            f"{sum(map(len, groups)):,} of {len(self):,} items share their sequence with another ({len(groups):,} "
            f"sequences, up to {max(map(len, groups))} items each); such items take consecutive ranks, by popularity, "
            "then by catalog order."
        )

    def save(self, path: str | Path) -> None:
        """
        Writes the catalog to a safetensors file: the columns as JSON (a tensor of bytes), sequences and popularity as
        tensors. Reading a million items with titles so takes about a second.
        """
        columns = columns_to_json(self.columns)
        tensors = {
            "columns": np.frombuffer(columns, dtype=np.uint8),
            "tokens": self.flat_tokens,
            "offsets": self.offsets,
            "popularity": self.popularity,
        }
        metadata = {
            "item_tokenization": self.item_tokenization,
            "terminal_token_id": self.terminal_token_id,
            "fingerprint": self.fingerprint,
            "columns_sha256": hashlib.sha256(columns).hexdigest(),  # titles and more, which no fingerprint covers
            "earlier_versions": self.earlier_versions,
        }
        save_file(tensors, path, {_METADATA_KEY: json.dumps(metadata)})

    @classmethod
    def load(cls, path: str | Path) -> ItemCatalog:
        """
        Reads a catalog written by [`ItemCatalog.save`].

        Raises:
            `ValueError`: the file is truncated, is no catalog, or its content is not what was saved.
        """
        try:
            with safe_open(path, framework="np") as file:
                stored = (file.metadata() or {}).get(_METADATA_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(
                f"ItemCatalog: {path} is truncated or no safetensors file ({error}); save the processor again"
            ) from error
        if stored is None:
            raise ValueError(f"ItemCatalog: {path} is no catalog; write it with ItemCatalog.save")
        metadata = json.loads(stored)
        fingerprint = metadata.pop("fingerprint")
        columns = tensors.pop("columns").tobytes()
        saved, found = metadata.pop("columns_sha256", None), hashlib.sha256(columns).hexdigest()
        if saved not in (None, found):  # None: in a file of before there were digests
            raise ValueError(
                f"ItemCatalog: the columns (titles and others) of {path} have SHA-256 {found}, but {saved} was saved; "
                "save the processor again"
            )
        arrays = (tensors["tokens"], tensors["offsets"])
        catalog = cls(json.loads(columns), *arrays, popularity=tensors["popularity"], **metadata)
        if catalog.fingerprint != fingerprint:
            raise ValueError(
                f"ItemCatalog: the content of {path} has fingerprint {catalog.fingerprint}, but {fingerprint} was "
                "saved; save the processor again"
            )
        return catalog


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"ItemCatalog: {name}={value!r}; choose one of {', '.join(map(repr, choices))}")


__all__ = ["ItemCatalog"]
