"""
Give the items of a data set semantic IDs: texts -> embeddings -> codes of residual k-means, and judge them.

    python recipes/build_semantic_ids.py --data_dir PREPARED --model_name_or_path BAAI/bge-small-en-v1.5
    accelerate launch recipes/build_semantic_ids.py ...                 # embeds on all devices; goes on where cut
    python recipes/build_semantic_ids.py --data_dir NEWER --add_items PREPARED ...                     # old codes stay

Into the folder of the data (or --output_dir, with a copy of the data) go `semantic_ids.index.json` (item -> tokens,
which training reads), `semantic_ids.safetensors` (codebooks, codes) and `semantic_ids.json` (settings, versions,
fingerprints); the same bytes for the same items, model, settings and machine. Their quality is in `quality.html` and
`quality.json`.

A model that was trained on such a folder takes up items that were added later, without training:

    known = set(processor.catalog.item_ids)
    new = load_data(DATA).items.filter(lambda item: item["item_id"] not in known)
    processor.with_items(new).save_pretrained(MODEL)
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from semantic_ids_arguments import CodeArguments, EmbeddingArguments, SemanticIdDataArguments, check_same
from trl import TrlParser


if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from hf_latentrec.data import RecData
    from hf_latentrec.semantic_ids.semantic_ids import SemanticIds


DATA_FILES = ("events.parquet", "items.parquet")
NOTES = ("preparation.json", "README.md")  # of a prepared folder
QUALITY = ("quality.html", "quality.json", "quality-*.png")


class SemanticIdsRecipe:
    """
    The whole job: items, embedding, codes, files, report.

    Args:
        data_args, embedding_args, code_args: as parsed.
    """

    def __init__(
        self, data_args: SemanticIdDataArguments, embedding_args: EmbeddingArguments, code_args: CodeArguments
    ):
        self.data_args, self.embedding_args, self.code_args = data_args, embedding_args, code_args
        self.source, self.folder = Path(data_args.data_dir), Path(data_args.output_dir or data_args.data_dir)

    def __call__(self) -> None:
        """Embeds with all processes; the main one does the rest."""
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env
        from training_stages import close

        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
        check_target(self.source, self.folder, self.data_args)
        self.items, self.data = read_items(self.source)
        self.before = self.load_older()
        known = [] if self.before is None else self.before.item_ids
        self.new_items = self.items.join(frame_of(known), on="item_id", how="anti", maintain_order="left")
        if self.before is None and len(self.items) < self.code_args.codebook_size:  # not after an hour of embedding
            raise ValueError(
                f"{self.source} has {len(self.items):,} items, fewer than the {self.code_args.codebook_size} codes of "
                f"a level; pass --codebook_size {len(self.items)} or less"
            )
        if self.before is None and find_spec("faiss") is None:
            raise ImportError('k-means needs faiss: pip install "hf_latentrec[semantic-ids]"')
        embeddings = self.embed(state.is_main_process) if len(self.new_items) else None
        is_main = state.is_main_process
        close(state)  # no process waits for what one of them does alone
        if is_main:
            self.finish(self.give_codes(embeddings), embeddings)

    def load_older(self) -> SemanticIds | None:
        """The semantic IDs that others are added to; their settings are kept."""
        from hf_latentrec.semantic_ids.semantic_ids import SemanticIds

        if (older := self.data_args.add_items) is None:
            return None
        ids = SemanticIds.load(older)
        L, K, _ = ids.quantizer.codebooks_LKD.shape
        sizes = {"num_levels": L, "codebook_size": K}
        check_same(
            self.code_args, {**sizes, "balanced": ids.balanced, "on_collision": ids.policy, "seed": ids.seed}, older
        )
        if (asked := self.embedding_args.fields) is not None and tuple(asked) != ids.text_fields:
            raise ValueError(
                f"--fields are {asked}, but the semantic IDs in {older} are of {list(ids.text_fields)}; leave them out"
            )
        return ids

    def embed(self, is_main: bool) -> np.ndarray:
        """Embeddings of the items that need codes, and what they are made of."""
        from hf_latentrec.semantic_ids.embedding_model import ModelSource
        from hf_latentrec.semantic_ids.embeddings import embed_texts
        from hf_latentrec.semantic_ids.item_text import TEXT_FIELDS, item_texts, report_texts

        args = self.embedding_args
        usual = [name for name in TEXT_FIELDS if name in self.items.columns]
        self.fields = (args.fields or usual) if self.before is None else list(self.before.text_fields)
        texts = item_texts(self.new_items, self.fields or None, on_empty=args.on_empty)
        source = ModelSource.find(args.model_name_or_path, args.model_revision)
        self.model = f"{source.path if source.on_hub else Path(source.path).resolve().name}@{source.revision}"
        if self.before is not None and self.before.embedding_model != self.model:
            raise ValueError(
                f"--model_name_or_path is {self.model}, but the semantic IDs in {self.data_args.add_items} are of "
                f"{self.before.embedding_model}; embed new items with the same model"
            )
        if is_main:
            found = report_texts(texts)  # warns where many items have one text
            print(f"{found.num_texts:,} items to embed, {found.num_distinct:,} different texts", flush=True)
        return embed_texts(
            texts, args.model_name_or_path, args.cache_dir, batch_size=args.batch_size, revision=args.model_revision
        )

    def give_codes(self, embeddings: np.ndarray | None) -> SemanticIds:
        """Codes of all items, or of the new ones beside the others'."""
        from hf_latentrec.semantic_ids.building import add_items, build_semantic_ids

        item_ids = self.new_items["item_id"].to_list()
        if self.before is not None:
            return add_items(self.before, item_ids, embeddings) if item_ids else self.before
        args = self.code_args
        return build_semantic_ids(
            item_ids,
            embeddings,
            num_levels=args.num_levels,
            codebook_size=args.codebook_size,
            balanced=args.balanced,
            on_collision=args.on_collision,
            seed=args.seed,
            embedding_model=self.model,
            text_fields=self.fields,
        )

    def finish(self, ids: SemanticIds, embeddings: np.ndarray | None) -> None:
        """Writes all files, judges the codes, and says what there is."""
        import polars as pl

        from hf_latentrec.semantic_ids.quality import quality_of_ids
        from hf_latentrec.semantic_ids.quality_report import describe, write_quality_report

        if self.folder.resolve() != self.source.resolve():
            copy_data(self.source, self.folder, self.data)
        ids.save(self.folder, listed=set(self.items["item_id"]))
        events = pl.scan_parquet(self.folder / "events.parquet")
        quality = quality_of_ids(
            ids,
            embeddings if self.before is None else None,  # else they are those of the new items alone
            items=self.items,
            interactions=events,
        )
        page = write_quality_report(self.folder, quality, label=self.folder.resolve().name)
        new = "" if self.before is None else f"; {len(ids) - len(self.before):,} are new, the others' stayed"
        options = " --split published" if "split" in events.collect_schema() else ""
        options += " --on_collision share" if ids.policy == "share" else ""
        print(
            f"\n{describe(quality)}\n\n{len(ids):,} items have codes, version {ids.version}{new}\n"
            f"Semantic IDs are in {self.folder}, their quality in {page}\n"
            f"Next: accelerate launch recipes/train_lasar.py --data_dir {self.folder}{options}"
        )


