"""`recipes/compare.py` on folders and files as they are on disk."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hf_latentrec.evaluation import EvaluatedItems, EvaluationRun, RankFile, compare_ranks


# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

from compare import main  # noqa: E402


FULL, UNSEEN = "nothing filtered", "seen items excluded"


def make_run(folder: Path, seed: int, protocols=(FULL, UNSEEN), split: str = "s1", num_users: int = 50) -> Path:
    """An evaluated model of random ranks, other ones under each protocol."""
    rng, users = np.random.default_rng(seed), [f"u{i}" for i in range(num_users)]
    ranks = {
        protocol: RankFile(
            users,
            rng.integers(0, 30, num_users),
            {"split_fingerprint": split, "protocol": protocol, "num_beams": None},
        )
        for protocol in protocols
    }
    items = EvaluatedItems(["a"], ["Apple"], np.array([1]))
    EvaluationRun(f"model {seed}", {"split_fingerprint": split}, items, ranks).save(folder)
    return folder


def expected_rows(a: list[Path], b: list[Path], protocol: str, *settings) -> list:
    a, b = ({str(path): EvaluationRun.load(path).ranks[protocol] for path in paths} for paths in (a, b))
    return compare_ranks(a, b, *settings)


def test_two_folders_under_all_common_protocols(tmp_path, capsys):
    a, b = make_run(tmp_path / "a", 1), make_run(tmp_path / "b", 2)
    output = tmp_path / "new" / "comparison.json"
    main([str(a), str(b), "--output", str(output), "--bootstrap_samples", "200", "--seed", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"A: model 1 ({a})", f"B: model 2 ({b})"]
    assert [line for line in lines if "users" in line] == [f"{FULL}, 50 users", f"{UNSEEN}, 50 users"]
    metrics = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")
    row = expected_rows([a], [b], FULL, metrics, "holm", 200, 0.95, 4)[3]
    header, cells = lines[5], lines[10].split()
    assert header.split("  ")[0] == "metric" and header.count("Holm") == 2
    assert cells[:4] == ["NDCG@10", f"{row.a:.4f}", f"{row.b:.4f}", f"{row.difference:+.4f}"]
    assert cells[4:6] == [f"[{row.interval[0]:+.4f},", f"{row.interval[1]:+.4f}]"]
    assert cells[6:] == [f"{p:.4f}" for p in (row.t_test, row.t_test_corrected, row.wilcoxon, row.wilcoxon_corrected)]
    written = json.loads(output.read_text())
    assert (written["a"], written["b"], written["split_fingerprint"]) == ([str(a)], [str(b)], "s1")
    assert (written["correction"], written["bootstrap_samples"], written["seed"]) == ("holm", 200, 4)
    for protocol in (FULL, UNSEEN):
        rows = expected_rows([a], [b], protocol, metrics, "holm", 200, 0.95, 4)
        assert written["protocols"][protocol] == json.loads(json.dumps([asdict(row) for row in rows]))


def test_chosen_metrics_protocol_and_format(tmp_path, capsys):
    a, b = make_run(tmp_path / "a", 1), make_run(tmp_path / "b", 2)
    arguments = ["--metrics", "MRR", "--protocol", UNSEEN, "--correction", "none", "--markdown"]
    main([str(a), str(b), *arguments])
    out = capsys.readouterr().out
    assert FULL not in out and "Holm" not in out
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    (row,) = expected_rows([a], [b], UNSEEN, ["MRR"])
    assert [line[0] for line in cells] == ["metric", "MRR"]
    assert cells[0][-2:] == ["t-test p", "Wilcoxon p"]
    assert cells[1][-2:] == [f"{row.t_test:.4f}", f"{row.wilcoxon:.4f}"]


def test_several_seeds_and_a_rank_file_of_its_own(tmp_path, capsys):
    runs = [make_run(tmp_path / str(seed), seed) for seed in range(3)]
    main(["--a", str(runs[0]), str(runs[1]), "--b", str(runs[2] / "ranks" / "nothing_filtered.parquet")])
    out = capsys.readouterr().out
    row = expected_rows(runs[:2], runs[2:], FULL)[0]
    assert f"HR@5     {row.a:.4f}  {row.b:.4f}" in out
    assert UNSEEN not in out


def test_a_tiny_p_value_is_not_printed_as_zero(tmp_path, capsys):
    a, b = make_run(tmp_path / "a", 1, num_users=400), make_run(tmp_path / "b", 1, num_users=400)
    run = EvaluationRun.load(b)
    run.ranks[FULL].ranks[:] = 1
    run.save(b)
    main([str(a), str(b), "--protocol", FULL])
    out = capsys.readouterr().out
    assert "< 0.0001" in out and "0.0000 " not in out


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"split": "s2"}, r"model 1 \(.*\) has split_fingerprint 's1', but model 2 \(.*\) has 's2'"),
        ({"num_users": 48}, r"model 2 .* lacks 2 \('u48', 'u49'\) of the 50 users of model 1"),
        ({"protocols": [UNSEEN]}, "not all runs have nothing filtered .*compare ranks of the same protocol"),
    ],
)
def test_what_is_not_comparable_is_refused(tmp_path, other, message):
    a, b = make_run(tmp_path / "a", 1), make_run(tmp_path / "b", 2, **other)
    with pytest.raises(ValueError, match=message):
        main([str(a), str(b), "--protocol", FULL])


def test_rank_files_of_different_protocols_are_refused(tmp_path):
    ranks = make_run(tmp_path / "a", 1) / "ranks"
    with pytest.raises(ValueError, match="not all runs have a common protocol .*'nothing filtered'.*'seen items"):
        main([str(ranks / "nothing_filtered.parquet"), str(ranks / "seen_items_excluded.parquet")])


def test_what_is_no_run_is_named(tmp_path, capsys):
    run = str(make_run(tmp_path / "a", 1))
    with pytest.raises(ValueError, match="nowhere does not exist; pass a folder that recipes/evaluate.py wrote"):
        main([run, str(tmp_path / "nowhere")])
    for arguments in ([run], [run, run, run], [run, run, "--b", run], ["--a", run], []):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "give two runs, RUN_A and RUN_B, or the runs of each model" in capsys.readouterr().err


def test_help_explains_itself(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for word in ("t-test", "Wilcoxon", "bootstrap", "--correction", "recipes/evaluate.py", "HR@5 NDCG@5"):
        assert word in out
