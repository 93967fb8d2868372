import re
import time
from contextlib import suppress
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import naive
from gracl import clustering
from gracl.clustering import cluster
from gracl.errors import GraclError, LinkConflict, ShapeError
from gracl.linked_clusters import honour
from gracl.links import (
    OUTLIER,
    Labels,
    Links,
    cannot_within,
    must_groups,
    must_within,
    number_by_first,
)
from test_clustering import graph


def pairs_of(*pairs):
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def links(must=(), cannot=()):
    return Links(must=pairs_of(*must), cannot=pairs_of(*cannot))


@st.composite
def cases(draw):
    """Labels, stored distances and links, as plain lists."""
    n, density = draw(st.integers(2, 10)), draw(st.sampled_from([0.1, 0.4, 0.8]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = number_by_first(random.integers(-1, draw(st.integers(0, 3)), n))
    every = [pair for pair in combinations(range(n), 2) if random.random() < density]
    near = random.uniform(0, 0.99, len(every)).astype(np.float32)
    stored = dict(zip(every, near.tolist(), strict=True))
    must, cannot = (
        [tuple(random.permutation(n)[:2].tolist()) for _ in range(draw(st.integers(0, most)))]
        for most in (3, 6)
    )
    return labels, stored, must, cannot


def honoured(case):
    """None where links contradict each other."""
    labels, stored, must, cannot = case
    try:
        return honour(labels, graph(len(labels), stored), links(must, cannot))
    except LinkConflict:
        return None


# -- properties -----------------------------------------------------------------------------------


@settings(max_examples=500)
@given(cases())
def test_labels_equal_the_twin_and_contradictions_are_those_of_the_closure(case):
    labels, stored, must, cannot = case
    result = honoured(case)
    expected = naive.honour(labels.tolist(), stored, must, cannot)
    assert (result is None) == (expected is None)
    if result is not None:
        assert number_by_first(result).tolist() == expected
        assert result.dtype == np.int64


@given(cases())
def test_every_link_is_kept(case):
    result = honoured(case)
    if result is None:
        return
    _, _, must, cannot = case
    assert all(result[a] == result[b] != OUTLIER for a, b in must)
    assert not any(result[a] == result[b] != OUTLIER for a, b in cannot)


@given(cases())
def test_clusters_without_a_say_and_outliers_without_must_links_are_untouched(case):
    labels, _, must, cannot = case
    result = honoured(case)
    if result is None:
        return
    linked = {row for pair in must for row in pair}
    for number in range(labels.max() + 1):
        members = set(np.flatnonzero(labels == number).tolist())
        if not members & linked and not naive.hold(members, cannot):
            (new,) = {result[i] for i in members}
            assert new != OUTLIER
            assert set(np.flatnonzero(result == new).tolist()) == members
    outliers = set(np.flatnonzero(labels == OUTLIER).tolist()) - linked
    assert all(result[i] == OUTLIER for i in outliers)


@given(cases())
def test_labels_that_obey_are_returned_as_they_came(case):
    result = honoured(case)
    if result is not None:
        assert honoured((result, *case[1:])) is result


@given(cases(), st.randoms(use_true_random=False))
def test_a_permutation_of_the_images_permutes_the_labels(case, random):
    labels, stored, must, cannot = case
    order = list(range(len(labels)))
    random.shuffle(order)
    new = np.argsort(order)  # where an old row went

    def moved(pairs):
        return [(int(new[a]), int(new[b])) for a, b in pairs]

    stored = {(min(p), max(p)): d for p, d in zip(moved(stored), stored.values(), strict=True)}
    result = honoured(case)
    permuted = honoured((labels[order], stored, moved(must), moved(cannot)))
    assert (result is None) == (permuted is None)
    if result is not None:
        assert number_by_first(permuted).tolist() == number_by_first(result[order]).tolist()


@given(cases())
def test_neither_labels_nor_graph_are_written_to(case):
    labels, stored, must, cannot = case
    distance = graph(len(labels), stored)
    arrays = (labels, distance.data, distance.indices, distance.indptr)
    before = [array.copy() for array in arrays]
    with suppress(LinkConflict):
        honour(labels, distance, links(must, cannot))
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


# -- rules, by name -------------------------------------------------------------------------------


def test_no_links_return_the_very_labels():
    labels = np.array([1, 0, -1])
    assert honour(labels, graph(3, {}), Links()) is labels


def test_must_linked_outliers_are_a_cluster_of_their_own():
    result = honour(np.array([0, 0, -1, -1, -1]), graph(5, {}), links(must=[(2, 4)]))
    assert result.tolist() == [0, 0, 1, -1, 1]


def test_a_cluster_takes_in_whom_it_is_linked_with():
    result = honour(np.array([0, 0, -1, -1]), graph(4, {}), links(must=[(1, 3)]))
    assert result.tolist() == [0, 0, -1, 0]


def test_clusters_that_a_must_link_joins_become_one():
    result = honour(np.array([0, 1, 2, 1, 2]), graph(5, {}), links(must=[(4, 0)]))
    assert result.tolist() == [0, 1, 0, 1, 0]


def test_must_links_reach_on_through_an_outlier():
    result = honour(np.array([0, 0, -1, 1, 1]), graph(5, {}), links(must=[(0, 2), (2, 3)]))
    assert result.tolist() == [0, 0, 0, 0, 0]


def test_a_cluster_at_odds_is_put_together_by_mean_distances():
    chain = graph(4, {(0, 1): 0.3, (1, 2): 0.2, (2, 3): 0.1})
    result = honour(np.zeros(4, dtype=np.int64), chain, links(cannot=[(0, 3)]))
    assert result.tolist() == [0, 0, 1, 1]  # 1 is nearer to 0 than to 2 and 3 in the mean
    bridge = graph(5, {(0, 1): 0.1, (1, 2): 0.5, (2, 3): 0.1, (3, 4): 0.1, (2, 4): 0.1})
    result = honour(np.zeros(5, dtype=np.int64), bridge, links(cannot=[(0, 4)]))
    assert result.tolist() == [0, 0, 1, 1, 1]


def test_parts_that_only_hang_together_through_others_stay_apart():
    n = 8
    cliques = {p: 0.1 for p in combinations(range(n), 2) if p[0] // 4 == p[1] // 4}
    thread = graph(n + 1, {**cliques, (0, 4): 0.2, (7, n): 0.2})
    result = honour(np.zeros(n + 1, dtype=np.int64), thread, links(cannot=[(3, n)]))
    assert result.tolist() == [0] * 4 + [1] * 4 + [1]
    result = honour(np.zeros(n + 1, dtype=np.int64), thread, links(cannot=[(7, n)]))
    assert result.tolist() == [0] * 4 + [1] * 4 + [-1]  # the thread of one pair in 16 does not hold


def test_a_stored_zero_joins_first():
    chain = graph(3, {(0, 1): 0.1, (1, 2): 0.0})
    assert honour(np.zeros(3, dtype=np.int64), chain, links(cannot=[(0, 2)])).tolist() == [-1, 0, 0]


@given(cases())
def test_the_diagonal_need_not_be_stored(case):
    labels, stored, must, cannot = case
    bare = graph(len(labels), stored)
    bare.eliminate_zeros()  # no distance of a pair is drawn as zero
    result = honoured(case)
    if result is not None:
        assert honour(labels, bare, links(must, cannot)).tolist() == result.tolist()


def test_pairs_that_are_not_stored_join_nobody():
    result = honour(np.zeros(4, dtype=np.int64), graph(4, {(2, 3): 0.5}), links(cannot=[(0, 1)]))
    assert result.tolist() == [-1, -1, 0, 0]


def test_must_linked_images_stay_together_in_a_cluster_at_odds():
    result = honour(np.zeros(4, dtype=np.int64), graph(4, {}), links([(0, 2)], [(0, 1), (2, 3)]))
    assert result.tolist() == [0, -1, 0, -1]


def test_a_must_link_between_clusters_at_odds_parts_them_again_where_they_met():
    distance = graph(4, {(0, 1): 0.1, (2, 3): 0.1, (0, 3): 0.2})
    result = honour(np.array([0, 0, 1, 1]), distance, links([(1, 2)], [(0, 3)]))
    assert result.tolist() == [0, 0, 0, -1]  # 1 and 2 take 0 before 3, which is as near, and cannot


def test_a_cannot_link_between_clusters_changes_nothing():
    labels = np.array([1, 1, 0, 0])
    assert honour(labels, graph(4, {}), links(cannot=[(0, 2), (1, 3)])) is labels


def test_a_cannot_link_between_outliers_does_not_bring_other_outliers_together():
    labels = np.array([-1, -1, -1])
    assert honour(labels, graph(3, {(0, 2): 0.1}), links(cannot=[(0, 1)])) is labels


def test_a_cluster_of_one_stays_one():
    labels = np.array([0, 1, 2, 2])
    assert honour(labels, graph(4, {}), links(cannot=[(2, 3)])).tolist() == [0, 1, -1, -1]


def test_no_images_and_no_links():
    assert honour(np.zeros(0, dtype=np.int64), graph(0, {}), Links()).tolist() == []


def test_frames_and_tracklets_of_many_images_take_seconds():
    random, n = np.random.default_rng(0), 32_000
    edges = np.unique(np.sort(random.integers(0, n, (500_000, 2)), axis=1), axis=0)
    near = random.uniform(0.1, 0.9, len(edges)).astype(np.float32)
    both = np.concatenate([edges, edges[:, ::-1]])
    distance = sparse.csr_array((np.tile(near, 2), (both[:, 0], both[:, 1])), shape=(n, n))
    frames = np.arange(n) // 4
    tracks = np.arange(n) % 4 * n + frames // 10  # one box of each of ten frames
    told = Links(must=must_within(tracks.tolist()), cannot=cannot_within(frames.tolist()))
    start = time.perf_counter()
    result = honour(np.zeros(n, dtype=np.int64), distance, told)  # one cluster: all is rebuilt
    assert time.perf_counter() - start < 20
    assert (result[told.must[:, 0]] == result[told.must[:, 1]]).all()
    assert (result[told.cannot[:, 0]] != result[told.cannot[:, 1]]).all()


# -- contradictions -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_a_contradiction_names_the_shortest_chain(order):
    around = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 4)][::order]
    with pytest.raises(LinkConflict) as found:
        honour(np.full(6, -1), graph(6, {}), links(around, [(4, 0)]))
    assert "contradictory links, pairs of images: 1. " in str(found.value)
    expected = (
        "row 0 and row 4 cannot share a cluster, and must: row 0 = row 1 = row 5 = row 4. For each, "
        "remove the cannot-link or one of the must-links named"
    )
    assert expected in str(found.value)
    assert isinstance(found.value, GraclError)
    assert isinstance(found.value, ValueError)


def test_a_contradiction_names_images_where_their_names_are_known():
    with pytest.raises(LinkConflict, match=re.escape("a.jpg and c.jpg cannot")) as found:
        honour(
            np.full(3, -1),
            graph(3, {}),
            replace(links([(0, 1), (1, 2)], [(0, 2)]), names=["a.jpg", "b.jpg", "c.jpg"]),
        )
    assert "must: a.jpg = b.jpg = c.jpg." in str(found.value)


def test_the_same_contradiction_told_twice_is_named_once():
    with pytest.raises(LinkConflict, match="pairs of images: 1"):
        honour(np.full(2, -1), graph(2, {}), links([(0, 1)], [(0, 1), (1, 0), (0, 1)]))


@pytest.mark.parametrize(
    ("n_pairs", "more"), [(10, None), (11, "; and 1 more."), (25, "; and 15 more.")]
)
def test_ten_contradictions_are_spelt_out(n_pairs, more):
    pairs = [(2 * i, 2 * i + 1) for i in range(n_pairs)]
    n = 2 * n_pairs
    with pytest.raises(LinkConflict) as found:
        honour(np.full(n, -1), graph(n, {}), links(pairs, pairs))
    text = str(found.value)
    assert f"pairs of images: {n_pairs}." in text
    assert text.count("cannot share a cluster") == 10
    assert more in text if more else "more" not in text


# -- links ----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([None, "a", "b", 3]), max_size=12))
def test_groups_become_pairs(groups):
    n = len(groups)
    same = [(i, j) for i, j in combinations(range(n), 2) if groups[i] == groups[j] is not None]
    assert sorted(map(tuple, cannot_within(groups).tolist())) == same
    must = must_within(groups)
    assert naive.closure(n, must.tolist()) == naive.closure(n, same)
    assert len(must) == sum(len(group) - 1 for group in naive.closure(n, same))  # no pair too many


@pytest.mark.parametrize("within", [must_within, cannot_within])
def test_no_groups_are_no_pairs(within):
    for groups in ([], [None, None], ["a", "b"]):
        assert within(groups).shape == (0, 2)
        assert within(groups).dtype == np.int64


def test_links_are_empty_unless_told():
    assert Links().must.shape == Links().cannot.shape == (0, 2)
    assert len(Links()) == 0
    assert Links(cannot=np.array([])).cannot.shape == (0, 2)
    assert Links(must=np.array([[0, 1]], dtype=np.int32)).must.dtype == np.int64


@pytest.mark.parametrize("name", ["must", "cannot"])
@pytest.mark.parametrize(
    "pairs",
    [np.array([0, 1]), np.array([[0, 1, 2]]), np.array([[0.0, 1.0]]), np.array([[True, False]])],
)
def test_links_that_are_not_pairs_of_rows_are_refused(name, pairs):
    with pytest.raises(
        ShapeError, match=rf"{name}-links have shape .*; expected \(M, 2\) whole numbers"
    ):
        Links(**{name: pairs})


@pytest.mark.parametrize("name", ["must", "cannot"])
def test_a_link_of_an_image_with_itself_is_refused(name):
    with pytest.raises(ShapeError, match=f"a {name}-link names row 3 twice"):
        Links(**{name: np.array([[0, 1], [3, 3]])})


@pytest.mark.parametrize("name", ["must", "cannot"])
@pytest.mark.parametrize("row", [-1, 3])
def test_a_link_to_an_image_that_is_not_there_is_refused(name, row):
    with pytest.raises(ShapeError, match=f"a {name}-link names row {row}; there are 3 images"):
        honour(np.full(3, -1), graph(3, {}), Links(**{name: np.array([[0, row]])}))


def test_labels_that_do_not_fit_the_graph_are_refused():
    with pytest.raises(
        ShapeError, match=r"2 labels and distances of shape \(3, 3\); expected \(2, 2\)"
    ):
        honour(np.array([0, 0]), graph(3, {}), Links())


# -- with the clustering --------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", clustering.ALGORITHMS)
def test_every_algorithm_honours_links(algorithm):
    two = {p: 0.1 + sum(p) / 100 for part in (range(4), range(4, 8)) for p in combinations(part, 2)}
    distance = graph(10, two)
    told = links(must=[(0, 8)], cannot=[(4, 5)])
    plain = cluster(distance, eps=0.5, min_samples=2, algorithm=algorithm)
    assert plain.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, -1, -1]
    labels = cluster(distance, eps=0.5, min_samples=2, algorithm=algorithm, links=told)
    assert labels.tolist() == [0, 0, 0, 0, 1, -1, 1, 1, 0, -1]


def test_contradictions_stop_the_clustering():
    with pytest.raises(LinkConflict, match="row 0 and row 1 cannot"):
        cluster(graph(2, {}), eps=0.5, links=links([(0, 1)], [(0, 1)]))


def test_outlier_and_labels_have_one_home():
    assert clustering.OUTLIER is OUTLIER
    assert clustering.Labels is Labels


def test_a_long_chain_is_shortened():
    n = 300
    must = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    links = Links(must, np.array([[0, n - 1]]), names=[f"{i}.jpg" for i in range(n)])
    with pytest.raises(LinkConflict, match=r"0\.jpg = 1\.jpg .*280 more .* = 299\.jpg") as error:
        must_groups(links, n)
    assert len(str(error.value)) < 500
