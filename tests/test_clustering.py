import random
import sys
import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.cluster import DBSCAN, HDBSCAN
from sklearn.metrics import adjusted_mutual_info_score

import naive
from gracl import clustering, forecast
from gracl.clustering import (
    OUTLIER,
    agglomerative,
    cluster,
    communities,
    dbscan,
    hdbscan,
    health,
    outliers_as_singletons,
    require_clusters,
)
from gracl.errors import ClusterCollapse, ConfigError, OutOfMemory, ShapeError
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


@pytest.fixture(params=["numba", "components"])
def road(request, monkeypatch):
    """DBSCAN compiled, and by connected components where numba is missing."""
    if request.param == "components":
        monkeypatch.setattr(clustering.importlib.util, "find_spec", lambda _: None)


@pytest.mark.parametrize("seed", range(40))
def test_labels_equal_scikit_learn_and_the_definition_on_random_graphs(road, seed):
    random = np.random.default_rng(1000 + seed)
    n, degree = int(random.integers(2, 60)), random.uniform(0.5, 7)
    distance = random_graph(seed, n, degree)
    eps, min_samples = float(random.integers(1, 10) / 10), int(random.integers(1, 6))
    labels = cluster(distance, eps=eps, min_samples=min_samples).tolist()
    assert labels == scikit_learn(distance, eps, min_samples)
    assert labels == naive.dbscan(dense(distance), np.float32(eps), min_samples)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("eps", [0.3, 0.5, 0.7])
def test_labels_of_jaccard_distances_equal_scikit_learn(road, seed, eps):
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


def test_four_images_are_a_neighborhood_where_nothing_else_is_said():
    cliques = [*combinations(range(4), 2), *combinations(range(4, 7), 2)]
    assert cluster(graph(7, dict.fromkeys(cliques, 0.1)), eps=0.5).tolist() == [0] * 4 + [-1] * 3


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
    assert health(np.array([0, 0, 1, 2, -1, -1, -1, -1])).warnings == ()  # half, and not more
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


# -- other algorithms -----------------------------------------------------------------------------


def same_partition(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a == -1, b == -1) and np.array_equal(
        a[:, None] == a[None, :], b[:, None] == b[None, :]
    )


def full(distance):
    """A pair that is not stored has distance 1."""
    return np.where(np.isinf(dense(distance)), 1.0, dense(distance)).astype(np.float64)


def numbered_by_first_image(labels):
    firsts = [np.flatnonzero(labels == k)[0] for k in range(labels.max() + 1)]
    return firsts == sorted(firsts)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_samples", [2, 4])
def test_hdbscan_of_a_graph_in_parts_is_scikit_learns_of_all_pairs(seed, min_samples):
    features = make_features(seed, identities=12, images=9, noise=0.6)
    distance = jaccard_distance(features, k1=8, k2=3)
    n_parts, _ = sparse.csgraph.connected_components(distance)
    found = cluster(distance, eps=0.5, min_samples=min_samples, algorithm="hdbscan")
    everything = HDBSCAN(
        min_cluster_size=max(2, min_samples),
        min_samples=min_samples,
        metric="precomputed",
        copy=True,
    ).fit_predict(full(distance))
    assert n_parts > 1
    assert found.max() > 3
    # Ties may be broken either way, which moves single images: scikit-learn's own labels of these
    # images in another order agree with its labels to 0.94 only.
    assert adjusted_mutual_info_score(found, everything) > 0.92
    assert numbered_by_first_image(found)


def test_hdbscan_does_not_read_eps_and_outlasts_duplicates():
    distance = jaccard_distance(make_features(0, noise=0.3).repeat(2, 1), k1=10, k2=2)
    found = [cluster(distance, eps=eps, algorithm="hdbscan").tolist() for eps in (0.1, 0.9)]
    assert found[0] == found[1]
    n = len(found[0]) // 2
    halves = np.array(found[0]).reshape(2, n)
    assert (halves[0] == halves[1]).mean() > 0.95


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("eps", [0.3, 0.5, 0.8])
def test_average_linkage_by_component_is_that_of_all_pairs(seed, eps):
    distance = jaccard_distance(make_features(seed, noise=0.8), k1=8, k2=3)
    found = cluster(distance, eps=eps, min_samples=3, algorithm="agglomerative")
    tree = linkage(squareform(full(distance), checks=False), method="average")
    # A stored 0.8 is a float32, above 0.8, and within it nevertheless.
    everything = fcluster(tree, t=float(np.float32(eps)), criterion="distance")
    sizes = np.bincount(everything)
    everything[sizes[everything] < 3] = -1
    assert same_partition(found, everything)
    assert numbered_by_first_image(found)


