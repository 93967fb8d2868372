"""Doubts of images and clusters, against the definition written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gracl.clustering import OUTLIER
from gracl.doubt import doubts
from gracl.errors import ShapeError


def naive(features, labels):
    """By the definition, an image at a time."""
    rows = features.double().numpy()
    clusters = sorted(set(labels.tolist()) - {OUTLIER})
    image = np.ones(len(rows))

    def cosine(row, members):
        mean = rows[members].sum(0)
        return rows[row] @ mean / max(np.linalg.norm(mean), 1e-12)

    for i in range(len(rows)):
        if labels[i] == OUTLIER:
            continue
        others = [j for j in np.flatnonzero(labels == labels[i]) if j != i]
        foreign = [cosine(i, np.flatnonzero(labels == c)) for c in clusters if c != labels[i]]
        if not others or not foreign:
            image[i] = 0.5
            continue
        a, b = 1 - cosine(i, others), 1 - max(foreign)
        image[i] = (1 - (b - a) / max(a, b)) / 2
    cluster = []
    for c in range(max(clusters, default=-1) + 1):
        worst = sorted(image[labels == c], reverse=True)
        quarter = worst[: math.ceil(len(worst) / 4)]
        cluster.append(sum(quarter) / len(quarter) if quarter else 0)
    return image, np.array(cluster)


def random_rows(n, seed, dimensions=5):
    draws = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, dimensions, generator=draws))


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=30), st.integers(0, 1000))
def test_doubts_are_their_definition(labels, seed):
    labels, features = np.array(labels), random_rows(len(labels), seed)
    image, cluster = naive(features, labels)
    found = doubts(features, labels)
    np.testing.assert_allclose(found.image, image, atol=2e-4)
    np.testing.assert_allclose(found.cluster, cluster, atol=2e-4)


def test_blocks_do_not_change_doubts(monkeypatch):
    features, labels = random_rows(50, 1), np.random.default_rng(1).integers(-1, 6, 50)
    whole = doubts(features, labels)
    monkeypatch.setattr("gracl.doubt.BLOCK", 7)
    np.testing.assert_allclose(doubts(features, labels).image, whole.image, atol=1e-6)


def test_a_stranger_is_more_doubtful_than_the_rest_and_so_is_its_cluster():
    people = random_rows(4, 3, dimensions=32).repeat_interleave(5, 0)
    features = F.normalize(people + 0.02 * random_rows(20, 4, dimensions=32))
    labels = np.repeat(np.arange(4), 5)
    labels[7] = 3  # of the second person
    found = doubts(features, labels)
    assert found.image.argmax() == 7
    assert found.image[7] > 0.9
    assert found.cluster.argmax() == 3


def test_two_halves_of_one_individual_are_doubtful():
    people = random_rows(3, 5, dimensions=32).repeat_interleave(6, 0)
    features = F.normalize(people + 0.1 * random_rows(18, 6, dimensions=32))
    labels = np.repeat([0, 1, 2, 3], [3, 3, 6, 6])
    found = doubts(features, labels)
    assert set(np.argsort(found.cluster)[-2:].tolist()) == {0, 1}


@pytest.mark.parametrize("labels", [[], [-1, -1], [0, 0], [0]])
def test_with_nothing_to_compare_doubts_are_there(labels):
    labels = np.array(labels, dtype=np.int64)
    found = doubts(random_rows(len(labels), 0), labels)
    assert found.image.tolist() == [1 if label == OUTLIER else 0.5 for label in labels]


def test_labels_of_other_images_are_refused():
    with pytest.raises(ShapeError, match=r"expected \(N, D\)"):
        doubts(random_rows(3, 0), np.array([0, 0]))
