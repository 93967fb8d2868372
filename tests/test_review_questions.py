"""Questions: where a cluster is cut, how likely "the same" is, and that answers mend the clusters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gracl.agreement import compare_labels
from gracl.review.partition import Partition
from gracl.review.questions import BELIEF, Questions, _probabilities, halves
from gracl.review.review import Review
from gracl.review.standing import Standing
from test_review import EACH, PEOPLE, TRUTH, study_of


def random_rows(n, seed=0, dimensions=6):
    return F.normalize(torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed)))


def naive_halves(images, groups):
    """Average linkage by its definition: groups first, then the nearest two, until two are left."""
    distance = 1 - (images @ images.T).double().numpy()
    parts = [set(np.flatnonzero(groups == g).tolist()) for g in dict.fromkeys(groups.tolist())]

    def between(a, b):
        # members of one group count as one point each, at distance 0 of each other
        return np.mean([distance[i, j] for i in a for j in b])

    while len(parts) > 2:
        a, b = min(itertools.combinations(parts, 2), key=lambda pair: between(*pair))
        parts.remove(a)
        parts.remove(b)
        parts.append(a | b)
    return {frozenset(part) for part in parts}


@given(st.integers(2, 12), st.integers(0, 500))
def test_a_cut_is_the_last_join_of_average_linkage(n, seed):
    images = random_rows(n, seed)
    groups = np.random.default_rng(seed).integers(0, n, n)
    side = halves(images, groups)
    if len(set(groups.tolist())) == 1:
        assert side is None
        return
    found = {frozenset(np.flatnonzero(side).tolist()), frozenset(np.flatnonzero(~side).tolist())}
    assert found == naive_halves(images, groups)


def test_a_large_cluster_is_cut_by_a_sample_and_groups_stay_whole(monkeypatch):
    monkeypatch.setattr("gracl.review.questions.SAMPLE", 20)
    two = random_rows(2, 1, dimensions=16).repeat_interleave(60, 0)
    images = F.normalize(two + 0.1 * random_rows(120, 2, dimensions=16))
    groups = np.arange(120)
    assert halves(images, groups).tolist() == [True] * 60 + [False] * 60
    groups[[3, 7, 110]] = 200
    side = halves(images, groups)
    assert side[3] == side[7] == side[110]


def test_nothing_is_cut_that_is_one_group():
    assert halves(random_rows(5), np.zeros(5, dtype=np.int64)) is None
    assert halves(random_rows(1), np.zeros(1, dtype=np.int64)) is None


def test_likely_rises_with_similarity_and_follows_the_answers():
    similarity = np.array([0.9, 0.8, 0.3, 0.2])
    together = np.array([True, True, False, False])
    before = _probabilities(similarity, together, [])
    assert np.all(np.diff(before) < 0)
    assert before[0] > 0.7
    assert before[-1] < 0.3
    told = [(0.3, True)] * 20 + [(0.2, False)] * 3
    after = _probabilities(similarity, together, told)
    assert after[2] > 0.8
    assert np.all(np.diff(after) <= 0)


def test_the_curve_is_the_maximum_of_its_penalised_likelihood():
    from scipy.optimize import minimize

    draws = np.random.default_rng(0)
    similarity, together = draws.random(12), draws.random(12) > 0.5
    answers = [(float(x), bool(x + 0.3 * draws.normal() > 0.5)) for x in draws.random(15)]
    x = np.concatenate([similarity, [value for value, _ in answers]])
    y = np.concatenate([together, [same for _, same in answers]]).astype(float)
    each = np.where(together, BELIEF / together.sum(), BELIEF / (~together).sum())
    w = np.concatenate([each, np.ones(len(answers))])
    middle, spread = np.average(x, weights=w), x.std()

    def cost(beta):
        z = beta[0] + beta[1] * (x - middle) / spread
        return np.sum(w * (np.logaddexp(0, z) - y * z)) + 1e-2 / 2 * (beta**2).sum()

    best = minimize(cost, [0.0, 0.0], tol=1e-10).x
    expected = 1 / (1 + np.exp(-(best[0] + best[1] * (similarity - middle) / spread)))
    np.testing.assert_allclose(_probabilities(similarity, together, answers), expected, atol=1e-4)


def test_more_similar_is_never_less_likely():
    backwards = [(0.9, False)] * 30 + [(0.1, True)] * 30
    found = _probabilities(np.array([0.1, 0.9]), np.array([False, True]), backwards)
    assert found[0] == pytest.approx(found[1])


def questions_about(features, labels, names=None):
    return Questions(Standing(features, Partition(np.array(labels), names)))


def test_the_best_question_is_the_one_of_greatest_gain(tmp_path):
    study = study_of(tmp_path / "run", TRUTH)
    labels = TRUTH.copy()
    labels[TRUTH == 5] = 4  # two people in one cluster: the cut between them is worth 25 pairs
    asked = questions_about(study.features, labels).best([], groups=np.arange(len(labels)))
    assert asked.together
    assert {TRUTH[asked.first], TRUTH[asked.second]} == {4, 5}
    assert asked.gain == pytest.approx((1 - asked.likely) * 25)
    rows = torch.tensor(asked.first_rows), torch.tensor(asked.second_rows)
    mean = (study.features[rows[0]] @ study.features[rows[1]].T).mean().item()
    assert asked.similarity == pytest.approx(mean, abs=1e-5)


def test_what_was_said_is_not_asked_again(tmp_path):
    study = study_of(tmp_path / "run", TRUTH)
    everybody = np.repeat(np.arange(PEOPLE), EACH)  # each cluster confirmed
    questions = questions_about(study.features, TRUTH)
    apart = {frozenset(pair) for pair in itertools.combinations(range(PEOPLE), 2)}
    assert questions.best([], groups=everybody, apart=apart) is None
    left = questions.best([], groups=everybody, apart=apart - {frozenset((1, 4))})
    assert {TRUTH[left.first], TRUTH[left.second]} == {1, 4}
    skipped = {frozenset((left.first, left.second))}
    rest = apart - {frozenset((1, 4))}
    assert questions.best([], groups=everybody, apart=rest, skipped=skipped) is None


def test_clusters_of_different_names_are_not_asked_about(tmp_path):
    study = study_of(tmp_path / "run", TRUTH)
    names = {number: f"person {number}" for number in range(PEOPLE)}
    everybody = np.repeat(np.arange(PEOPLE), EACH)
    assert questions_about(study.features, TRUTH, names).best([], groups=everybody) is None


def test_outliers_are_asked_about_with_their_nearest_cluster(tmp_path):
    labels = TRUTH.copy()
    labels[0] = -1
    everybody = np.where(labels < 0, 99, labels)
    apart = {frozenset(pair) for pair in itertools.combinations(range(PEOPLE), 2)}
    study = study_of(tmp_path / "run", labels)
    questions = questions_about(study.features, labels)
    asked = questions.best([], groups=everybody, apart=apart)
    assert asked.first == 0
    assert TRUTH[asked.second] == 0
    said = apart | {frozenset((-1, 0))}
    assert questions.best([], groups=everybody, apart=said) is None


@pytest.mark.parametrize("wrong", ["split", "merged", "mixed"])
def test_answers_mend_the_clusters(tmp_path, wrong):
    labels = TRUTH.copy()
    if wrong == "split":
        labels = TRUTH * 2 + np.tile([0, 0, 1, 1, 1], PEOPLE)
    elif wrong == "merged":
        labels = TRUTH // 2
    else:
        labels[[0, 6, 12]] = [3, 4, 5]
    with Review.open(study_of(tmp_path / "run", labels), by="Ann") as review:
        before = compare_labels(review.labels, TRUTH).ari
        while (question := review.question()) is not None:
            assert review.progress().n_decisions < 60, "it goes on asking"
            review.answer(question, bool(TRUTH[question.first] == TRUTH[question.second]))
        assert compare_labels(review.labels, TRUTH).ari == pytest.approx(1)
        assert before < 0.95


def test_a_skipped_question_is_not_asked_again(tmp_path):
    with Review.open(study_of(tmp_path / "run", TRUTH), by="Ann") as review:
        seen = set()
        while (question := review.question()) is not None:
            pair = frozenset((question.first, question.second))
            assert pair not in seen
            seen.add(pair)
            review.skip(question)
        assert seen