def check_target(source: Path, folder: Path, args: SemanticIdDataArguments) -> None:
    """Nothing is replaced that was not asked for, and what is written can be read by training."""
    from hf_latentrec.semantic_ids.files import INDEX_FILE, JSON_FILE

    if not source.is_dir():
        raise FileNotFoundError(f"--data_dir {source}: no such folder; check the path")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file; pass a folder")
    elsewhere = folder.resolve() != source.resolve()
    if not elsewhere and not is_prepared(source):
        raise ValueError(
            f"--data_dir {source} has no {' and '.join(DATA_FILES)}, beside which codes are read; pass --output_dir "
            "for a copy in this form"
        )
    if others := sorted(path.name for path in folder.glob("*.index.json") if path.name != INDEX_FILE):
        raise ValueError(
            f"{folder} holds codes already, {', '.join(others)}, that are not of this recipe; pass "
            f"{'another ' if elsewhere else ''}--output_dir"
        )
    grows = args.add_items is not None and Path(args.add_items).resolve() == folder.resolve()
    mine = ([] if grows else [INDEX_FILE, JSON_FILE]) + ([*DATA_FILES, *NOTES, *QUALITY] if elsewhere else [])
    if not args.overwrite and (found := [path.name for name in mine for path in sorted(folder.glob(name))]):
        raise ValueError(
            f"{folder} holds {', '.join(found)} already; pass --overwrite to replace it, another --output_dir, or "
            f"--add_items {folder} to keep its codes and give codes to new items"
        )


