"""
Look inside a trained language model: what its factors, or thoughts, attend to in a user's history, and what it
recommends.

    python recipes/explain.py --model outputs/latentr3/sft --user u17 u42 --output_dir outputs/inside
    python recipes/explain.py --model MODEL --data_dir DATA --split published --user A1Z54EM24Y40LL --output_dir OUT
    python recipes/explain.py --model MODEL --history B0001 B0002 B0003 --output_dir OUT

Users are those of the test split, made as in training: --data_dir and --split are the training run's (without
--data_dir, the synthetic set). Each user gets a folder in output_dir with pictures (explanation.png has all of them;
attention.png, correlation.png, gates.png), the same as data (explanation.json), and recommendations.json.
Drawing needs matplotlib: pip install 'hf_latentrec[plots]'.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from training_setup import SPLIT_WAYS, DataArguments, load_splits


if TYPE_CHECKING:
    from datasets import Dataset

    from hf_latentrec import LatentRecProcessor
    from hf_latentrec.evaluation import Explanation


RECOMMENDATIONS_FILE = "recommendations.json"
TITLE_WIDTH = 60  # letters of a title in the terminal


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or hub id of a trained model with its processor")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", nargs="+", action="extend", metavar="USER_ID", help="users of the test split")
    who.add_argument("--history", nargs="+", metavar="ITEM_ID", help="in place of a user: item ids, oldest first")
    parser.add_argument("--data_dir", help="the training run's data; the synthetic data set if not given")
    parser.add_argument(
        "--split",
        default="leave_one_out",
        choices=SPLIT_WAYS,
        help="the training run's split (default: %(default)s)",
    )
    parser.add_argument("--min_rating", type=float, help="the training run's, where it had one")
    parser.add_argument("--k_core", type=int, help="the training run's, where it had one")
    parser.add_argument("--output_dir", required=True, type=Path, help="where a folder per user is written")
    parser.add_argument("--top_k", type=int, default=5, help="recommendations per user (default: %(default)s)")
    parser.add_argument("--num_beams", type=int, default=10, help="beams of their search (default: %(default)s)")
    return parser


def find_histories(test: Dataset, user_ids: Sequence[str]) -> dict[str, tuple[list[str], str]]:
    """
    History and next item of users; of a user with several test examples, the last.

    Args:
        test (`Dataset`): rows of `user_id, history, target`.
        user_ids (`Sequence[str]`): who to look for.

    Raises:
        ValueError: for users that are not there; names all of them, and similar ones that are.
    """
    row_of = {user_id: row for row, user_id in enumerate(test["user_id"])}
    if unknown := [user_id for user_id in user_ids if user_id not in row_of]:
        from hf_latentrec.models.latent_reasoning.similar_ids import similar_ids

        closest = similar_ids(unknown[0], row_of)
        raise ValueError(
            f"--user: {', '.join(map(repr, unknown))} not among the {len(row_of):,} users of the test split; "
            f"closest to {unknown[0]!r}: {closest}. Are --data_dir and --split those of the training run?"
        )
    rows = {user_id: test[row_of[user_id]] for user_id in user_ids}
    return {user_id: (row["history"], row["target"]) for user_id, row in rows.items()}


def recommend(model: Any, processor: LatentRecProcessor, history: list[str], num_beams: int, top_k: int) -> list[dict]:
    """The best items for a history, as dictionaries of `item_id`, `title` and `score`."""
    inputs = processor([history]).to(model.device)
    trie = processor.item_trie.to(model.device)
    output = model.generate(**inputs, item_trie=trie, num_beams=max(num_beams, top_k))
    return processor.post_process_recommendations(output, top_k)[0]


def describe(explanation: Explanation, recommendations: list[dict], target: str | None) -> str:
    """Attention, gates and recommendations as a small text table."""
    from hf_latentrec.evaluation.plots import caption, shorten

    def line(label: str, values: Sequence[float]) -> str:
        return f"  {shorten(label, TITLE_WIDTH):<{TITLE_WIDTH}}" + "".join(f"{100 * value:10.1f}%" for value in values)

    header = f"  {'attention':<{TITLE_WIDTH}}" + "".join(f"{name:>11}" for name in explanation.rows)
    lines = [header]
    lines += [line(*row) for row in zip(explanation.labels, explanation.attentions[-1].T, strict=True)]
    lines.append(line("(other text and thoughts)", explanation.elsewhere[-1]))
    if explanation.gates is not None:
        lines.append(line("(gates)", explanation.gates[-1]))
    lines += [f"  {caption(explanation)}", "  recommended:"]
    for rank, item in enumerate(recommendations, start=1):
        mark = "   <- the user's next item" if item["item_id"] == target else ""
        title = shorten(item["title"] or item["item_id"], TITLE_WIDTH)
        lines.append(f"  {rank:>3}. {title}  [{item['item_id']}]  {item['score']:.2f}{mark}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, and looks at one user after the other."""
    parser = make_parser()
    options = parser.parse_args(arguments)

    from transformers import AutoModel, AutoProcessor

    from hf_latentrec.evaluation import explain
    from hf_latentrec.evaluation.plots import save_plots

    model = AutoModel.from_pretrained(options.model).eval()
    if hasattr(model, "recommend"):
        raise ValueError(
            f"--model {options.model} is a {type(model).__name__}, which recommends by item ids and has no thoughts "
            "to look into; pass a language model that thinks (for LARES, lares_depth.py shows what its steps do)"
        )
    processor = AutoProcessor.from_pretrained(options.model)
    if options.history:
        users = {"history": (options.history, None)}
    else:
        data_args = DataArguments(
            data_dir=options.data_dir,
            min_rating=options.min_rating,
            k_core=options.k_core,
            split=options.split,
            max_history=processor.max_history,
            on_short="drop",
        )
        _, splits = load_splits(data_args, item_tokenization=processor.catalog.item_tokenization)
        users = find_histories(splits["test"], options.user)
    for user_id, (history, target) in users.items():
        explanation = explain(model, processor, history)
        recommendations = recommend(model, processor, history, options.num_beams, options.top_k)
        # Quoted, because an id may hold what a folder's name may not.
        folder = options.output_dir / quote(user_id, safe="").replace(".", "%2E")
        files = [explanation.save(folder), folder / RECOMMENDATIONS_FILE]
        files[1].write_text(json.dumps(recommendations, indent=2, ensure_ascii=False), encoding="utf-8")
        files += save_plots(explanation, folder)
        print(f"{user_id}: {len(explanation.item_ids)} of {len(history)} items, {explanation.reasoner}")
        print(describe(explanation, recommendations, target))
        print(f"  written to {folder}: {', '.join(file.name for file in files)}\n")


if __name__ == "__main__":
    main()
