import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

import naive
from gracl.agreement import adjusted_mutual_information, compare_labels
from gracl.errors import ShapeError


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), min_size=2, max_size=25),
)
def test_scores_equal_their_naive_twins(pairs):
    labels, pids = (np.array(part) for part in zip(*pairs, strict=True))
    found = compare_labels(labels, pids)
    if (labels >= 0).any():
        assert found.purity == pytest.approx(naive.purity(labels.tolist(), pids.tolist()))
    expected = naive.pair_scores(labels.tolist(), pids.tolist())
    assert (found.pair_precision, found.pair_recall, found.pair_f1) == pytest.approx(expected)
    assert found.n_clusters == len(set(labels.tolist()) - {-1})
    assert found.n_identities == len(set(pids.tolist()))
    assert found.cluster_count_error == len(set(labels.tolist()) - {-1}) - len(set(pids.tolist()))
    expected = found.cluster_count_error / len(set(pids.tolist()))
    assert found.relative_cluster_count_error == pytest.approx(expected)
    assert found.relative_cluster_count_error >= -1


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), min_size=1, max_size=25))
def test_indices_equal_scikit_learn_with_each_outlier_a_group_of_its_own(pairs):
    labels, pids = (np.array(part) for part in zip(*pairs, strict=True))
    alone = [label if label >= 0 else 100 + i for i, label in enumerate(labels.tolist())]
    found = compare_labels(labels, pids)
    assert found.ari == pytest.approx(adjusted_rand_score(pids, alone), abs=1e-9)
    assert found.ami == pytest.approx(adjusted_mutual_info_score(pids, alone), abs=1e-9)


@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), min_size=4, max_size=20),
    st.permutations(range(4)),
)
def test_names_of_clusters_and_identities_do_not_matter(pairs, names):
    labels, pids = (np.array(part) for part in zip(*pairs, strict=True))
    renamed = np.where(labels < 0, -1, np.array(names)[labels])
    found, again = compare_labels(labels, pids), compare_labels(renamed, pids * 1000 + 7)
    assert vars(again) == pytest.approx(vars(found), abs=1e-9)


def test_perfect_labels_score_one():
    found = compare_labels(np.array([1, 1, 0, 0, 2]), np.array([5, 5, 9, 9, 0]))
    shares = found.ari, found.ami, found.purity, found.pair_precision, found.pair_recall
    assert (*shares, found.pair_f1) == pytest.approx((1,) * 6)


def test_an_outlier_without_a_partner_costs_nothing():
    found = compare_labels(np.array([0, 0, 1, 1, -1]), np.array([5, 5, 9, 9, 3]))
    assert (found.ari, found.pair_f1) == (1, 1)


def test_an_image_left_out_costs_recall_and_not_precision():
    found = compare_labels(np.array([0, 0, -1]), np.array([5, 5, 5]))
    assert (found.pair_precision, found.pair_recall) == (1, pytest.approx(1 / 3))


def test_images_of_unknown_identity_are_left_out():
    found = compare_labels(np.array([0, 0, 0, 1, 1, 7]), np.array([5, -1, 5, 9, 9, -1]))
    assert (found.ari, found.purity, found.pair_f1) == (1, 1, 1)
    assert (found.n_clusters, found.n_identities) == (2, 2)


def test_nothing_but_outliers_is_no_agreement():
    found = compare_labels(np.full(4, -1), np.array([5, 5, 9, 9]))
    assert (found.purity, found.pair_precision, found.pair_recall, found.pair_f1) == (0, 0, 0, 0)
    assert (found.n_clusters, found.n_identities, found.ari) == (0, 2, 0)


@pytest.mark.parametrize("pids", [[], [-1, -1]])
def test_no_known_identity_has_no_pairs(pids):
    found = compare_labels(np.zeros(len(pids), dtype=np.int64), np.array(pids, dtype=np.int64))
    assert (found.n_clusters, found.n_identities, found.pair_f1) == (0, 0, 0)
    assert (found.cluster_count_error, found.relative_cluster_count_error) == (0, 0)


@pytest.mark.parametrize(
    ("labels", "error"),
    [([0, 0, 0, 0], -1), ([0, 0, 1, 1], 0), ([0, 1, 2, 3], 2), ([-1, -1, 0, 0], -1)],
)
def test_clusters_beyond_and_short_of_the_truth_are_counted_and_outliers_are_none(labels, error):
    found = compare_labels(np.array(labels), np.array([5, 5, 9, 9]))
    assert (found.cluster_count_error, found.relative_cluster_count_error) == (error, error / 2)


def test_a_cluster_of_unknown_images_alone_is_not_counted():
    found = compare_labels(np.array([0, 0, 1]), np.array([5, 5, -1]))
    assert (found.n_clusters, found.cluster_count_error) == (1, 0)


def test_singletons_alone_have_no_pairs():
    found = compare_labels(np.arange(3), np.arange(3))
    assert (found.purity, found.pair_f1) == (1, 0)


def test_outliers_are_one_group_in_the_mutual_information_of_two_labelings():
    a, b = np.array([-1, -1, 0, 0, 1]), np.array([3, 3, 1, 1, 0])
    assert adjusted_mutual_information(a, b) == pytest.approx(1)


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((2, 2), (2, 2))])
def test_labels_of_another_shape_are_refused(shapes):
    labels, pids = (np.zeros(shape, dtype=np.int64) for shape in shapes)
    with pytest.raises(ShapeError, match=r"expected the same \(N,\)"):
        compare_labels(labels, pids)
