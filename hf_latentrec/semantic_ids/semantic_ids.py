"""SemanticIds: the codes of a catalog, the codebooks they come from, and the files that keep both.

Shapes: I items, L levels of the codebooks, K codes of a level, D embedding, C codes of an item (L, or L + 1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save

from .files import (
    ARRAYS_FILE,
    INDEX_FILE,
    JSON_FILE,
    read_arrays,
    read_index,
    read_json_file,
    write_together,
)


if TYPE_CHECKING:
    from .residual_kmeans import ResidualKMeans


LEAST_ROOM = 32  # tokens of the extra level that are kept for items to come, at least
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """
    Items and their codes, in the order in which they came, with all that it takes to give codes to further ones.

    Made by [`build_semantic_ids`], grown by [`add_items`], kept in a folder with the data by [`SemanticIds.save`].

    Args:
        item_ids (`list[str]`): Ids of the items.
        codes_IL (`np.ndarray` of shape `[I, C]`): Codes after collisions were resolved; kept as int32.
        quantizer (`ResidualKMeans`): The codebooks.
        policy (`str`): How collisions were resolved: `"extra_level"` (C = L + 1), `"nearest_free"` or `"share"`.
        raw_codes_IL (`np.ndarray` of shape `[I, L]`): Codes before that.
        balanced (`bool`, *optional*, defaults to `False`): Whether all codes of a level were to be used alike.
        seed (`int`, *optional*, defaults to 0): Seed of the codebooks.
        embedding_model (`str`, *optional*): What embedded the items.
        text_fields (`tuple[str, ...]`, *optional*): The columns that it read.
        earlier_versions (`tuple[dict]`, *optional*): `num_items` and `fingerprint` of what this has grown from.

    Raises:
        `ValueError`: ids, codes and codebooks do not fit together.

    Example:
        >>> from hf_latentrec.semantic_ids.residual_kmeans import ResidualKMeans
        >>> quantizer = ResidualKMeans(np.zeros((1, 4, 8)))  # one level of four codes
        >>> ids = SemanticIds(["B1", "B2"], np.array([[3, 0], [3, 1]]), quantizer, "extra_level", np.array([[3], [3]]))
        >>> ids.tokens(), ids.level_sizes
        ([['<a_3>', '<b_0>'], ['<a_3>', '<b_1>']], (4, 2))
    """

    item_ids: list[str]
    codes_IL: np.ndarray
    quantizer: ResidualKMeans
    policy: str
    raw_codes_IL: np.ndarray
    balanced: bool = False
    seed: int = 0
    embedding_model: str | None = None
    text_fields: tuple[str, ...] = ()
    earlier_versions: tuple[dict, ...] = ()

    def __post_init__(self):
        for name in ("codes_IL", "raw_codes_IL"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.int32))
        L, K = self.quantizer.codebooks_LKD.shape[:2]
        C, found = L + (self.policy == "extra_level"), (self.codes_IL.shape, self.raw_codes_IL.shape)
        if found != ((len(self), C), (len(self), L)):
            raise ValueError(
                f"SemanticIds: codes of shape {found[0]} and raw codes of shape {found[1]}; expected {(len(self), C)} "
                f"and {(len(self), L)} for {len(self)} items, {L} codebooks and policy {self.policy!r}"
            )
        if C > len(ascii_lowercase):
            raise ValueError(
                f"SemanticIds: {C} levels, but their names are the letters a to z; use at most {len(ascii_lowercase)}"
            )
        wrong = (self.codes_IL < 0).any(axis=1) | (self.codes_IL[:, :L] >= K).any(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"SemanticIds: item_id {self.item_ids[row]!r} (row {row}) has the codes "
                f"{self.codes_IL[row].tolist()}, but the codebooks hold 0 to {K - 1}; build the semantic IDs again"
            )

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def version(self) -> int:
        """1 as built, one more each time that items were added."""
        return len(self.earlier_versions) + 1

    @property
    def versions(self) -> tuple[dict, ...]:
        """`version`, `num_items` and `fingerprint` of this version and of those before, oldest first."""
        this = {"num_items": len(self), "fingerprint": self.fingerprint}
        return tuple({"version": n, **found} for n, found in enumerate((*self.earlier_versions, this), start=1))

    @cached_property
    def level_sizes(self) -> tuple[int, ...]:
        """Codes of each level: K, and for the extra level one more than the highest number in use."""
        L, K = self.quantizer.codebooks_LKD.shape[:2]
        return (K,) * L + tuple(int(codes.max()) + 1 for codes in self.codes_IL.T[L:])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the tokens of items, those to come included: ids, codes, policy and codebooks."""
        return self._fingerprint_of(len(self))

    def _fingerprint_of(self, num_items: int) -> str:
        """That of the first so many items; older versions are such beginnings."""
        codebooks = np.ascontiguousarray(self.quantizer.codebooks_LKD, dtype=np.float32)
        codes = self.codes_IL[:num_items]
        header = json.dumps([self.policy, codebooks.shape, codes.shape, self.item_ids[:num_items]])
        digest = hashlib.sha256(header.encode())
        digest.update(codebooks.tobytes())
        digest.update(codes.tobytes())
        return digest.hexdigest()

    def tokens(self) -> list[list[str]]:
        """Code tokens of each item, such as `["<a_12>", "<b_0>", "<c_7>"]`."""
        columns = [np.array(names)[codes] for names, codes in zip(self.all_tokens(), self.codes_IL.T, strict=True)]
        return np.stack(columns, axis=1).tolist()

    def all_tokens(self, with_room: bool = False) -> list[list[str]]:
        """
        All code tokens by level, whether or not an item has them: what a model's tokenizer must hold before training.

        Args:
            with_room (`bool`, *optional*, defaults to `False`): With further numbers in the extra level, for items to
                come: as many as it has now, and at least 32.
        """
        sizes = list(self.level_sizes)
        if with_room and self.policy == "extra_level":
            sizes[-1] += max(LEAST_ROOM, sizes[-1])
        return [[f"<{ascii_lowercase[level]}_{code}>" for code in range(size)] for level, size in enumerate(sizes)]

    def save(self, folder: str | Path, listed: Collection[str] | None = None) -> None:
        """
        Writes `semantic_ids.safetensors` (codebooks and codes), `semantic_ids.index.json` (item -> tokens, what
        `load_data` reads) and `semantic_ids.json` (the rest), the same bytes each time.

        Args:
            folder (`str` or `Path`): The folder of the data; files of an earlier version in it are replaced.
            listed (collection of `str`, *optional*): Items that the index lists, where the data beside it have lost
                some; the codes of these stay taken. All by default.
        """
        codebooks = np.ascontiguousarray(self.quantizer.codebooks_LKD, dtype=np.float32)
        index = dict(zip(self.item_ids, self.tokens(), strict=True))
        if listed is not None:
            index = {item_id: tokens for item_id, tokens in index.items() if item_id in listed}
        facts = {
            "format": _FORMAT,
            "policy": self.policy,
            "level_sizes": self.level_sizes,
            "balanced": self.balanced,
            "seed": self.seed,
            "embedding_model": self.embedding_model,
            "text_fields": self.text_fields,
            "versions": self.versions,
            "item_ids": self.item_ids,
        }
        contents = {
            ARRAYS_FILE: save({"codebooks": codebooks, "codes": self.codes_IL, "raw_codes": self.raw_codes_IL}),
            INDEX_FILE: json.dumps(index, ensure_ascii=False).encode(),
            JSON_FILE: json.dumps(facts, ensure_ascii=False, indent=1).encode(),
        }
        write_together(Path(folder), contents)

    @classmethod
    def load(cls, folder: str | Path) -> SemanticIds:
        """
        Reads what [`SemanticIds.save`] wrote.

        Raises:
            `FileNotFoundError`: A file is missing.
            `ValueError`: A file is truncated, or what it holds is not what was saved: codebooks, codes, the order of
                items, or an index with other tokens.
        """
        from .residual_kmeans import ResidualKMeans

        folder = Path(folder)
        facts, arrays = read_json_file(folder / JSON_FILE, _FORMAT), read_arrays(folder / ARRAYS_FILE)
        earlier = tuple({name: row[name] for name in ("num_items", "fingerprint")} for row in facts["versions"])
        ids = cls(
            facts["item_ids"],
            arrays["codes"],
            ResidualKMeans(arrays["codebooks"]),
            facts["policy"],
            arrays["raw_codes"],
            facts["balanced"],
            facts["seed"],
            facts["embedding_model"],
            tuple(facts["text_fields"]),
            earlier[:-1],
        )
        for number, found in enumerate(earlier, start=1):
            if ids._fingerprint_of(found["num_items"]) != found["fingerprint"]:
                raise ValueError(
                    f"{folder}: codes, codebooks or item order of version {number} ({found['num_items']} items) are "
                    f"not those that {JSON_FILE} was saved with; restore {JSON_FILE} and {ARRAYS_FILE}, or build the "
                    "semantic IDs again"
                )
        index, known = read_index(folder / INDEX_FILE), dict(zip(ids.item_ids, ids.tokens(), strict=True))
        if wrong := [item_id for item_id, tokens in index.items() if known.get(item_id) != tokens]:
            raise ValueError(
                f"{folder / INDEX_FILE}: {len(wrong)} item(s) have other tokens than in {ARRAYS_FILE}, first "
                f"{wrong[0]!r}: {index[wrong[0]]} instead of {known.get(wrong[0])}; restore the file, or build the "
                "semantic IDs again"
            )
        return ids


__all__ = ["SemanticIds"]
