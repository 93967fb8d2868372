import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_mutual_info_score

import naive
from gracl.clustering import (
    OUTLIER,
    cluster,
    health,
    outliers_as_singletons,
    require_clusters,
)
from gracl.errors import ClusterCollapse, ShapeError
from gracl.jaccard import jaccard_distance
from naive import make_features


def graph(n, pairs):
    """Symmetric distances of some pairs, with a stored zero diagonal."""
    entries = {(i, i): 0.0 for i in range(n)}
    for (i, j), distance in pairs.items():
        entries[i, j] = entries[j, i] = distance
    rows, columns = zip(*sorted(entries), strict=True) if n else ((), ())
    data = np.array([entries[place] for place in sorted(entries)], dtype=np.float32)
    return sparse.csr_array((data, (np.array(rows, int), np.array(columns, int))), shape=(n, n))


def random_graph(seed, n, degree):
    """Distances on a grid, so that many equal eps exactly and some are stored zeros."""
    random = np.random.default_rng(seed)
    pairs = {}
    for _ in range(int(n * degree / 2)):
        i, j = random.integers(0, n, 2).tolist()
        if i != j:
            pairs[i, j] = pairs[j, i] = random.integers(0, 11) / 10
    return graph(n, {(i, j): d for (i, j), d in pairs.items() if i < j})


def dense(distance):
    result = np.full(distance.shape, np.inf)
    rows = np.repeat(np.arange(len(result)), np.diff(distance.indptr))
    result[rows, distance.indices] = distance.data
    return result


def scikit_learn(distance, eps, min_samples):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it sorts each row by distance, and says so
        found = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
        return found.fit_predict(sparse.csr_matrix(distance)).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_labels_equal_scikit_learn_and_the_definition_on_random_graphs(seed):
    random = np.random.default_rng(1000 + seed)
    n, degree = int(random.integers(2, 60)), random.uniform(0.5, 7)
    distance = random_graph(seed, n, degree)
    eps, min_samples = float(random.integers(1, 10) / 10), int(random.integers(1, 6))
    labels = cluster(distance, eps=eps, min_samples=min_samples).tolist()
    assert labels == scikit_learn(distance, eps, min_samples)
    assert labels == naive.dbscan(dense(distance), np.float32(eps), min_samples)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("eps", [0.3, 0.5, 0.7])
def test_labels_of_jaccard_distances_equal_scikit_learn(seed, eps):
    distance = jaccard_distance(make_features(seed, noise=0.7), k1=10, k2=3)
    labels = cluster(distance, eps=eps, min_samples=4)
    assert labels.max() >= 1
    assert labels.tolist() == scikit_learn(distance, eps, 4)


@given(seed=st.integers(0, 999), n=st.integers(1, 25), min_samples=st.integers(1, 4))
def test_a_permutation_moves_core_points_with_their_cluster(seed, n, min_samples):
    distance = random_graph(seed, n, degree=3)
    order = np.random.default_rng(seed).permutation(n)
    labels = cluster(distance, eps=0.5, min_samples=min_samples)[order]
    permuted = cluster(distance[order][:, order].tocsr(), eps=0.5, min_samples=min_samples)
    core = ((dense(distance) <= 0.5).sum(axis=1) >= min_samples)[order]
    same, same_permuted = (part[core][:, None] == part[core] for part in (labels, permuted))
    assert np.array_equal(same, same_permuted)
    assert np.array_equal(labels == OUTLIER, permuted == OUTLIER)


@given(seed=st.integers(0, 999), n=st.integers(1, 25), min_samples=st.integers(1, 5))
def test_labels_run_from_zero_in_the_order_of_first_core_points(seed, n, min_samples):
    distance = random_graph(seed, n, degree=4)
    labels = cluster(distance, eps=0.5, min_samples=min_samples)
    core = (dense(distance) <= 0.5).sum(axis=1) >= min_samples
    first_seen = list(dict.fromkeys(labels[core].tolist()))
    assert first_seen == list(range(len(first_seen)))
    assert set(labels.tolist()) <= {OUTLIER, *first_seen}


def test_eps_is_inclusive():
    pair = graph(2, {(0, 1): 0.6})
    assert cluster(pair, eps=0.6, min_samples=2).tolist() == [0, 0]
    just_below = float(np.nextafter(np.float32(0.6), np.float32(0)))
    assert cluster(pair, eps=just_below, min_samples=2).tolist() == [-1, -1]


def test_min_samples_counts_the_point_itself():
    triangle = graph(3, {(0, 1): 0.1, (1, 2): 0.1, (0, 2): 0.1})
    assert cluster(triangle, eps=0.5, min_samples=3).tolist() == [0, 0, 0]
    assert cluster(triangle, eps=0.5, min_samples=4).tolist() == [-1, -1, -1]


