"""
Raw files -> a data set that every recipe reads with --data_dir: filtered, split, with a report of what each rule
dropped, a fingerprint and a data card. The same files and rules give the same bytes.

    python recipes/prepare_data.py --source amazon_2018 --interactions Video_Games.json.gz \\
        --items meta_Video_Games.json.gz --output_dir data/games --k_core 5
    python recipes/prepare_data.py --source table --interactions clicks.csv --output_dir data/clicks --k_core 5 \\
        --columns user_id=visitor item_id=sku timestamp=clicked_at --time_unit ms
    python recipes/prepare_data.py --source movielens --interactions ml-1m --output_dir data/ml-1m --split temporal

The window of LatentR3 and FLR: 5-core, from October 2017 to September 2018, begun three months earlier as long as
fewer than 5,000 items remain; then 8:1:1 by time:

    ... --k_core 5 --start 2017-10-01 --end 2018-10-01 --min_items 5000 --split temporal

Rules are applied in the order in which they stand below. Events of one user at one time keep the order of the files.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prepare_arguments import OutputArguments, SourceArguments
from trl import TrlParser

from hf_latentrec.data.preparation import Preparation, PreparationRules, prepare
from hf_latentrec.data.preparation.writing import check_replaceable


def main(source_args: SourceArguments, rules: PreparationRules, args: OutputArguments) -> Preparation:
    """Reads, prepares and reports."""
    output_dir = Path(args.output_dir)
    check_replaceable(output_dir, args.overwrite)  # before the hours of reading
    with staging_folder(args) as work_dir:
        raw = source_args.read(work_dir)
        longest = args.max_history if args.examples else None
        prepared = prepare(raw, rules, output_dir, overwrite=args.overwrite, examples_max_history=longest)
    for reason, count in raw.dropped.items():
        print(f"left out while reading: {count:,} {reason}")
    print(f"\n{prepared.table()}\n")
    print(", ".join(f"{name} {size:,}" for name, size in prepared.splits.items()), "targets")
    if args.examples:
        print(f"examples: load_dataset({str(output_dir / 'examples')!r})")
    print(f"fingerprint {prepared.fingerprint}\n\nThe data are in {output_dir}, described in its README.md. Next:\n")
    print(f"    python recipes/train_sequential.py --data_dir {output_dir} --model sasrec --split published")
    print(f"    python recipes/build_semantic_ids.py --data_dir {output_dir} --model_name_or_path MODEL")
    return prepared


@contextmanager
def staging_folder(args: OutputArguments) -> Iterator[Path]:
    """Where readers stage what cannot be scanned: beside the output, whose disk has the room."""
    if args.work_dir is not None:
        yield Path(args.work_dir)
        return
    beside = Path(args.output_dir).absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="staging-", dir=beside) as folder:
        yield Path(folder)


def make_parser() -> TrlParser:
    """The command line."""
    return TrlParser(
        (SourceArguments, PreparationRules, OutputArguments),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        main(*make_parser().parse_args_and_config())
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
