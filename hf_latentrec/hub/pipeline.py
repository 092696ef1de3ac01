"""`pipeline("next-item-recommendation")`: histories of item ids in, ranked items of the catalog out.

This file travels with published models (`custom_pipelines`), so it imports nothing but transformers and torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torch
from transformers import AutoProcessor, Pipeline


TASK = "next-item-recommendation"
CUSTOM_PIPELINES = {TASK: {"impl": "pipeline.NextItemRecommendationPipeline", "pt": ["AutoModel"]}}

LLM_BATCH_SIZE, ITEM_ID_BATCH_SIZE = 64, 1024
DEFAULT_TOP_K, DEFAULT_NUM_BEAMS = 10, 20
RANKING_OPTIONS = ("top_k", "exclude_seen", "allowed_items")
LLM_OPTIONS = ("num_beams", "num_thoughts")
ITEM_ID_OPTIONS = {"lares": ("num_steps", "seed")}  # by config.model_type; the other models have none

History = list[str]
Recommendations = list[dict[str, Any]]


class _Request(NamedTuple):
    """What is wanted for every history of a call; checked."""

    top_k: int
    exclude_seen: bool
    allowed_items: list[str] | torch.Tensor | None  # as the model takes it: ids, or a mask of the catalog
    model_options: dict[str, Any]


class NextItemRecommendationPipeline(Pipeline):
    """
    Recommends with any model of the library: the LLM recommenders through their processor, the item-ID models by
    themselves.

    Args:
        model (`PreTrainedModel`): the recommender.
        processor (`LatentRecProcessor`, *optional*): of an LLM recommender; it is loaded where `pipeline` is given a
            folder or a repository.
        kwargs: those of [`Pipeline`], and the options of [`__call__`] that shall be the defaults.

    Raises:
        ValueError: for an LLM recommender without its processor, or an item-ID model without its item table.

    Example:

    ```python
    >>> from transformers import pipeline

    >>> from hf_latentrec import ItemTable, PopularityConfig, PopularityRecommender

    >>> items = ItemTable(["a", "b", "c"], titles=["Soap", "Towel", None], popularity=[1, 5, 3])
    >>> model = PopularityRecommender(PopularityConfig(num_items=3), items=items)
    >>> recommend = pipeline("next-item-recommendation", model=model, device="cpu")
    >>> recommend(["a"], top_k=2)
    [{'item_id': 'b', 'title': 'Towel', 'score': 5.0}, {'item_id': 'c', 'title': None, 'score': 3.0}]
    >>> [[item["item_id"] for item in user] for user in recommend([["a"], ["b"]], top_k=2, exclude_seen=True)]
    [['b', 'c'], ['c', 'a']]

    ```
    """

    # Item-ID models have no processor, and a tokenizer or anything else alone is of no use.
    _load_processor = None
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, model, processor=None, **kwargs):
        self.recommends_itself = callable(getattr(model, "recommend", None))  # an item-ID model
        if not self.recommends_itself and processor is None:
            raise _missing_processor(model)
        self.catalog = model.items if self.recommends_itself else processor.catalog
        if self.catalog is None:
            raise ValueError(
                f"{TASK}: {type(model).__name__} has no item table, so it cannot name what it recommends; build it "
                "with items=ItemTable(...), or load it from a folder that holds one"
            )
        super().__init__(model, processor=processor, **kwargs)
        self.model.eval()
        if not self.recommends_itself:
            self.item_trie = processor.item_trie.to(self.device)

    def __call__(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **options: Any,
    ) -> Recommendations | list[Recommendations] | Iterator[Recommendations]:
        """
        Args:
            inputs: one history (`list[str]` of item ids, oldest first), a list of histories, or anything that yields
                them: a generator, a `KeyDataset`, a `datasets.Dataset` with a column `history`.
            batch_size (`int`, *optional*): histories at once; of a stream, so many are read before the first result.
                1024 by default, 64 for LLM recommenders.
            num_workers (`int`, *optional*): refused, as there is nothing for workers to do.
            top_k (`int`, *optional*): items per history; 10 by default, or all of a smaller catalog. Fewer come back
                where fewer may be recommended.
            exclude_seen (`bool`, *optional*, defaults to `False`): leave out what is in the history.
            allowed_items (`list[str]`, *optional*): recommend only these.
            num_beams (`int`, *optional*): of an LLM recommender's search; 20 by default, or `top_k` if that is more.
            num_thoughts (`int`, *optional*): of an LLM recommender that thinks, in place of its own depth.
            num_steps (`int`, *optional*): LARES' reasoning steps; as in its configuration by default.
            seed (`int`, *optional*): of LARES' initial state; 0 by default.

        Returns:
            `list[dict]` for one history, `list[list[dict]]` for a list of them, an iterator for anything else: items
            `{"item_id": str, "title": str | None, "score": float}`, best first.

        Raises:
            ValueError: for an unknown item (names the history, the position and the closest ids), an empty history, an
                option that the model does not have, `top_k` above the size of the catalog, or no allowed item.
        """
        if num_workers or self._num_workers:
            raise ValueError(f"{TASK}: num_workers is {num_workers or self._num_workers}; leave it out")
        _, call_options, _ = self._sanitize_parameters(**options)
        request = self._request(**{**self._forward_params, **call_options})
        default = ITEM_ID_BATCH_SIZE if self.recommends_itself else LLM_BATCH_SIZE
        batch_size = next(size for size in (batch_size, self._batch_size, default) if size is not None)
        if batch_size < 1:
            raise ValueError(f"{TASK}: batch_size is {batch_size}; pass a positive number")
        is_list = isinstance(inputs, (list, tuple))
        if isinstance(inputs, (str, NoneType)) or (is_list and not inputs):
            raise ValueError(
                f"{TASK}: the input is {inputs!r}; pass a list of item ids, at least one, or a list of such"
            )
        if isinstance(inputs, Mapping) or (is_list and isinstance(inputs[0], str)):
            return next(self._stream([inputs], 1, request))
        results = self._stream(inputs, batch_size, request)
        return list(results) if is_list else results

    # The steps of a pipeline, for a batch of histories

    def _sanitize_parameters(self, **options: Any) -> tuple[dict, dict, dict]:
        own = LLM_OPTIONS if not self.recommends_itself else ITEM_ID_OPTIONS.get(self.model.config.model_type, ())
        if unknown := sorted(set(options) - {*RANKING_OPTIONS, *own}):
            raise ValueError(
                f"{TASK}: {type(self.model).__name__} has no option {', '.join(unknown)}; it has "
                f"{', '.join([*RANKING_OPTIONS, *own])}"
            )
        return {}, options, {}

    def preprocess(self, inputs: list[Any], first: int = 0) -> list[History]:
        """Histories as lists of known item ids; `first` is the place of the first in the whole input."""
        histories = [_history_of(one, first + row) for row, one in enumerate(inputs)]
        flat = [item_id for history in histories for item_id in history]
        if (rows := self.catalog.find(flat)).min() < 0:
            unknown = int(rows.argmin())
            for row, history in enumerate(histories):
                if unknown < len(history):
                    where = f"history {first + row}, item {unknown}"
                    raise ValueError(f"{TASK}: {where}: {self.catalog.describe_unknown(history[unknown])}")
                unknown -= len(history)
        return histories

    def forward(self, model_inputs: list[History], **forward_params: Any) -> list[Recommendations]:
        """Without the base's walk through nested lists in search of tensors; there are none."""
        with self.device_placement(), torch.inference_mode():
            return self._forward(model_inputs, **forward_params)

    def _forward(self, histories: list[History], request: _Request) -> list[Recommendations]:
        if self.recommends_itself:
            return self.model.recommend(
                histories,
                k=request.top_k,
                exclude_seen=request.exclude_seen,
                allowed_items=request.allowed_items,
                **request.model_options,
            )
        inputs = self.processor(histories, exclude_seen=request.exclude_seen).to(self.model.device)
        output = self.model.generate(
            **inputs,
            item_trie=self.item_trie,
            allowed_items=request.allowed_items,
            on_empty="skip",
            **request.model_options,
        )
        return self.processor.post_process_recommendations(output, request.top_k)

    def postprocess(self, model_outputs: list[Recommendations]) -> list[Recommendations]:
        """Nothing is left to do."""
        return model_outputs

    def _stream(self, inputs: Iterable[Any], batch_size: int, request: _Request) -> Iterator[Recommendations]:
        """One batch after the other, so that memory does not grow with the input."""
        iterator, first = iter(inputs), 0
        if isinstance(inputs, Sized):  # a torch data set need not raise the error that ends an iteration
            iterator = islice(iterator, len(inputs))
        while batch := list(islice(iterator, batch_size)):
            yield from self.postprocess(self.forward(self.preprocess(batch, first), request=request))
            first += len(batch)

    # Options

    def _request(
        self,
        top_k: int | None = None,
        exclude_seen: bool = False,
        allowed_items: Iterable[str] | None = None,
        **model_options: Any,
    ) -> _Request:
        top_k = min(DEFAULT_TOP_K, len(self.catalog)) if top_k is None else top_k
        if not 1 <= top_k <= len(self.catalog):
            raise ValueError(f"{TASK}: top_k is {top_k}; pass 1 to {len(self.catalog):,}, the items of the catalog")
        allowed_items = None if allowed_items is None else self._allowed(allowed_items)
        model_options = {name: value for name, value in model_options.items() if value is not None}
        if not self.recommends_itself:
            num_beams = model_options.setdefault("num_beams", max(top_k, DEFAULT_NUM_BEAMS))
            if num_beams < top_k:
                raise ValueError(f"{TASK}: num_beams is {num_beams} and top_k {top_k}; a beam gives one item at least")
            if model_options.get("num_thoughts") and self.model.config.num_thoughts == 0:
                raise ValueError(
                    f"{TASK}: num_thoughts is {model_options['num_thoughts']}, but the model was trained without "
                    "thoughts; leave it out"
                )
        return _Request(top_k, exclude_seen, allowed_items, model_options)

    def _allowed(self, allowed_items: Iterable[str]) -> list[str] | torch.Tensor:
        """Known item ids as the model takes them."""
        item_ids = [] if isinstance(allowed_items, str) else list(allowed_items)
        if not item_ids:
            raise ValueError(f"{TASK}: allowed_items is {allowed_items!r}; pass a list of item ids, at least one")
        if (rows := self.catalog.find(item_ids)).min() < 0:
            position = int(rows.argmin())
            problem = self.catalog.describe_unknown(item_ids[position])
            raise ValueError(f"{TASK}: allowed_items, position {position}: {problem}")
        if self.recommends_itself:
            return item_ids
        mask_I = torch.zeros(len(self.catalog), dtype=torch.bool)
        mask_I[torch.as_tensor(rows)] = True
        return mask_I.to(self.device)

    # Files

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """
        Writes the model, its processor where it has one, and what [`add_pipeline_files`] adds.

        Args:
            save_directory (`str` or `Path`): made where it does not exist.
            kwargs: of the model's `save_pretrained`. To publish, call `push_to_hub`.
        """
        if kwargs.pop("push_to_hub", False):
            raise ValueError(f"{TASK}: save_pretrained writes a folder; call pipe.push_to_hub(repo_id) to publish")
        self.model.save_pretrained(save_directory, **kwargs)
        if not self.recommends_itself:
            self.processor.save_pretrained(save_directory)
        add_pipeline_files(save_directory)


