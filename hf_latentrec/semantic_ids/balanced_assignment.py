"""Codes of which none has more than its share of the items.

Shapes: I items, K codes, D numbers of a vector, B items of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize


BLOCK_COSTS = 2**25  # of a block: 128 MiB
PRICE_ITEMS = 16_384  # of a block, on which prices are found
COOLING = (0.3, 0.1, 0.03, 0.01)  # temperatures, relative to how much more a usual code costs than the best
MAX_STEPS = 15  # of the optimizer at one temperature


def balanced_codes(
    read: Callable[[slice], np.ndarray],
    num_items: int,
    centroids_KD: np.ndarray,
    prices_K: np.ndarray | None = None,
    *,
    max_block_items: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Near centroids, each for at most `ceil(I / K)` vectors, at a small total of squared distances.

    Codes have prices that rise until no more items want one than there is room for. An item takes the code of least
    squared distance plus price. What the prices leave too much is turned away: the items to whom the next code is
    worth nearly as much go there. Items are taken in blocks, every n-th item into one, with room in proportion.

    Args:
        read (`Callable`): float32 vectors `[B, D]` of a slice of the items.
        num_items (`int`): items, I.
        centroids_KD (`np.ndarray`): centroids of shape `[K, D]`.
        prices_K (`np.ndarray`, *optional*): prices to start from, those of centroids near to these; shape `[K]`.
        max_block_items (`int`, *optional*): items of a block; by default as many as fit into a bounded memory.

    Returns:
        `tuple` of two `np.ndarray`: int32 codes of shape `[I]`, and the codes' prices, float32 of shape `[K]`.

    Example:
        >>> vectors = np.array([[0.0], [1.0], [2.0], [9.0]], dtype=np.float32)
        >>> balanced_codes(lambda rows: vectors[rows], 4, np.array([[0.0], [9.0]], dtype=np.float32))[0]
        array([0, 0, 1, 1], dtype=int32)
    """
    num_codes = len(centroids_KD)
    capacity = math.ceil(num_items / num_codes)
    num_blocks = math.ceil(num_items / (max_block_items or max(1, BLOCK_COSTS // num_codes)))
    squared_K = np.einsum("kd,kd->k", centroids_KD, centroids_KD)
    codes_I = np.empty(num_items, dtype=np.int32)
    used_K, done = np.zeros(num_codes, dtype=np.int64), 0
    for block in range(num_blocks):
        rows = slice(block, None, num_blocks)
        costs_BK = read(rows) @ (-2 * centroids_KD.T)
        costs_BK += squared_K
        done += len(costs_BK)
        # Rounded up: K of these hold `done` items at least, and after the last block `capacity` each.
        room_K = -(-capacity * done // num_items) - used_K
        prices_K = _find_prices(costs_BK, room_K, prices_K)
        codes_I[rows] = _fill(costs_BK + prices_K, room_K)
        used_K += np.bincount(codes_I[rows], minlength=num_codes)
    return codes_I, prices_K


def _find_prices(costs_BK: np.ndarray, room_K: np.ndarray, prices_K: np.ndarray | None) -> np.ndarray:
    """
    Prices at which the items want about `room_K` of each code, from at most `PRICE_ITEMS` items of the block.

    At temperature t an item wants code k with probability softmax(-(cost + price) / t). The best prices, none below 0,
    maximize -t sum_b log sum_k exp(-(cost_bk + price_k) / t) - sum_k price_k room_k (the dual of entropic optimal
    transport with room as an upper bound), whose slope in price k is what is wanted less the room.
    """
    sample_SK = costs_BK[:: math.ceil(len(costs_BK) / PRICE_ITEMS)]
    sample_SK = sample_SK - sample_SK.min(1, keepdims=True)
    scale = float(sample_SK.mean())
    if scale <= 0:
        return np.zeros(len(room_K), dtype=np.float32)
    share_K = room_K / len(costs_BK)
    bounds = [(0, None)] * len(room_K)
    cold = prices_K is None
    # In units of `scale`, so that the optimizer's tolerances fit.
    sample_SK, prices_K = sample_SK / np.float32(scale), np.zeros(len(room_K)) if cold else prices_K / scale
    for temperature in COOLING if cold else COOLING[-1:]:
        found = minimize(
            _negative_dual,
            prices_K,
            args=(sample_SK, share_K, temperature),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": MAX_STEPS},
        )
        prices_K = found.x
    return (scale * prices_K).astype(np.float32)


def _negative_dual(
    prices_K: np.ndarray, costs_SK: np.ndarray, share_K: np.ndarray, temperature: float
) -> tuple[float, np.ndarray]:
    wanted_SK = (costs_SK + prices_K.astype(np.float32)) / np.float32(-temperature)
    most_S1 = wanted_SK.max(1, keepdims=True)
    np.exp(wanted_SK - most_S1, out=wanted_SK)
    sums_S = wanted_SK.sum(1)
    wanted_K = (1 / sums_S) @ wanted_SK / len(costs_SK)
    log_sums = (np.log(sums_S) + most_S1[:, 0]).mean(dtype=np.float64)
    return temperature * log_sums + float(prices_K @ share_K), share_K - wanted_K


def _fill(costs_BK: np.ndarray, room_K: np.ndarray) -> np.ndarray:
    """
    Each item's cheapest code with room. Where too many want one, those go first whom the next best costs most.

    Changes `costs_BK`. At least one code is full after a round, so there are K rounds at most.
    """
    codes_B = np.empty(len(costs_BK), dtype=np.int32)
    waiting_W, room_K = np.arange(len(costs_BK)), room_K.copy()
    while len(waiting_W):
        costs_BK[:, room_K == 0] = np.inf
        each_W = np.arange(len(waiting_W))
        best_W = costs_BK.argmin(1)
        least_W = costs_BK[each_W, best_W]
        costs_BK[each_W, best_W] = np.inf
        regret_W = costs_BK.min(1) - least_W
        costs_BK[each_W, best_W] = least_W
        order_W = np.lexsort((-regret_W, best_W))
        starts_K = np.searchsorted(best_W[order_W], np.arange(len(room_K)))
        taken_W = np.empty(len(waiting_W), dtype=bool)
        taken_W[order_W] = each_W - starts_K[best_W[order_W]] < room_K[best_W[order_W]]
        codes_B[waiting_W[taken_W]] = best_W[taken_W]
        room_K -= np.bincount(best_W[taken_W], minlength=len(room_K))
        waiting_W, costs_BK = waiting_W[~taken_W], costs_BK[~taken_W]
    return codes_B


__all__ = ["balanced_codes"]
