"""`recipes/prepare_data.py` on small files as users have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

from hf_latentrec.data import load_data
from hf_latentrec.data.preparation import PreparationRules


# The recipes import their neighbours, as scripts do that are run by their path.
RECIPES = Path(__file__).parents[2] / "recipes"
sys.path.append(str(RECIPES))

import prepare_arguments  # noqa: E402
from prepare_data import main, make_parser  # noqa: E402


def write_tables(folder: Path) -> tuple[Path, Path]:
    """Ten users who buy eight items each, in milliseconds, columns by other names."""
    events = ["visitor,sku,clicked_at,stars"]
    for user in range(10):
        for n in range(8):
            events.append(f"u{user},i{(user + n) % 12},{1_500_000_000_000 + 1000 * (100 * n + user)},{1 + n % 5}")
    items = ["sku,name", *(f"i{n},Item &amp; {n}" for n in range(11))]  # i11 is not described
    files = folder / "clicks.csv", folder / "goods.csv"
    for file, lines in zip(files, (events, items), strict=True):
        file.write_text("\n".join(lines) + "\n")
    return files


def table_arguments(folder: Path) -> list[str]:
    events, items = write_tables(folder)
    return [
        *("--source", "table", "--interactions", str(events), "--items", str(items)),
        *("--columns", "user_id=visitor", "item_id=sku", "timestamp=clicked_at", "rating=stars"),
        *("--item_columns", "item_id=sku", "title=name", "--time_unit", "ms"),
        *("--output_dir", str(folder / "out")),
    ]


def run(arguments: list[str]):
    return main(*make_parser().parse_args_and_config(arguments))


def test_table_to_prepared_folder(tmp_path, capsys):
    prepared = run(
        [*table_arguments(tmp_path), "--min_rating", "2", "--k_core", "3", "--examples", "--max_history", "2"]
    )
    data = load_data(tmp_path / "out")
    assert data.num_interactions == prepared.counts.rows and data.num_users == 10
    assert "Item & 3" in data.items["title"][:]
    assert min(data.interactions["timestamp"]) == pytest.approx(1_500_000_100.0)  # seconds
    examples = load_dataset(str(tmp_path / "out" / "examples"), cache_dir=tmp_path / "cache")
    assert {name: len(rows) for name, rows in examples.items()} == prepared.splits
    assert max(map(len, examples["train"]["history"])) == 2
    printed = capsys.readouterr().out
    assert "| min_rating=2 " in printed and "| k_core=3 " in printed
    assert f"fingerprint {prepared.fingerprint}" in printed
    assert f"train_sequential.py --data_dir {tmp_path / 'out'} --model sasrec --split published\n" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "clicks.csv", "goods.csv", "out"]


def test_a_temporal_split_is_passed_on(tmp_path, capsys):
    prepared = run([*table_arguments(tmp_path), "--split", "temporal", "--ratios", "6", "2", "2"])
    assert prepared.splits == {"train": 42, "validation": 14, "test": 14}
    assert "--model sasrec --split published\n" in capsys.readouterr().out


def test_rules_reach_the_preparation(tmp_path):
    given = (
        "--require_title --max_title_words 4 --no_drop_duplicates --start 2017-01-01 --end 2018-01-01 "
        "--repeated last --max_interactions 7 --min_items 2 --window_months 2"
    )
    run([*table_arguments(tmp_path), *given.split()])
    assert json.loads((tmp_path / "out" / "preparation.json").read_text())["rules"] == vars(
        PreparationRules(
            require_title=True, max_title_words=4, drop_duplicates=False, start="2017-01-01", end="2018-01-01",
            repeated="last", max_interactions=7, min_items=2, window_months=2,
        )
    )  # fmt: skip


def test_a_prepared_folder_is_not_replaced_unasked(tmp_path, monkeypatch):
    arguments = table_arguments(tmp_path)
    run(arguments)
    monkeypatch.setitem(prepare_arguments.SOURCES, "table", lambda **_: pytest.fail("read before the folder was seen"))
    with pytest.raises(ValueError, match="is not empty"):
        run(arguments)


def test_config_file(tmp_path):
    events, _ = write_tables(tmp_path)
    config = tmp_path / "clicks.yaml"
    config.write_text(
        f"source: table\ninteractions: {events}\noutput_dir: {tmp_path / 'out'}\ntime_unit: ms\nk_core: 2\n"
        "columns: {user_id: visitor, item_id: sku, timestamp: clicked_at}\nsource_options: {has_header: true}\n"
        "start: 2017-07-01\nend: 2018-01-01\n"
    )
    assert run(["--config", str(config)]).counts.users == 10
    rules = json.loads((tmp_path / "out" / "preparation.json").read_text())["rules"]
    assert (rules["start"], rules["end"]) == ("2017-07-01", "2018-01-01")
    config.write_text("source: tabel\ninteractions: x.csv\noutput_dir: out\n")
    with pytest.raises(ValueError, match="source is 'tabel'; choose one of"):
        run(["--config", str(config)])


class TestErrors:
    @pytest.mark.parametrize(
        ("further", "message"),
        [
            (["--columns", "user_id"], "--columns holds 'user_id'; write each column once, as ours=theirs"),
            (["--columns", "user_id=a", "user_id=b"], "--columns holds 'user_id=b'"),
            (["--max_broken", "0.5"], "--source table has no option 'max_broken'; it has columns, item_columns"),
            (["--source_options", "{no json"], "source_options is no JSON"),
            (["--source_options", "[1]"], r"source_options is \[1\]; pass a mapping"),
            (["--source_options", '{"colour": 1}'], "--source table has no option 'colour'"),
            (["--interactions", "gone.csv"], "gone.csv"),
            (["--k_core", "50"], r"nothing is left after k_core=50.*drop_duplicates 0 rows.*k_core=50 80 rows"),
            (["--start", "soon"], "start='soon' is no ISO date"),
            (["--time_unit", "s"], "milliseconds"),
        ],
    )
    def test_messages(self, tmp_path, further, message):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run([*table_arguments(tmp_path), *further])
        assert not (tmp_path / "out").exists()

    def test_no_traceback_on_the_command_line(self, tmp_path):
        command = [sys.executable, str(RECIPES / "prepare_data.py"), *table_arguments(tmp_path), "--k_core", "50"]
        root = RECIPES.parent
        done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: nothing is left after k_core=50")


def test_help_names_sources_and_rules(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args_and_config(["--help"])
    text = capsys.readouterr().out
    for expected in ("amazon_2018", "movielens", "--k_core", "--columns", "--min_items 5000"):
        assert expected in text
