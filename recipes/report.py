"""
One page that shows an evaluated model, beside baselines of the same split: report.html, and its pictures as PNGs.

    python recipes/report.py runs/lasar
    python recipes/report.py runs/lasar --baselines runs/sasrec runs/popularity

Reads folders that recipes/evaluate.py wrote; no model is needed. report.html holds its pictures itself, so that it can
be sent as one file, and is made for phones and paper, too. Needs matplotlib: pip install 'hf_latentrec[plots]'.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the evaluated model")
    parser.add_argument(
        "--baselines", nargs="+", type=Path, default=[], metavar="RUN", help="folders to compare it with, same split"
    )
    parser.add_argument("--output_dir", type=Path, help="where the report goes; the run's own folder if not given")
    parser.add_argument("--ks", nargs="+", type=int, default=[5, 10, 20], help="cutoffs (default: 5 10 20)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, writes the report and says where it is."""
    options = make_parser().parse_args(arguments)

    from hf_latentrec.evaluation import EvaluationRun
    from hf_latentrec.evaluation.report import write_report

    run = EvaluationRun.load(options.run)
    baselines = [EvaluationRun.load(folder) for folder in options.baselines]
    path = write_report(options.output_dir or options.run, run, baselines, options.ks)
    print(f"The report is {path}; its pictures are beside it.")


if __name__ == "__main__":
    main()
