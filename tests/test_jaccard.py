import importlib.util
import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import naive
from gracl import _jaccard_numba, _jaccard_torch, jaccard, neighbors
from gracl.clustering import cluster
from gracl.errors import ShapeError
from gracl.jaccard import encode, jaccard_distance, jaccard_from_neighbors, overlap
from naive import make_features

KERNELS = [_jaccard_numba, _jaccard_torch]


@pytest.fixture(params=KERNELS, ids=["numba", "torch"])
def kernels(request, monkeypatch):
    monkeypatch.setattr(jaccard, "_kernels", lambda _: request.param)
    return request.param


def dense(distance):
    """A pair that is not stored has distance 1."""
    result = np.ones(distance.shape)
    rows = np.repeat(np.arange(len(result)), np.diff(distance.indptr))
    result[rows, distance.indices] = distance.data
    return result


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (10, 1), (7, 3), (5, 9), (2, 2), (1, 1)])
def test_distance_equals_its_naive_twin(kernels, seed, k1, k2):
    features = make_features(seed)
    found = jaccard_distance(features, k1=k1, k2=k2)
    expected = naive.clustering_distance(features, k1, k2)
    np.testing.assert_allclose(dense(found), expected, atol=2e-6)
    assert found.nnz == (expected < 1 - 1e-9).sum()


@pytest.mark.parametrize("k1", [5, 8, 13])
def test_distance_of_duplicates_equals_its_naive_twin(kernels, k1):
    features = make_features(3, identities=5, images=3).repeat(3, 1)
    found = neighbors.search(features, k1)
    distance = jaccard_from_neighbors(features, found, k1=k1, k2=4)
    expected = naive.clustering_distance(features, k1, 4, ranks=found.indices.tolist())
    np.testing.assert_allclose(dense(distance), expected, atol=2e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("expand", [1, 4])
def test_encoding_equals_its_naive_twin_sums_to_one_and_is_sorted(kernels, seed, expand):
    features = make_features(seed)
    found = neighbors.search(features, 12)
    encoding = encode(features, found, reach=12, half_reach=7, expand=expand, scale=None)
    expected = naive.clustering_encoding(features, 12, expand)
    np.testing.assert_allclose(encoding.toarray(), expected, atol=1e-6)
    np.testing.assert_allclose(encoding.sum(axis=1), 1, atol=1e-6)
    for row in range(len(features)):
        columns = encoding.indices[encoding.indptr[row] : encoding.indptr[row + 1]]
        assert (np.diff(columns) > 0).all()


def test_scale_divides_the_squared_distances_of_a_row(kernels):
    features = make_features(1)
    scale = torch.linspace(0.3, 4, len(features))
    found = neighbors.search(features, 9)
    encoding = encode(features, found, reach=9, half_reach=5, expand=1, scale=scale)
    distances = naive.squared_distances(features) / scale.numpy()[:, None]
    expected = naive.encoding(distances, naive.nearest(features, 9), k=9, half=5, expand=1)
    np.testing.assert_allclose(encoding.toarray(), expected, atol=1e-6)


def test_half_set_rounds_half_to_even():
    features = make_features(2, noise=1.0)
    found = neighbors.search(features, 25)
    ranks = naive.nearest(features, 25)
    distances = naive.squared_distances(features)
    down, up = (
        naive.jaccard(naive.encoding(distances, ranks, k=25, half=half, expand=1))
        for half in (12 + 1, 13 + 1)
    )
    distance = dense(jaccard_from_neighbors(features, found, k1=25, k2=1))
    np.testing.assert_allclose(distance, down, atol=2e-6)
    assert np.abs(distance - up).max() > 1e-3


def test_expansion_needs_more_than_two_thirds(kernels):
    """Of three members of the candidate's half set two are shared: two thirds, and not more."""
    # Row 0 has 1 and 2 as mutual neighbours; those two bring 3 along only if accepted.
    ranks = torch.tensor([[0, 1, 2], [1, 0, 3], [2, 0, 1], [3, 1, 0]])
    features = torch.nn.functional.normalize(make_features(0)[:4])
    similarities = (features @ features.T).gather(1, ranks)
    found = neighbors.Neighbors(ranks, similarities, similarities.amin(dim=1))
    encoding = encode(features, found, reach=3, half_reach=3, expand=1, scale=None)
    assert naive.reciprocal(ranks.tolist(), 1, 3) == {1, 0, 3}
    assert encoding.toarray()[0, 3] == 0
    assert encoding.toarray()[0, 1] > 0


@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 30),
    k1=st.integers(1, 40),
    k2=st.integers(1, 8),
    copies=st.integers(1, 3),
    kernels=st.sampled_from(KERNELS),
)
def test_distance_is_symmetric_in_range_and_stores_its_diagonal(seed, n, k1, k2, copies, kernels):
    features = make_features(seed)[:n].repeat(copies, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaccard, "_kernels", lambda _: kernels)
        found = jaccard_distance(features, k1=k1, k2=k2)
    other_way = found.T.tocsr()
    other_way.sort_indices()
    assert np.array_equal(found.indptr, other_way.indptr)
    assert np.array_equal(found.indices, other_way.indices)
    assert np.array_equal(found.data, other_way.data)
    assert found.dtype == np.float32
    assert (found.data >= 0).all()
    assert (found.data < 1).all()
    rows = np.repeat(np.arange(n * copies), np.diff(found.indptr))
    diagonal = found.data[rows == found.indices]
    assert diagonal.tolist() == [0.0] * (n * copies)


