"""From folders on disk to a page, by the command line."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest


pytest.importorskip("matplotlib")

# The recipes import their neighbours, as scripts do that are run by their path.
sys.path.append(str(Path(__file__).parents[2] / "recipes"))

from report import main  # noqa: E402

from ..evaluation.pages import parse, rows_of  # noqa: E402
from ..evaluation.report_runs import make_run, minimal_run  # noqa: E402


def save(run, folder: Path) -> str:
    run.save(folder)
    return str(folder)


def test_a_report_of_folders(tmp_path, capsys):
    run, baseline = save(minimal_run("LARES"), tmp_path / "run"), save(make_run("SASRec", 0.1), tmp_path / "sasrec")
    main([run, "--baselines", baseline, "--output_dir", str(tmp_path / "out"), "--ks", "10"])
    path = tmp_path / "out" / "report.html"
    assert f"The report is {path}" in capsys.readouterr().out and (tmp_path / "out" / "report-quality.png").exists()
    page = parse(path.read_text(encoding="utf-8"))
    (table,) = [table for table in page.find("table") if table.find("caption")[0].text == "Nothing filtered"][:1]
    assert [row[0] for row in rows_of(table)] == ["Model", "LARES", "SASRec"]
    assert rows_of(table)[0] == ["Model", "HR@10", "NDCG@10"]


def test_it_goes_to_the_folder_of_the_run_and_can_be_written_again(tmp_path):
    run = save(minimal_run(), tmp_path / "run")
    main([run])
    main([run])
    assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run" / "run.json").exists()


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run.json.*recipes/evaluate.py"):
        main([str(tmp_path)])


def test_a_baseline_of_another_split_is_refused_and_nothing_written(tmp_path):
    other = minimal_run("SASRec")
    ranks = {
        name: replace(file, metadata=file.metadata | {"split_fingerprint": "0dd"})
        for name, file in other.ranks.items()
    }
    other = save(replace(other, details={"split_fingerprint": "0dd"}, ranks=ranks), tmp_path / "other")
    run = save(minimal_run(), tmp_path / "run")
    with pytest.raises(ValueError, match="has split_fingerprint '5ab1e0c4', but the baseline 'SASRec' has '0dd'"):
        main([run, "--baselines", other, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
