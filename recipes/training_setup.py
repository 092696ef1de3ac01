"""What the training recipes share before the first step: data, processor and model, from arguments."""

from __future__ import annotations

from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_latentrec import ItemCatalog, LatentRecProcessor
    from hf_latentrec.data import RecData


SPLIT_WAYS = ("leave_one_out", "temporal", "published")
BACKBONES = {"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}


class HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """For `--help`: the defaults of arguments, and a description with its lines as they are written."""


@dataclass
class InteractionArguments:
    """Where the interactions come from and how they become examples."""

    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder or file with interactions; the synthetic data set if not given."},
    )
    min_rating: float | None = field(
        default=None, metadata={"help": "Keep only interactions that are rated so high or higher; default: all."}
    )
    k_core: int | None = field(
        default=None,
        metadata={"help": "Then keep only users and items with so many interactions each, iterated; default: all."},
    )
    split: str = field(
        default="leave_one_out",
        metadata={
            "help": "'leave_one_out'; 'temporal', 8:1:1 by time; or 'published', as the data's own column says.",
            "choices": list(SPLIT_WAYS),
        },
    )
    max_history: int = field(default=20, metadata={"help": "Newest items of a history that a model reads."})
    window_stride: int = field(
        default=1,
        metadata={
            "help": "Histories beyond max_history start at multiples of this, so that more training targets share one "
            "pass; 1 is the exact sliding window."
        },
    )
    on_short: str = field(
        default="error",
        metadata={
            "help": "Users with fewer than 3 interactions: 'error', or 'drop' them.",
            "choices": ["error", "drop"],
        },
    )


@dataclass
class TrainingDataArguments(InteractionArguments):
    """The same, and what the card of a trained model says of them."""

    data_name: str | None = field(
        default=None, metadata={"help": "Name of the data in the model's card; by default that of their folder."}
    )
    data_license: str | None = field(default=None, metadata={"help": "Licence of the data, for the model's card."})


@dataclass
class DataArguments(TrainingDataArguments):
    """Where the interactions and semantic IDs come from and how they become examples."""

    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder or file with interactions and semantic IDs; the synthetic data set if not given."},
    )
    max_history: int = field(default=20, metadata={"help": "Newest items of a history that enter a prompt."})
    on_collision: str = field(
        default="error",
        metadata={
            "help": "Items with the same semantic ID: 'error', or 'share' one answer and rank by popularity.",
            "choices": ["error", "share"],
        },
    )


@dataclass
class ScratchArguments:
    """A small language model from scratch, its dropout, and the prompt."""

    backbone: str = field(default="qwen3", metadata={"help": "Architecture from scratch.", "choices": list(BACKBONES)})
    hidden_size: int = field(default=64, metadata={"help": "Hidden size from scratch."})
    intermediate_size: int = field(default=192, metadata={"help": "Width of the feed-forward blocks from scratch."})
    num_hidden_layers: int = field(default=2, metadata={"help": "Layers from scratch."})
    num_attention_heads: int = field(default=2, metadata={"help": "Attention heads from scratch."})
    embedding_dropout: float = field(default=0.1, metadata={"help": "Dropout on token embeddings in training."})
    attention_dropout: float = field(default=0.0, metadata={"help": "Dropout on attention weights in training."})
    prompt_template: str = field(
        default="{history}", metadata={"help": "Prompt with {history} once; text after it rules out packed histories."}
    )


def load_splits(args: InteractionArguments, *, item_tokenization: str | None = None) -> tuple[RecData, DatasetDict]:
    """
    Interactions and items, and their split.

    Args:
        args (`InteractionArguments`): where the data are, what is kept of them, and how they are split; `on_short`
            applies to leave-one-out alone.
        item_tokenization (`str`, *optional*): what answers are made of, which the items must have: `"semantic_id"` or
            `"title"`. For models of item ids, nothing.

    Returns:
        `tuple`: the data, and examples `train`, `validation`, `test`.
    """
    from hf_latentrec.data import (
        k_core,
        load_data,
        make_synthetic,
        min_rating,
        split_leave_one_out,
        split_published,
        split_temporal,
        validate,
    )

    data = make_synthetic() if args.data_dir is None else load_data(args.data_dir)
    validate(data, require_codes=item_tokenization == "semantic_id")
    if item_tokenization is not None and item_tokenization not in data.items.column_names:
        raise ValueError(
            f"{args.data_dir}: items have no column {item_tokenization!r} (columns: {data.items.column_names}), but "
            "the answers of this recipe are made of it; use data that has it"
        )
    if args.min_rating is not None:
        data = min_rating(data, args.min_rating)
    if args.k_core is not None:
        data = k_core(data, args.k_core)
    ways = {
        "leave_one_out": partial(split_leave_one_out, on_short=args.on_short),
        "temporal": split_temporal,
        "published": split_published,
    }
    if args.split not in ways:  # argparse sees no config file
        raise ValueError(f"split is {args.split!r}; choose one of {list(ways)}")
    return data, ways[args.split](data, max_history=args.max_history, window_stride=args.window_stride)