def test_average_linkage_of_too_large_a_component_is_refused(monkeypatch):
    distance = jaccard_distance(make_features(0), k1=10, k2=3)
    monkeypatch.setattr(forecast, "available_memory", lambda: 1000)
    with pytest.raises(OutOfMemory, match=r"average linkage of \d+ images .* Lower method.eps"):
        cluster(distance, eps=0.9, algorithm="agglomerative")


def test_average_linkage_takes_room_for_its_distances_and_a_copy(monkeypatch):
    chain = graph(60, {(i, i + 1): 0.1 for i in range(59)})
    twice = 2 * 8 * 60 * 59 // 2
    bound = int(twice / (1 - forecast.RESERVE)) + 1
    monkeypatch.setattr(forecast, "available_memory", lambda: bound)
    assert agglomerative(chain, eps=0.5, min_samples=2).max() > 0
    monkeypatch.setattr(forecast, "available_memory", lambda: bound - 8)
    with pytest.raises(OutOfMemory, match="average linkage of 60 images"):
        agglomerative(chain, eps=0.5, min_samples=2)


def test_average_linkage_needs_eps_below_one():
    with pytest.raises(ShapeError, match=r"eps is 1\.0; agglomerative"):
        cluster(graph(3, {(0, 1): 0.5}), eps=1.0, algorithm="agglomerative")


def potts_quality(labels, distance, eps):
    """Sum over pairs in one community of (1 - d) - (1 - eps)."""
    similarity = 1 - full(distance)
    total = 0.0
    for i in range(len(labels)):
        for j in range(i):
            if labels[i] == labels[j]:
                total += similarity[i, j] - (1 - eps)
    return total


def test_communities_are_groups_whose_mean_distance_is_below_eps():
    pytest.importorskip("igraph")
    near = {(i, j): 0.2 for i in range(4) for j in range(i)}
    near |= {(i, j): 0.2 for i in range(4, 8) for j in range(4, i)}
    near |= {(i, j): 0.6 for i in range(4) for j in range(4, 8)}
    distance = graph(9, near)
    assert cluster(distance, eps=0.5, algorithm="community").tolist() == [0] * 4 + [1] * 4 + [-1]
    assert cluster(distance, eps=0.7, algorithm="community").tolist() == [0] * 8 + [-1]


@pytest.mark.parametrize("seed", range(3))
def test_no_move_of_one_image_makes_communities_better(seed):
    pytest.importorskip("igraph")
    distance = jaccard_distance(make_features(seed, noise=0.8), k1=8, k2=3)
    found = cluster(distance, eps=0.5, min_samples=1, algorithm="community")
    again = cluster(distance, eps=0.5, min_samples=1, algorithm="community")
    assert found.tolist() == again.tolist()
    assert found.max() > 2
    alone = outliers_as_singletons(found)
    quality = potts_quality(alone, distance, 0.5)
    random = np.random.default_rng(seed)
    for image, other in random.integers(0, len(alone), (60, 2)):
        moved = alone.copy()
        moved[image] = alone[other]
        assert potts_quality(moved, distance, 0.5) <= quality + 1e-6


def test_communities_leave_the_random_numbers_of_others_alone():
    pytest.importorskip("igraph")
    random.seed(3)
    expected = [random.random() for _ in range(3)]
    random.seed(3)
    cluster(graph(3, {(0, 1): 0.5}), eps=0.6, algorithm="community")
    assert [random.random() for _ in range(3)] == expected


def test_communities_without_igraph_name_the_extra_and_its_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(ConfigError, match=r"gracl\[community\]'. Its licence is GPL"):
        cluster(graph(3, {(0, 1): 0.5}), eps=0.6, algorithm="community")


@pytest.mark.parametrize("algorithm", ["dbscan", "hdbscan", "agglomerative", "community"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_images_are_outliers(algorithm, n):
    assert cluster(graph(n, {}), eps=0.5, algorithm=algorithm).tolist() == [-1] * n


@pytest.mark.parametrize("algorithm", ["hdbscan", "agglomerative", "community"])
def test_small_clusters_are_outliers(algorithm):
    pairs = {(0, 1): 0.1, (2, 3): 0.1, (3, 4): 0.1, (2, 4): 0.1}
    pairs |= {(i, j): 0.1 for i in range(5, 9) for j in range(5, i)}
    found = cluster(graph(9, pairs), eps=0.5, min_samples=3, algorithm=algorithm)
    assert found.tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, 1]


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ConfigError, match="'dbscn' is no clustering; did you mean 'dbscan'"):
        cluster(graph(3, {}), eps=0.5, algorithm="dbscn")


