"""Both ways to judge codes, their warnings, and what they refuse."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from hf_latentrec.data.files import read_codes, read_json, read_parquet
from hf_latentrec.semantic_ids.quality import quality_of_codes, quality_of_ids
from hf_latentrec.semantic_ids.quality_codes import reconstruction_errors
from hf_latentrec.semantic_ids.quality_tables import codes_of_tokens

from .quality_cases import make_case, make_quality


def codes_frame(codes: list[list[int]]) -> pl.DataFrame:
    tokens = [[f"<{letter}_{number}>" for letter, number in zip("abcd", code, strict=False)] for code in codes]
    return pl.DataFrame({"item_id": [f"i{row}" for row in range(len(codes))], "semantic_id": tokens})


def even_codes(num_items: int = 64) -> list[list[int]]:
    """All pairs of eight codes, once."""
    return [[item // 8 % 8, item % 8] for item in range(num_items)]


def test_our_ids_before_and_after_the_policy():
    case = make_case()
    ids, quality = case["semantic_ids"], quality_of_ids(**case)
    raw = [tuple(code) for code in ids.raw_codes_IL.tolist()]
    assert quality.before.num_colliding == sum(raw.count(code) > 1 for code in raw) > 0
    assert quality.after.num_colliding == 0 and quality.after.num_codes == quality.num_items == 60
    assert quality.has_extra_level and quality.level_sizes == ids.level_sizes
    assert [level.name for level in quality.levels] == ["a", "b"]  # the extra level is no codebook
    assert [found.length for found in quality.prefixes] == [1, 2, 3]
    assert quality.errors == quality.errors_before and len(quality.errors) == 2
    assert [categories.column for categories in quality.categories] == ["categories", "brand"]
    assert quality.details["collision policy"] == "extra_level" and quality.details["version"] == 1


def test_the_policy_may_cost_reconstruction():
    case = make_case()
    ids = case["semantic_ids"]
    moved_IL = ids.raw_codes_IL.copy()
    moved_IL[:, 1] = (moved_IL[:, 1] + 1) % 4
    moved = dataclasses.replace(ids, codes_IL=moved_IL, level_sizes=(4, 4), policy="nearest_free")
    quality = quality_of_ids(moved, case["embeddings_ID"])
    expected = reconstruction_errors(moved_IL, case["embeddings_ID"], ids.codebooks_LKD)
    assert list(quality.errors) == expected and quality.errors[1].relative > quality.errors_before[1].relative


def test_items_are_matched_by_id_and_need_not_be_described():
    case = make_case()
    groups = quality_of_ids(**case).biggest[1]
    titles = dict(case["items"].select("item_id", "title").rows())
    ids = case["semantic_ids"]
    for prefix in groups:
        (code,) = (int(token[3:-1]) for token in prefix.tokens)
        members = [titles[f"i{row}"] for row in np.flatnonzero(ids.codes_IL[:, 0] == code)]
        assert prefix.titles == tuple(dict.fromkeys(members))[:3] and prefix.num_items == len(members)
    some = quality_of_ids(ids, items=case["items"].filter(pl.col("item_id") != "i0"))
    assert some.categories[1].num_items == 59 and some.num_items == 60
    alone = quality_of_ids(ids)
    assert alone.categories == () and alone.co_purchases is None and alone.repeated_text is None and alone.errors == ()
    assert alone.biggest[1][0].titles == ()


def test_published_codes_are_judged_as_ours():
    case = make_case()
    ids = case["semantic_ids"]
    ours = quality_of_ids(ids, items=case["items"], interactions=case["interactions"])
    frame = codes_frame(ids.codes_IL.tolist())
    theirs = quality_of_codes(
        frame,
        level_sizes=ids.level_sizes,
        has_extra_level=True,
        items=case["items"],
        interactions=case["interactions"],
    )
    ours, theirs = ours.to_dict(), theirs.to_dict()
    assert {name for name in ours if ours[name] != theirs[name]} == {"before", "details"}


def test_sizes_that_are_not_known_are_the_largest_numbers():
    quality = quality_of_codes(codes_frame([[0, 7], [3, 2]]))
    assert quality.level_sizes == (4, 8) and not quality.sizes_are_known
    assert quality_of_codes(codes_frame([[0, 7], [3, 2]]), level_sizes=[256, 256]).sizes_are_known


def test_figures_are_plain_json():
    quality = make_quality(embeddings_ID=np.ones((60, 3)))  # no variance: the relative error is not a number
    figures = json.loads(json.dumps(quality.to_dict(), allow_nan=False))
    assert figures["errors"][0]["relative"] is None and figures["after"]["rate"] == 0.0
    assert figures["biggest"]["1"][0]["tokens"] == list(quality.biggest[1][0].tokens)


def test_good_codes_have_no_warnings():
    assert quality_of_codes(codes_frame(even_codes()), level_sizes=[8, 8]).warnings == ()


def test_a_level_that_uses_few_codes_is_a_warning():
    codes = [[item % 8, item // 8 % 3, item // 24] for item in range(72)]
    quality = quality_of_codes(codes_frame(codes), level_sizes=[8, 8, 3])
    (warning,) = quality.warnings
    assert "Level b: codebook collapsed, 3 of 8 codes used with a perplexity of 3.0" in warning


def test_a_level_that_uses_one_code_mostly_is_a_warning():
    codes = [[item % 16, item // 16 if item < 25 else 0, item] for item in range(400)]
    codes = [[a, item % 16 if item < 16 else 0, c] for item, (a, _, c) in enumerate(codes)]
    (warning,) = quality_of_codes(codes_frame(codes), level_sizes=[16, 16, 400]).warnings
    assert "Level b: codebook collapsed, 16 of 16 codes" in warning


def test_few_items_cannot_use_many_codes():
    assert quality_of_codes(codes_frame([[0, 1], [1, 0]]), level_sizes=[256, 256]).warnings == ()


def test_one_prefix_of_many_items_is_a_warning_that_names_the_longest():
    codes = even_codes() + [[2, 3]] * 16
    warnings = quality_of_codes(codes_frame([[*code, row] for row, code in enumerate(codes)])).warnings
    (warning,) = [warning for warning in warnings if "prefix" in warning]
    assert "One prefix of 2 codes, <a_2><b_3>, holds 17 of 80 items (21.2%)" in warning


def test_a_text_of_many_items_and_collisions_are_warnings():
    items = pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(64)],
            "title": ["tea"] * 5 + [f"title {row}" for row in range(59)],
            "brand": ["x"] * 64,
        }
    )
    codes = even_codes()
    codes[1] = codes[0]
    collision, *_ = [
        warning
        for warning in quality_of_codes(codes_frame(codes), items=items, text_columns=["brand", "title"]).warnings
        if "Collisions" in warning
    ]
    assert "2 of 64 items (3.12%) share their code with another, 2 of them one code" in collision
    quality = quality_of_codes(codes_frame(even_codes()), items=items, text_columns=["title", "brand"])
    assert (quality.repeated_text.num_items, quality.repeated_text.num_texts) == (5, 60)
    (warning,) = quality.warnings
    assert "One text many times: 5 of 64 items (7.8%) have the text 'tea x'" in warning
    items = items.with_columns(title=pl.when(pl.col("item_id") == "i0").then(pl.lit("cup")).otherwise("title"))
    assert quality_of_codes(codes_frame(even_codes()), items=items).warnings == ()


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([["<a_1>"], ["<a_1>", "<b_2>"]], r"item 'i1' \(row 1\) has 2 tokens, item 'i0' \(row 0\) 1"),
        ([["<a_1>"], ["<b_1>"]], r"item 'i1' \(row 1\) has '<b_1>' at level 0, item 'i0' \(row 0\) '<a_1>'"),
        ([["<a_1>"], ["soap"]], r"item 'i1' \(row 1\) has 'soap' at level 0"),
        ([["<a_1>"], ["<a_99999999999>"]], "has '<a_99999999999>' at level 0"),
        ([[], []], "2 items, some without a code"),
        ([["<a_1>"], None], "2 items, some without a code"),
        ([], "0 items"),
    ],
)
def test_tokens_that_are_no_codes_are_refused(codes, message):
    ids = [f"i{row}" for row in range(len(codes))]
    frame = pl.DataFrame([ids, codes], schema={"item_id": pl.String, "semantic_id": pl.List(pl.String)})
    with pytest.raises(ValueError, match=message):
        codes_of_tokens(frame)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level_sizes": [8]}, r"level_sizes \[8\], but the codes need \[8, 8\] at least"),
        ({"level_sizes": [8, 7]}, r"level_sizes \[8, 7\], but"),
        ({"items": pl.DataFrame({"id": ["i0"]})}, r"items: no column 'item_id', found \['id'\]"),
        ({"items": pl.DataFrame({"item_id": ["i0", "i0"]})}, r"items: item_id 'i0' appears 2 times \(rows \[0, 1\]\)"),
        ({"items": pl.DataFrame({"item_id": [0, 1]})}, "items: none of them has a code"),
        ({"category_columns": ["kind"]}, r"items: the columns \['kind'\] are missing"),
        ({"text_columns": ["text"]}, r"items: the columns \['text'\] are missing"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quality_of_codes(codes_frame(even_codes()), **arguments)


def test_an_item_with_two_codes_is_refused():
    frame = codes_frame([[0], [1]]).with_columns(item_id=pl.lit("x"))
    with pytest.raises(ValueError, match=r"codes: item_id 'x' appears 2 times \(rows \[0, 1\]\)"):
        quality_of_codes(frame)


def test_public_codes_of_industrial(real_data_dir):
    folder = real_data_dir("amazon_industrial_2018")
    quality = quality_of_codes(
        read_codes(next(folder.glob("*.index.json"))),
        level_sizes=[256] * 3,
        items=read_parquet(folder / "items.parquet"),
        interactions=read_parquet(folder / "events.parquet"),
        num_pairs=200_000,
    )
    assert (quality.after.num_items, quality.after.num_colliding, quality.after.num_codes) == (3686, 31, 3670)
    assert [level.used for level in quality.levels] == [48, 256, 256]
    collapsed, collisions = quality.warnings
    assert "Level a: codebook collapsed, 48 of 256" in collapsed and "31 of 3,686 items" in collisions
    no_categories, brands = quality.categories  # the categories of this file are empty
    assert no_categories.agreements == () and [one.length for one in brands.agreements] == [0, 1, 2, 3]
    shares = [one.share for one in brands.agreements]
    assert shares == sorted(shares) and 0.004 < shares[0] < 0.006 and 0.74 < shares[2] < 0.76
    lifts = [one.lift_same_popularity for one in quality.co_purchases.co_purchases]
    assert lifts[0] == pytest.approx(1) and 4 < lifts[1] < 5 and 19 < lifts[2] < 20


def test_public_codes_of_beauty(real_data_dir):
    folder = real_data_dir("amazon_beauty_2014")
    histories = read_json(folder / "Beauty.inter.json")
    items = pl.Series([list(map(str, history)) for history in histories.values()])
    interactions = pl.DataFrame({"user_id": list(histories), "item_id": items}).explode("item_id")
    quality = quality_of_codes(
        read_codes(folder / "Beauty.index.json"), level_sizes=[256] * 4, interactions=interactions, max_users=5000
    )
    assert (quality.after.num_items, quality.after.num_colliding, quality.after.num_codes) == (12101, 24, 12088)
    assert [level.used for level in quality.levels] == [197, 256, 256, 256]
    assert quality.co_purchases.co_purchases[2].lift_same_popularity > 10
