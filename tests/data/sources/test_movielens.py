from __future__ import annotations

import pytest

from hf_latentrec.data.sources.movielens import read_movielens


FLAGS = {"none": "0|" * 18 + "0", "animation comedy": "0|0|0|1|0|1|" + "0|" * 12 + "0", "western": "0|" * 18 + "1"}
SETS = {
    "100k": {
        "u.data": "196\t242\t3\t881250949\n186\t302\t3.5\t891717742\n",
        "u.item": f"242|Café, The (1995)|01-Jan-1995||http://x|{FLAGS['animation comedy']}\n"
        f'302|Cities: L.A. :: "Noir" (1997)|||http://y|{FLAGS["western"]}\n267|unknown||||{FLAGS["none"]}\n\n',
    },
    "1m": {
        "ratings.dat": "196::242::3::881250949\n186::302::3.5::891717742\n",
        "movies.dat": '242::Café, The (1995)::Animation|Comedy\n302::Cities: L.A. :: "Noir" (1997)::Western\n'
        "267::unknown::\n",
    },
    "32m": {
        "ratings.csv": "userId,movieId,rating,timestamp\n196,242,3.0,881250949\n186,302,3.5,891717742\n",
        "movies.csv": 'movieId,title,genres\n242,"Café, The (1995)",Animation|Comedy\n'
        '302,"Cities: L.A. :: ""Noir"" (1997)",Western\n267,unknown,(no genres listed)\n',
    },
}


def unpacked(folder, name, encoding="utf-8", end="\n", **changed):
    for file, text in SETS[name].items():
        (folder / file).write_bytes(changed.get(file.replace(".", "_"), text).replace("\n", end).encode(encoding))
    return folder


@pytest.mark.parametrize(
    ("name", "encoding"), [("100k", "latin-1"), ("1m", "latin-1"), ("1m", "utf-8"), ("32m", "utf-8")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_all_sets_say_the_same(tmp_path, name, encoding, end):
    raw = read_movielens(unpacked(tmp_path, name, encoding, end), work_dir=tmp_path / "work")
    assert raw.interactions.collect().to_dicts() == [
        {"user_id": "196", "item_id": "242", "timestamp": 881250949.0, "rating": 3.0},
        {"user_id": "186", "item_id": "302", "timestamp": 891717742.0, "rating": 3.5},
    ]
    assert raw.items.to_dicts() == [
        {"item_id": "242", "title": "Café, The (1995)", "genres": ["Animation", "Comedy"]},
        {"item_id": "302", "title": 'Cities: L.A. :: "Noir" (1997)', "genres": ["Western"]},
        {"item_id": "267", "title": "unknown", "genres": []},
    ]
    assert raw.name == "movielens" and raw.dropped == {}
    assert [path.name for path in raw.files] == list(SETS[name])


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("100k", {"u_data": "1\t2\t3\n"}, r"u\.data: no column 'column_3' to be 'timestamp'"),
        ("100k", {"u_data": "1\t2\t3\t4\n1\t2\tx\t4\n"}, r"u\.data: row 1 .*rating is 'x', no number"),
        ("1m", {"ratings_dat": "1::2::3::4\n1::2::3\n"}, r"ratings\.dat: row 1 .*timestamp is None, no time"),
        ("32m", {"ratings_csv": "userId,movieId,rating\n1,2,3\n"}, r"no column 'timestamp'.*'userId', 'movieId'"),
        ("100k", {"u_item": "1|Tea|||\n"}, r"u\.item: line 1: expected 5 fields and 19 flags.*'1\|Tea"),
        ("100k", {"u_item": f"1|Te|a|||x|{FLAGS['none']}\n"}, r"u\.item: line 1: expected 5 fields"),
        (
            "1m",
            {"movies_dat": "1::Tea::Drama\n2::Milk\n"},
            r"movies\.dat: line 2: expected 'movie::title::genre.*'2::Mi",
        ),
        ("1m", {"movies_dat": "1::Tea::Drama\n1::Milk::\n"}, r"movies\.dat: item_id '1' .*'Tea'.*'Milk'"),
        ("32m", {"movies_csv": "movieId,title\n1,Tea\n"}, r"movies\.csv: no column 'genres' .*'movieId', 'title'"),
        ("1m", {"movies_dat": "\n"}, r"movies\.dat: the file is empty \(1 bytes"),
        ("32m", {"movies_csv": ""}, r"movies\.csv: not readable as a table .*empty"),
    ],
)
def test_malformed_files(tmp_path, name, changed, message):
    with pytest.raises(ValueError, match=message):
        read_movielens(unpacked(tmp_path, name, **changed), work_dir=tmp_path / "work")


def test_the_folder(tmp_path):
    with pytest.raises(
        ValueError, match=r"found nothing; expected exactly one of u\.data, ratings\.dat, ratings\.csv"
    ):
        read_movielens(tmp_path, work_dir=tmp_path)
    unpacked(unpacked(tmp_path, "100k"), "1m")
    with pytest.raises(ValueError, match=r"found u\.data, ratings\.dat; expected exactly one"):
        read_movielens(tmp_path, work_dir=tmp_path)
    (tmp_path / "u.data").unlink()
    (tmp_path / "movies.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"no movies\.dat beside ratings\.dat; fetch it"):
        read_movielens(tmp_path, work_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder; unpack"):
        read_movielens(tmp_path / "none", work_dir=tmp_path)
    with pytest.raises(ValueError, match=r"items='x'; name only the folder"):
        read_movielens(tmp_path, "x", work_dir=tmp_path)
