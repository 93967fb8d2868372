import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import naive
from gracl.errors import ShapeError
from gracl.neighbors import mean_of_nearest_foreign, search, similarity_blocks
from naive import make_features


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 7, 30])
def test_search_equals_its_naive_twin(seed, k):
    features = make_features(seed)
    found = search(features, k)
    assert found.indices.tolist() == naive.nearest(features, k)
    cosines = features.double() @ features.double().T
    expected = cosines.gather(1, found.indices)
    torch.testing.assert_close(found.similarities.double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.farthest.double(), cosines.amin(dim=1), atol=1e-6, rtol=0)


def test_each_row_is_first_among_its_own_duplicates():
    features = make_features(0).repeat(4, 1)
    found = search(features, 6)
    assert found.indices[:, 0].tolist() == list(range(len(features)))
    originals = len(features) // 4
    four_nearest = found.indices[:, :4] % originals
    assert (four_nearest == torch.arange(len(features))[:, None] % originals).all()


@given(seed=st.integers(0, 99), n=st.integers(1, 20), k=st.integers(1, 30))
def test_neighbors_are_distinct_start_with_the_row_and_fall(seed, n, k):
    found = search(make_features(seed)[:n], k)
    assert found.indices.shape == found.similarities.shape == (n, min(k, n))
    assert all(len(set(row)) == len(row) for row in found.indices.tolist())
    assert found.indices[:, 0].tolist() == list(range(n))
    assert (found.similarities.diff(dim=1) <= 1e-6).all()
    assert (found.farthest <= found.similarities[:, -1]).all()


@pytest.mark.parametrize("memory", [1, 1000, 5000])
def test_memory_budget_does_not_change_neighbors(memory):
    features = make_features(1)
    whole, blocks = search(features, 9), search(features, 9, memory=memory)
    assert torch.equal(whole.indices, blocks.indices)
    torch.testing.assert_close(whole.similarities, blocks.similarities, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.farthest, blocks.farthest, atol=1e-6, rtol=0)


@pytest.mark.parametrize("memory", [1, 400, 10_000])
def test_blocks_respect_the_memory_budget_and_hold_every_pair(memory):
    queries, gallery = make_features(2)[:13], make_features(3)[:10]
    blocks = list(similarity_blocks(queries, gallery, memory=memory))
    one_row = 4 * len(gallery)
    assert all(block.nbytes <= max(memory, one_row) for _, block in blocks)
    assert [start for start, _ in blocks] == [*range(0, 13, max(1, memory // one_row))]
    whole = torch.cat([block for _, block in blocks])
    torch.testing.assert_close(whole, queries @ gallery.T)


def test_search_leaves_its_input_alone():
    features = make_features(4)
    before = features.clone()
    search(features, 5)
    assert torch.equal(features, before)


def test_one_row_is_its_own_only_neighbor():
    found = search(torch.tensor([[0.6, 0.8]]), 5)
    assert found.indices.tolist() == [[0]]
    assert found.similarities.tolist() == [[1.0]]
    assert found.farthest.tolist() == [1.0]


def test_no_rows_have_no_neighbors():
    found = search(torch.empty(0, 8), 5)
    assert len(found) == 0
    assert found.indices.shape == (0, 0)


def test_double_and_half_features_give_float32_similarities():
    features = make_features(5)
    for kind in (torch.float64, torch.float16):
        found = search(features.to(kind), 3)
        assert found.similarities.dtype == torch.float32
        torch.testing.assert_close(
            found.similarities, search(features, 3).similarities, atol=2e-3, rtol=0
        )


def test_k_below_one_is_refused():
    with pytest.raises(ShapeError, match="k is 0; a search needs k >= 1"):
        search(torch.eye(3), 0)


def test_features_that_are_not_rows_are_refused():
    with pytest.raises(ShapeError, match=r"shape \(2, 3, 4\); expected \(N, D\)"):
        search(torch.ones(2, 3, 4), 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_counted_and_refused(bad):
    features = torch.eye(4)
    features[1, 2] = features[3, 0] = features[3, 1] = bad
    with pytest.raises(ShapeError, match="2 of 4 feature rows hold NaN or infinity"):
        search(features, 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("m", [1, 3, 1000])
@pytest.mark.parametrize("memory", [1, 2**20])
def test_mean_of_nearest_foreign_equals_its_naive_twin(seed, m, memory):
    features = make_features(seed, identities=4, images=5)
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 4, len(features))
    counted = random.random(len(features)) < 0.8
    found = mean_of_nearest_foreign(
        features,
        torch.from_numpy(labels),
        m,
        counts_as_other=torch.from_numpy(counted),
        memory=memory,
    )
    expected = naive.mean_of_nearest_foreign(features, labels, m, counted)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_a_row_without_foreign_rows_gets_the_lowest_similarity():
    features, labels = torch.eye(3), torch.zeros(3, dtype=torch.int64)
    for counted in (torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)):
        found = mean_of_nearest_foreign(features, labels, 2, counts_as_other=counted)
        assert found.tolist() == [-1.0, -1.0, -1.0]


def test_a_row_without_a_group_is_not_its_own_foreign_row():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = mean_of_nearest_foreign(
        features, torch.tensor([-1, -1]), 1, counts_as_other=torch.ones(2, dtype=torch.bool)
    )
    assert found.tolist() == [0.0, 0.0]
