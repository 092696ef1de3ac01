"""Purchases of pairs, against loops over users and pairs."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from hf_latentrec.semantic_ids.quality_co_purchases import measure_co_purchases
from hf_latentrec.semantic_ids.quality_codes import prefix_groups

from .quality_cases import make_case


@pytest.fixture(scope="module")
def case():
    made = make_case()
    ids = made["semantic_ids"]
    return ids.raw_codes_IL, ids.item_ids, made["interactions"]


def baskets_of(interactions: pl.DataFrame, item_ids: list[str]) -> list[set[int]]:
    baskets: dict[str, set[int]] = {}
    for user_id, item_id in interactions.rows():
        baskets.setdefault(user_id, set()).add(item_ids.index(item_id))
    return list(baskets.values())


def test_against_loops(case):
    codes_IL, item_ids, interactions = case
    found = measure_co_purchases(prefix_groups(codes_IL), item_ids, interactions)
    baskets = baskets_of(interactions, item_ids)
    assert found.num_users == found.num_users_in_data == len(baskets) == 40
    popularity = [sum(item in basket for basket in baskets) for item in range(len(item_ids))]

    def same(i: int, j: int, length: int) -> bool:
        return codes_IL[i, :length].tolist() == codes_IL[j, :length].tolist()

    all_pairs = list(combinations(range(len(item_ids)), 2))
    all_bought = [len(list(combinations(basket, 2))) for basket in baskets]
    all_expected = sum(popularity[i] * popularity[j] for i, j in all_pairs)
    assert [one.length for one in found.co_purchases] == [0, 1, 2]
    for one in found.co_purchases:
        pairs = [pair for pair in all_pairs if same(*pair, one.length)]
        bought = [sum(same(*pair, one.length) for pair in combinations(basket, 2)) for basket in baskets]
        ratio = sum(bought) / sum(all_bought)
        expected = sum(popularity[i] * popularity[j] for i, j in pairs) / all_expected
        squares = sum((mine - ratio * theirs) ** 2 for mine, theirs in zip(bought, all_bought, strict=True))
        assert (one.num_pairs, one.num_co_purchases) == (len(pairs), sum(bought))
        assert one.per_pair == pytest.approx(sum(bought) / len(pairs))
        assert one.lift == pytest.approx(sum(bought) / len(pairs) / (sum(all_bought) / len(all_pairs)))
        assert one.lift_same_popularity == pytest.approx(ratio / expected)
        assert one.relative_error == pytest.approx(math.sqrt(squares) / sum(all_bought) / ratio)


def test_popularity_alone_has_no_lift_at_the_same_popularity():
    """Users who buy at random, but popular items more often; only these share a prefix."""
    rng = np.random.default_rng(0)
    codes_IL = np.maximum(np.arange(200) - 19, 0)[:, None]
    weights = np.repeat([20.0, 1.0], [20, 180])
    items_U3 = rng.choice(200, size=(5000, 3), p=weights / weights.sum())
    interactions = pl.DataFrame({"user_id": np.repeat(np.arange(5000), 3), "item_id": items_U3.ravel()})
    found = measure_co_purchases(prefix_groups(codes_IL), [str(item) for item in range(200)], interactions)
    one = found.co_purchases[1]
    assert one.lift > 5 and one.lift_same_popularity == pytest.approx(1, abs=0.1)


def test_lazy_frames_whole_numbers_and_unknown_items_are_fine(case):
    codes_IL, item_ids, interactions = case
    groups = prefix_groups(codes_IL)
    expected = measure_co_purchases(groups, item_ids, interactions)
    unknown = pl.DataFrame({"user_id": ["u0", "nobody"], "item_id": ["?", "?"]})
    assert measure_co_purchases(groups, item_ids, pl.concat([interactions, unknown]).lazy()) == expected
    numbered = interactions.with_columns(pl.col("item_id").str.slice(1).cast(pl.Int64))
    assert measure_co_purchases(groups, [item[1:] for item in item_ids], numbered) == expected


def test_users_are_sampled_with_a_seed(case):
    codes_IL, item_ids, interactions = case
    groups = prefix_groups(codes_IL)
    first, again, other = (measure_co_purchases(groups, item_ids, interactions, 15, seed) for seed in (0, 0, 1))
    assert (first.num_users, first.num_users_in_data) == (15, 40) and first == again != other
    shuffled = interactions.sample(fraction=1.0, shuffle=True, seed=4)
    assert measure_co_purchases(groups, item_ids, shuffled, 15) == first


def test_codes_that_nobody_shares_have_no_lift():
    interactions = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]})
    found = measure_co_purchases(prefix_groups(np.array([[0], [1]])), ["a", "b"], interactions)
    assert [one.length for one in found.co_purchases] == [0]
    found = measure_co_purchases(prefix_groups(np.array([[0], [1], [1]])), ["a", "b", "c"], interactions)
    one = found.co_purchases[1]
    assert one.lift == 0.0 and math.isnan(one.lift_same_popularity) and math.isnan(one.relative_error)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"user_id": ["u"], "item": ["a"]}, r"\['item_id'\] are missing"),
        ({"user_id": ["u"], "item_id": ["z"]}, r"none names an item that has a code \(items \['a', 'b'\], events"),
        ({"user_id": ["u", "v"], "item_id": ["a", "b"]}, "no user bought two of the items"),
    ],
)
def test_histories_that_say_nothing_are_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        measure_co_purchases(prefix_groups(np.zeros((2, 1), int)), ["a", "b"], pl.DataFrame(frame))
