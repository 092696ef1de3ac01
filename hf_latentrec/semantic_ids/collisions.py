"""Items that share their code with others, and three policies for them.

Shapes: I items, M older items, N both, L levels, K codes of a level, D numbers of an embedding, W movers, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from .vector_blocks import check_embeddings


if TYPE_CHECKING:
    from .residual_kmeans import ResidualKMeans


POLICIES = ("extra_level", "nearest_free", "share")
CHUNK_NUMBERS = 2**26  # of the movers' vectors and distances held at a time: 256 MiB
FIRST_WINDOW = 64  # rows of a group that choose at once


def count_collisions(codes_IL: np.ndarray) -> int:
    """
    Items that share their code with another.

    Args:
        codes_IL (`np.ndarray`): codes of shape `[I, L]`.

    Returns:
        `int`: items.

    Example:
        >>> count_collisions(np.array([[0, 1], [0, 1], [1, 0], [0, 1]]))
        3
    """
    sizes_G = np.bincount(prefix_groups(codes_IL, codes_IL.shape[1]))
    return int(sizes_G[sizes_G > 1].sum())


def resolve_collisions(
    codes_IL: np.ndarray,
    embeddings_ID: np.ndarray,
    quantizer: ResidualKMeans,
    policy: str,
    *,
    taken_ML: np.ndarray | None = None,
) -> np.ndarray:
    """
    Final codes of items, after a policy for those that share theirs.

    - `"extra_level"`: every item gets one more code, its number among the items with the same code, in their order:
      0 for most. No two items share all codes.
    - `"nearest_free"`: one item keeps the code, the one nearest to its reconstruction; where an older item has it,
      none. The others move, in their order. The prefix of L - 1 codes is kept where a code below it is free, else that
      of L - 2, and so on. Below it an item takes, level by level, the nearest centroid under which a code is free.
      Items that share nothing stay. A balanced level may lose its balance.
    - `"share"`: codes stay as they are.

    Args:
        codes_IL (`np.ndarray`): codes of shape `[I, L]`.
        embeddings_ID (`np.ndarray`): what was encoded, of shape `[I, D]`; may be memory-mapped.
        quantizer (`ResidualKMeans`): the codebooks.
        policy (`str`): `"extra_level"`, `"nearest_free"` or `"share"`.
        taken_ML (`np.ndarray`, *optional*):
            Final codes of older items, of shape `[M, L]`, with an extra level `[M, L + 1]`. They stay, and new items
            avoid them.

    Returns:
        `np.ndarray`: int32 codes of the I items, of shape `[I, L]`, with an extra level `[I, L + 1]`.

    Raises:
        ValueError: an unknown policy, shapes that do not fit, older items that share all codes, or with
            `"nearest_free"` more items than codes.

    Example:
        >>> from hf_latentrec.semantic_ids.residual_kmeans import ResidualKMeans
        >>> quantizer = ResidualKMeans(np.array([[[0.0], [8.0]], [[-1.0], [1.0]]]))
        >>> codes, embeddings = np.array([[0, 1], [0, 1], [1, 0]]), np.array([[2.0], [1.1], [7.0]])
        >>> resolve_collisions(codes, embeddings, quantizer, "extra_level").tolist()
        [[0, 1, 0], [0, 1, 1], [1, 0, 0]]
        >>> resolve_collisions(codes, embeddings, quantizer, "nearest_free").tolist()
        [[0, 0], [0, 1], [1, 0]]
    """
    if policy not in POLICIES:
        raise ValueError(f"policy {policy!r} for collisions; pass one of {', '.join(map(repr, POLICIES))}")
    num_items = check_embeddings(embeddings_ID, quantizer.dimension)
    quantizer.check_codes(codes_IL, num_items)
    codes_IL = codes_IL.astype(np.int32)
    taken_ML = _check_taken(taken_ML, quantizer, policy)
    if policy == "extra_level":
        return np.column_stack([codes_IL, _number_equals(codes_IL, taken_ML)])
    if policy == "nearest_free":
        return _move_to_free(codes_IL, embeddings_ID, quantizer, taken_ML)
    return codes_IL


def prefix_groups(codes_NL: np.ndarray, depth: int) -> np.ndarray:
    """
    Numbers of the items' prefixes of `depth` codes: equal for equal prefixes, in lexicographic order, without gaps.

    Args:
        codes_NL (`np.ndarray`): codes of shape `[N, L]`.
        depth (`int`): levels of a prefix; 0 puts all items into one group.

    Returns:
        `np.ndarray`: int64 of shape `[N]`.
    """
    groups_N = np.zeros(len(codes_NL), dtype=np.int64)
    for codes_N in codes_NL[:, :depth].T:
        # Without gaps the numbers stay below N, so no product overflows, however many levels there are.
        groups_N = np.unique(groups_N * (int(codes_N.max(initial=0)) + 1) + codes_N, return_inverse=True)[1]
    return groups_N


def _check_taken(taken_ML: np.ndarray | None, quantizer: ResidualKMeans, policy: str) -> np.ndarray:
    width = quantizer.num_levels + (policy == "extra_level")
    if taken_ML is None:
        return np.zeros((0, width), dtype=np.int32)
    if taken_ML.ndim != 2 or taken_ML.shape[1] != width:
        raise ValueError(
            f"taken codes of shape {taken_ML.shape}, but {policy!r} gives {width} levels; keep the policy of the "
            "older items"
        )
    quantizer.check_codes(taken_ML[:, : quantizer.num_levels])
    if policy != "share" and (shared := count_collisions(taken_ML)):
        raise ValueError(
            f"{shared} of {len(taken_ML)} older items share all their codes, and older items never move; "
            f'pass policy "share", or resolve the collisions of all items anew with {policy!r}'
        )
    return taken_ML.astype(np.int32)


def _ranks(groups_N: np.ndarray) -> np.ndarray:
    """Each row's number among the rows of its group, in their order."""
    order_N = np.argsort(groups_N, kind="stable")
    sorted_N = groups_N[order_N]
    ranks_N = np.empty(len(groups_N), dtype=np.int64)
    ranks_N[order_N] = np.arange(len(groups_N)) - np.searchsorted(sorted_N, sorted_N)
    return ranks_N


