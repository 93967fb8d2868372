"""GRACL against a twin written from the definitions, image by image and cluster by cluster."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gracl import neighbors
from gracl.clustering import OUTLIER
from gracl.errors import ClusterCollapse, ConfigError
from gracl.jaccard import jaccard_distance
from gracl.methods.gracl import GRACL, own_cosine
from gracl.methods.groups import lowest_per_cluster
from gracl.methods.protocol import Batch, Known
from gracl.methods.pseudo_labels import PseudoLabels


def crowd(n_clusters=6, per_cluster=7, noise=0.35, dim=12, seed=0):
    """Features in clusters, some alone, in mixed order; labels with outliers."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n_clusters).repeat_interleave(per_cluster)
    labels = torch.cat([labels, torch.full((5,), OUTLIER)])
    centres = torch.randn(n_clusters + 5, dim, generator=g)
    where = torch.where(labels >= 0, labels, n_clusters + torch.arange(len(labels)) % 5)
    features = F.normalize(centres[where] + noise * torch.randn(len(labels), dim, generator=g))
    order = torch.randperm(len(labels), generator=g)
    return features[order], labels[order].numpy()


def few():
    """A cluster of one image, one of two, one of three, and two outliers."""
    labels = np.array([2, OUTLIER, 1, 0, 2, 1, OUTLIER, 2])
    return F.normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))), labels


def naive_relations(features, labels, distance, *, relation, nearest, intra, outliers):
    """R_inter and R_intra by two loops over all pairs."""
    s = (features @ features.T).double().numpy()
    if relation == "jaccard":
        dense = np.ones(distance.shape)
        for i, j, d in zip(*distance.nonzero(), distance.data[distance.data != 0], strict=True):
            dense[i, j] = d
        coo = distance.tocoo()
        dense[coo.row, coo.col] = coo.data
        s = 1 - dense
    inter, own = {}, {}
    n = len(labels)
    for i in range(n):
        if labels[i] == OUTLIER:
            continue
        foreign = [
            s[i, j]
            for j in range(n)
            if labels[j] != labels[i] and (labels[j] != OUTLIER or outliers == "others")
        ]
        foreign = sorted(foreign, reverse=True)[: nearest or None]
        inter[i] = sum(foreign) / len(foreign)
        mine = [s[i, j] for j in range(n) if labels[j] == labels[i] and j != i]
        own[i] = 1.0 if not mine else min(mine) if intra == "min" else sum(mine) / len(mine)
    return inter, own


@pytest.mark.parametrize(
    ("relation", "nearest", "intra", "outliers"),
    list(product(("cosine", "jaccard"), (0, 1, 3), ("mean", "min"), ("dropped", "others"))),
)
@pytest.mark.parametrize("images", ["crowd", "few", "one other"])
def test_relations_are_those_of_the_definition(images, relation, nearest, intra, outliers):
    features, labels = crowd() if images == "crowd" else few()
    if images == "one other":
        features, labels = features[:4], np.array([0, 0, 1, 0])
    distance = jaccard_distance(features, k1=8 if images == "crowd" else 4, k2=3)
    method = GRACL(relation=relation, inter_nearest=nearest, intra=intra, outliers=outliers)
    inter, own = method.relations(features, labels, distance)
    expected_inter, expected_own = naive_relations(
        features,
        labels,
        distance,
        relation=relation,
        nearest=nearest,
        intra=intra,
        outliers=outliers,
    )
    for i in expected_inter:
        assert inter[i].item() == pytest.approx(expected_inter[i], abs=2e-6)
        assert own[i].item() == pytest.approx(expected_own[i], abs=2e-6)


