"""Residual k-means against slow loops, its bounds, and what it says about unusable embeddings."""

from __future__ import annotations

import sys

import faiss
import numpy as np
import pytest

from hf_latentrec.semantic_ids import balanced_assignment, residual_kmeans, vector_blocks
from hf_latentrec.semantic_ids.residual_kmeans import ResidualKMeans


def mixture(num_items: int = 400, dimension: int = 6, num_clusters: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_clusters, dimension))
    return (centers[rng.integers(0, num_clusters, num_items)] + 0.2 * rng.normal(size=(num_items, dimension))).astype(
        np.float32
    )


def slow_encode(embeddings: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    codes = []
    for rest in embeddings.astype(np.float64):
        row = []
        for codebook in codebooks.astype(np.float64):
            distances = [((rest - centroid) ** 2).sum() for centroid in codebook]
            row.append(int(np.argmin(distances)))
            rest = rest - codebook[row[-1]]
        codes.append(row)
    return np.array(codes)


def test_codes_are_the_nearest_centroids_level_by_level():
    embeddings = mixture()
    quantizer = ResidualKMeans.fit(embeddings, num_levels=3, codebook_size=8)
    assert quantizer.codebooks_LKD.shape == (3, 8, 6)
    assert quantizer.codebooks_LKD.dtype == np.float32
    codes = quantizer.encode(embeddings)
    assert codes.dtype == np.int32
    assert (codes == slow_encode(embeddings, quantizer.codebooks_LKD)).all()
    assert (codes == quantizer.codes_IL).all()


def test_reconstruction_and_its_errors():
    embeddings = mixture()
    quantizer = ResidualKMeans.fit(embeddings, num_levels=3, codebook_size=8)
    codes = quantizer.encode(embeddings)
    slow = np.array([sum(book[k] for book, k in zip(quantizer.codebooks_LKD, row, strict=True)) for row in codes])
    np.testing.assert_allclose(quantizer.reconstruct(codes), slow, atol=1e-6)
    errors = quantizer.reconstruction_errors(embeddings, codes)
    for depth in (1, 2, 3):
        rest = embeddings - quantizer.reconstruct(codes[:, :depth])
        assert errors[depth - 1] == pytest.approx((rest**2).sum(1).mean(), rel=1e-5)
    assert ((embeddings - embeddings.mean(0)) ** 2).sum(1).mean() > errors[0] > errors[1] > errors[2] > 0


def test_every_centroid_is_near_the_mean_of_its_items():
    """One more step of k-means changes little: it had converged."""
    embeddings = mixture()
    quantizer = ResidualKMeans.fit(embeddings, num_levels=2, codebook_size=8, num_iterations=50)
    for level in range(2):
        rest = embeddings - quantizer.reconstruct(quantizer.codes_IL[:, :level])
        for code in range(8):
            members = rest[quantizer.codes_IL[:, level] == code]
            np.testing.assert_allclose(quantizer.codebooks_LKD[level, code], members.mean(0), atol=1e-5)


def test_few_iterations_on_a_sample_see_all_items_once(monkeypatch):
    """The last step takes the mean of all items, whatever sample k-means saw."""
    centroids = np.array([[0.0], [10.0], [99.0]], dtype=np.float32)
    seen = []
    monkeypatch.setattr(residual_kmeans, "_kmeans", lambda vectors, *rest: seen.append(len(vectors)) or centroids)
    embeddings = np.array([[1.0], [2.0], [3.0], [8.0], [9.0]], dtype=np.float32)
    quantizer = ResidualKMeans.fit(embeddings, 1, 3, max_training_items=4)
    assert seen == [4]
    assert quantizer.codebooks_LKD.ravel().tolist() == [2.0, 8.5, 99.0]


def test_blocks_of_any_size_give_the_same_codes(monkeypatch):
    embeddings = mixture()
    expected = ResidualKMeans.fit(embeddings, 2, 8)
    monkeypatch.setattr(vector_blocks, "BLOCK_NUMBERS", 8 * 7)
    quantizer = ResidualKMeans.fit(embeddings, 2, 8)
    np.testing.assert_allclose(quantizer.codebooks_LKD, expected.codebooks_LKD, atol=1e-6)
    assert (quantizer.codes_IL == expected.codes_IL).all()
    assert (quantizer.encode(embeddings[5:6]) == expected.codes_IL[5:6]).all()


def test_seeds():
    embeddings = mixture()
    first, again, other = (ResidualKMeans.fit(embeddings, 2, 8, seed=seed) for seed in (3, 3, 4))
    assert (first.codebooks_LKD == again.codebooks_LKD).all()
    assert (first.codes_IL == again.codes_IL).all()
    assert not np.array_equal(first.codebooks_LKD, other.codebooks_LKD)


@pytest.mark.parametrize("balanced", [False, True])
def test_one_and_two_threads_give_the_same_codes(balanced):
    """Threads share out rows and centroids; nobody sums across them."""
    embeddings = mixture(1500, 32, 50)
    before, codes = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2):
            faiss.omp_set_num_threads(threads)
            codes.append(ResidualKMeans.fit(embeddings, 2, 16, balanced=balanced).codes_IL)
    finally:
        faiss.omp_set_num_threads(before)
    assert (codes[0] == codes[1]).all()


