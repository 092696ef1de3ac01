"""What build_semantic_ids.py is told: data, embedding, codes."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from hf_latentrec.semantic_ids.collisions import POLICIES


@dataclass
class SemanticIdDataArguments:
    """Where items come from, and where their codes go."""

    data_dir: str = field(metadata={"help": "Folder whose items get codes: a prepared one, or any with item texts."})
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for codes and a copy of the data; by default the codes go into data_dir."},
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace semantic IDs that are there already."})
    add_items: str | None = field(
        default=None,
        metadata={
            "help": "Folder with semantic IDs that stay as they are (data_dir itself, or that of older data): only "
            "items without codes get some, from the same codebooks."
        },
    )


@dataclass
class EmbeddingArguments:
    """What embeds the items."""

    model_name_or_path: str = field(
        metadata={"help": "Any sentence-transformers model, by its hub id or folder, such as BAAI/bge-small-en-v1.5."}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a model on the hub."})
    fields: list[str] | None = field(
        default=None,
        metadata={
            "help": "Columns that make an item's text, the most telling first; by default those of title, brand, "
            "categories and description that are there."
        },
    )
    on_empty: str = field(
        default="error",
        metadata={"help": "Items without any text: 'error', or take the 'id' for it.", "choices": ["error", "id"]},
    )
    batch_size: int = field(default=64, metadata={"help": "Texts per process and pass."})
    cache_dir: str = field(
        default="outputs/embeddings", metadata={"help": "Embeddings are kept here; a run that was cut goes on."}
    )


@dataclass
class CodeArguments:
    """Codebooks and collisions."""

    num_levels: int = field(default=4, metadata={"help": "Levels of residual k-means."})
    codebook_size: int = field(default=256, metadata={"help": "Codes of a level."})
    balanced: bool = field(
        default=True, metadata={"help": "Use each code of a level for ceil(items / codebook_size) items at most."}
    )
    on_collision: str = field(
        default="extra_level",
        metadata={
            "help": "Items with the same codes: one more level numbers them, they move to the nearest free code, or "
            "they share it.",
            "choices": list(POLICIES),
        },
    )
    seed: int = field(default=0, metadata={"help": "The same seed gives the same codes."})

    def __post_init__(self):
        if self.on_collision not in POLICIES:  # argparse sees no config file
            raise ValueError(f"on_collision is {self.on_collision!r}; choose one of {POLICIES}")


def check_same(args: CodeArguments, saved: dict[str, Any], folder: str) -> None:
    """Codes that are added have the settings of the others; what was asked for in its place is an error."""
    for setting in fields(CodeArguments):
        asked, name = getattr(args, setting.name), setting.name
        if setting.default is not MISSING and asked not in (setting.default, saved[name]):
            raise ValueError(
                f"--{name} is {asked}, but the semantic IDs in {folder} have {saved[name]}, and added items get codes "
                f"of the same kind; leave --{name} out"
            )


__all__ = ["CodeArguments", "EmbeddingArguments", "SemanticIdDataArguments", "check_same"]