@pytest.mark.parametrize("memory", [1, 400, 2**20])
def test_relations_do_not_depend_on_the_memory_budget_and_keep_to_it(monkeypatch, memory):
    features, labels = crowd()
    distance = jaccard_distance(features, k1=8, k2=3)
    plain, budgets = neighbors.rows_in_block, []
    for intra in ("mean", "min"):
        settings = {"relation": "cosine", "intra": intra}
        wide = GRACL(**settings).relations(features, labels, distance)
        with monkeypatch.context() as patch:
            recorded = lambda gallery, budget: budgets.append(budget) or plain(gallery, budget)  # noqa: E731
            patch.setattr(neighbors, "rows_in_block", recorded)
            tight = GRACL(Known(memory=memory), **settings).relations(features, labels, distance)
        torch.testing.assert_close(wide, tight)
    assert budgets == [memory] * len(budgets)
    assert len(budgets) == 2 + 6  # the foreign twice, and the own of each cluster where it is the least


def test_known_neighbors_are_not_searched_again_and_doubtful_ones_not_believed(monkeypatch):
    features, labels = crowd()
    distance = jaccard_distance(features, k1=8, k2=3)
    method = GRACL(relation="cosine", inter_nearest=2)
    expected, _ = method.relations(features, labels, distance)
    exact = neighbors.search(features, len(features))
    doubtful = replace(exact, similarities=torch.zeros_like(exact.similarities), recall=0.99)
    torch.testing.assert_close(method.relations(features, labels, distance, doubtful)[0], expected)
    searched = []

    def recorded(queries, gallery, *, memory):
        searched.append(len(queries))
        return iter(())

    monkeypatch.setattr(neighbors, "similarity_blocks", recorded)
    found, _ = method.relations(features, labels, distance, exact)
    torch.testing.assert_close(found, expected)
    assert searched == [0]


@pytest.mark.parametrize("intra", ["mean", "min"])
def test_nothing_of_its_own_is_less_similar_to_an_outlier_or_the_only_image_of_a_cluster(intra):
    features, labels = few()
    own = own_cosine(features, torch.from_numpy(labels), intra)
    assert own[[1, 3, 6]].tolist() == [1.0, 1.0, 1.0]
    assert (own[[0, 2, 4, 5, 7]] < 1).all()


def test_proxies_are_the_samples_where_the_relations_are_lowest():
    features, labels = crowd()
    distance = jaccard_distance(features, k1=8, k2=3)
    method = GRACL(relation="cosine", inter_nearest=1, intra="mean")
    banks = method.remember(
        features, torch.from_numpy(labels), *method.relations(features, labels, distance)
    )
    inter, own = naive_relations(
        features, labels, distance, relation="cosine", nearest=1, intra="mean", outliers="dropped"
    )
    for k in range(labels.max() + 1):
        members = [i for i in range(len(labels)) if labels[i] == k]
        assert torch.equal(banks["inter"][k], features[min(members, key=inter.__getitem__)])
        assert torch.equal(banks["intra"][k], features[min(members, key=own.__getitem__)])


def test_the_mean_of_all_cosines_picks_one_direction_for_all_clusters():
    """The trap of method.md: why inter_nearest = 0 is never the default with cosines."""
    g = torch.Generator().manual_seed(0)
    shared = 3 * F.normalize(torch.randn(1, 32, generator=g))
    centres = F.normalize(torch.randn(30, 32, generator=g)) + shared
    features = F.normalize(centres.repeat_interleave(10, 0) + 0.15 * torch.randn(300, 32, generator=g))
    labels = np.arange(30).repeat(10)
    distance = jaccard_distance(features, k1=8, k2=3)
    agreeing = {}
    for nearest in (0, 1):
        method = GRACL(relation="cosine", inter_nearest=nearest)
        bank = method.remember(
            features, torch.from_numpy(labels), *method.relations(features, labels, distance)
        )["inter"]
        along = features @ F.normalize(features.mean(dim=0), dim=0)
        least = torch.stack([part.argmin() for part in along.split(10)])
        picked = (features.view(30, 10, 32) == bank[:, None]).all(dim=2).int().argmax(dim=1)
        agreeing[nearest] = (picked == least).float().mean().item()
    assert agreeing[0] > 0.9
    assert agreeing[1] < 0.7