# -- other algorithms, one by one -----------------------------------------------------------------

OTHERS = {
    "hdbscan": lambda distance, eps, min_samples: hdbscan(distance, min_samples=min_samples),  # noqa: ARG005
    "agglomerative": agglomerative,
    "community": communities,
}


def generic_graph(seed, n, degree=4.0):
    """No two distances are equal, but for those that are not stored."""
    random = np.random.default_rng(seed)
    chosen = [pair for pair in combinations(range(n), 2) if random.random() < degree / (n - 1)]
    return graph(n, {pair: float(random.uniform(0.01, 0.99)) for pair in chosen})


def untied(distance):
    """The same graph, its distances moved so that no two of them are equal."""
    upper = sparse.triu(distance, 1).tocoo()
    rank = np.argsort(np.argsort(upper.data, kind="stable"))
    data = 0.9 * upper.data + 0.09 * rank / len(rank)
    assert len(np.unique(data.astype(np.float32))) == len(data)
    places = zip(upper.row.tolist(), upper.col.tolist(), strict=True)
    return graph(distance.shape[0], dict(zip(places, data.tolist(), strict=True)))


def side_by_side(parts):
    together = [[part if i == j else None for j in range(len(parts))] for i, part in enumerate(parts)]
    return sparse.csr_array(sparse.block_array(together))


def scikit_learn_hdbscan(distance, min_samples):
    least = max(2, min_samples)
    found = HDBSCAN(min_cluster_size=least, min_samples=min_samples, metric="precomputed", copy=True)
    return found.fit_predict(full(distance))


def test_cluster_dispatches_to_each_algorithm():
    distance = jaccard_distance(make_features(0, noise=1.2), k1=10, k2=3)
    algorithms = {"dbscan": dbscan, **OTHERS}
    assert algorithms.keys() == clustering.ALGORITHMS.keys()
    settings = {"eps": 0.7, "min_samples": 3}
    assert np.array_equal(cluster(distance, **settings), dbscan(distance, **settings))
    found = {name: cluster(distance, **settings, algorithm=name) for name in algorithms}
    for name, algorithm in algorithms.items():
        assert np.array_equal(found[name], algorithm(distance, **settings)), name
    assert len({labels.tobytes() for labels in found.values()}) == len(found)


@pytest.mark.parametrize("name", OTHERS)
@given(seed=st.integers(0, 999), n=st.integers(0, 25), min_samples=st.integers(1, 5))
def test_clusters_are_numbered_by_first_image_and_large_enough(name, seed, n, min_samples):
    distance = random_graph(seed, n, degree=4) if n else graph(0, {})
    labels = cluster(distance, eps=0.5, min_samples=min_samples, algorithm=name)
    assert labels.dtype == np.int64
    assert labels.shape == (n,)
    first_seen = list(dict.fromkeys(labels[labels != OUTLIER].tolist()))
    assert first_seen == list(range(len(first_seen)))
    assert all(np.bincount(labels[labels != OUTLIER]) >= min_samples)


@pytest.mark.parametrize("name", ["agglomerative", "community"])
def test_one_sample_makes_every_image_at_least_a_cluster_of_its_own(name):
    labels = OTHERS[name](graph(4, {(1, 2): 0.1}), eps=0.5, min_samples=1)
    assert labels.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("name", OTHERS)
def test_the_graph_is_not_written_to(name):
    distance = jaccard_distance(make_features(0, noise=0.7), k1=10, k2=3)
    for array in (distance.data, distance.indices, distance.indptr):
        array.flags.writeable = False
    assert OTHERS[name](distance, eps=0.5, min_samples=2).max() > 0


@pytest.mark.parametrize("name", OTHERS)
def test_stored_zeros_are_the_nearest_of_neighbors(name):
    duplicates = dict.fromkeys([*combinations(range(3), 2), *combinations(range(3, 6), 2)], 0.0)
    distance = graph(7, duplicates | {(0, 3): 0.9, (5, 6): 0.9})
    assert OTHERS[name](distance, eps=0.1, min_samples=3).tolist() == [0, 0, 0, 1, 1, 1, -1]


@pytest.mark.parametrize("eps", [1.0, 1.5])
def test_communities_need_eps_below_one(eps):
    with pytest.raises(ShapeError, match=f"eps is {eps}; community detection needs eps below 1, the"):
        communities(graph(2, {(0, 1): 0.5}), eps=eps, min_samples=1)


