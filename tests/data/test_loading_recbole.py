from __future__ import annotations

import random

import pytest

from hf_latentrec.data import load_data, load_recbole, split_published


RATINGS = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
EXAMPLES = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


def triples(data) -> list[tuple[str, str, int]]:
    rows = data.interactions
    return list(zip(rows["user_id"], rows["item_id"], rows["position"], strict=True))


def write_splits(folder, **rows: list[tuple[str, str, str]]):
    """`train=[("u", "a b", "c")]`"""
    for split in ("train", "valid", "test"):
        lines = ["\t".join(row) + "\n" for row in rows.get(split, [])]
        (folder / f"X.{split}.inter").write_text(EXAMPLES + "".join(lines))
    return folder


def write_sequences(folder, sequences: dict[str, list[str]], cut: int, rng: random.Random):
    """Leave-one-out examples with histories cut to `cut`, the rows of each file in random order."""
    rows = {"train": [], "valid": [], "test": []}
    for user, items in sequences.items():
        for p in range(1, len(items)):
            split = {len(items) - 1: "test", len(items) - 2: "valid"}.get(p, "train")
            rows[split].append((user, " ".join(items[max(0, p - cut) : p]), items[p]))
    for part in rows.values():
        rng.shuffle(part)
    return write_splits(folder, **rows)


class TestRatings:
    def test_time_order_and_items(self, tmp_path):
        (tmp_path / "X.inter").write_text(RATINGS + "v\ta\t3\t50\nu\tb\t1\t20\nv\tb\t4\t40\nv\tc\t5\t50\n")
        data = load_data(tmp_path)
        assert triples(data) == [("v", "b", 0), ("v", "a", 1), ("v", "c", 2), ("u", "b", 0)]
        assert data.interactions["timestamp"][:] == [40.0, 50.0, 50.0, 20.0]
        assert data.interactions["rating"][:] == [4.0, 3.0, 5.0, 1.0]
        assert data.items["item_id"][:] == ["b", "a", "c"]

    def test_any_title_column_is_the_title(self, tmp_path):
        (tmp_path / "X.inter").write_text(RATINGS + "v\ta\t3\t50\n")
        (tmp_path / "X.item").write_text("movie_title:token_seq\titem_id:token\nToy Story\ta\n")
        assert load_recbole(tmp_path).items[0] == {"item_id": "a", "title": "Toy Story"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (RATINGS + "v\ta\t3\t50\nu\tb\t1\tnan\n", r"X\.inter: line 3: timestamp is 'nan'"),
            (RATINGS + "v\ta\t3\t50\nu\tb\t1\t\n", r"X\.inter: line 3: timestamp is ''"),
            (RATINGS + "v\ta\t3\n", r"X\.inter: line 2: expected 4 fields"),
            (RATINGS + "\ta\t3\t50\n", r"X\.inter: 1 row\(s\) without user_id"),
            (RATINGS + "v\tz\t3\t50\n", r"X\.inter: 1 interaction.* unknown .*X\.item.*item_id='z'"),
            ("user_id:token\titem_id:token\nv\ta\n", r"X\.inter: line 1: no field 'timestamp'"),
            ("user_id:token\titem_id:token\ttimestamp:token\nv\ta\t1\n", r"write timestamp:float in the header"),
        ],
    )
    def test_bad_input(self, tmp_path, text, message):
        (tmp_path / "X.inter").write_text(text)
        (tmp_path / "X.item").write_text("item_id:token\na\nb\n")
        with pytest.raises(ValueError, match=message):
            load_data(tmp_path)


class TestSplits:
    def test_sequences_and_the_split_of_each_event(self, tmp_path):
        train = [("u", "a b", "c"), ("u", "a", "b"), ("v", "x y", "z")]
        valid, test = [("u", "a b c", "d")], [("u", "a b c d", "a"), ("v", "x y z", "a")]
        data = load_recbole(write_splits(tmp_path, train=train, valid=valid, test=test))
        assert [item for _, item, _ in triples(data)] == ["a", "b", "c", "d", "a", "x", "y", "z", "a"]
        assert data.interactions["split"][:] == "train train train valid test train train train test".split()

    @pytest.mark.parametrize("cut", [3, 5, 50])
    @pytest.mark.parametrize("seed", range(4))
    def test_cut_histories_are_rebuilt(self, tmp_path, cut, seed):
        rng = random.Random(seed)
        # distinct items in a user, as windows that repeat cannot be put in order
        names = [f"i{n}" for n in range(40)]
        sequences = {f"u{n}": rng.sample(names, rng.randrange(3, 15)) for n in range(12)}
        data = load_recbole(write_sequences(tmp_path, sequences, cut, rng))
        rebuilt: dict[str, list[str]] = {}
        for user, item, _ in triples(data):
            rebuilt.setdefault(user, []).append(item)
        assert rebuilt == sequences
        splits = split_published(data, max_history=cut)
        for name, file in (("train", "train"), ("validation", "valid"), ("test", "test")):
            lines = (tmp_path / f"X.{file}.inter").read_text().splitlines()[1:]
            rows = [f"{row['user_id']}\t{' '.join(row['history'][-cut:])}\t{row['target']}" for row in splits[name]]
            assert sorted(rows) == sorted(lines)

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            (
                [("u", "a", "b"), ("u", "", "c")],
                r"X\.train\.inter: line 3: user 'u' has an empty history before .*'c'",
            ),
            ([("u", "a", "b"), ("u", "a", "b")], r"X\.train\.inter: line 3: user 'u': .* does not continue"),
            ([("u", "a", "b"), ("u", "a", "c")], r"X\.train\.inter: line 3: user 'u': .*'c' \(1 items\)"),
            ([("u", "a", "x")], r"X\.valid\.inter: line 2: user 'u': the history of target 'd' \(3 items\)"),
            ([("u", "b a", "c")], r"X\.valid\.inter: line 2"),
        ],
    )
    def test_rows_that_do_not_agree(self, tmp_path, train, message):
        write_splits(tmp_path, train=train, valid=[("u", "a b c", "d")], test=[("u", "a b c d", "e")])
        with pytest.raises(ValueError, match=message):
            load_recbole(tmp_path)

    def test_cut_rows_that_do_not_agree(self, tmp_path):
        write_splits(tmp_path, train=[("u", "a b", "c")], valid=[("u", "b c", "d")], test=[("u", "b d", "e")])
        with pytest.raises(ValueError, match=r"X\.test\.inter: line 2: user 'u': the history of target 'e'"):
            load_recbole(tmp_path)

    def test_missing_and_surplus_files(self, tmp_path):
        write_splits(tmp_path, train=[("u", "a", "b")], valid=[("u", "a b", "c")], test=[("u", "a b c", "d")])
        (tmp_path / "X.inter").write_text(RATINGS)
        with pytest.raises(ValueError, match=r"both X\.inter and X\.train\.inter are there"):
            load_recbole(tmp_path)
        (tmp_path / "X.inter").unlink()
        (tmp_path / "X.valid.inter").unlink()
        with pytest.raises(FileNotFoundError, match=r"no \*\.valid\.inter beside X\.train\.inter"):
            load_recbole(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"expected one X\.inter or X\.\{train,valid,test\}\.inter"):
            load_recbole(tmp_path / "..")
