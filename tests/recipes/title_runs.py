"""What makes a run of a recipe over titles small, and data for it, with titles as found in the wild."""

from __future__ import annotations

from pathlib import Path

import polars as pl


SMALL = [
    "--use_cpu", "--disable_tqdm=true", "--sft_num_train_epochs=1", "--max_steps=2", "--eval_steps=1",
    "--save_steps=1", "--hidden_size=16", "--num_hidden_layers=1", "--intermediate_size=32", "--bpe_vocab_size=300",
    "--eval_num_beams=10", "--validation_users=8", "--latency_users=4", "--num_generations=3", "--length_penalty=0",
    "--save_total_limit=3",
]  # fmt: skip
TITLES = [
    '12" ruler',
    "<b>Bold</b> &amp; new",
    "two\nlines",
    "日本語",
    "<|endoftext|>",
    "same",
    "same",
    "a",
    "a b",
    "É",
]


def write_title_data(folder: Path) -> Path:
    """Sixteen users with six items each, out of ten titles; two items share theirs."""
    rows = [(f"u{u}", str((u * 3 + 7 * k) % 10), 100 * k + u, k) for u in range(16) for k in range(6)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "position"], orient="row")
    split = pl.when(pl.col("position") < 4).then(pl.lit("train"))
    split = split.when(pl.col("position") == 4).then(pl.lit("valid")).otherwise(pl.lit("test"))
    events.with_columns(split=split).write_parquet(folder / "events.parquet")
    pl.DataFrame({"item_id": [str(i) for i in range(10)], "title": TITLES}).write_parquet(folder / "items.parquet")
    return folder
