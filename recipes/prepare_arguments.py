"""What is read and where it goes; the rules themselves are `PreparationRules`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mapping_arguments import read_mapping

from hf_latentrec.data.sources import SOURCES, RawData


@dataclass
class SourceArguments:
    """Which files, and how they are read."""

    source: str = field(metadata={"help": "What the files are.", "choices": list(SOURCES)})
    interactions: str = field(
        metadata={
            "help": "File or folder with the interactions; for a table also a quoted glob such as 'parts/*.parquet', "
            "for 'hub' the name of a data set."
        }
    )
    items: str | None = field(default=None, metadata={"help": "File with the items, where there is one beside."})
    columns: list[str] | None = field(
        default=None,
        metadata={"help": "Our columns and the file's: user_id=uid item_id=sku timestamp=date rating=stars."},
    )
    item_columns: list[str] | None = field(
        default=None, metadata={"help": "The same for the items: item_id=sku title=name."}
    )
    time_unit: str | None = field(
        default=None,
        metadata={"help": "Unit of the times: s (the default), ms, us, ns, or 'text' such as 2018-07-07 22:09."},
    )
    separator: str | None = field(default=None, metadata={"help": "Character between the values of a text table."})
    on_conflict: str | None = field(
        default=None, metadata={"help": "Items with one id and different text: 'error' (the default), or 'first'."}
    )
    max_broken: float | None = field(
        default=None, metadata={"help": "JSON lines: largest share of broken lines; 0.01 by default."}
    )
    source_options: dict | str | None = field(
        default=None, metadata={"help": 'JSON: further options of the reader, such as {"has_header": false}.'}
    )

    def __post_init__(self):
        if self.source not in SOURCES:  # argparse sees no config file
            raise ValueError(f"source is {self.source!r}; choose one of {tuple(SOURCES)}")
        for name in ("columns", "item_columns"):
            if (pairs := getattr(self, name)) is not None:
                setattr(self, name, _mapping(name, pairs))
        self.source_options = read_mapping("source_options", self.source_options)

    def read(self, work_dir: Path) -> RawData:
        """What the source's reader finds."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        further = own.pop("source_options") or {}
        reader = SOURCES[own.pop("source")]
        where = {name: own.pop(name) for name in ("interactions", "items")}
        options = {name: value for name, value in own.items() if value is not None} | further
        _check_options(self.source, reader, options)
        return reader(**where, work_dir=work_dir, **options)


@dataclass
class OutputArguments:
    """What is written."""

    output_dir: str = field(metadata={"help": "Folder for the prepared data."})
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace an earlier prepared data set there, if nothing else lies beside it."},
    )
    examples: bool = field(
        default=False, metadata={"help": "Write the examples (user_id, history, target) to output_dir/examples, too."}
    )
    max_history: int = field(default=20, metadata={"help": "Newest items of a training history in the examples."})
    work_dir: str | None = field(
        default=None, metadata={"help": "Folder for what is staged while reading; by default a temporary one."}
    )


def _mapping(name: str, pairs: list[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(pairs, Mapping):  # of a config file
        return dict(pairs)
    mapping: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs) or ours in mapping:
            raise ValueError(f"--{name} holds {pair!r}; write each column once, as ours=theirs, e.g. user_id=uid")
        mapping[ours] = theirs
    return mapping


def _check_options(source: str, reader: Callable[..., RawData], options: Mapping[str, Any]) -> None:
    known = [
        name for name in inspect.signature(reader).parameters if name not in ("interactions", "items", "work_dir")
    ]
    if unknown := [name for name in options if name not in known]:
        raise ValueError(
            f"--source {source} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}; leave it out"
        )


__all__ = ["OutputArguments", "SourceArguments"]