def naive_update(bank, features, labels, momentum, rule, name, nearest):
    """One cluster after the other."""
    new = bank.clone()
    for k in sorted(set(labels.tolist())):
        batch = [features[i] for i in range(len(labels)) if labels[i] == k]
        if rule == "mean":
            chosen = [F.normalize(torch.stack(batch).mean(0), dim=0)]
        elif rule == "each":
            chosen = batch
        else:
            others = torch.cat([bank[:k], bank[k + 1 :]])

            def score(f, k=k, others=others):
                if name == "intra":
                    return float(f @ bank[k])
                return float((others @ f).sort(descending=True).values[: nearest or None].mean())

            chosen = [min(batch, key=score)]
        for f in chosen:
            new[k] = F.normalize(momentum * new[k] + (1 - momentum) * f, dim=0)
    return new


@pytest.mark.parametrize(
    ("rule", "nearest"), [("criterion", 1), ("criterion", 0), ("each", 1), ("mean", 1)]
)
def test_the_memory_moves_as_defined(rule, nearest):
    features, _ = crowd(seed=3)
    method = GRACL(
        update=rule,
        inter_nearest=nearest,
        inter_momentum=0.2,
        intra_momentum=0.7,
        centroid_momentum=0.5,
        centroid_weight=1.0,
    )
    bank = F.normalize(torch.randn(6, 12, generator=torch.Generator().manual_seed(1)))
    method.banks = {name: bank.clone() for name in ("inter", "intra", "centroid")}
    labels = torch.tensor([4, 1, 4, 2, 1, 1, 4, 2, 0, 0])
    method.update(Batch(features[:10], labels))
    for name, momentum in (("inter", 0.2), ("intra", 0.7), ("centroid", 0.5)):
        expected = naive_update(
            bank,
            features[:10],
            labels,
            momentum,
            "mean" if name == "centroid" else rule,
            name,
            nearest,
        )
        torch.testing.assert_close(method.banks[name], expected)
        absent = [3, 5]
        assert torch.equal(method.banks[name][absent], bank[absent])


def test_the_memory_stays_as_it_is_without_an_update():
    features, _ = crowd()
    method = GRACL(update="none")
    method.banks = {"inter": features[:6].clone(), "intra": features[6:12].clone()}
    method.update(Batch(features[:4], torch.tensor([0, 1, 2, 3])))
    assert torch.equal(method.banks["inter"], features[:6])
    assert torch.equal(method.banks["intra"], features[6:12])


def test_a_row_may_follow_the_very_sample_that_is_the_proxy():
    features, labels = crowd()
    method = GRACL(update="sample", centroid_weight=0.0, inter_momentum=0.3, intra_momentum=0.6)
    distance = jaccard_distance(features, k1=8, k2=3)
    inter, intra = method.relations(features, labels, distance)
    method.banks = method.remember(features, torch.from_numpy(labels), inter, intra)
    before = {name: bank.clone() for name, bank in method.banks.items()}
    proxies = {
        name: [min(np.flatnonzero(labels == k), key=lambda i, s=scores: float(s[i])) for k in range(6)]
        for name, scores in (("inter", inter), ("intra", intra))
    }
    assert proxies["inter"] != proxies["intra"]

    rows = torch.tensor([int(proxies["inter"][2]), int(proxies["intra"][4]), int(proxies["inter"][2])])
    seen = F.normalize(features[rows] + 0.2 * torch.randn(3, 12, generator=torch.Generator()))
    method.update(Batch(seen, torch.from_numpy(labels)[rows], rows))
    moved = {
        name: [k for k in range(6) if not torch.equal(method.banks[name][k], before[name][k])]
        for name in before
    }
    in_batch = set(rows.tolist())
    assert moved == {n: [k for k in range(6) if int(p[k]) in in_batch] for n, p in proxies.items()}
    assert 2 in moved["inter"]
    assert 4 in moved["intra"]
    twice = F.normalize(seen[0] + seen[2], dim=0)  # the same image, changed at random in two ways
    expected = F.normalize(0.3 * before["inter"][2] + 0.7 * twice, dim=0)
    torch.testing.assert_close(method.banks["inter"][2], expected)