# -- HDBSCAN --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("min_samples", [1, 2])
def test_hdbscan_equals_scikit_learn_where_no_distances_are_equal(seed, noise, min_samples):
    distance = untied(jaccard_distance(make_features(seed, noise=noise), k1=10, k2=3))
    assert sparse.csgraph.connected_components(distance)[0] == 1
    assert distance.nnz < distance.shape[0] ** 2
    labels = hdbscan(distance, min_samples=min_samples)
    assert labels.max() > 1
    assert (labels == OUTLIER).any()
    assert np.array_equal(labels == OUTLIER, scikit_learn_hdbscan(distance, min_samples) == OUTLIER)
    assert same_partition(labels, scikit_learn_hdbscan(distance, min_samples))


@pytest.mark.parametrize("min_samples", [1, 2])
def test_hdbscan_equals_scikit_learn_where_the_graph_has_large_parts(min_samples):
    distance = side_by_side(
        [jaccard_distance(make_features(seed, noise=0.7), k1=10, k2=3) for seed in (1, 2, 3)]
    )
    assert sparse.csgraph.connected_components(distance)[0] == 3
    distance = untied(distance)
    labels = hdbscan(distance, min_samples=min_samples)
    assert same_partition(labels, scikit_learn_hdbscan(distance, min_samples))


@given(seed=st.integers(0, 999), n=st.integers(4, 25), min_samples=st.integers(1, 5))
def test_the_tree_of_hdbscan_is_a_minimum_spanning_tree_of_all_pairs(seed, n, min_samples):
    distance = random_graph(seed, n, degree=4)
    tree = clustering._reachability_tree(distance, min_samples, max(2, min_samples))
    assert (tree != tree.T).nnz == 0
    assert sparse.csgraph.connected_components(tree)[0] == 1
    reach = naive.mutual_reachability(np.minimum(full(distance), 1).tolist(), min_samples)
    lengths = sorted(sparse.triu(tree, 1).data)
    assert lengths == pytest.approx(naive.spanning_lengths(reach), abs=2e-6)


@given(seed=st.integers(0, 999), lone=st.integers(1, 12), min_samples=st.integers(1, 3))
def test_images_that_are_near_nobody_change_no_cluster_of_hdbscan(seed, lone, min_samples):
    random, n = np.random.default_rng(seed), 16 + lone
    pairs = [*combinations(range(8), 2), *combinations(range(8, 16), 2)]
    lengths = random.uniform(0.1, 0.5, len(pairs)).tolist()
    alone = hdbscan(graph(16, dict(zip(pairs, lengths, strict=True))), min_samples=min_samples)
    place = random.permutation(n)
    moved = [tuple(sorted(place[list(pair)].tolist())) for pair in pairs]
    labels = hdbscan(graph(n, dict(zip(moved, lengths, strict=True))), min_samples=min_samples)
    assert (labels[place[16:]] == OUTLIER).all()
    assert alone.max() >= 1
    assert same_partition(labels[place[:16]], alone)


def test_images_of_few_neighbors_are_no_cluster_of_hdbscan():
    ring = {(i, i + 1): 0.2 for i in range(8, 14)} | {(8, 14): 0.2}  # three with itself, not four
    cliques = dict.fromkeys([*combinations(range(4), 2), *combinations(range(4, 8), 2)], 0.1)
    labels = hdbscan(graph(15, cliques | ring), min_samples=4)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [-1] * 7


def test_one_cluster_of_all_images_is_none_of_hdbscan():
    clique = graph(5, {pair: 0.1 + sum(pair) / 100 for pair in combinations(range(5), 2)})
    for min_samples in (3, 4, 5):
        assert hdbscan(clique, min_samples=min_samples).tolist() == [-1] * 5
        assert scikit_learn_hdbscan(clique, min_samples).tolist() == [-1] * 5
    assert hdbscan(clique, min_samples=9).tolist() == [-1] * 5  # scikit-learn refuses


@pytest.mark.parametrize("size", [2, 3])
def test_two_clusters_of_the_least_size_are_all_that_hdbscan_needs(size):
    near = [*combinations(range(size), 2), *combinations(range(size, 2 * size), 2)]
    distance = graph(2 * size, dict.fromkeys(near, 0.1) | {(0, size): 0.8})
    assert hdbscan(distance, min_samples=size).tolist() == [0] * size + [1] * size


def test_core_distances_of_hdbscan_count_the_image_itself():
    distance = graph(3, {(0, 1): 0.25, (1, 2): 0.5})
    assert clustering._core_distances(distance, 1).tolist() == [0, 0, 0]
    assert clustering._core_distances(distance, 2).tolist() == [0.25, 0.25, 0.5]
    assert clustering._core_distances(distance, 3).tolist() == [1, 0.5, 1]


