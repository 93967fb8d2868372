"""Average linkage with cannot-links, against joining the nearest two again and again."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import naive
from gracl.clustering import agglomerative, outliers_as_singletons
from gracl.errors import LinkConflict, ShapeError
from gracl.linkage import link_features, link_graph
from gracl.links import Links, number_by_first


@st.composite
def cases(draw):
    """Unit rows (some of zeros), must-links, cannot-links and a threshold."""
    n = draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = random.normal(size=(n, 4)) + draw(st.sampled_from([0.0, 1.0])) * random.normal(size=4)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if draw(st.booleans()):
        rows[random.integers(n)] = 0
    must, cannot = (
        [tuple(random.permutation(n)[:2].tolist()) for _ in range(draw(st.integers(0, most)))]
        if n > 1
        else []
        for most in (2, 6)
    )
    return rows, must, cannot, draw(st.sampled_from([-0.2, 0.2, 0.5, 0.8]))


def links(must=(), cannot=()):
    must, cannot = (np.array(pairs, dtype=np.int64).reshape(-1, 2) for pairs in (must, cannot))
    return Links(must, cannot)


def linked(case, memory=80):
    """None where links contradict each other."""
    rows, must, cannot, threshold = case
    features = torch.tensor(rows, dtype=torch.float32)
    try:
        return link_features(features, threshold=threshold, links=links(must, cannot), memory=memory)
    except LinkConflict:
        return None


def graph(rows):
    """All pairs as distances, the farther half not stored."""
    distance = np.clip((1 - rows @ rows.T) / 2, 0, 1)
    distance[distance > 0.5] = 1
    stored = np.argwhere(distance < 1)
    values = distance[tuple(stored.T)]
    return distance, sparse.csr_array((values, tuple(stored.T)), shape=distance.shape)


@settings(max_examples=300)
@given(cases())
def test_rows_are_joined_as_by_the_twin(case):
    rows, must, cannot, threshold = case
    there = np.linalg.norm(rows, axis=1) > 0
    expected = naive.constrained_linkage(rows @ rows.T, there, must, cannot, threshold)
    found = linked(case)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.tolist() == expected


@settings(max_examples=300)
@given(cases(), st.sampled_from([0.1, 0.3, 0.45]))
def test_a_graph_is_joined_as_by_the_twin(case, eps):
    rows, must, cannot, _ = case
    rows = rows[np.linalg.norm(rows, axis=1) > 0]
    n = len(rows)
    must, cannot = ([p for p in pairs if max(p) < n] for pairs in (must, cannot))
    distance, stored = graph(rows)
    expected = naive.constrained_linkage(1 - distance, [True] * n, must, cannot, 1 - eps)
    if expected is None:
        with pytest.raises(LinkConflict):
            link_graph(stored, eps=eps, links=links(must, cannot))
    else:
        assert link_graph(stored, eps=eps, links=links(must, cannot)).tolist() == expected


@given(cases(), st.sampled_from([0.1, 0.3, 0.45]))
def test_without_links_a_graph_is_joined_as_agglomerative_clustering_does(case, eps):
    _, stored = graph(case[0][np.linalg.norm(case[0], axis=1) > 0])
    known = agglomerative(stored, eps=eps, min_samples=1)
    assert link_graph(stored, eps=eps).tolist() == outliers_as_singletons(known).tolist()


@given(cases())
def test_links_are_kept(case):
    found = linked(case)
    if found is not None:
        _, must, cannot, _ = case
        assert all(found[a] == found[b] for a, b in must)
        assert not any(found[a] == found[b] for a, b in cannot)


@given(cases(), st.integers(0, 999))
def test_the_order_of_rows_means_nothing_and_numbers_follow_it(case, seed):
    found = linked(case)
    if found is None:
        return
    rows, must, cannot, threshold = case
    order = np.random.default_rng(seed).permutation(len(rows))
    place = np.argsort(order)
    must, cannot = ([(int(place[a]), int(place[b])) for a, b in pairs] for pairs in (must, cannot))
    again = linked((rows[order], must, cannot, threshold))
    assert again.tolist() == number_by_first(found[order]).tolist()


def test_the_result_does_not_depend_on_the_memory_for_a_block():
    features = naive.make_features(3)
    expected = link_features(features, threshold=0.5)
    assert 1 < expected.max() + 1 < len(features)
    assert link_features(features, threshold=0.5, memory=1).tolist() == expected.tolist()


def test_a_barred_pair_keeps_its_clusters_apart_for_good():
    """1 joins 0 first; then 2 is near both, and barred from 0 alone."""
    angles = np.radians([0, 4, 10])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert linked((rows, [], [(0, 2)], 0.5)).tolist() == [0, 0, 1]


def test_a_row_of_zeros_is_joined_by_must_links_alone_and_has_no_say():
    rows = np.array([[1, 0], [0, 0], [1, 0.01], [0, 0]])
    rows[2] /= np.linalg.norm(rows[2])
    assert linked((rows, [], [], -1)).tolist() == [0, 1, 0, 2]
    assert linked((rows, [(0, 1)], [], 0.9)).tolist() == [0, 0, 0, 1]


def test_equal_rows_end_in_one_cluster_whatever_rounding_does():
    rows = naive.make_features(1, identities=1, images=1)[:1].repeat(40, 1)
    assert link_features(rows, threshold=0.99).tolist() == [0] * 40
    pairs = np.array(list(combinations(range(3), 2)))
    assert len(set(link_features(rows, threshold=0.99, links=Links(cannot=pairs)))) == 3


def test_nothing_and_one_are_what_they_are():
    assert link_features(torch.zeros(0, 3), threshold=0.5).tolist() == []
    assert link_features(torch.eye(3)[:1], threshold=0.5).tolist() == [0]
    assert link_graph(sparse.csr_array((0, 0)), eps=0.5).tolist() == []


@pytest.mark.parametrize("eps", [1.0, -0.1, float("nan")])
def test_a_distance_that_all_pairs_have_is_no_eps(eps):
    with pytest.raises(ShapeError, match=r"expected it in \[0, 1\)"):
        link_graph(sparse.csr_array((2, 2)), eps=eps)