def is_prepared(folder: Path) -> bool:
    """Whether codes are read where they lie beside the data."""
    return all((folder / name).is_file() for name in DATA_FILES)


def read_items(folder: Path) -> tuple[pl.DataFrame, RecData | None]:
    """The items, with each id once; and the data, where they are not in the form in which they are kept."""
    import polars as pl

    from hf_latentrec.data import load_data
    from hf_latentrec.data.files import read_parquet
    from hf_latentrec.data.schema import to_polars

    if not is_prepared(folder):
        data = load_data(folder)
        return to_polars(data.items), data
    path = folder / "items.parquet"
    items = read_parquet(path)
    if "item_id" not in items.columns or items.height == 0:
        raise ValueError(f"{path}: {items.height} rows with columns {items.columns}; expected items with item_id")
    items = items.with_columns(pl.col("item_id").cast(pl.String))
    rows = items.select("item_id").with_row_index("row")
    nameless = rows.filter(pl.col("item_id").is_null() | (pl.col("item_id") == ""))
    if nameless.height:
        raise ValueError(f"{path}: {nameless.height} row(s) without item_id, first row {nameless['row'][0]}")
    repeated = rows.filter(pl.col("item_id").is_duplicated())
    if repeated.height:
        item_id = repeated["item_id"][0]
        where = ", ".join(map(str, repeated.filter(pl.col("item_id") == item_id)["row"]))
        raise ValueError(
            f"{path}: item_id {item_id!r} appears more than once (rows {where}), as do "
            f"{repeated['item_id'].n_unique() - 1} other(s); keep one row per item"
        )
    return items, None


def frame_of(item_ids: list[str]) -> pl.DataFrame:
    """Ids as a frame to join with."""
    import polars as pl

    return pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String})


def copy_data(source: Path, folder: Path, data: RecData | None) -> None:
    """What training needs beside the codes."""
    from hf_latentrec.data.schema import to_polars

    folder.mkdir(parents=True, exist_ok=True)
    if data is not None:
        to_polars(data.interactions).write_parquet(folder / "events.parquet")
        to_polars(data.items).drop("semantic_id", strict=False).write_parquet(folder / "items.parquet")
        return
    for name in (*DATA_FILES, *NOTES):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def main(data_args: SemanticIdDataArguments, embedding_args: EmbeddingArguments, code_args: CodeArguments) -> None:
    """The whole job, for parsed arguments."""
    SemanticIdsRecipe(data_args, embedding_args, code_args)()


def make_parser() -> TrlParser:
    """The command line."""
    return TrlParser(
        (SemanticIdDataArguments, EmbeddingArguments, CodeArguments),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    try:
        main(*make_parser().parse_args_and_config())
    except (FileNotFoundError, ImportError, ValueError) as error:
        sys.exit(f"error: {error}")
