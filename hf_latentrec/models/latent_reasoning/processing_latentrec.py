"""LatentRecProcessor: histories in, model inputs out; beams in, items out.

Shapes: B histories, L prompt tokens, H history items, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import cached_file

from .catalog import ItemCatalog
from .item_trie import ItemTrie
from .prompt_blocks import PromptBlocks
from .recommendation_lists import RecommendationLists
from .tokenization import thought_token_ids


CATALOG_FILE = "catalog.safetensors"
TRIE_FILE = "item_trie.safetensors"
HISTORY_FIELD = "{history}"
COMPACT_TEMPLATE = HISTORY_FIELD
# LASAR, appendix E.2
INSTRUCTION_TEMPLATE = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n"
    "### Instruction:\nCan you predict the next possible item that the user may expect?\n"
    "### User Input:\nThe user has interacted with items {history} in chronological order. "
    "Can you predict the next possible item that the user may expect?\n"
    "### Response:\n"
)


class LatentRecProcessor(RecommendationLists, ProcessorMixin):
    """
    What stands between a user's history and the model: tokenizer, item catalog, prompt template and prefix tree.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): The model's tokenizer, with the item tokens added.
        catalog (`ItemCatalog`): What can be recommended.
        item_trie (`ItemTrie`, *optional*): The catalog's prefix tree; built where it is not given.
        prompt_template (`str`, *optional*, defaults to `"{history}"`): Text with `{history}` once; special tokens in
            it are honoured. `INSTRUCTION_TEMPLATE` is LASAR's.
        item_separator (`str`, *optional*): Text between two items. Default: none between semantic IDs, a line break
            between titles.
        max_history (`int`, *optional*, defaults to 20): Only this many newest items enter a prompt.
        split_fingerprint (`str`, *optional*): Fingerprint of the data split that the model was trained on, kept with
            the checkpoint.

    Raises:
        `ValueError`: a bad template, a trie of another catalog, or a catalog of another tokenizer.

    Example:
        >>> from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer
        >>> items = [{"item_id": "B1", "semantic_id": ["<a_1>"]}, {"item_id": "B2", "semantic_id": ["<a_2>"]}]
        >>> tokenizer = build_byte_tokenizer()
        >>> codes = add_item_tokens(tokenizer, [item["semantic_id"] for item in items])
        >>> catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="semantic_id")
        >>> processor = LatentRecProcessor(tokenizer, catalog)
        >>> processor([["B1"], ["B1", "B2"]], return_tensors="pt")["input_ids"].tolist()
        [[256, 258], [258, 259]]
    """

    def __init__(
        self,
        tokenizer,
        catalog,
        item_trie=None,
        prompt_template=COMPACT_TEMPLATE,
        item_separator=None,
        max_history=20,
        split_fingerprint=None,
    ):
        super().__init__(tokenizer)
        self.catalog = catalog
        self.item_trie = catalog.build_trie() if item_trie is None else item_trie
        self._prompt_template = prompt_template
        titles = catalog.item_tokenization == "title"
        self._item_separator = item_separator if item_separator is not None else ("\n" if titles else "")
        self.max_history = max_history
        self.split_fingerprint = split_fingerprint
        self._check()
        before, after = self.prompt_template.split(HISTORY_FIELD)
        self._prompts = PromptBlocks(catalog, tokenizer, before, self.item_separator, after)

    @property
    def model_input_names(self) -> list[str]:
        """Names of what `__call__` returns."""
        return ["input_ids", "attention_mask"]

    @property
    def prompt_template(self) -> str:
        """Text with `{history}`. Fixed, as the separator is: prompts were tokenized with it, and it is saved."""
        return self._prompt_template

    @property
    def item_separator(self) -> str:
        """Text between two items; fixed."""
        return self._item_separator

    @property
    def packable(self) -> bool:
        """
        True if nothing follows the history, or the item separator alone, so that a prefix of a prompt is the prompt of
        a shorter history.
        """
        return self._prompts.continuable

    @property
    def answers_follow_history(self) -> bool:
        """True if the tokens that follow a history in a longer one are the answer: no separator, no terminal."""
        return self.packable and self._prompts.separator_size == 0 and self.catalog.terminal_token_id is None

    def __call__(
        self,
        histories: Sequence[Sequence[str]] | Sequence[str],
        return_tensors: str | None = "pt",
        exclude_seen: bool = False,
    ) -> BatchFeature:
        """
        Prompts of a batch of histories, cut to the newest `max_history` items and padded on the left.

        Args:
            histories (`list[list[str]]`): Item ids, oldest first. One history (`list[str]`) is a batch of one.
            return_tensors (`str`, *optional*, defaults to `"pt"`): As in transformers; None and `"np"` give arrays.
            exclude_seen (`bool`, *optional*, defaults to `False`): Also return what `generate` is to leave out: the
                items of the whole history, not only of the part that enters the prompt.

        Returns:
            `BatchFeature`: `input_ids` and `attention_mask` of shape `[B, L]`, int64; with `exclude_seen` also
            `seen_items` of shape `[B, H]`, int64: catalog rows, padded with -1.

        Raises:
            `ValueError`: a history that is empty or no list, or an unknown item; names history, position and id.
        """
        rows, counts = self._history_rows(histories)
        seen_items = _pad(rows, counts, -1) if exclude_seen else None
        rows, counts = self._newest(rows, counts)
        ids, sizes = self._prompts.encode(rows, counts)
        mask = _prompt_mask(counts, sizes)
        input_ids = np.full(mask.shape, self.tokenizer.pad_token_id, dtype=np.int64)
        input_ids[mask] = ids
        data = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
        if seen_items is not None:
            data["seen_items"] = seen_items
        return BatchFeature(data, tensor_type=return_tensors)

    def token_items(self, histories: Sequence[Sequence[str]] | Sequence[str]) -> np.ndarray:
        """
        Which item of the history each token of its prompt belongs to. A separator belongs to the item that it opens.

        Args:
            histories (`list[list[str]]`): As in `__call__`.

        Returns:
            `np.ndarray` of shape `[B, L]`, int64: for the `input_ids` of `__call__`, the place of the item among those
            that enter the prompt (0 is the oldest of them); -1 for the text around the history and for padding.

        Raises:
            `ValueError`: as in `__call__`.

        Example:
            >>> from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer
            >>> items = [{"item_id": "B1", "semantic_id": ["<a_1>"]}, {"item_id": "B2", "semantic_id": ["<a_2>"]}]
            >>> tokenizer = build_byte_tokenizer()
            >>> codes = add_item_tokens(tokenizer, [item["semantic_id"] for item in items])
            >>> catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="semantic_id")
            >>> processor = LatentRecProcessor(tokenizer, catalog, prompt_template="U:{history}!", item_separator=",")
            >>> processor.token_items([["B1"], ["B2", "B1"]]).tolist()
            [[-1, -1, -1, -1, 0, -1], [-1, -1, 0, 1, 1, -1]]
        """
        rows, counts = self._newest(*self._history_rows(histories))
        _, sizes = self._prompts.encode(rows, counts)
        num_blocks = counts + 2
        item = np.arange(num_blocks.sum()) - np.repeat(num_blocks.cumsum() - num_blocks, num_blocks) - 1
        item[num_blocks.cumsum() - 1] = -1  # the text after the history, as -1 is the text before it already
        mask = _prompt_mask(counts, sizes)
        items = np.full(mask.shape, -1, dtype=np.int64)
        items[mask] = np.repeat(item, sizes)
        return items

    def encode_history(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Prompt of one history, not cut, with the places at which it can be continued.

        Args:
            rows (`np.ndarray` of shape `[H]`): Catalog rows, oldest first.

        Returns:
            `tuple` of two `np.ndarray`, int64: the token ids `[L]`, and `[H]` the index one past the last token of
            each item (past the separator behind it, where the template ends with that), which is where an answer
            to the history up to it would start (see [`packable`]).
        """
        rows = np.asarray(rows)
        ids, sizes = self._prompts.encode(rows, np.array([len(rows)]))
        return ids, sizes.cumsum()[1:-1] + (self._prompts.suffix_size if self.packable else 0)

    def with_items(
        self, items: Any, popularity: Mapping[str, int] | None = None, on_collision: str = "error"
    ) -> LatentRecProcessor:
        """
        A processor that recommends new items as well. The model needs no training for it: it reads and answers codes,
        and scores of the items that it knew stay as they are (over the vocabulary; over the catalog they share with
        the new ones). Save it beside the model with [`LatentRecProcessor.save_pretrained`].

        Args:
            items (`datasets.Dataset`, `pyarrow.Table` or `list[dict]`): The new items: `item_id`, and `semantic_id`
                or `title`, whichever answers are made of.
            popularity (`Mapping[str, int]`, *optional*): Interactions per new `item_id`; others count 0.
            on_collision (`str`, *optional*, defaults to `"error"`): Several items with one sequence are an error, or
                `"share"` a leaf.

        Returns:
            `LatentRecProcessor`: with the next version of the catalog and its trie; this one stays as it is.

        Raises:
            `ValueError`: a known item, a code that the tokenizer does not hold, and others; see
                [`ItemCatalog.with_items`].

        Example:
            >>> from hf_latentrec.models.latent_reasoning.tokenization import add_item_tokens, build_byte_tokenizer
            >>> tokenizer = build_byte_tokenizer()
            >>> codes = add_item_tokens(tokenizer, levels=[["<a_0>", "<a_1>", "<a_2>"]])  # also those of items to come
            >>> items = [{"item_id": "B1", "semantic_id": ["<a_1>"]}, {"item_id": "B2", "semantic_id": ["<a_2>"]}]
            >>> catalog = ItemCatalog.from_items(items, tokenizer, item_tokenization="semantic_id")
            >>> processor = LatentRecProcessor(tokenizer, catalog)
            >>> grown = processor.with_items([{"item_id": "B3", "semantic_id": ["<a_0>"]}])
            >>> grown.catalog.item_ids, grown.catalog.version
            (['B1', 'B2', 'B3'], 2)
        """
        return type(self)(
            self.tokenizer,
            self.catalog.with_items(items, self.tokenizer, popularity=popularity, on_collision=on_collision),
            prompt_template=self.prompt_template,
            item_separator=self.item_separator,
            max_history=self.max_history,
            split_fingerprint=self.split_fingerprint,
        )

    def answer_ids(self, rows: np.ndarray) -> list[np.ndarray]:
        """Token sequences of items as answers, with their terminal: one int32 array per catalog row."""
        return [self.catalog.answer_tokens(row) for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """What `processor_config.json` holds."""
        config = {
            "processor_class": type(self).__name__,
            "prompt_template": self.prompt_template,
            "item_separator": self.item_separator,
            "max_history": self.max_history,
            "split_fingerprint": self.split_fingerprint,
            "catalog_fingerprint": self.catalog.fingerprint,
            **thought_token_ids(self.tokenizer),
        }
        if "auto_map" in self.__dict__:  # set by transformers while it saves the code with the checkpoint
            config["auto_map"] = self.auto_map
        return config

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs) -> list[str]:
        """
        Writes tokenizer, `processor_config.json`, `catalog.safetensors` and `item_trie.safetensors`.

        Args:
            save_directory (`str` or `Path`): Folder; made where it does not exist.
            push_to_hub (`bool`, *optional*, defaults to `False`): Upload it as well; `kwargs` go to `push_to_hub`.

        Returns:
            `list[str]`: paths of the processor's own files.
        """
        folder = Path(save_directory)
        files = super().save_pretrained(str(folder))
        self.catalog.save(folder / CATALOG_FILE)
        self.item_trie.save(folder / TRIE_FILE)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        return [*files, str(folder / CATALOG_FILE), str(folder / TRIE_FILE)]

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path: str | Path, **kwargs) -> tuple[dict, dict]:
        """As in transformers; the catalog and the trie become arguments beside those of `processor_config.json`."""
        hub_names = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")
        hub_kwargs = {name: kwargs[name] for name in hub_names if name in kwargs}
        config, unused_kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        paths = {
            name: cached_file(
                pretrained_model_name_or_path, name, **hub_kwargs, _raise_exceptions_for_missing_entries=False
            )
            for name in (CATALOG_FILE, TRIE_FILE)
        }
        if missing := [name for name, path in paths.items() if path is None]:
            raise ValueError(
                f"LatentRecProcessor: {pretrained_model_name_or_path} has no {' and no '.join(missing)}; save the "
                "processor again (older checkpoints have a catalog.parquet, which is read no more)"
            )
        if "catalog_fingerprint" not in config:
            raise ValueError(
                f"LatentRecProcessor: {pretrained_model_name_or_path} has no processor_config.json of this class; "
                "save the processor again"
            )
        catalog, trie = ItemCatalog.load(paths[CATALOG_FILE]), ItemTrie.load(paths[TRIE_FILE])
        if config["catalog_fingerprint"] != catalog.fingerprint:
            raise ValueError(
                f"LatentRecProcessor: {CATALOG_FILE} of {pretrained_model_name_or_path} has fingerprint "
                f"{catalog.fingerprint}, but processor_config.json names {config['catalog_fingerprint']}; "
                "save the processor again"
            )
        return {**config, "catalog": catalog, "item_trie": trie}, unused_kwargs

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any):
        try:
            return super()._get_arguments_from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except ValueError as error:  # tells nothing of files where one is missing or cut
            raise ValueError(
                f"LatentRecProcessor: tokenizer.json or tokenizer_config.json of {pretrained_model_name_or_path} is "
                f"missing or broken ({error}); save the processor again"
            ) from error

    def _check(self) -> None:
        name = type(self).__name__
        if self.prompt_template.count(HISTORY_FIELD) != 1:
            raise ValueError(
                f"{name}: prompt_template {self.prompt_template!r} holds {HISTORY_FIELD} "
                f"{self.prompt_template.count(HISTORY_FIELD)} times; it must once"
            )
        if self.max_history < 1:
            raise ValueError(f"{name}: max_history is {self.max_history}; pass a positive number")
        if self.tokenizer.pad_token_id is None:
            raise ValueError(f"{name}: the tokenizer has no padding token; set tokenizer.pad_token")
        if self.item_trie.catalog_fingerprint != self.catalog.fingerprint:
            raise ValueError(
                f"{name}: the item trie ({TRIE_FILE}) was built from the catalog "
                f"{self.item_trie.catalog_fingerprint or '(unknown)'}, but this catalog ({CATALOG_FILE}) is "
                f"{self.catalog.fingerprint}; build it again with catalog.build_trie()"
            )
        if (largest := int(self.catalog.flat_tokens.max())) >= len(self.tokenizer):
            raise ValueError(
                f"{name}: the catalog uses token {largest}, but the tokenizer holds {len(self.tokenizer)} tokens; "
                "use the tokenizer that the catalog was built with"
            )

    def _history_rows(self, histories: Sequence[Sequence[str]] | Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Catalog rows of all histories, end to end, and the number of items of each."""
        name = type(self).__name__
        if isinstance(histories, str):  # which would be read letter by letter
            raise ValueError(f"{name}: histories is the string {histories!r}; pass a list of lists of item ids")
        if len(histories) == 0:
            raise ValueError(f"{name}: no histories; pass a list of lists of item ids")
        if all(isinstance(item_id, str) for item_id in histories):
            histories = [histories]
        for position, history in enumerate(histories):
            if isinstance(history, str) or not hasattr(history, "__getitem__"):
                raise ValueError(f"{name}: history {position} is {history!r}; pass a list of item ids, oldest first")
        counts = np.array([len(history) for history in histories])
        if (counts == 0).any():
            raise ValueError(f"{name}: history {counts.argmin()} is empty; give it at least one item")
        item_ids = [item_id for history in histories for item_id in history]
        rows = self.catalog.find(item_ids)
        if (rows < 0).any():
            unknown = int(rows.argmin())
            history = int(np.searchsorted(counts.cumsum(), unknown, side="right"))
            position = unknown - int(counts[:history].sum())
            problem = self.catalog.describe_unknown(item_ids[unknown])
            raise ValueError(f"{name}: history {history}, item {position}: {problem}")
        return rows, counts

    def _newest(self, rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The part of all histories that enters their prompts."""
        from_end = np.repeat(counts.cumsum(), counts) - np.arange(len(rows))
        return rows[from_end <= self.max_history], np.minimum(counts, self.max_history)


def _prompt_mask(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Where the tokens of left-padded prompts stand, `[B, L]`, by the items and the block sizes of each."""
    num_blocks = counts + 2  # the items, the text before and the text after
    lengths = np.add.reduceat(sizes, num_blocks.cumsum() - num_blocks)
    width = int(lengths.max())
    return np.arange(width) >= (width - lengths)[:, None]


def _pad(values: np.ndarray, counts: np.ndarray, padding: int) -> np.ndarray:
    """Rows of `counts` values each, `[B, max(counts)]`, from values end to end; padded on the right."""
    real = np.arange(counts.max()) < counts[:, None]
    padded = np.full(real.shape, padding, dtype=np.int64)
    padded[real] = values
    return padded


__all__ = ["COMPACT_TEMPLATE", "INSTRUCTION_TEMPLATE", "LatentRecProcessor"]
