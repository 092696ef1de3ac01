from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_latentrec.evaluation import load_ranks, save_ranks


CIRCUMSTANCES = {"split_fingerprint": "ab12", "protocol": "exclude_seen", "num_beams": 50}


def test_a_rank_file_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "made" / "on the way" / "ranks.parquet"
    save_ranks(path, ["u2", "u1", "ü3"], np.array([3, 0, 41]), **CIRCUMSTANCES, checkpoint="stage1", step=120)
    found = load_ranks(path)
    assert found.user_ids == ["u2", "u1", "ü3"]
    assert found.ranks.dtype == np.int64 and found.ranks.tolist() == [3, 0, 41]
    assert found.metadata == {**CIRCUMSTANCES, "checkpoint": "stage1", "step": 120}


def test_the_ranks_are_a_plain_table_for_other_tools(tmp_path):
    save_ranks(tmp_path / "r.parquet", ["u1", "u2"], [1, 2], **CIRCUMSTANCES)
    assert pq.read_table(tmp_path / "r.parquet").to_pydict() == {"user_id": ["u1", "u2"], "rank": [1, 2]}


def test_depths_come_back_where_there_are_some(tmp_path):
    save_ranks(tmp_path / "r.parquet", ["u1", "u2"], [1, 0], num_thoughts=np.array([3, 8]), **CIRCUMSTANCES)
    found = load_ranks(tmp_path / "r.parquet")
    assert found.num_thoughts.tolist() == [3, 8] and "num_thoughts" not in found.metadata
    assert pq.read_table(tmp_path / "r.parquet").column_names == ["user_id", "rank", "num_thoughts"]
    save_ranks(tmp_path / "r.parquet", ["u1", "u2"], [1, 0], **CIRCUMSTANCES)
    assert load_ranks(tmp_path / "r.parquet").num_thoughts is None
    with pytest.raises(ValueError, match="2 user_ids but 1 num_thoughts"):
        save_ranks(tmp_path / "r.parquet", ["u1", "u2"], [1, 0], num_thoughts=[3], **CIRCUMSTANCES)


@pytest.mark.parametrize(
    ("user_ids", "ranks", "message"),
    [
        (["u1", "u2", "u3", "u1"], [1, 2, 3, 4], r"'u1' appears 2 times \(rows 0, 3\)"),
        (["u1", "u2"], [1], "2 user_ids but 1 ranks"),
        (["u1"], [-1], "-1 in row 0"),
        (["u1", None], [1, 2], "missing in row 1"),
    ],
)
def test_nothing_is_written_where_users_and_ranks_do_not_fit(tmp_path, user_ids, ranks, message):
    with pytest.raises(ValueError, match=message):
        save_ranks(tmp_path / "r.parquet", user_ids, ranks, **CIRCUMSTANCES)
    assert list(tmp_path.iterdir()) == []


def test_duplicate_users_are_found_across_chunks_when_a_file_is_read(tmp_path):
    save_ranks(tmp_path / "r.parquet", ["u1", "u2"], [1, 2], **CIRCUMSTANCES)
    table = pq.read_table(tmp_path / "r.parquet")
    pq.write_table(pa.concat_tables([table, table]), tmp_path / "r.parquet")
    with pytest.raises(ValueError, match=r"r.parquet: user_id 'u1' appears 2 times \(rows 0, 2\)"):
        load_ranks(tmp_path / "r.parquet")


def test_other_files_are_refused(tmp_path):
    pq.write_table(pa.table({"user_id": ["u1"], "rank": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="other.parquet is not a rank file"):
        load_ranks(tmp_path / "other.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "other.parquet").read_bytes()[:40])
    with pytest.raises(ValueError, match="cut.parquet is not a readable parquet file"):
        load_ranks(tmp_path / "cut.parquet")
    with pytest.raises(FileNotFoundError):
        load_ranks(tmp_path / "absent.parquet")


@pytest.mark.parametrize(
    ("columns", "match"),
    [({"rank": [1, 2]}, "the column 'rank' is the file's own"), ({"target": ["a"]}, "2 user_ids but 1 target")],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, columns, match):
    with pytest.raises(ValueError, match=match):
        save_ranks(
            tmp_path / "r.parquet",
            ["u1", "u2"],
            [1, 2],
            split_fingerprint="s",
            protocol="p",
            num_beams=1,
            columns=columns,
        )