@pytest.mark.parametrize("negatives", ["own", "all"])
def test_losses_are_those_of_the_definition(negatives):
    features, _ = crowd(seed=5)
    method = GRACL(negatives=negatives, temperature=0.1, inter_weight=0.3, intra_weight=0.9)
    g = torch.Generator().manual_seed(2)
    method.banks = {n: F.normalize(torch.randn(6, 12, generator=g)) for n in ("inter", "intra")}
    labels = torch.tensor([4, 1, 0, 5])
    found = method.loss(Batch(features[:4], labels))
    for name, other, weight in (("inter", "intra", 0.3), ("intra", "inter", 0.9)):
        total = 0.0
        for f, y in zip(features[:4].double(), labels.tolist(), strict=True):
            own = [np.exp(float(f @ row.double()) / 0.1) for row in method.banks[name]]
            more = [np.exp(float(f @ row.double()) / 0.1) for row in method.banks[other]]
            below = sum(own) + (sum(more) - more[y] if negatives == "all" else 0.0)
            total += -np.log(own[y] / below)
        assert found[name].item() == pytest.approx(weight * total / 4, rel=1e-5)


def test_reading_the_memory_does_not_change_it_and_gradients_reach_the_features_only():
    features, _ = crowd()
    method = GRACL(centroid_weight=0.5)
    method.start_epoch(crowd(n_clusters=8, noise=0.1)[0])
    before = {name: bank.clone() for name, bank in method.banks.items()}
    batch = features[:6].clone().requires_grad_(True)
    torch.stack(list(method.loss(Batch(batch, torch.arange(6))).values())).sum().backward()
    assert batch.grad is not None
    assert batch.grad.abs().sum() > 0
    for name, bank in method.banks.items():
        assert torch.equal(bank, before[name])
        assert not bank.requires_grad


def test_the_memory_is_float32_whatever_the_model_runs_in():
    features = crowd(n_clusters=8, noise=0.1)[0]
    method = GRACL(eps=0.6)
    method.start_epoch(features.to(torch.bfloat16))
    losses = method.loss(Batch(features[:4].to(torch.bfloat16), torch.arange(4)))
    method.update(Batch(features[:4].to(torch.bfloat16), torch.arange(4)))
    assert {bank.dtype for bank in method.banks.values()} == {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_a_loss_of_weight_zero_has_no_bank():
    features = crowd(n_clusters=8, noise=0.1)[0]
    method = GRACL(inter_weight=0.0, intra_weight=0.0, centroid_weight=1.0)
    labels = method.start_epoch(features)
    assert set(method.banks) == {"centroid"}
    means = [features[labels == k].mean(dim=0) for k in range(labels.max() + 1)]
    torch.testing.assert_close(method.banks["centroid"], F.normalize(torch.stack(means)))


def test_a_row_may_start_as_the_mean_of_its_cluster():
    features = crowd(n_clusters=8, noise=0.1)[0]
    method = GRACL(start="mean", centroid_weight=1.0)
    method.start_epoch(features)
    assert torch.equal(method.banks["inter"], method.banks["centroid"])
    method.update(Batch(features[:1], torch.tensor([0])))
    assert not torch.equal(method.banks["inter"], method.banks["intra"].roll(1, 0))


def test_outliers_become_clusters_of_one_when_asked():
    features = crowd(n_clusters=8, noise=0.35)[0]
    dropped = GRACL(k1=8, k2=2, eps=0.4).start_epoch(features)
    single = GRACL(k1=8, k2=2, eps=0.4, outliers="singletons").start_epoch(features)
    n_outliers = int((dropped == OUTLIER).sum())
    assert n_outliers > 0
    assert single.min() == 0
    assert single.max() == dropped.max() + n_outliers
    assert np.array_equal(single[dropped >= 0], dropped[dropped >= 0])


def test_all_outliers_stops_and_says_what_to_change():
    scattered = torch.eye(40)
    with pytest.raises(ClusterCollapse, match=r"all 40 images are outliers.*Raise method\.eps"):
        GRACL(eps=0.0, min_samples=3).start_epoch(scattered)


def test_one_cluster_stops_and_says_what_to_change():
    alike = F.normalize(torch.ones(40, 8) + 0.01 * torch.randn(40, 8, generator=torch.Generator()))
    with pytest.raises(ClusterCollapse, match=r"one cluster holds \d+ of 40 images.*Lower"):
        GRACL(eps=0.99, k1=40).start_epoch(alike)


def test_a_choice_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"'crit' is no choice; did you mean 'criterion'"):
        GRACL(update="crit")