def _number_equals(codes_IL: np.ndarray, taken_ML: np.ndarray) -> np.ndarray:
    """Numbers within groups of equal codes, from the first that lies above those of the older items."""
    num_taken, num_levels = len(taken_ML), codes_IL.shape[1]
    groups_N = prefix_groups(np.concatenate([taken_ML[:, :num_levels], codes_IL]), num_levels)
    first_G = np.zeros(groups_N.max(initial=-1) + 1, dtype=np.int64)
    np.maximum.at(first_G, groups_N[:num_taken], taken_ML[:, -1].astype(np.int64) + 1)
    groups_I = groups_N[num_taken:]
    return (first_G[groups_I] + _ranks(groups_I)).astype(np.int32)


def _move_to_free(
    codes_IL: np.ndarray, embeddings_ID: np.ndarray, quantizer: ResidualKMeans, taken_ML: np.ndarray
) -> np.ndarray:
    num_taken, num_levels = len(taken_ML), quantizer.num_levels
    codes_NL = np.concatenate([taken_ML, codes_IL])
    if len(codes_NL) > quantizer.codebook_size**num_levels:
        raise ValueError(
            f"{len(codes_NL)} items, but {num_levels} levels of {quantizer.codebook_size} codes name only "
            f"{quantizer.codebook_size**num_levels}; pass more levels, a larger codebook, or on_collision="
            '"extra_level"'
        )
    moves = _Moves(codes_NL, embeddings_ID, quantizer, num_taken)
    waiting_W = moves.find_movers()
    for depth in range(num_levels - 1, -1, -1):
        if not len(waiting_W):
            break
        waiting_W = moves.move_below(waiting_W, depth)
    return codes_NL[num_taken:]


