"""A small seeded data set whose next item depends on more than the last one."""

from __future__ import annotations

import numpy as np
import polars as pl

from .schema import RecData, to_dataset
from .validation import validate


BRANDS = (
    "Alder", "Birch", "Cobalt", "Dune", "Ember", "Fjord", "Garnet", "Harbor", "Indigo", "Juniper", "Kestrel", "Lumen",
)  # fmt: skip
CATEGORIES = (
    "trail shoe", "espresso cup", "desk lamp", "bike helmet", "guitar string", "garden glove", "travel mug",
    "chess set", "rain jacket", "paint brush",
)  # fmt: skip
MODELS_PER_BRAND = 8
DAY = 86_400.0


def make_synthetic(
    num_users: int = 2000,
    num_items: int = 400,
    seed: int = 0,
    *,
    min_length: int = 8,
    max_length: int = 16,
    noise: float = 0.1,
) -> RecData:
    """
    Users who follow two or three interests in turn.

    Every category is a series: its items stand in a fixed order (all models of one brand, then of the next), as a
    ring. A user has m = 2 or 3 interests in different categories, each starting somewhere in its series, and takes
    them in turn: the next item is the successor of the one m steps ago,

    ```
    x[t] = successor(x[t - m])          cup 3, lamp 7, cup 4, lamp 8, cup 5, ...
    ```

    so the last item alone says next to nothing of the next one, and m must be read from the whole history. With
    probability `noise` an event shows a random item of another category instead, and the series goes on behind it.
    Categories differ in popularity. No user meets an item twice.

    Args:
        num_users (`int`, *optional*, defaults to 2000):
            Number of users.
        num_items (`int`, *optional*, defaults to 400):
            Number of items, spread evenly over 10 categories.
        seed (`int`, *optional*, defaults to 0):
            Same seed and arguments, same data, in any process.
        min_length (`int`, *optional*, defaults to 8):
            Fewest interactions of a user.
        max_length (`int`, *optional*, defaults to 16):
            Most interactions of a user.
        noise (`float`, *optional*, defaults to 0.1):
            Share of events that follow no rule.

    Returns:
        [`RecData`]: interactions `user_id, item_id, position, timestamp` (seconds) and items `item_id, title,
        semantic_id` (3 levels: category, brand, model; unique), `brand, category`.

    Raises:
        `ValueError`: An argument is out of range, or there are too few or too many items.

    Example:

    ```python
    >>> from hf_latentrec.data import make_synthetic
    >>> data = make_synthetic(num_users=50, seed=1)
    >>> data.items[0]["title"], data.items[0]["semantic_id"]
    ('Alder trail shoe, model 1', ['<a_0>', '<b_0>', '<c_0>'])

    ```
    """
    size = num_items // len(CATEGORIES)
    limit = len(BRANDS) * MODELS_PER_BRAND * len(CATEGORIES)
    if not 3 <= min_length <= max_length <= 2 * size or num_items > limit:
        raise ValueError(
            f"make_synthetic: num_items={num_items}, min_length={min_length}, max_length={max_length}; needs "
            f"3 <= min_length <= max_length <= 2 * (num_items // {len(CATEGORIES)}) and num_items <= {limit}"
        )
    if num_users < 1 or not 0 <= noise < 1:
        raise ValueError(f"make_synthetic: num_users={num_users}, noise={noise}; needs num_users >= 1, 0 <= noise < 1")
    items = _make_items(num_items)
    rng = np.random.default_rng(seed)
    sequences = _make_sequences(items, num_users, max_length, noise, rng)
    lengths = rng.integers(min_length, max_length + 1, num_users)
    gaps = rng.exponential(3 * DAY, sequences.shape).round() + 1
    gaps[:, 0] += rng.integers(0, int(365 * DAY), num_users)
    kept = np.arange(max_length) < lengths[:, None]
    user, position = np.nonzero(kept)
    interactions = pl.DataFrame({
        "user_id": np.char.add("u", np.char.zfill(user.astype(str), 5)),
        "item_id": items["item_id"].to_numpy()[sequences[kept]],
        "position": position,
        "timestamp": 1.7e9 + np.cumsum(gaps, axis=1)[kept],
    })  # fmt: skip
    return validate(RecData(to_dataset(interactions), to_dataset(items)))


def _make_items(num_items: int) -> pl.DataFrame:
    ranks = [np.arange(len(part)) for part in np.array_split(np.arange(num_items), len(CATEGORIES))]
    category = np.repeat(np.arange(len(CATEGORIES)), [len(rank) for rank in ranks])
    rank = np.concatenate(ranks)
    brand = (category + rank // MODELS_PER_BRAND) % len(BRANDS)
    model = rank % MODELS_PER_BRAND
    rows = list(zip(category.tolist(), brand.tolist(), model.tolist(), strict=True))
    return pl.DataFrame({
        "item_id": [f"i{row:04d}" for row in range(num_items)],
        "title": [f"{BRANDS[b]} {CATEGORIES[c]}, model {m + 1}" for c, b, m in rows],
        "semantic_id": [[f"<a_{c}>", f"<b_{b}>", f"<c_{m}>"] for c, b, m in rows],
        "brand": [BRANDS[b] for b in brand],
        "category": [CATEGORIES[c] for c in category],
    })  # fmt: skip


def _make_sequences(
    items: pl.DataFrame, num_users: int, length: int, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Item rows [num_users, length]: interests in turn, with noise."""
    category = items["category"].rle_id().to_numpy().astype(np.int64)
    size = np.bincount(category)
    first_item = np.cumsum(size) - size
    user = np.arange(num_users)[:, None]

    # interests: 3 different categories drawn by popularity (Gumbel top-k), of which the first m are used
    log_popularity = -0.5 * np.log1p(np.arange(len(size)))
    interests = np.argsort(-(log_popularity + rng.gumbel(size=(num_users, len(size)))), axis=1)[:, :3]
    num_interests = rng.integers(2, 4, size=(num_users, 1))
    start = rng.integers(0, size[interests])
    step, turn = np.divmod(np.arange(length), num_interests)
    interest = interests[user, turn]
    sequences = first_item[interest] + (start[user, turn] + step) % size[interest]

    # noise: for each user a random order of the items of all other categories, so none comes twice
    key = rng.random((num_users, len(items)))
    key[(category == interests[:, :, None]).any(axis=1)] = np.inf
    others = np.argsort(key, axis=1)[:, :length]
    return np.where(rng.random(sequences.shape) < noise, others, sequences)


__all__ = ["make_synthetic"]