def test_a_memory_map_is_read_only_and_stays_as_it_is(tmp_path):
    np.save(tmp_path / "embeddings.npy", mixture())
    mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    quantizer = ResidualKMeans.fit(mapped, 2, 8, balanced=True)
    quantizer.encode(mapped)
    quantizer.reconstruction_errors(mapped, quantizer.codes_IL)
    assert (mapped == mixture()).all()
    writable = mixture()
    ResidualKMeans.fit(writable, 2, 8)
    assert (writable == mixture()).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_are_read_as_float32(dtype):
    embeddings = mixture().astype(dtype)
    expected = ResidualKMeans.fit(embeddings.astype(np.float32), 2, 8)
    assert (ResidualKMeans.fit(embeddings, 2, 8).codes_IL == expected.codes_IL).all()


def test_balanced_levels():
    embeddings = mixture(403)
    quantizer = ResidualKMeans.fit(embeddings, 3, 8, balanced=True)
    plain = ResidualKMeans.fit(embeddings, 3, 8)
    counts, plain_counts = (
        np.array([np.bincount(codes, minlength=8) for codes in fitted.codes_IL.T]) for fitted in (quantizer, plain)
    )
    assert counts.max() <= 51 < plain_counts.max()  # ceil(403 / 8)
    errors = quantizer.reconstruction_errors(embeddings, quantizer.codes_IL)
    assert (np.diff(errors) < 0).all()
    # New items come one by one: the nearest centroid, whoever else is there.
    assert (quantizer.encode(embeddings) == slow_encode(embeddings, quantizer.codebooks_LKD)).all()


@pytest.mark.parametrize("balanced", [False, True])
def test_half_of_the_catalog_with_one_embedding(balanced):
    embeddings = mixture()
    embeddings[::2] = embeddings[0]
    quantizer = ResidualKMeans.fit(embeddings, 3, 16, balanced=balanced)
    codes = quantizer.codes_IL if balanced else quantizer.encode(embeddings)
    if balanced:
        assert max(np.bincount(level).max() for level in codes.T) <= 25
    else:
        assert len(np.unique(codes[::2], axis=0)) == 1
        assert (quantizer.encode(embeddings[:1]) == codes[:1]).all()


def test_a_collapsed_codebook_is_told(caplog):
    embeddings = np.ones((40, 5), dtype=np.float32)
    quantizer = ResidualKMeans.fit(embeddings, 2, 8)
    assert "the codebook of level 0 collapsed, 7 of its 8 codes have no item" in caplog.text
    assert "the codebook of level 1 collapsed" in caplog.text
    assert (quantizer.codes_IL == quantizer.codes_IL[0]).all()
    np.testing.assert_allclose(quantizer.reconstruct(quantizer.codes_IL), embeddings, atol=1e-6)
    caplog.clear()
    ResidualKMeans.fit(mixture(), 2, 8)
    assert not caplog.text