class _Moves:
    """
    The movers' way to free codes. `codes_NL` holds older items first and changes in place.

    A choice depends on those before it only through which child of a prefix still has room. So all movers below a
    prefix choose a level together, and only then the next.
    """

    def __init__(
        self, codes_NL: np.ndarray, embeddings_ID: np.ndarray, quantizer: ResidualKMeans, num_taken: int
    ) -> None:
        self.codes_NL, self.embeddings_ID = codes_NL, embeddings_ID
        self.quantizer, self.num_taken = quantizer, num_taken
        self.settled_N = np.ones(len(codes_NL), dtype=bool)

    def find_movers(self) -> np.ndarray:
        """Rows of `codes_NL` that have to move, in order: all of a group but its keeper."""
        groups_N = prefix_groups(self.codes_NL, self.codes_NL.shape[1])
        rows_C = self.num_taken + np.flatnonzero(np.bincount(groups_N)[groups_N[self.num_taken :]] > 1)
        is_old_G = np.zeros(groups_N.max(initial=-1) + 1, dtype=bool)
        is_old_G[groups_N[: self.num_taken]] = True
        distances_C = np.empty(len(rows_C), dtype=np.float32)
        for part in _parts(len(rows_C), self._rows_at_a_time()):
            distances_C[part] = np.square(self._residuals(rows_C[part], self.codes_NL.shape[1])).sum(1)
        groups_C = groups_N[rows_C]
        nearest_C = np.empty(len(rows_C), dtype=bool)
        order_C = np.lexsort((distances_C, groups_C))  # stable: of equals the first item
        nearest_C[order_C] = np.diff(groups_C[order_C], prepend=-1) > 0
        movers_W = rows_C[~nearest_C | is_old_G[groups_C]]
        self.settled_N[movers_W] = False
        return movers_W

    def move_below(self, waiting_W: np.ndarray, depth: int) -> np.ndarray:
        """Moves those who find room below their first `depth` codes. Returns the others."""
        groups_N = prefix_groups(self.codes_NL, depth)
        used_G = np.bincount(groups_N[self.settled_N], minlength=groups_N.max(initial=-1) + 1)
        groups_W = groups_N[waiting_W]
        fits_W = _ranks(groups_W) < self._capacity(depth) - used_G[groups_W]
        for level in range(depth, self.codes_NL.shape[1]):
            self._choose(waiting_W[fits_W], level)
        self.settled_N[waiting_W[fits_W]] = True
        return waiting_W[~fits_W]

    def _capacity(self, depth: int) -> int:
        """Codes below a prefix of `depth` codes; no more than there are items, as that is no limit."""
        below = self.codes_NL.shape[1] - depth
        return min(self.quantizer.codebook_size**below, len(self.codes_NL))

    def _choose(self, rows_W: np.ndarray, level: int) -> None:
        """Each row's code of one level: the nearest of those with room below it, in the order of the rows."""
        if not len(rows_W):
            return
        groups_N = prefix_groups(self.codes_NL, level)
        rows_W = rows_W[np.argsort(groups_N[rows_W], kind="stable")]
        wanted_G, groups_W = np.unique(groups_N[rows_W], return_inverse=True)
        centroids_KD = self.quantizer.codebooks_LKD[level]
        squared_K = np.einsum("kd,kd->k", centroids_KD, centroids_KD)
        for groups in _parts(len(wanted_G), CHUNK_NUMBERS // len(centroids_KD)):
            part = slice(*np.searchsorted(groups_W, [groups.start, groups.stop]))
            rows_V, groups_V = rows_W[part], groups_W[part] - groups.start
            self.codes_NL[rows_V, level] = serial_choices(
                lambda rows, rows_V=rows_V: squared_K - 2 * (self._residuals(rows_V[rows], level) @ centroids_KD.T),
                groups_V,
                self._room(groups_N, wanted_G[groups], level),
                self._rows_at_a_time(),
            )

    def _room(self, groups_N: np.ndarray, wanted_G: np.ndarray, level: int) -> np.ndarray:
        """Free codes below every child of some prefixes, `[G, K]`."""
        num_codes = self.quantizer.codebook_size
        number_P = np.full(groups_N.max() + 1, -1)
        number_P[wanted_G] = np.arange(len(wanted_G))
        beside_N = self.settled_N & (number_P[groups_N] >= 0)
        children_N = number_P[groups_N[beside_N]] * num_codes + self.codes_NL[beside_N, level]
        used_GK = np.bincount(children_N, minlength=len(wanted_G) * num_codes).reshape(-1, num_codes)
        return self._capacity(level + 1) - used_GK

    def _residuals(self, rows_W: np.ndarray, level: int) -> np.ndarray:
        vectors_WD = np.array(self.embeddings_ID[rows_W - self.num_taken], dtype=np.float32)
        return vectors_WD - self.quantizer.reconstruct(self.codes_NL[rows_W, :level])

    def _rows_at_a_time(self) -> int:
        """How many rows' vectors and distances are held together."""
        return max(1, CHUNK_NUMBERS // (self.quantizer.codebook_size + 2 * self.quantizer.dimension))


def _parts(num_rows: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))


def serial_choices(
    costs_of: Callable[[np.ndarray], np.ndarray], groups_W: np.ndarray, room_GK: np.ndarray, max_rows: int
) -> np.ndarray:
    """
    One after the other, the rows of a group take their cheapest code with room left; of equal costs the lowest code.

    The next rows of many groups choose at once. Of a group those are final who stand before the first one whose code
    the rows before it fill up. The others choose again, and the group's window is fitted to how many were final.

    Args:
        costs_of (`Callable`): costs `[V, K]` of rows `[V]`.
        groups_W (`np.ndarray`): the rows' groups from 0 on, sorted and without gaps, of shape `[W]`.
        room_GK (`np.ndarray`): how many rows of a group may take a code, of shape `[G, K]`; changes in place.
        max_rows (`int`): rows that choose at once, of all groups.

    Returns:
        `np.ndarray`: int32 codes of shape `[W]`.

    Example:
        >>> costs = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
        >>> serial_choices(lambda rows: costs[rows], np.array([0, 0, 0]), np.array([[1, 1, 1]]), 10)
        array([0, 2, 1], dtype=int32)
    """
    codes_W = np.empty(len(groups_W), dtype=np.int32)
    next_G, end_G = np.searchsorted(groups_W, np.arange(len(room_GK))), np.cumsum(np.bincount(groups_W))
    window_G = np.full(len(room_GK), FIRST_WINDOW)
    open_G = np.arange(len(room_GK))
    while len(open_G):
        sizes_G = np.minimum(np.minimum(end_G - next_G, window_G)[open_G], max_rows)
        some = slice(0, max(1, np.searchsorted(np.cumsum(sizes_G), max_rows, "right")))
        chosen_G, sizes_G = open_G[some], sizes_G[some]
        groups_V = np.repeat(chosen_G, sizes_G)
        starts_V = np.repeat(np.cumsum(sizes_G) - sizes_G, sizes_G)
        ranks_V = np.arange(len(groups_V)) - starts_V
        rows_V = next_G[groups_V] + ranks_V
        best_V = np.where(room_GK[groups_V] > 0, costs_of(rows_V), np.inf).argmin(1)
        late_V = _ranks(groups_V * room_GK.shape[1] + best_V) >= room_GK[groups_V, best_V]
        final_G = np.minimum.reduceat(np.where(late_V, ranks_V, len(rows_V)), starts_V[ranks_V == 0])
        final_V = ranks_V < np.repeat(final_G, sizes_G)
        codes_W[rows_V[final_V]] = best_V[final_V]
        np.subtract.at(room_GK, (groups_V[final_V], best_V[final_V]), 1)
        counts_G = np.minimum(final_G, sizes_G)
        next_G[chosen_G] += counts_G
        window_G[chosen_G] = 2 * counts_G
        open_G = open_G[next_G[open_G] < end_G[open_G]]
    return codes_W


__all__ = ["POLICIES", "count_collisions", "prefix_groups", "resolve_collisions"]