@pytest.mark.parametrize(
    ("setting", "wrong", "right"),
    [("clustering", "dbscn", "dbscan"), ("search", "prodct", "product")],
)
def test_a_choice_of_the_pseudo_labels_that_does_not_exist_is_refused_at_once(setting, wrong, right):
    with pytest.raises(ConfigError, match=f"'{wrong}' is no choice; did you mean '{right}'"):
        GRACL(**{setting: wrong})


def test_neighbors_are_searched_within_the_memory_budget(monkeypatch):
    features, _ = crowd()
    plain, budgets = neighbors.search, []

    def recorded(*arguments, memory, **options):
        budgets.append(memory)
        return plain(*arguments, memory=memory, **options)

    monkeypatch.setattr(neighbors, "search", recorded)
    GRACL(Known(memory=4321), k1=8).label(features)
    assert budgets == [4321]


def test_labels_are_those_of_an_epoch_and_of_features_in_any_precision():
    features = crowd(n_clusters=8, noise=0.1)[0].to(torch.bfloat16)
    labels, distance = GRACL().label(features)
    assert labels.tolist() == GRACL().start_epoch(features.float()).tolist()
    assert distance.dtype == np.float32


def test_a_method_that_clusters_keeps_nothing_beyond_an_epoch():
    method = GRACL(eps=0.6)
    method.start_epoch(crowd(n_clusters=8, noise=0.1)[0])
    assert method.state() == {}
    assert method.remembered() is None


def test_a_method_without_memory_and_loss_says_so():
    bare = PseudoLabels()
    with pytest.raises(NotImplementedError):
        bare.start_epoch(crowd(n_clusters=8, noise=0.1)[0])
    for act in (bare.loss, bare.update):
        with pytest.raises(NotImplementedError):
            act(Batch(torch.ones(1, 2), torch.zeros(1, dtype=torch.long)))


def test_the_memory_of_a_method_that_clusters_does_not_grow_with_the_images():
    needed = [GRACL().needed_memory(n, 64, parts=0, group=64) for n in (100, 1_000_000)]
    assert needed == [0, 0]


def test_ties_go_to_the_first_in_record_order():
    scores = torch.tensor([0.5, 0.2, 0.2, 0.5, 0.5])
    assert lowest_per_cluster(scores, torch.tensor([1, 0, 0, 1, 1])).tolist() == [1, 0]


def test_relations_do_not_depend_on_the_order_of_images():
    features, labels = crowd(seed=9)
    order = np.random.default_rng(0).permutation(len(labels))
    for relation in ("cosine", "jaccard"):
        method = GRACL(relation=relation)
        distance = jaccard_distance(features, k1=8, k2=3)
        shuffled = jaccard_distance(features[order], k1=8, k2=3)
        inter, own = method.relations(features, labels, distance)
        inter2, own2 = method.relations(features[order], labels[order], shuffled)
        member = labels[order] >= 0
        torch.testing.assert_close(inter[order][member], inter2[member])
        torch.testing.assert_close(own[order][member], own2[member])
