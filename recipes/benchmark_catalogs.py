"""Catalogs and prompts of the decoding benchmark: real ones, or made ones of the same sizes.

Shapes: I items, B prompts, L prompt.
"""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from transformers import AutoTokenizer

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.models.latent_reasoning.tokenization import encode_plain_text


BEAUTY, INDUSTRIAL = "amazon_beauty_2014", "amazon_industrial_2018"
FILES = {BEAUTY: "Beauty.index.json", INDUSTRIAL: "items.parquet"}  # what tells that a folder is the data set
CODEBOOK, LEVELS = 256, 4
BEAUTY_ITEMS, BEAUTY_PREFIXES = 12_101, (197, 7_931, 11_696, 12_088)  # distinct prefixes of 1 to 4 codes
INDUSTRIAL_ITEMS, LONGEST_TITLE = 3_686, 83


@dataclass(frozen=True)
class Vocabulary:
    """
    Where tokens lie: text first, then some special tokens, then 4 codebooks of 256 codes.

    Args:
        size (`int`): all tokens.
    """

    size: int

    @property
    def first_code(self) -> int:
        return self.size - LEVELS * CODEBOOK

    @property
    def pad(self) -> int:
        return self.first_code - 1

    @property
    def terminal(self) -> int:
        """Ends every title."""
        return self.first_code - 2

    @property
    def separator(self) -> int:
        """Stands between the titles of a prompt."""
        return self.first_code - 3

    @property
    def thought_markers(self) -> tuple[int, int]:
        return self.first_code - 5, self.first_code - 4

    @property
    def num_text_tokens(self) -> int:
        return self.first_code - 5


@dataclass
class Catalog:
    """
    What can be recommended, and who asks.

    Args:
        source (`str`): where it comes from, for the head of the table.
        sequences (`list[list[int]]`): the tokens of every item.
        histories (`list[list[int]]`): items of every user, oldest first.
    """

    source: str
    sequences: list[list[int]]
    histories: list[list[int]]


def find_folder(data_dir: Path | None, name: str) -> Path | None:
    """The folder of a data set: below `data_dir`, or that itself; None where it is not there."""
    if data_dir is None:
        return None
    return next((folder for folder in (data_dir / name, data_dir) if (folder / FILES[name]).exists()), None)


def data_folder(text: str) -> Path:
    """The type of `--data_dir` where either data set will do."""
    if not any(find_folder(Path(text), name) for name in FILES):
        raise ArgumentTypeError(f"{text}: no {' and no '.join(f'{k}/{v}' for k, v in FILES.items())} there")
    return Path(text)


def beauty_folder(text: str) -> Path:
    """The type of `--data_dir` where Beauty is wanted: its own folder, whether that was named or the one above."""
    folder = find_folder(Path(text), BEAUTY)
    if folder is None:
        raise ArgumentTypeError(f"{text}: neither {FILES[BEAUTY]} nor {BEAUTY}/{FILES[BEAUTY]} there")
    return folder


def load_beauty(folder: Path, vocabulary: Vocabulary) -> Catalog:
    """Amazon Beauty (2014): published semantic IDs of four codes, and the users' histories."""
    index = json.loads((folder / "Beauty.index.json").read_text())
    histories = json.loads((folder / "Beauty.inter.json").read_text())
    codes = [[int(token[3:-1]) for token in index[str(item)]] for item in range(len(index))]
    return Catalog(BEAUTY, _code_tokens(np.array(codes), vocabulary), list(histories.values()))


def make_beauty(vocabulary: Vocabulary, seed: int = 0) -> Catalog:
    """
    As many items, distinct prefixes at every level and shared IDs as Amazon Beauty has, else random.

    Level by level, every prefix gets one continuation, and random prefixes get the rest.
    """
    rng = np.random.default_rng(seed)
    prefixes = np.empty((1, 0), dtype=np.int64)
    for count in BEAUTY_PREFIXES:
        more = rng.integers(0, len(prefixes), count - len(prefixes))
        num_children = 1 + np.bincount(more, minlength=len(prefixes))
        codes = np.concatenate([rng.choice(CODEBOOK, size, replace=False) for size in num_children])
        prefixes = np.column_stack([prefixes.repeat(num_children, axis=0), codes])
    shared = rng.choice(len(prefixes), BEAUTY_ITEMS - len(prefixes), replace=False)
    codes = rng.permutation(np.concatenate([prefixes, prefixes[shared]]))
    histories = [rng.integers(0, len(codes), length).tolist() for length in rng.integers(5, 60, 2_000)]
    return Catalog("made codes", _code_tokens(codes, vocabulary), histories)


def load_industrial(folder: Path, tokenizer: str, vocabulary: Vocabulary) -> Catalog:
    """Amazon Industrial & Scientific (2018): titles as tokens of a text tokenizer, each with a terminal."""
    titles = pl.read_parquet(folder / "items.parquet").sort("item_id")["title"].to_list()
    events = pl.read_parquet(folder / "events.parquet").sort("user_id", "position")
    texts = encode_plain_text(AutoTokenizer.from_pretrained(tokenizer), titles)
    largest = max(map(max, texts))
    if largest >= vocabulary.num_text_tokens:
        raise ValueError(
            f"{tokenizer}: token {largest} of a title is beyond the {vocabulary.num_text_tokens} text tokens; pass "
            f"--vocab_size {largest + 1 + vocabulary.size - vocabulary.num_text_tokens} or more"
        )
    histories = events.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    return Catalog(INDUSTRIAL, [[*text, vocabulary.terminal] for text in texts], histories)