def add_pipeline_files(folder: str | Path) -> list[Path]:
    """
    Lets `pipeline("next-item-recommendation", model=folder, trust_remote_code=True)` work where this library is not
    installed: copies this file, and names it in `config.json` as `custom_pipelines`.

    Args:
        folder (`str` or `Path`): of a saved model.

    Returns:
        `list[Path]`: the two files.

    Raises:
        ValueError: there is no `config.json`.
    """
    folder = Path(folder)
    config_file, code_file = folder / "config.json", folder / "pipeline.py"
    if not config_file.is_file():
        raise ValueError(f"add_pipeline_files: {folder} holds no config.json; save the model there first")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["custom_pipelines"] = CUSTOM_PIPELINES
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if Path(__file__).resolve() != code_file.resolve():
        shutil.copyfile(__file__, code_file)
    return [config_file, code_file]


def _history_of(one: Any, place: int) -> History:
    """A history, or that of a row of a data set."""
    if isinstance(one, Mapping):
        if "history" not in one:
            raise ValueError(f"{TASK}: row {place} has {', '.join(map(str, one))}, but no column 'history'; rename it")
        one = one["history"]
    if isinstance(one, str) or not isinstance(one, Iterable):
        raise ValueError(f"{TASK}: history {place} is {one!r}; pass a list of item ids")
    history = list(one)
    if not history:
        raise ValueError(f"{TASK}: history {place} is empty; give it at least one item")
    return history


def _missing_processor(model) -> ValueError:
    """`pipeline` hides why a processor could not be loaded; this says it."""
    where = model.name_or_path or None
    remedy = "pass processor=AutoProcessor.from_pretrained(...)"
    if where is not None:
        try:
            AutoProcessor.from_pretrained(where, trust_remote_code=type(model).__module__.startswith("transformers_"))
        except Exception as error:  # whatever it is: it is told, not handled
            remedy = f"AutoProcessor.from_pretrained({where!r}) says: {error}"
    return ValueError(
        f"{TASK}: {type(model).__name__} reads and writes items through its processor, which is missing; {remedy}"
    )


__all__ = ["NextItemRecommendationPipeline", "add_pipeline_files"]