def test_one_sample_makes_every_point_a_cluster():
    assert cluster(graph(3, {}), eps=0.5, min_samples=1).tolist() == [0, 1, 2]


def test_stored_zeros_are_neighbors():
    duplicates = graph(3, {(0, 1): 0.0, (1, 2): 0.0, (0, 2): 0.0})
    assert cluster(duplicates, eps=0.0, min_samples=3).tolist() == [0, 0, 0]
    duplicates.eliminate_zeros()
    assert cluster(duplicates, eps=0.0, min_samples=3).tolist() == [-1, -1, -1]


def test_a_border_point_joins_the_lowest_numbered_cluster_not_the_nearest():
    cliques = [(a, b) for part in (range(4), range(5, 9)) for a in part for b in part if a < b]
    both_in_reach = {(3, 4): 0.5, (4, 5): 0.01}
    distance = graph(9, dict.fromkeys(cliques, 0.1) | both_in_reach)
    labels = cluster(distance, eps=0.5, min_samples=4)
    assert labels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_a_border_point_does_not_join_two_clusters_or_reach_on():
    cliques = [(a, b) for part in (range(4), range(6, 10)) for a in part for b in part if a < b]
    chain = {(3, 4): 0.5, (4, 5): 0.5}
    distance = graph(10, dict.fromkeys(cliques, 0.1) | chain)
    labels = cluster(distance, eps=0.5, min_samples=4)
    assert labels.tolist() == [0, 0, 0, 0, 0, -1, 1, 1, 1, 1]


def test_no_points_have_no_labels():
    labels = cluster(graph(0, {}), eps=0.5)
    assert labels.tolist() == []
    assert labels.dtype == np.int64


def test_a_distance_that_is_not_square_is_refused():
    with pytest.raises(ShapeError, match=r"shape \(2, 3\); expected a square"):
        cluster(sparse.csr_array((2, 3)), eps=0.5)


@pytest.mark.parametrize(("eps", "min_samples"), [(-0.1, 4), (float("nan"), 4), (0.5, 0)])
def test_settings_out_of_range_are_refused(eps, min_samples):
    with pytest.raises(ShapeError, match="need eps >= 0"):
        cluster(graph(2, {}), eps=eps, min_samples=min_samples)


@given(st.lists(st.integers(-1, 4), max_size=20))
def test_outliers_become_singletons_after_the_clusters(values):
    labels = np.array(values, dtype=np.int64)
    result = outliers_as_singletons(labels)
    clustered = labels != OUTLIER
    assert result[clustered].tolist() == labels[clustered].tolist()
    first = max(values, default=-1) + 1
    assert result[~clustered].tolist() == list(range(first, first + values.count(-1)))


def test_health_counts_what_its_fields_say():
    found = health(np.array([0, 0, 0, 1, 2, -1, -1, -1]))
    assert (found.n_images, found.n_clusters, found.n_singletons) == (8, 3, 2)
    assert found.outlier_share == pytest.approx(3 / 8)
    assert found.largest_share == pytest.approx(3 / 5)
    assert found.stability is None


def test_health_stability_is_the_mutual_information_with_the_last_labels():
    labels, previous = np.array([0, 0, 1, 1, -1, 2]), np.array([1, 1, 0, 0, -1, -1])
    assert health(labels, labels).stability == pytest.approx(1)
    expected = adjusted_mutual_info_score(previous, labels)
    assert health(labels, previous).stability == pytest.approx(expected)


def test_health_warns_of_too_many_outliers_and_of_one_large_cluster():
    assert health(np.array([0, 0, 1, 1, -1])).warnings == ()
    (outliers,) = health(np.array([0, 1, -1, -1, -1])).warnings
    assert "60% of the images are in no cluster: raise method.eps" in outliers
    (large,) = health(np.array([0, 0, 0, 1, -1])).warnings
    assert "the largest cluster holds 75%" in large


def test_health_of_nothing_but_outliers():
    found = health(np.array([-1, -1]))
    assert (found.n_clusters, found.outlier_share, found.largest_share) == (0, 1, 0)


def test_two_clusters_are_enough_to_go_on():
    labels = np.array([0, 1, -1])
    assert require_clusters(labels) is labels


def test_no_cluster_is_a_collapse():
    with pytest.raises(ClusterCollapse, match=r"all 3 images are outliers.*Raise method.eps"):
        require_clusters(np.array([-1, -1, -1]))


def test_one_cluster_is_a_collapse():
    with pytest.raises(ClusterCollapse, match=r"one cluster holds 2 of 3 images.*Lower method.eps"):
        require_clusters(np.array([0, -1, 0]))