# -- average linkage ------------------------------------------------------------------------------


@given(seed=st.integers(0, 9999), n=st.integers(2, 14), min_samples=st.integers(1, 4))
def test_agglomerative_equals_the_definition_on_all_pairs(seed, n, min_samples):
    distance, eps = generic_graph(seed, n), float(np.random.default_rng(seed).uniform(0.2, 0.95))
    labels = agglomerative(distance, eps=eps, min_samples=min_samples)
    assert labels.tolist() == naive.average_linkage(full(distance).tolist(), eps, min_samples)


@pytest.mark.parametrize("algorithm", [agglomerative, communities])
def test_clusters_join_at_their_mean_distance_and_not_at_the_nearest(algorithm):
    chain = graph(3, {(0, 1): 0.2, (1, 2): 0.4})
    assert algorithm(chain, eps=0.69, min_samples=1).tolist() == [0, 0, 1]
    assert algorithm(chain, eps=0.71, min_samples=1).tolist() == [0, 0, 0]  # (0.4 + 1) / 2


def test_eps_of_agglomerative_is_inclusive():
    pair = graph(2, {(0, 1): 0.6})
    assert agglomerative(pair, eps=0.6, min_samples=2).tolist() == [0, 0]
    just_below = float(np.nextafter(np.float32(0.6), np.float32(0)))
    assert agglomerative(pair, eps=just_below, min_samples=2).tolist() == [-1, -1]


def test_eps_of_agglomerative_that_rounds_to_one_is_refused():
    with pytest.raises(ShapeError, match=r"eps is 1\.0; agglomerative clustering needs eps below 1"):
        agglomerative(graph(2, {(0, 1): 0.5}), eps=1 - 1e-12, min_samples=1)


def test_a_component_that_takes_more_than_the_memory_is_refused():
    chain = graph(9, {(i, i + 1): 0.1 for i in range(5)} | {(6, 7): 0.1})
    needed = 8 * 6 * 5 // 2
    assert agglomerative(chain, eps=0.5, min_samples=2, memory=needed).max() > 0
    message = r"average linkage of 6 images that hang .* needs 0.0 GiB and may take .* Lower method.eps"
    with pytest.raises(OutOfMemory, match=message):
        agglomerative(chain, eps=0.5, min_samples=2, memory=needed - 1)
    assert agglomerative(chain, eps=0.05, min_samples=1, memory=0).tolist() == list(range(9))


# -- communities ----------------------------------------------------------------------------------


@given(seed=st.integers(0, 9999), n=st.integers(2, 10))
def test_no_move_and_no_join_makes_communities_better(seed, n):
    distance, eps = generic_graph(seed, n), float(np.random.default_rng(seed).uniform(0.2, 0.95))
    labels = communities(distance, eps=eps, min_samples=1)
    best = potts_quality(labels, distance, eps) + 1e-9
    groups = range(labels.max() + 2)  # one more, to be alone in
    for i in range(n):
        for group in groups:
            moved = np.where(np.arange(n) == i, group, labels)
            assert potts_quality(moved, distance, eps) <= best
    for a, b in combinations(groups, 2):
        assert potts_quality(np.where(labels == b, a, labels), distance, eps) <= best


@pytest.mark.parametrize("seed", range(3))
def test_communities_of_many_images_are_searched_until_no_move_makes_them_better(seed):
    distance = generic_graph(seed, 300, degree=6)
    labels = communities(distance, eps=0.6, min_samples=1)
    worth = 0.6 - full(distance)  # (1 - d) - (1 - eps), of each pair in one community
    np.fill_diagonal(worth, 0)
    by_group = worth @ np.eye(labels.max() + 2)[labels]  # one more, to be alone in
    own = by_group[np.arange(300), labels]
    assert (by_group.max(axis=1) - own).max() <= 1e-9


def test_communities_repeat_with_the_seed_and_give_igraph_its_generator_back(monkeypatch):
    igraph = pytest.importorskip("igraph")
    given_to, original = [], igraph.set_random_number_generator

    def recorded(generator):
        given_to.append(generator)
        original(generator)

    monkeypatch.setattr(igraph, "set_random_number_generator", recorded)
    distance = random_graph(0, 300, 12)
    found = [communities(distance, eps=0.5, min_samples=2, seed=seed).tolist() for seed in (7, 7, 8)]
    assert found[0] == found[1] != found[2]
    assert given_to[1::2] == [random] * 3
    assert random not in given_to[::2]
