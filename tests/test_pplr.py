"""PPLR against loops over images and parts, from the paper's definitions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import naive
from gracl.errors import ConfigError
from gracl.methods.pplr import PPLR
from gracl.methods.protocol import Batch

N, P, D = 12, 2, 6
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, -1, 1])


def unit_rows(*shape, seed):
    rows = torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows, dim=-1)


def made(monkeypatch, **settings):
    """A method in an epoch with these labels, whatever the features."""
    settings = {"agreement_nearest": 4, **settings}
    method = PPLR(k1=4, k2=2, **settings)
    monkeypatch.setattr(method, "cluster", lambda _: LABELS)
    features, parts = unit_rows(N, seed=1), unit_rows(N, P, seed=2)
    method.start_epoch(features, parts=parts)
    return method, features, parts


def batch_of(rows, seed=3):
    rows = torch.tensor(rows)
    n = len(rows)
    found = unit_rows(n, seed=seed)
    return Batch(found, torch.from_numpy(LABELS)[rows], rows, parts=unit_rows(n, P, seed=seed + 9))


def softmax(logits):
    e = np.exp(logits - np.max(logits))
    return e / e.sum()


def naive_loss(method, batch, *, beta, t):
    """Each of the paper's losses, image by image."""
    f, parts = batch.features.double().numpy(), batch.parts.double().numpy()
    w = [method.banks[k].double().numpy() for k in ("whole", "part 1", "part 2")]
    agreement = method.banks["agreement"].double().numpy()[batch.rows.numpy()]
    y, n = batch.labels.tolist(), len(f)
    refined = smoothed = triplet = 0.0
    for i in range(n):
        q = softmax(w[0] @ f[i] / t)
        of_parts = [softmax(w[1 + p] @ parts[i, p] / t) for p in range(P)]
        weight = softmax(agreement[i])
        target = beta * np.eye(3)[y[i]] + (1 - beta) * sum(
            a * b for a, b in zip(weight, of_parts, strict=True)
        )
        refined -= sum(target * np.log(q)) / n
        for p in range(P):
            a = agreement[i, p]
            kl = sum(math.log((1 / 3) / v) / 3 for v in of_parts[p])
            smoothed += (a * -math.log(of_parts[p][y[i]]) + (1 - a) * kl) / n / P
        d = [float(np.linalg.norm(f[i] - f[j])) / t for j in range(n)]
        own = math.exp(max(d[j] for j in range(n) if y[j] == y[i]))
        other = math.exp(min(d[j] for j in range(n) if y[j] != y[i]))
        triplet -= math.log(other / (own + other)) / n
    return {"refined": refined, "smoothed": smoothed, "triplet": triplet}


@pytest.mark.parametrize("k", [1, 4, 30])
def test_agreement_is_the_overlap_of_neighbours(monkeypatch, k):
    method, features, parts = made(monkeypatch, agreement_nearest=k)
    whole = naive.nearest(features, k + 1)
    for p in range(P):
        of_part = naive.nearest(parts[:, p], k + 1)
        for i in range(N):
            a, b = set(whole[i][1:]), set(of_part[i][1:])
            expected = len(a & b) / len(a | b)
            assert method.banks["agreement"][i, p].item() == pytest.approx(expected)
    assert method.banks["agreement"].shape == (N, P)


@pytest.mark.parametrize(("beta", "t"), [(0.5, 0.5), (0.2, 0.2), (1.0, 0.1)])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 2.0)])
def test_losses_are_those_of_the_definition(monkeypatch, beta, t, weights):
    method, _, _ = made(
        monkeypatch, beta=beta, temperature=t, parts_weight=weights[0], triplet_weight=weights[1]
    )
    batch = batch_of([0, 3, 1, 4, 2, 5, 6])
    expected = naive_loss(method, batch, beta=beta, t=t)
    expected["smoothed"] *= weights[0]
    expected["triplet"] *= weights[1]
    found = method.loss(batch)
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].item() == pytest.approx(expected[name], rel=1e-4)


def test_targets_carry_no_gradient(monkeypatch):
    method, _, _ = made(monkeypatch)
    batch = batch_of([0, 3, 1, 4])
    batch.parts.requires_grad_()
    batch.features.requires_grad_()
    found = method.loss(batch)
    assert torch.autograd.grad(found["refined"], batch.parts, allow_unused=True) == (None,)
    (slope,) = torch.autograd.grad(found["smoothed"], batch.parts)
    assert slope.abs().sum() > 0
    assert not any(bank.requires_grad for bank in method.banks.values())


@pytest.mark.parametrize(("beta", "rate"), [(0.5, 1.0), (0.1, 0.25)])
def test_each_classifier_steps_down_its_loss_at_the_rate_of_the_schedule(monkeypatch, beta, rate):
    method, _, _ = made(monkeypatch, beta=beta, learning_rate=0.01, temperature=0.3)
    names = ["whole", "part 1", "part 2"]
    weights = [method.banks[name].clone().requires_grad_() for name in names]
    adam = torch.optim.Adam(weights, lr=rate * 0.01)
    for seed in (3, 5, 7):
        batch = batch_of([0, 3, 1, 4, 2, 5], seed)
        other, _, _ = made(monkeypatch, beta=beta, temperature=0.3)
        for classifier, weight in zip(other.classifiers, weights, strict=True):
            classifier.rows = weight
        found = other.loss(batch)
        adam.zero_grad()
        (found["refined"] + P * found["smoothed"]).backward()
        adam.step()
        method.update(dataclasses.replace(batch, rate=rate))
        for name, weight in zip(names, weights, strict=True):
            torch.testing.assert_close(method.banks[name], weight.detach(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("rows", [[0, 3, 6], [0], [0, 1, 2]])
def test_one_cluster_and_single_images_are_finite(monkeypatch, rows):
    method, _, _ = made(monkeypatch)
    batch = batch_of(rows)
    batch.features.requires_grad_()
    found = method.loss(batch)
    sum(found.values()).backward()
    assert all(torch.isfinite(value) for value in found.values())
    assert torch.isfinite(batch.features.grad).all()


def test_classifiers_begin_anew_each_epoch_as_unit_means(monkeypatch):
    method, features, parts = made(monkeypatch, learning_rate=0.1)
    method.update(batch_of([0, 3, 1, 4]))
    method.start_epoch(features, parts=parts)
    for k in range(3):
        mine = torch.from_numpy(k == LABELS)
        torch.testing.assert_close(method.banks["whole"][k], F.normalize(features[mine].mean(0), dim=0))
        torch.testing.assert_close(
            method.banks["part 2"][k], F.normalize(parts[mine, 1].mean(0), dim=0)
        )
    assert [c.steps for c in method.classifiers] == [0, 0, 0]
    assert method.state() == {}


def test_without_parts_it_says_so(monkeypatch):
    method, features, _ = made(monkeypatch)
    with pytest.raises(ConfigError, match=r"Set model\.parts to 3"):
        method.start_epoch(features)
