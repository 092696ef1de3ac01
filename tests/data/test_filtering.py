from __future__ import annotations

import random
from collections import Counter

import pytest
from datasets import Dataset

from hf_latentrec.data import RecData, k_core, min_rating, validate


def random_data(seed: int, num_events: int = 300) -> RecData:
    rng = random.Random(seed)
    events = [(f"u{rng.randrange(40)}", f"i{int(40 * rng.random() ** 2)}") for _ in range(num_events)]
    positions, seen = [], Counter()
    for user, _ in events:
        positions.append(seen[user])
        seen[user] += 1
    columns = {"user_id": [u for u, _ in events], "item_id": [i for _, i in events], "position": positions}
    return RecData(Dataset.from_dict(columns), Dataset.from_dict({"item_id": [f"i{n}" for n in range(40)]}))


def slow_core(events: list[tuple[str, str]], k: int) -> list[tuple[str, str]]:
    """One removal at a time, by the definition."""
    events = list(events)
    while True:
        for side in (0, 1):
            counts = Counter(event[side] for event in events)
            low = next((name for name, count in counts.items() if count < k), None)
            if low is not None:
                events = [event for event in events if event[side] != low]
                break
        else:
            return events


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_slow_removal(seed, k):
    data = random_data(seed)
    core = validate(k_core(data, k))
    kept = list(zip(core.interactions["user_id"], core.interactions["item_id"], strict=True))
    expected = slow_core(list(zip(data.interactions["user_id"], data.interactions["item_id"], strict=True)), k)
    # rows are grouped by user afterwards; a user's events stay in order
    users = list(dict.fromkeys(user for user, _ in expected))
    assert sorted(kept) == sorted(expected)
    assert all([i for u, i in kept if u == user] == [i for u, i in expected if u == user] for user in users)
    assert set(core.items["item_id"]) == {item for _, item in expected}
    assert core.items["item_id"][:] == sorted(core.items["item_id"], key=lambda name: int(name[1:]))


def test_nothing_left_names_the_numbers():
    with pytest.raises(ValueError, match=r"k=50 nothing is left of 300 interactions of \d+ users with 40 items after"):
        k_core(random_data(0), k=50)
    with pytest.raises(ValueError, match="k=0"):
        k_core(random_data(0), k=0)


def rated(ratings: list, users: str = "uuuvvv") -> RecData:
    positions = [users[:row].count(user) for row, user in enumerate(users)]
    columns = {"user_id": list(users), "item_id": list("abcbca"), "position": positions, "rating": ratings}
    return RecData(Dataset.from_dict(columns), Dataset.from_dict({"item_id": list("zabc")}))


def test_min_rating_keeps_what_is_rated_so_or_higher():
    kept = validate(min_rating(rated([5.0, 3.9, 4.0, 4.5, 1.0, 4.0]), 4))
    rows = kept.interactions.to_pandas().to_records(index=False).tolist()
    assert rows == [("u", "a", 0, 5.0), ("u", "c", 1, 4.0), ("v", "b", 0, 4.5), ("v", "a", 1, 4.0)]
    assert kept.items["item_id"][:] == ["a", "b", "c"]  # z had no interactions; the order stays


def test_min_rating_says_what_is_wrong():
    with pytest.raises(ValueError, match="no interaction of 6 is rated 6 or higher .ratings from 1 to 5"):
        min_rating(rated([5.0, 3.0, 4.0, 4.0, 1.0, 4.0]), 6)
    with pytest.raises(ValueError, match="1 interaction.s. without a rating, first that of user 'u' with item 'b'"):
        min_rating(rated([5.0, None, 4.0, 4.0, 1.0, 4.0]), 4)
    with pytest.raises(ValueError, match="ratings of type String"):
        min_rating(rated(["5", "4", "4", "4", "4", "4"]), 4)
    data = rated([5.0] * 6)
    with pytest.raises(ValueError, match="no column rating"):
        min_rating(RecData(data.interactions.remove_columns("rating"), data.items), 4)