@pytest.mark.parametrize("seed", range(20))
def test_equally_near_centroids_give_the_lowest_code(seed):
    """Also where rounding says otherwise: `encode` of one item agrees with that of all."""
    point, step = np.random.default_rng(seed).normal(size=(2, 64)).astype(np.float32)
    quantizer = ResidualKMeans(np.stack([point + 9, point + step, point - step])[None])
    for count in (1, 3, 16):
        assert (quantizer.encode(point[None].repeat(count, axis=0)) == 1).all()


def test_as_many_codes_as_items_leave_no_error():
    embeddings = mixture(20)
    quantizer = ResidualKMeans.fit(embeddings, 1, 20)
    assert quantizer.reconstruction_errors(embeddings, quantizer.codes_IL)[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_embeddings_that_are_not_finite(value, monkeypatch):
    monkeypatch.setattr(vector_blocks, "BLOCK_NUMBERS", 6 * 10)
    embeddings = mixture()
    quantizer = ResidualKMeans.fit(embeddings, 2, 8)
    embeddings[37, 2] = value
    for run in (lambda: ResidualKMeans.fit(embeddings, 2, 8), lambda: quantizer.encode(embeddings)):
        with pytest.raises(ValueError, match="row 37 holds NaN, infinity .* embed this item again"):
            run()


def test_unusable_arguments():
    embeddings = mixture(40)
    with pytest.raises(ValueError, match="num_levels 0.*pass 1 or more"):
        ResidualKMeans.fit(embeddings, 0, 8)
    with pytest.raises(ValueError, match="40 items, .* but 41 codes of a level; pass codebook_size <= 40"):
        ResidualKMeans.fit(embeddings, 2, 41)
    with pytest.raises(ValueError, match="max_training_items 4, but 8 codes of a level; pass codebook_size <= 4"):
        ResidualKMeans.fit(embeddings, 2, 8, max_training_items=4)
    with pytest.raises(ValueError, match=r"embeddings of shape \(40,\); pass one row per item"):
        ResidualKMeans.fit(embeddings[:, 0], 2, 8)
    quantizer = ResidualKMeans.fit(embeddings, 2, 8)
    with pytest.raises(ValueError, match="embeddings have 5 numbers, but the codebooks 6; embed with the model"):
        quantizer.encode(embeddings[:, :5])
    with pytest.raises(ValueError, match=r"codes of shape \(40, 3\) for 2 codebooks; pass codes\[:, :2\]"):
        quantizer.reconstruct(np.zeros((40, 3), dtype=np.int32))
    with pytest.raises(ValueError, match=r"code -1 \(item 0, level 0\)"):
        quantizer.reconstruct(np.full((40, 2), -1))
    with pytest.raises(ValueError, match="39 rows of codes for 40 embeddings"):
        quantizer.reconstruction_errors(embeddings, np.zeros((39, 2), dtype=np.int32))
    with pytest.raises(ValueError, match=r"pass one array \[levels, codes, D\]"):
        ResidualKMeans(np.zeros((4, 5)))
    with pytest.raises(ValueError, match="NaN or infinity; fit them again"):
        ResidualKMeans(np.full((1, 4, 5), np.nan))


def test_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'pip install "hf_latentrec\[semantic-ids\]"'):
        ResidualKMeans.fit(mixture(), 1, 4)
    # Codebooks of others need no faiss.
    assert ResidualKMeans(np.zeros((1, 2, 6))).encode(mixture(3)).tolist() == [[0]] * 3


def test_no_items():
    quantizer = ResidualKMeans(np.zeros((2, 4, 6)))
    assert quantizer.encode(np.zeros((0, 6), dtype=np.float32)).shape == (0, 2)
    assert balanced_assignment.balanced_codes(lambda rows: np.zeros((0, 6)), 0, np.zeros((4, 6)))[0].shape == (0,)
