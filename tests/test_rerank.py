import numpy as np
import pytest
import torch

import naive
from gracl import _jaccard_numba, _jaccard_torch, jaccard
from gracl.errors import ShapeError
from gracl.jaccard import jaccard_distance
from gracl.metrics import Side, cosine, rank
from gracl.rerank import expand_queries, k_reciprocal
from naive import make_features


@pytest.fixture(params=[_jaccard_numba, _jaccard_torch], ids=["numba", "torch"])
def kernels(request, monkeypatch):
    monkeypatch.setattr(jaccard, "_kernels", lambda _: request.param)
    return request.param


def queries_and_gallery(seed, n_queries=20):
    features = make_features(seed)
    return features[:n_queries], features[n_queries:]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(20, 6, 0.3), (6, 1, 0.0), (5, 9, 0.7), (7, 3, 1.0), (1, 1, 0.3)]
)
def test_similarity_is_minus_the_distance_of_its_naive_twin(kernels, seed, k1, k2, weight):
    queries, gallery = queries_and_gallery(seed)
    similarity = k_reciprocal(queries, gallery, k1=k1, k2=k2, lambda_value=weight)
    expected = naive.reranked_distance(queries, gallery, k1, k2, weight)
    np.testing.assert_allclose(-similarity(0, len(queries)).numpy(), expected, atol=3e-6)


def test_blocks_of_queries_are_rows_of_the_whole():
    queries, gallery = queries_and_gallery(1)
    similarity = k_reciprocal(queries, gallery, k1=8, k2=3)
    whole = similarity(0, 20)
    parts = torch.cat([similarity(0, 1), similarity(1, 13), similarity(13, 20)])
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(similarity(0, 20), whole, atol=0, rtol=0)


def test_memory_budget_does_not_change_similarities():
    queries, gallery = queries_and_gallery(2)
    whole = k_reciprocal(queries, gallery, k1=8, k2=3)(0, 20)
    blocks = k_reciprocal(queries, gallery, k1=8, k2=3, memory=1)(0, 20)
    torch.testing.assert_close(blocks, whole, atol=3e-6, rtol=0)


def test_lambda_one_ranks_as_the_cosine_does():
    queries, gallery = queries_and_gallery(0)
    found = k_reciprocal(queries, gallery, k1=8, k2=3, lambda_value=1.0)(0, 20)
    assert torch.equal(found.argsort(dim=1), cosine(queries, gallery)(0, 20).argsort(dim=1))


def test_reranking_and_clustering_are_two_definitions():
    """The same k1 means one rank more, and scaled distances, in re-ranking."""
    queries, gallery = queries_and_gallery(0)
    reranked = -k_reciprocal(queries, gallery, k1=8, k2=3, lambda_value=0.0)(0, 20).numpy()
    clustering = naive.clustering_distance(torch.cat([queries, gallery]), 8, 3)[:20, 20:]
    assert np.abs(reranked - clustering).max() > 0.05
    stored = jaccard_distance(torch.cat([queries, gallery]), k1=8, k2=3)[:20, 20:]
    assert stored.nnz == (clustering < 1 - 1e-9).sum()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4])
def test_features_that_are_almost_constant_give_finite_similarities(kernels, seed, noise):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(1, 37, generator=random) + noise * torch.randn(23, 37, generator=random)
    features = torch.nn.functional.normalize(rows)
    found = k_reciprocal(features[:9], features[9:], k1=3, k2=2)(0, 9)
    assert torch.isfinite(found).all()
    assert (found >= -1.001).all()
    assert (found <= 0.03).all()


def test_constant_features_score_worst():
    features = torch.nn.functional.normalize(torch.ones(1, 4)).repeat(20, 1)
    pids = np.array([*range(5)] * 4)
    sides = Side(pids[:5], np.arange(5)), Side(pids[5:], np.arange(5, 20))
    similarity = k_reciprocal(features[:5], features[5:], k1=30, k2=2)
    assert rank(similarity, *sides).first.tolist() == [13] * 5


def test_k_beyond_the_number_of_images_is_cut_to_it():
    queries, gallery = (part[:4] for part in queries_and_gallery(3))
    found = k_reciprocal(queries, gallery, k1=50, k2=20)(0, 4)
    expected = naive.reranked_distance(queries, gallery, 50, 20, 0.3)
    np.testing.assert_allclose(-found.numpy(), expected, atol=3e-6)


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"lambda_value": -0.1}, {"lambda_value": 1.1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ShapeError, match=r"expected k1, k2 >= 1 and lambda in \[0, 1\]"):
        k_reciprocal(torch.eye(3), torch.eye(3), **wrong)


def test_nan_features_are_refused():
    with pytest.raises(ShapeError, match="1 of 3 feature rows hold NaN"):
        k_reciprocal(torch.eye(3), torch.eye(3).index_fill(0, torch.tensor([1]), torch.nan))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_expanded_queries_equal_their_naive_twin(alpha, k):
    queries, gallery = queries_and_gallery(2)
    found = expand_queries(queries, gallery, k=k, alpha=alpha, memory=1)
    expected = naive.expanded_queries(queries, gallery, k, alpha)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_expanded_queries_are_unit_rows_and_leave_the_queries_alone():
    queries, gallery = queries_and_gallery(3)
    before = queries.clone()
    found = expand_queries(queries, gallery)
    assert torch.equal(queries, before)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))
    torch.testing.assert_close(expand_queries(queries, gallery[:0]), queries)


@pytest.mark.parametrize(("k", "alpha"), [(0, 0.0), (3, -1.0), (3, float("nan"))])
def test_impossible_expansions_are_refused(k, alpha):
    with pytest.raises(ShapeError, match="expected k >= 1 and alpha >= 0"):
        expand_queries(torch.eye(3), torch.eye(3), k=k, alpha=alpha)