def some_users(examples: Dataset, num_users: int | None) -> Dataset:
    """So many examples, drawn at random; always the same, whatever the seed of training. All for `None`."""
    if num_users is None or num_users >= len(examples):
        return examples
    return examples.shuffle(seed=0).select(range(num_users))


def build_processor(
    data: RecData,
    splits: DatasetDict,
    tokenizer: Any,
    args: DataArguments,
    *,
    item_tokenization: str,
    prompt_template: str,
) -> LatentRecProcessor:
    """Catalog, trie and prompt around a tokenizer that holds all tokens already."""
    from hf_latentrec import LatentRecProcessor
    from hf_latentrec.data import split_fingerprint

    catalog = build_catalog(data, splits, tokenizer, item_tokenization, args.on_collision)
    return LatentRecProcessor(
        tokenizer,
        catalog,
        prompt_template=prompt_template,
        max_history=args.max_history,
        split_fingerprint=split_fingerprint(splits),
    )


def build_catalog(
    data: RecData, splits: DatasetDict, tokenizer: Any, item_tokenization: str, on_collision: str
) -> ItemCatalog:
    """The items, with how often each is a target of training."""
    from hf_latentrec import ItemCatalog

    return ItemCatalog.from_items(
        data.items,
        tokenizer,
        item_tokenization=item_tokenization,
        popularity=Counter(splits["train"]["target"]),
        on_collision=on_collision,
    )


def model_settings(args: Any) -> dict[str, Any]:
    """
    What the arguments say of a model's configuration: its dropout and, from scratch, its size.

    Args:
        args: which model: `ScratchArguments` with `model_name_or_path`.
    """
    names = ["embedding_dropout", "attention_dropout"]
    if args.model_name_or_path is None:
        names += ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    return {name: getattr(args, name) for name in names}


def build_model(processor: LatentRecProcessor, args: Any, settings: dict[str, Any], **loading: Any):
    """
    A recommender whose vocabulary holds all tokens of the processor.

    Args:
        processor (`LatentRecProcessor`): with its tokenizer.
        args: which model: `ScratchArguments` with `model_name_or_path`.
        settings (`dict`): of the recommender's configuration, beyond those of its backbone.
        loading: for `from_pretrained` (`dtype`, `revision`, ...), where a pretrained model is loaded.

    Returns:
        `PreTrainedModel`: of the class that fits the backbone.
    """
    from transformers import AutoConfig

    import hf_latentrec

    settings = settings | model_settings(args)
    source = args.model_name_or_path
    where = {"revision": loading["revision"]} if "revision" in loading else {}
    pretrained = None if source is None else AutoConfig.from_pretrained(source, **where)
    family = args.backbone if pretrained is None else pretrained.model_type.removesuffix("_latentrec")
    if family not in BACKBONES:
        raise ValueError(f"model_name_or_path is a {family!r} model; choose one of {sorted(BACKBONES)}")
    model_class = getattr(hf_latentrec, f"{BACKBONES[family]}ForLatentReasoningRec")
    if pretrained is not None:
        known = {key: value for key, value in pretrained.to_dict().items() if key != "model_type"}
        config = model_class.config_class(**{**known, **settings})
        model = model_class.from_pretrained(source, config=config, **loading)
        model.resize_token_embeddings(max(len(processor.tokenizer), config.vocab_size))
        return model
    head_dim = args.hidden_size // args.num_attention_heads
    config = model_class.config_class(
        vocab_size=len(processor.tokenizer),
        num_key_value_heads=args.num_attention_heads,
        **({} if family == "qwen2" else {"head_dim": head_dim}),
        max_position_embeddings=1024,
        pad_token_id=processor.tokenizer.pad_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
        **settings,
    )
    return model_class(config)