@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 40),
    k1=st.integers(1, 20),
    k2=st.integers(1, 8),
    copies=st.integers(1, 3),
)
def test_compiled_and_tensor_kernels_agree(seed, n, k1, k2, copies):
    features = make_features(seed)[:n].repeat(copies, 1)
    found = neighbors.search(features, max(k1, k2))
    results = []
    for kernels in KERNELS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jaccard, "_kernels", lambda _, kernels=kernels: kernels)
            results.append(jaccard_from_neighbors(features, found, k1=k1, k2=k2))
    compiled, tensors = results
    assert np.array_equal(compiled.indptr, tensors.indptr)
    assert np.array_equal(compiled.indices, tensors.indices)
    np.testing.assert_allclose(compiled.data, tensors.data, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_distance_follows_a_permutation_of_the_images(kernels, seed):
    features = make_features(seed)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    expected = dense(jaccard_distance(features, k1=10, k2=3))[order][:, order]
    found = dense(jaccard_distance(features[order], k1=10, k2=3))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_duplicates_stay_neighbors_at_a_stored_zero(kernels):
    features = make_features(0)[:10].repeat_interleave(4, dim=0)
    distance = jaccard_distance(features, k1=4, k2=1)
    assert distance.nnz == 10 * 4 * 4
    np.testing.assert_allclose(distance.data, 0, atol=1e-6)
    labels = cluster(distance, eps=1e-6, min_samples=4)
    assert labels.tolist() == np.repeat(np.arange(10), 4).tolist()


def test_images_without_a_common_neighbor_are_not_stored(kernels):
    pairs = torch.eye(6).repeat_interleave(2, dim=0)
    distance = jaccard_distance(pairs, k1=2, k2=1)
    assert np.diff(distance.indptr).tolist() == [2] * 12


def test_k_beyond_the_number_of_images_is_cut_to_it(kernels):
    features = make_features(1)[:9]
    found = jaccard_distance(features, k1=50, k2=20)
    np.testing.assert_allclose(dense(found), naive.clustering_distance(features, 50, 20), atol=2e-6)


def test_one_image_is_at_distance_zero_of_itself(kernels):
    distance = jaccard_distance(torch.tensor([[1.0, 0.0]]))
    assert distance.nnz == 1
    assert distance.toarray().tolist() == [[0.0]]


def test_no_images_give_an_empty_distance(kernels):
    distance = jaccard_distance(torch.empty(0, 4))
    assert distance.shape == (0, 0)
    assert distance.nnz == 0


def test_memory_budget_does_not_change_the_distance(kernels):
    features = make_features(2)
    whole = jaccard_distance(features, k1=10, k2=3)
    blocks = jaccard_distance(features, k1=10, k2=3, memory=1)
    np.testing.assert_allclose(dense(whole), dense(blocks), atol=2e-6)


def test_neighbors_are_searched_within_the_memory_budget(monkeypatch):
    plain, budgets = neighbors.search, []

    def recorded(features, k, *, memory):
        budgets.append(memory)
        return plain(features, k, memory=memory)

    monkeypatch.setattr(neighbors, "search", recorded)
    jaccard_distance(make_features(0), k1=5, k2=2, memory=4321)
    assert budgets == [4321]


@pytest.mark.parametrize(("kernels", "size"), [(_jaccard_numba, "ROWS"), (_jaccard_torch, "ENTRIES")])
def test_size_of_the_blocks_does_not_change_the_distance(monkeypatch, kernels, size):
    monkeypatch.setattr(jaccard, "_kernels", lambda _: kernels)
    features = make_features(3)
    whole = jaccard_distance(features, k1=10, k2=3)
    monkeypatch.setattr(kernels, size, {"cpu": 1} if size == "ENTRIES" else 1)
    blocks = jaccard_distance(features, k1=10, k2=3)
    assert np.array_equal(whole.indptr, blocks.indptr)
    assert np.array_equal(whole.indices, blocks.indices)
    assert np.array_equal(whole.data, blocks.data)


def test_more_images_than_one_compiled_block_holds():
    """Two thousand mutual pairs: a wrong stamp between blocks would join or lose some."""
    n = _jaccard_numba.ROWS // 2 * 2 + 500
    features, similarities = torch.ones(n, 1), torch.ones(n, 2)
    ranks = torch.stack([torch.arange(n), torch.arange(n) ^ 1], dim=1)
    found = neighbors.Neighbors(ranks, similarities, similarities[:, 0])
    distance = jaccard_from_neighbors(features, found, k1=2, k2=2)
    assert distance.indices.reshape(n, 2).tolist() == [[i & ~1, i | 1] for i in range(n)]
    np.testing.assert_allclose(distance.data, 0, atol=1e-6)


def test_wider_neighbors_than_needed_give_the_same_distance(kernels):
    features = make_features(4)
    narrow = jaccard_from_neighbors(features, neighbors.search(features, 8), k1=8, k2=3)
    wide = jaccard_from_neighbors(features, neighbors.search(features, 40), k1=8, k2=3)
    np.testing.assert_allclose(dense(narrow), dense(wide), atol=2e-6)


def test_overlap_of_rows_is_one_minus_minima_over_maxima(kernels):
    weights = np.array([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0, 0, 0, 1]], dtype=np.float32)
    square = np.vstack([weights, [[0, 0, 0.5, 0.5]]]).astype(np.float32)
    found = dense(overlap(jaccard.sparse.csr_array(square)))
    np.testing.assert_allclose(found, naive.jaccard(square), atol=1e-6)
    assert found[0, 1] == pytest.approx(1 - 0.5 / 1.5)


