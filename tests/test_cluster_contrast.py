"""Cluster Contrast against a twin written from its equations, image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import naive
from gracl.clustering import OUTLIER
from gracl.errors import ClusterCollapse, ConfigError
from gracl.methods.cluster_contrast import ClusterContrast
from gracl.methods.protocol import Batch


def unit(row):
    return row / np.linalg.norm(row)


def naive_memory(features, labels):
    """Equation 1: the mean of each cluster."""
    return [
        unit(np.mean([f for f, y in zip(features, labels, strict=True) if y == k], axis=0))
        for k in range(max(labels) + 1)
    ]


def naive_loss(features, labels, memory, temperature):
    """Equation 2, as a mean over the images."""
    losses = []
    for f, y in zip(features, labels, strict=True):
        scores = [math.exp(float(f @ row) / temperature) for row in memory]
        losses.append(-math.log(scores[y] / sum(scores)))
    return float(np.mean(losses))


def naive_update(features, labels, memory, momentum, rule):
    """Equation 3 for each image in turn; or once, for the mean or for the farthest."""
    memory = [row.copy() for row in memory]
    for k in sorted(set(labels)):
        mine = [f for f, y in zip(features, labels, strict=True) if y == k]
        if rule == "mean":
            mine = [unit(np.mean(mine, axis=0))]
        elif rule == "hardest":
            mine = [min(mine, key=lambda f, row=memory[k]: float(f @ row))]
        for f in mine:
            memory[k] = unit(momentum * memory[k] + (1 - momentum) * f)
    return memory


def batch_of(seed, n=24, clusters=5, dim=8):
    draws = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(n, dim, generator=draws))
    labels = torch.randint(clusters, (n,), generator=draws)
    bank = F.normalize(torch.randn(clusters, dim, generator=draws))
    return features, labels, bank


def numbers(tensor):
    return tensor.double().numpy()


def test_memory_starts_as_the_means_of_the_clusters():
    features = naive.make_features(0)
    method = ClusterContrast(k1=8, k2=3)
    labels = method.start_epoch(features)
    assert OUTLIER in labels
    expected = naive_memory(numbers(features), labels)
    np.testing.assert_allclose(method.banks["centroid"], expected, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_loss_is_that_of_the_definition(temperature):
    features, labels, bank = batch_of(1)
    method = ClusterContrast(temperature=temperature)
    method.banks = {"centroid": bank}
    found = method.loss(Batch(features, labels))
    expected = naive_loss(numbers(features), labels.tolist(), numbers(bank), temperature)
    assert found.keys() == {"contrast"}
    assert float(found["contrast"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("rule", ["each", "mean", "hardest"])
def test_update_is_that_of_the_definition(rule, momentum):
    features, labels, bank = batch_of(2)
    method = ClusterContrast(update=rule, momentum=momentum)
    method.banks = {"centroid": bank.clone()}
    method.update(Batch(features, labels))
    expected = naive_update(numbers(features), labels.tolist(), numbers(bank), momentum, rule)
    np.testing.assert_allclose(method.banks["centroid"], expected, atol=1e-5)


@pytest.mark.parametrize("rule", ["each", "mean", "hardest"])
def test_a_cluster_that_the_batch_lacks_stays(rule):
    features, labels, bank = batch_of(3)
    method = ClusterContrast(update=rule)
    method.banks = {"centroid": bank.clone()}
    present = labels != 2
    method.update(Batch(features[present], labels[present]))
    assert torch.equal(method.banks["centroid"][2], bank[2])
    assert not torch.equal(method.banks["centroid"][1], bank[1])


def test_order_of_the_batch_counts_for_each_in_turn_and_for_no_other_rule():
    features, labels, bank = batch_of(4)
    order = torch.arange(len(labels) - 1, -1, -1)
    for rule, same in (("each", False), ("mean", True), ("hardest", True)):
        found = []
        for rows in (torch.arange(len(labels)), order):
            method = ClusterContrast(update=rule)
            method.banks = {"centroid": bank.clone()}
            method.update(Batch(features[rows], labels[rows]))
            found.append(method.banks["centroid"])
        assert torch.allclose(*found, atol=1e-6) == same, rule


def test_gradient_pulls_an_image_to_its_own_row():
    _, _, bank = batch_of(5)
    method = ClusterContrast()
    method.banks = {"centroid": bank}
    feature = bank[[1]].clone().requires_grad_()
    method.loss(Batch(feature, torch.tensor([0])))["contrast"].backward()
    assert float(feature.grad[0] @ bank[0]) < 0 < float(feature.grad[0] @ bank[1])
    assert bank.grad is None


def test_nothing_to_contrast_is_refused():
    with pytest.raises(ClusterCollapse):
        ClusterContrast(k1=4, k2=2, eps=0.0).start_epoch(naive.make_features(0))


def test_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="hardest"):
        ClusterContrast(update="hardst")
