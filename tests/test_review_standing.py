"""What is kept up to date while images move is what a fresh look would give."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gracl.clustering import OUTLIER
from gracl.doubt import doubts
from gracl.review.partition import Partition
from gracl.review.standing import Standing


def random_rows(n, seed=0, dimensions=6):
    return F.normalize(torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed)))


MOVES = st.lists(
    st.tuples(st.sets(st.integers(0, 23), min_size=1, max_size=6), st.integers(-1, 8)), max_size=8
)


@given(st.lists(st.integers(-1, 5), min_size=24, max_size=24), MOVES, st.integers(0, 99))
def test_refreshed_is_looked_at_afresh(labels, moves, seed):
    features = random_rows(24, seed)
    partition = Partition(np.array(labels))
    standing = Standing(features, partition)
    for rows, number in moves:
        number = min(number, partition.new_number())
        change = partition.moving(sorted(rows), number)
        partition.apply(change)
        standing.refresh(change.clusters)
        fresh = doubts(features, partition.labels)
        np.testing.assert_allclose(standing.image, fresh.image, atol=1e-5)
        np.testing.assert_allclose(standing.cluster[: len(fresh.cluster)], fresh.cluster, atol=1e-5)


@given(st.lists(st.integers(-1, 5), min_size=24, max_size=24), MOVES)
def test_a_partition_taken_back_is_as_before(labels, moves):
    partition = Partition(np.array(labels), {0: "Ada"} if 0 in labels else {})
    stack = []
    for rows, number in moves:
        change = partition.moving(sorted(rows), min(number, partition.new_number()))
        stack.append((partition.labels.copy(), dict(partition.names), change))
        partition.apply(change)
        assert all(
            partition.rows(number) == np.flatnonzero(partition.labels == number).tolist()
            for number in [*partition.numbers, OUTLIER]
        )
    for before, names, change in reversed(stack):
        partition.apply(change.reversed())
        assert partition.labels.tolist() == before.tolist()
        assert partition.names == names


def test_a_number_is_never_given_twice():
    partition = Partition(np.array([0, 0, 1]))
    change = partition.moving([2], partition.new_number())
    partition.apply(change)
    partition.apply(change.reversed())
    assert partition.new_number() == 3


def test_a_cluster_that_is_emptied_loses_its_name_and_gets_it_back():
    partition = Partition(np.array([0, 0, 1]), {1: "Ada"})
    change = partition.moving([2], 0)
    partition.apply(change)
    assert partition.names == {}
    assert partition.numbers == [0]
    partition.apply(change.reversed())
    assert partition.names == {1: "Ada"}


def test_near_clusters_and_typical_images_are_by_the_means():
    features = random_rows(30, 3)
    labels = np.arange(30) % 5
    partition = Partition(labels)
    standing = Standing(features, partition)
    means = F.normalize(torch.stack([features[labels == c].sum(0) for c in range(5)]))
    expected = sorted(((means[0] @ means[c]).item(), c) for c in range(1, 5))[::-1]
    assert [number for number, _ in standing.near(0, 3)] == [c for _, c in expected[:3]]
    assert len(standing.near(0, 99)) == 4
    rows = partition.rows(2)
    assert standing.ordered(rows) == sorted(rows, key=lambda r: -(features[r] @ means[2]).item())