@pytest.mark.parametrize("rows", [0, 1, 3, 24])
def test_overlap_of_the_first_rows_is_that_part_of_the_whole(kernels, rows):
    features = make_features(0)[:24]
    found = neighbors.search(features, 6)
    encoding = encode(features, found, reach=6, half_reach=4, expand=2, scale=None)
    part = overlap(encoding, rows=rows)
    assert part.shape == (rows, 24)
    assert dense(part).tolist() == dense(overlap(encoding))[:rows].tolist()


def test_tensors_stand_in_on_a_gpu_and_where_numba_is_missing(monkeypatch):
    assert jaccard._kernels(torch.device("cpu")) is _jaccard_numba
    assert jaccard._kernels(torch.device("cuda")) is _jaccard_torch
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    assert jaccard._kernels(torch.device("cpu")) is _jaccard_torch


def test_thirty_and_six_are_taken_for_neighbors_if_nothing_is_said():
    """As in the papers; the settings of a run say their own."""
    for function in (jaccard_distance, jaccard_from_neighbors):
        known = inspect.signature(function).parameters
        assert (known["k1"].default, known["k2"].default) == (30, 6)


def test_indices_take_four_bytes_as_long_as_they_can():
    assert jaccard._index_type(2**31 - 1) is np.int32
    assert jaccard._index_type(2**31) is np.int64
    assert jaccard_distance(torch.eye(3), k1=2, k2=1).indices.dtype == np.int32


@pytest.mark.parametrize(("k1", "k2"), [(2.0, 1), (2, 1.5)])
def test_k_that_is_no_whole_number_is_refused(k1, k2):
    with pytest.raises(ShapeError, match=f"k1 is {k1} and k2 is {k2}; both are counts"):
        jaccard_distance(torch.eye(3), k1=k1, k2=k2)
    found = neighbors.search(torch.eye(3), 3)
    with pytest.raises(ShapeError, match=f"k1 is {k1} and k2 is {k2}; both are counts"):
        jaccard_from_neighbors(torch.eye(3), found, k1=k1, k2=k2)


def test_k_may_be_a_whole_number_of_numpys():
    found = jaccard_distance(torch.eye(3), k1=np.int64(2), k2=np.int32(1))
    assert dense(found).tolist() == dense(jaccard_distance(torch.eye(3), k1=2, k2=1)).tolist()


@pytest.mark.parametrize(("k1", "k2"), [(0, 1), (1, 0), (-3, 2)])
def test_k_below_one_is_refused(k1, k2):
    found = neighbors.search(torch.eye(3), 3)
    with pytest.raises(ShapeError, match=f"k1 is {k1} and k2 is {k2}"):
        jaccard_from_neighbors(torch.eye(3), found, k1=k1, k2=k2)


def test_too_few_neighbors_are_refused_with_the_number_to_search_for():
    features = make_features(0)
    found = neighbors.search(features, 5)
    with pytest.raises(ShapeError, match=r"expected \(72, 8\) or wider. Search with k=8"):
        jaccard_from_neighbors(features, found, k1=8, k2=2)
    with pytest.raises(ShapeError, match="Search with k=6"):
        encode(features, found, reach=5, half_reach=6, expand=1, scale=None)


def test_neighbors_of_other_features_are_refused():
    found = neighbors.search(torch.eye(4), 3)
    with pytest.raises(ShapeError, match=r"neighbours have shape \(4, 3\); expected \(3, 3\)"):
        jaccard_from_neighbors(torch.eye(3), found, k1=3, k2=1)


@pytest.mark.parametrize("row", [-1, 4])
def test_neighbors_that_are_no_rows_of_the_features_are_refused(kernels, row):
    features = make_features(0)[:4]
    found = neighbors.search(features, 3)
    found.indices[2, 1] = row
    with pytest.raises(ShapeError, match=r"neighbours are rows .*; expected rows 0 to 3\. Search the"):
        jaccard_from_neighbors(features, found, k1=3, k2=1)
