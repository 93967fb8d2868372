"""ICE against loops over images, from the paper's definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gracl.methods.ice import ICE, hard_instance, soft_instance
from gracl.methods.protocol import Batch

LABELS = [2, 0, 2, 1, 1, 2, 0, 0]


def unit_rows(n, seed, dim=6):
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)))


def made(labels=LABELS, **settings):
    """A method with three rows, and a batch of these labels."""
    method = ICE(**settings)
    method.banks = {"proxy": unit_rows(3, 1)}
    n = len(labels)
    return method, Batch(unit_rows(n, 2), torch.tensor(labels), teacher=unit_rows(n, 3))


def naive(f, m, bank, y, t, th, ts):
    f, m, bank = (x.double().numpy() for x in (f, m, bank))
    n, t = len(f), t / math.sqrt(f.shape[1])
    agnostic = hard = soft = 0.0
    for i in range(n):
        e = [math.exp(f[i] @ row / t) for row in bank]
        agnostic -= math.log(e[y[i]] / sum(e)) / n
        positive = math.exp(min(f[i] @ m[j] for j in range(n) if y[j] == y[i]) / th)
        below = positive + sum(math.exp(f[i] @ m[j] / th) for j in range(n) if y[j] != y[i])
        hard -= math.log(positive / below) / n
        p = np.array([math.exp(m[i] @ m[j] / ts) for j in range(n)])
        q = np.array([math.exp(f[i] @ m[j] / ts) for j in range(n)])
        p, q = p / p.sum(), q / q.sum()
        soft += sum(p * np.log(p / q)) / n
    return {"agnostic": agnostic, "hard": hard, "soft": soft}


@pytest.mark.parametrize(("t", "th", "ts"), [(0.5, 0.1, 0.4), (1.3, 0.6, 0.2)])
@pytest.mark.parametrize("weights", [(1.0, 10.0), (0.4, 3.0)])
def test_losses_are_those_of_the_definition(t, th, ts, weights):
    method, batch = made(
        temperature=t,
        hard_temperature=th,
        soft_temperature=ts,
        hard_weight=weights[0],
        soft_weight=weights[1],
    )
    found = method.loss(batch)
    expected = naive(batch.features, batch.teacher, method.banks["proxy"], LABELS, t, th, ts)
    expected["hard"] *= weights[0]
    expected["soft"] *= weights[1]
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].item() == pytest.approx(expected[name], rel=1e-4)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    again = method.loss(Batch(batch.features[order], batch.labels[order], teacher=batch.teacher[order]))
    torch.testing.assert_close(again, found)


def test_only_the_features_have_a_gradient():
    method, batch = made()
    f, teacher = batch.features.requires_grad_(), batch.teacher.requires_grad_()
    sum(method.loss(Batch(f, batch.labels, teacher=teacher)).values()).backward()
    assert f.grad.abs().sum() > 0
    assert teacher.grad is None
    assert not method.banks["proxy"].requires_grad


@pytest.mark.parametrize("labels", [[1, 1, 1], [0], [0, 1, 2]])
def test_one_cluster_and_single_images_are_finite(labels):
    method, batch = made(labels)
    batch.features.requires_grad_()
    found = method.loss(batch)
    sum(found.values()).backward()
    assert all(torch.isfinite(value) for value in found.values())
    assert torch.isfinite(batch.features.grad).all()
    if len(set(labels)) == 1:
        assert found["hard"].item() == 0


def test_a_student_like_its_teacher_has_no_soft_loss():
    rows = unit_rows(5, 0)
    assert soft_instance(rows, rows, 0.4).item() == pytest.approx(0, abs=1e-6)
    assert hard_instance(rows, rows, torch.arange(5), 0.1) > 0


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0])
def test_the_memory_follows_the_means(momentum):
    method, batch = made([2, 0, 2, 0, 2], momentum=momentum)
    before = method.banks["proxy"].clone()
    method.update(batch)
    for k in range(3):
        mine = batch.features[batch.labels == k].double()
        row = before[k].double()
        if len(mine) and momentum < 1:
            row = momentum * row + (1 - momentum) * F.normalize(mine.mean(0), dim=0)
        expected = F.normalize(row, dim=0).float()
        torch.testing.assert_close(method.banks["proxy"][k], expected)


def test_the_memory_is_the_means_of_the_clusters():
    features = unit_rows(8, 4)
    bank = ICE().build_memory(features, np.array([*LABELS[:7], -1]))["proxy"]
    expected = [features[:7][torch.tensor(LABELS[:7]) == k].mean(0) for k in range(3)]
    torch.testing.assert_close(bank, F.normalize(torch.stack(expected)))
