"""Statistics of factors against loops over users, rows and items."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_latentrec.evaluation import disentanglement_score, explain, measure_factors
from hf_latentrec.evaluation.factors import attention_on_items, cosine_matrix, off_diagonal_mean


sys.path.append(str(Path(__file__).parents[1]))

from tiny import make_tiny_recommender  # noqa: E402


HISTORIES = [["i0003"], ["i0001", "i0002"], ["i0009", "i0008", "i0007", "i0009"], [f"i{i:04}" for i in range(12)]]


def make_flr(num_factors=3, num_iterations=2):
    settings = {"reasoner": "factorized_attention", "num_factors": num_factors, "num_iterations": num_iterations}
    tiny = make_tiny_recommender(num_thoughts=1, reasoner_config=settings)
    # A new reasoner looks at everything alike; larger weights let factors, users and gates differ.
    with torch.no_grad():
        for weight in tiny.model.reasoner.parameters():
            weight.mul_(8)
    return tiny


def cosine(x, y):
    size = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / size if size else 0.0


def slow_score(rows):
    """Section 5.6, pair by pair and row by row, over plain lists."""
    if len(rows) < 2 or len(rows[0]) < 2:
        return 0.0
    shares = [[value / sum(row) if sum(row) else 0.0 for value in row] for row in rows]
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    similarity = sum(cosine(shares[i], shares[j]) for i, j in pairs) / len(pairs)
    return (1 - similarity) * sum(map(max, shares)) / len(shares)


@pytest.mark.parametrize(("num_rows", "num_items"), [(1, 1), (1, 5), (2, 1), (2, 2), (4, 7), (8, 20)])
def test_disentanglement_score_equals_a_loop(num_rows, num_items):
    attention = torch.rand(3, num_rows, num_items) * 0.1
    attention[1, 0] = 0.0  # looks at no item at all
    padded = torch.nn.functional.pad(attention, (0, 4))
    score = disentanglement_score(padded, torch.full((3,), num_items))
    assert score.tolist() == pytest.approx([slow_score(rows) for rows in attention.tolist()], abs=1e-6)


def test_disentanglement_score_at_its_ends():
    eye, same = torch.eye(3), torch.eye(3)[:1].expand(3, 3)
    assert disentanglement_score(torch.stack([eye, same]), torch.tensor([3, 3])).tolist() == [1.0, 0.0]
    assert disentanglement_score(eye[None] * 1e-30, torch.tensor([3])).item() == pytest.approx(1.0)


def test_attention_on_items_equals_a_loop():
    attention = torch.rand(3, 2, 9)
    token_items = torch.tensor([[-1, -1, 0, 1, 1, -1], [-1, 0, 0, 1, 2, -1], [-1, -1, -1, -1, 0, -1]])
    expected = [
        [
            [sum(row[s] for s in range(6) if token_items[user, s] == item) for item in range(3)]
            for row in attention[user].tolist()
        ]
        for user in range(3)
    ]
    torch.testing.assert_close(attention_on_items(attention, token_items), torch.tensor(expected))


def test_correlations_equal_a_loop():
    vectors = torch.randn(4, 5)
    expected = [[cosine(x, y) for y in vectors.tolist()] for x in vectors.tolist()]
    assert cosine_matrix(vectors).numpy() == pytest.approx(np.array(expected), abs=1e-6)
    others = [expected[i][j] for i in range(4) for j in range(4) if i != j]
    assert off_diagonal_mean(cosine_matrix(vectors)).item() == pytest.approx(sum(others) / 12, abs=1e-6)
    assert cosine_matrix(torch.zeros(2, 3)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert off_diagonal_mean(torch.ones(1, 1)).item() == 0.0


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("num_factors", [1, 3])
def test_statistics_equal_one_user_at_a_time(num_factors, batch_size):
    tiny = make_flr(num_factors)
    users = [explain(tiny.model, tiny.processor, history) for history in HISTORIES]
    statistics = measure_factors(tiny.model, tiny.processor, HISTORIES, batch_size)
    assert (statistics.num_users, statistics.num_factors) == (4, num_factors)
    assert statistics.disentanglement_score == pytest.approx(
        np.mean([user.disentanglement_score for user in users]), abs=1e-5
    )
    mean_correlation = np.mean([user.correlation for user in users], axis=0)
    assert np.array(statistics.correlation) == pytest.approx(mean_correlation, abs=1e-5)
    gates = np.array([user.gates[-1] for user in users])
    assert statistics.gates == pytest.approx(gates.mean(0), abs=1e-5)
    entropies = [-sum(gate * math.log(gate) for gate in row if gate > 0) for row in gates.tolist()]
    assert statistics.gate_entropy == pytest.approx(np.mean(entropies), abs=1e-5)
    largest = [row.argmax() for row in gates]
    assert statistics.dominant == [largest.count(factor) / 4 for factor in range(num_factors)]
    if num_factors == 1:
        assert statistics.mean_abs_correlation is None and statistics.abs_mean_correlation is None
        assert statistics.gates == [1.0] and statistics.gate_entropy == 0.0
        return
    assert statistics.mean_abs_correlation == pytest.approx(np.mean([user.mean_abs_correlation for user in users]))
    off_diagonal = mean_correlation[~np.eye(num_factors, dtype=bool)]
    assert statistics.abs_mean_correlation == pytest.approx(np.abs(off_diagonal).mean(), abs=1e-5)
    assert statistics.abs_mean_correlation < statistics.mean_abs_correlation  # signs differ between users


def test_statistics_leave_the_model_as_it_was():
    tiny = make_flr()
    tiny.model.train()
    first = measure_factors(tiny.model, tiny.processor, HISTORIES)
    assert tiny.model.training and first == measure_factors(tiny.model, tiny.processor, HISTORIES)
    assert first.to_dict()["dominant"] == first.dominant


def test_what_cannot_be_measured_is_named():
    with pytest.raises(ValueError, match="num_thoughts is 0"):
        measure_factors(*make_tiny_recommender()[:2], HISTORIES)
    with pytest.raises(ValueError, match="reasoner is 'feedback', which has no factors"):
        measure_factors(*make_tiny_recommender(num_thoughts=1)[:2], HISTORIES)
    tiny = make_flr()
    with pytest.raises(ValueError, match="there are no histories"):
        measure_factors(tiny.model, tiny.processor, [])
    tiny.model.train()
    with pytest.raises(ValueError, match="is empty"):
        measure_factors(tiny.model, tiny.processor, [["i0001"], []])
    assert tiny.model.training