def make_industrial(vocabulary: Vocabulary, seed: int = 0) -> Catalog:
    """
    Titles shaped like those of Amazon Industrial: mostly variants that leave a recent title after a few tokens (a
    brand, a series), some of them late (a size, a colour), the others new from the first token on.
    """
    rng = np.random.default_rng(seed)
    titles: list[list[int]] = []
    while len(titles) < INDUSTRIAL_ITEMS:
        shared = []
        if titles and rng.random() < 0.82:
            base = titles[-rng.integers(1, min(len(titles), 100) + 1)][:-1]
            leaves_at = rng.integers(1, len(base) + 1) if rng.random() < 0.12 else rng.geometric(0.4)
            shared = base[: min(leaves_at, len(base) - 1)]
        length = int(np.clip(rng.gamma(4.0, 7.0), len(shared) + 1, LONGEST_TITLE - 1))
        new = rng.integers(0, vocabulary.num_text_tokens, length - len(shared)).tolist()
        titles.append([*shared, *new, vocabulary.terminal])
    histories = [rng.integers(0, len(titles), length).tolist() for length in rng.integers(5, 20, 2_000)]
    return Catalog("made titles", titles, histories)


def describe(trie: ItemTrie, sequences: list[list[int]]) -> str:
    """
    Sizes of a catalog's tree: tokens of an item, decisions on its path, and where the last of them is.

    Example:
        >>> sequences = [[1, 2, 9], [1, 3, 4, 9]]
        >>> describe(ItemTrie.from_sequences(sequences), sequences)
        '2 items; of 3.5 tokens, 1.0 are a choice, and an item is known after 2.0'
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    tokens_IT = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, sequences)), True, padding_value=-100)
    path = trie.walk(tokens_IT)[:, :-1]
    branching = (trie.row_ptr.diff()[path] > 1) & (path >= 0)
    known_after = (branching * torch.arange(1, path.shape[1] + 1)).amax(1)
    return (
        f"{len(sequences):,} items; of {lengths.float().mean():.1f} tokens, {branching.sum(1).float().mean():.1f} are "
        f"a choice, and an item is known after {known_after.float().mean():.1f}"
    )


def code_prompts(
    catalog: Catalog, vocabulary: Vocabulary, batch_size: int, prompt_length: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Prompts of the items that random users had, the newest that fit; every history fills half of a prompt or more.

    Returns:
        `tuple` of two `torch.LongTensor` [B, L]: tokens, padded on the left to `prompt_length`, and mask.
    """
    long = [history for history in catalog.histories if 2 * LEVELS * len(history) >= prompt_length]
    rows = [
        [token for item in history for token in catalog.sequences[item]][-prompt_length:]
        for history in _draw(long, batch_size, f"at least {prompt_length // (2 * LEVELS)} items", seed)
    ]
    return pad_left(rows, vocabulary.pad, prompt_length)


def title_prompts(
    catalog: Catalog, vocabulary: Vocabulary, batch_size: int, num_titles: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Prompts of the newest titles that random users had, each followed by a separator.

    Returns:
        `tuple` of two `torch.LongTensor` [B, L]: tokens, padded on the left to the longest, and mask.
    """
    long = [history for history in catalog.histories if len(history) >= num_titles]
    rows = [
        [token for item in history[-num_titles:] for token in [*catalog.sequences[item][:-1], vocabulary.separator]]
        for history in _draw(long, batch_size, f"at least {num_titles} items", seed)
    ]
    return pad_left(rows, vocabulary.pad, max(map(len, rows)))


def pad_left(rows: list[list[int]], pad: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as one tensor [B, L] and its mask."""
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return torch.tensor([[pad] * (length - len(row)) + row for row in rows]), mask


def _draw(histories: list[list[int]], batch_size: int, condition: str, seed: int) -> list[list[int]]:
    if len(histories) < batch_size:
        raise ValueError(
            f"{len(histories)} users have {condition}, but the batch has {batch_size}; take shorter prompts, "
            "a smaller batch or made data"
        )
    chosen = np.random.default_rng(seed).choice(len(histories), batch_size, replace=False)
    return [histories[row] for row in chosen]


def _code_tokens(codes: np.ndarray, vocabulary: Vocabulary) -> list[list[int]]:
    return (vocabulary.first_code + np.arange(LEVELS) * CODEBOOK + codes).tolist()


__all__ = [
    "BEAUTY",
    "INDUSTRIAL",
    "Catalog",
    "Vocabulary",
    "code_prompts",
    "describe",
    "load_beauty",
    "load_industrial",
    "make_beauty",
    "make_industrial",
    "pad_left",
    "title_prompts",
]
