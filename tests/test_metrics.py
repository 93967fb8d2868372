from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_curve

import naive
from gracl import _ranks_numba, metrics
from gracl.data import protocols
from gracl.data.records import Record, Records
from gracl.errors import ConfigError, EvaluationError, ShapeError
from gracl.metrics import Scores, Side, cosine, has_match, join, junk, mean_scores, rank
from naive import make_features

CMC = (1, 2, 5, 10)


def given_similarity(matrix):
    tensor = torch.as_tensor(np.array(matrix), dtype=torch.float32)
    return lambda start, stop: tensor[start:stop]


def side(pids, images=None, scenes=None, first_image=0):
    images = range(first_image, first_image + len(pids)) if images is None else images
    scenes = None if scenes is None else np.array(scenes, dtype=np.int64)
    return Side(np.array(pids, dtype=np.int64), np.array(images, dtype=np.int64), scenes)


@pytest.fixture(params=["numba", "tensors"])
def road(request, monkeypatch):
    """Either way of counting."""
    if request.param == "tensors":
        monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda *_: None)


def split_ranks(ranking):
    return [part.tolist() for part in np.split(ranking.ranks, ranking.starts[1:-1])]


def random_problem(seed, levels=6, with_scenes=True):
    """Small sides with unknown identities and scenes, own images in the gallery, and many ties."""
    random = np.random.default_rng(seed)
    q, g = random.integers(1, 8), random.integers(1, 25)
    images = random.permutation(q + g)
    images[q : q + min(q, g) // 2] = images[: min(q, g) // 2]
    scenes = random.integers(-1, 3, q + g) if with_scenes else None
    pids = random.integers(-1, 4, q + g)
    pids[q : q + min(q, g) // 2] = pids[: min(q, g) // 2]
    sides = [
        side(pids[part], images[part], None if scenes is None else scenes[part])
        for part in (slice(0, q), slice(q, None))
    ]
    return random.integers(0, levels, (q, g)), *sides


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 9999), levels=st.integers(1, 30), with_scenes=st.booleans())
def test_ranks_equal_their_naive_twin(road, seed, levels, with_scenes):
    similarity, query, gallery = random_problem(seed, levels, with_scenes)
    ranking = rank(given_similarity(similarity), query, gallery)
    expected = naive.match_ranks(similarity, query, gallery)
    assert split_ranks(ranking) == expected
    assert ranking.has_match.tolist() == [bool(ranks) for ranks in expected]


@given(seed=st.integers(0, 9999), with_scenes=st.booleans())
def test_scores_equal_their_naive_twin_and_lie_in_zero_to_one(seed, with_scenes):
    similarity, query, gallery = random_problem(seed, with_scenes=with_scenes)
    ranking = rank(given_similarity(similarity), query, gallery)
    if not ranking.has_match.any():
        with pytest.raises(EvaluationError):
            ranking.scores("p")
        return
    scores = ranking.scores("p", CMC)
    mean_ap, mean_inp, cmc = naive.retrieval_scores(similarity, query, gallery, CMC)
    assert scores.mAP == pytest.approx(mean_ap)
    assert scores.mINP == pytest.approx(mean_inp)
    assert scores.cmc == pytest.approx(cmc)
    assert 0 < scores.mINP <= 1 + 1e-12
    assert 0 < scores.mAP <= 1 + 1e-12
    assert [*scores.cmc.values()] == sorted(scores.cmc.values())
    assert scores.n_queries == len(query)
    assert scores.n_without_match == int((~ranking.has_match).sum())


@settings(deadline=None)
@given(seed=st.integers(0, 9999), levels=st.integers(1, 30), with_scenes=st.booleans())
def test_true_positive_rates_equal_their_naive_twin(seed, levels, with_scenes):
    similarity, query, gallery = random_problem(seed, levels, with_scenes)
    similarity -= levels // 2  # cosines fall below zero too
    rates = (0.01, 0.1, 0.37, 0.9)
    for memory in (1, 2**20):
        ranking = rank(given_similarity(similarity), query, gallery, fprs=rates, memory=memory)
        for rate in rates:
            expected = naive.true_positive_rate(similarity, query, gallery, rate)
            assert ranking.true_positive_rates[rate] == pytest.approx(expected)


def test_true_positive_rate_equals_scikit_learns_curve():
    random = np.random.default_rng(0)
    pids, query_pids = random.integers(0, 6, 90), random.integers(0, 6, 20)
    similarity = random.permuted(np.arange(20 * 90)).reshape(20, 90)
    ranking = rank(
        given_similarity(similarity), side(query_pids), side(pids, first_image=20), fprs=(0.05, 0.2)
    )
    same = query_pids[:, None] == pids
    false, true, _ = roc_curve(same.ravel(), similarity.ravel(), drop_intermediate=False)
    for rate, found in ranking.true_positive_rates.items():
        assert found == pytest.approx(true[false <= rate].max())


def test_where_no_pair_is_wrong_every_match_is_accepted():
    both = side([7, 7, 7])
    ranking = rank(given_similarity(-np.ones((3, 3))), both, both, fprs=(0.01, 0.5))
    assert ranking.true_positive_rates == {0.01: 1.0, 0.5: 1.0}


def test_no_more_similarities_are_kept_than_the_largest_rate_accepts_and_one():
    largest = metrics._Largest([0.01, 0.1], n_pairs=3 * 40)
    none_own = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    shown = np.random.default_rng(0).permutation(120).reshape(3, 40) - 60
    for row in shown:
        largest.add(torch.tensor(row[None], dtype=torch.float32), none_own, np.array([True]))
        assert len(largest.kept) <= 0.1 * 120 + 1
    assert sorted(largest.kept.tolist()) == [*range(47, 60)]


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0])
def test_a_false_positive_rate_that_is_no_share_is_refused(rate):
    both = side([0, 0, 1])
    with pytest.raises(ConfigError, match=r"expected each in \(0, 1\)"):
        rank(given_similarity(np.eye(3)), both, both, fprs=[rate])


def test_counting_leaves_the_similarities_as_they_were():
    similarity, query, gallery = random_problem(seed=5)
    tensor = torch.as_tensor(similarity, dtype=torch.float32)
    before = tensor.clone()
    rank(lambda start, stop: tensor[start:stop], query, gallery, fprs=(0.1,))
    assert torch.equal(tensor, before)


def test_similarities_of_matches_stand_beside_their_ranks():
    query, gallery = side([7]), side([7, 8, 9, 7], first_image=1)
    ranking = rank(given_similarity([[0.25, 0.5, 0.1, 0.75]]), query, gallery)
    assert (ranking.ranks.tolist(), ranking.similarities.tolist()) == ([1, 3], [0.75, 0.25])


def test_many_matches_are_counted_by_sorting_the_row(road):
    n = _ranks_numba.SORT_FROM + 300
    random = np.random.default_rng(0)
    similarity, pids = random.integers(0, 50, (3, n + 200)), [7] * n + [8] * 200
    query, gallery = side([8, 7, 8]), side(pids, first_image=3)  # the others have few
    ranking = rank(given_similarity(similarity), query, gallery)
    assert split_ranks(ranking) == naive.match_ranks(similarity, query, gallery)


@given(seed=st.integers(0, 9999), with_scenes=st.booleans())
def test_junk_and_has_match_equal_the_rule_pair_by_pair(seed, with_scenes):
    _, query, gallery = random_problem(seed, with_scenes=with_scenes)
    rows = np.random.default_rng(seed).permutation(len(query))
    pairs = [[naive.is_junk(query, gallery, q, g) for g in range(len(gallery))] for q in rows]
    assert junk(query, gallery, rows).tolist() == pairs
    no_similarity = np.zeros((len(query), len(gallery)))
    ranking = rank(given_similarity(no_similarity), query, gallery)
    assert has_match(query, gallery).tolist() == ranking.has_match.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_scikit_learn_where_nothing_ties(seed):
    random = np.random.default_rng(seed)
    pids, query_pids = random.integers(0, 5, 60), np.arange(5)
    similarity = random.permuted(np.arange(5 * 60).reshape(5, 60), axis=1)
    ranking = rank(given_similarity(similarity), side(query_pids), side(pids, first_image=5))
    expected = [average_precision_score(pids == q, similarity[q]) for q in query_pids]
    np.testing.assert_allclose(ranking.average_precision, expected)


def random_ranking(seed):
    """Similarities without ties, and which gallery images match which query; every query has one."""
    random = np.random.default_rng(seed)
    pids, query_pids = random.permutation(np.arange(60) % 7), np.arange(7)
    similarity = random.permuted(np.arange(7 * 60)).reshape(7, 60) / 420
    ranking = rank(given_similarity(similarity), side(query_pids), side(pids, first_image=7))
    return similarity, query_pids[:, None] == pids, ranking.scores("any", CMC)


@given(st.integers(0, 9999))
def test_scores_equal_those_of_the_whole_list_sorted(seed):
    """Another way than the naive twin's and than ours: each list is sorted and read off whole."""
    similarity, match, scores = random_ranking(seed)
    listed = np.take_along_axis(match, np.argsort(-similarity, axis=1), axis=1)
    precision = np.cumsum(listed, axis=1) / np.arange(1, 61)
    average = (precision * listed).sum(axis=1) / listed.sum(axis=1)
    last = 60 - listed[:, ::-1].argmax(axis=1)
    assert scores.mAP == pytest.approx(average.mean())
    assert scores.mINP == pytest.approx((listed.sum(axis=1) / last).mean())
    assert scores.cmc == pytest.approx({k: listed[:, :k].any(axis=1).mean() for k in CMC})


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_those_of_torchmetrics(seed):
    retrieval = pytest.importorskip("torchmetrics.functional.retrieval")
    similarity, match, scores = random_ranking(seed)
    rows = [(torch.tensor(s), torch.tensor(m)) for s, m in zip(similarity, match, strict=True)]
    average = [float(retrieval.retrieval_average_precision(*row)) for row in rows]
    assert scores.mAP == pytest.approx(np.mean(average))
    for k in CMC:
        hit = [float(retrieval.retrieval_hit_rate(*row, top_k=k)) for row in rows]
        assert scores.cmc[k] == pytest.approx(np.mean(hit))


@pytest.mark.parametrize("n_matches", [1, 4])
def test_perfect_and_worst_rankings(n_matches):
    pids = [7] * n_matches + [8] * (20 - n_matches)
    falling = given_similarity([np.arange(20, 0, -1)])
    rising = given_similarity([np.arange(20)])
    best, worst = (
        rank(order, side([7]), side(pids, first_image=1)).scores("any") for order in (falling, rising)
    )
    assert (best.mAP, best.mINP, set(best.cmc.values())) == (1, 1, {1.0})
    assert (worst.mINP, worst.cmc[10]) == (n_matches / 20, 0)
    assert worst.mAP == pytest.approx(
        np.mean([n / (20 - n_matches + n) for n in range(1, n_matches + 1)])
    )


@given(seed=st.integers(0, 9999), with_scenes=st.booleans())
def test_order_of_queries_and_gallery_does_not_change_scores(seed, with_scenes):
    similarity, query, gallery = random_problem(seed, with_scenes=with_scenes)
    if not has_match(query, gallery).any():
        return
    random = np.random.default_rng(seed)
    rows, columns = random.permutation(len(query)), random.permutation(len(gallery))
    shuffled = given_similarity(similarity[np.ix_(rows, columns)])
    plain = rank(given_similarity(similarity), query, gallery, fprs=(0.1,)).scores("p")
    again = rank(shuffled, query.take(rows), gallery.take(columns), fprs=(0.1,)).scores("p")
    assert again.named == pytest.approx(plain.named)
    assert (again.n_queries, again.n_without_match) == (plain.n_queries, plain.n_without_match)


@given(seed=st.integers(0, 9999), cut=st.integers(0, 7))
def test_parts_of_the_queries_joined_are_the_whole(seed, cut):
    similarity, query, gallery = random_problem(seed)
    whole = rank(given_similarity(similarity), query, gallery)
    rows = np.split(np.arange(len(query)), [cut])
    joined = join([rank(given_similarity(similarity[r]), query.take(r), gallery) for r in rows])
    assert joined.ranks.tolist() == whole.ranks.tolist()
    assert joined.starts.tolist() == whole.starts.tolist()
    assert joined.similarities.tolist() == whole.similarities.tolist()
    assert join([whole]) is whole


def test_thresholds_of_several_galleries_are_not_joined():
    both = side([0, 0, 1])
    ranking = rank(given_similarity(np.eye(3)), both, both, fprs=(0.1,))
    with pytest.raises(ShapeError, match="2 rankings with thresholds cannot be one"):
        join([ranking, ranking])


def test_mean_and_deviation_over_draws():
    made = [
        Scores(
            "p@1",
            mAP=value,
            mINP=value / 4,
            cmc={1: value / 2},
            n_queries=9,
            n_without_match=1,
            tpr={0.01: value},
        )
        for value in (0.2, 0.4, 0.9)
    ]
    found = mean_scores(made)
    assert found.named == pytest.approx({"mAP": 0.5, "mINP": 0.125, "R1": 0.25, "TPR@0.01": 0.5})
    deviation = np.std([0.2, 0.4, 0.9], ddof=1)
    shares = {"mAP": 1, "mINP": 1 / 4, "R1": 1 / 2, "TPR@0.01": 1}
    expected = {name: share * deviation for name, share in shares.items()}
    assert found.spread == pytest.approx(expected)
    assert (found.protocol, found.n_draws, found.n_queries, found.n_without_match) == ("p@1", 3, 9, 1)
    assert mean_scores(made[:1]) is made[0]


def test_queries_and_protocol_of_several_draws_are_those_of_the_first():
    first = Scores("p@1", mAP=0.5, mINP=0.5, cmc={1: 1.0}, n_queries=9, n_without_match=1, note="first")
    found = mean_scores([first, replace(first, n_queries=7, n_without_match=2, note="second")])
    assert (found.n_queries, found.n_without_match, found.note) == (9, 1, "first")


@pytest.mark.parametrize("memory", [1, 300])
def test_memory_budget_does_not_change_ranks(memory):
    random = np.random.default_rng(0)
    similarity = random.integers(0, 9, (30, 50))
    query, gallery = side(random.integers(-1, 6, 30)), side(random.integers(-1, 6, 50), range(30, 80))
    asked = []

    def recorded(start, stop):
        asked.append(stop - start)
        return given_similarity(similarity)(start, stop)

    whole = rank(given_similarity(similarity), query, gallery)
    blocks = rank(recorded, query, gallery, memory=memory)
    assert split_ranks(whole) == split_ranks(blocks)
    assert max(asked) * 4 * len(gallery) <= max(memory, 4 * len(gallery))


def test_order_of_the_gallery_does_not_change_ranks():
    similarity, query, gallery = random_problem(seed=12)
    order = np.random.default_rng(1).permutation(len(gallery))
    shuffled = Side(gallery.pids[order], gallery.images[order], gallery.scenes[order])
    ranking = rank(given_similarity(similarity), query, gallery)
    again = rank(given_similarity(similarity[:, order]), query, shuffled)
    assert len(ranking.ranks) > 0
    assert split_ranks(ranking) == split_ranks(again)


def test_cosine_ranks_the_nearest_feature_first():
    features = make_features(0)
    gallery = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))]
    similarity = cosine(features, gallery)
    torch.testing.assert_close(similarity(3, 9), features[3:9] @ gallery.T)
    own = (features @ gallery.T).argmax(dim=1).numpy()
    ranking = rank(similarity, side(range(len(features))), side(np.argsort(own), first_image=100))
    assert ranking.first.tolist() == [1] * len(features)


def test_a_query_does_not_find_its_own_image():
    both = side([7, 7, 8, 8])
    similarity = [[9, 1, 5, 5], [1, 9, 0, 0], [3, 4, 9, 5], [3, 3, 2, 9]]
    assert split_ranks(rank(given_similarity(similarity), both, both)) == [[3], [1], [1], [3]]


def test_own_identity_in_the_same_scene_is_neither_right_nor_wrong():
    query = side([7], scenes=[0])
    gallery = side([7, 7, 8], scenes=[0, 1, 0], first_image=1)
    ranking = rank(given_similarity([[9, 5, 1]]), query, gallery)
    assert split_ranks(ranking) == [[1]]


def test_another_identity_in_the_same_scene_is_wrong():
    query = side([7], scenes=[0])
    gallery = side([8, 7], scenes=[0, 1], first_image=1)
    assert split_ranks(rank(given_similarity([[9, 5]]), query, gallery)) == [[2]]


@pytest.mark.parametrize(("mine", "theirs"), [(-1, 2), (2, -1), (-1, -1)])
def test_an_unknown_scene_is_never_accepted_as_different(mine, theirs):
    query = side([7], scenes=[mine])
    gallery = side([7, 7], scenes=[theirs, theirs], first_image=1)
    assert junk(query, gallery, np.array([0])).tolist() == [[True, True]]
    assert has_match(query, gallery).tolist() == [False]


def test_unknown_identities_match_nothing_and_stand_in_the_way():
    query, gallery = side([-1, 7]), side([-1, 7], first_image=2)
    assert split_ranks(rank(given_similarity([[1, 1], [9, 1]]), query, gallery)) == [[], [2]]


def test_ties_count_against_the_query():
    query, gallery = side([7]), side([7, 8, 9, 7], first_image=1)
    assert split_ranks(rank(given_similarity([[5, 5, 1, 5]]), query, gallery)) == [[2, 3]]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_constant_similarities_score_worst(value):
    query, gallery = side([0, 1]), side([0, 0, 1, 2, 2, 3], first_image=2)
    ranking = rank(given_similarity(np.full((2, 6), value)), query, gallery)
    assert split_ranks(ranking) == [[5, 6], [6]]


def test_constant_features_score_worst():
    features = torch.nn.functional.normalize(torch.ones(1, 4)).repeat(20, 1)
    query, gallery = side(range(5)), side([*range(5)] * 3, first_image=5)
    scores = rank(cosine(features[:5], features[5:]), query, gallery).scores("any")
    assert scores.cmc == {1: 0.0, 5: 0.0, 10: 0.0}
    assert scores.mINP == pytest.approx(3 / 15)


def test_a_single_gallery_image():
    query, gallery = side([7, 8]), side([7], first_image=2)
    ranking = rank(given_similarity([[0.1], [0.9]]), query, gallery)
    assert split_ranks(ranking) == [[1], []]
    scores = ranking.scores("any")
    assert (scores.mAP, scores.mINP, scores.cmc[1]) == (1, 1, 1)
    assert scores.n_without_match == 1


def test_queries_without_a_match_are_counted_and_left_out():
    query, gallery = side([7, 8, 9]), side([7, 9, 1], first_image=3)
    ranking = rank(given_similarity([[3, 2, 1], [3, 2, 1], [3, 2, 1]]), query, gallery)
    scores = ranking.scores("any")
    assert ranking.average_precision.tolist() == [1, 0.5]
    assert ranking.inverse_negative_penalty.tolist() == [1, 0.5]
    assert (scores.mAP, scores.n_queries, scores.n_without_match) == (0.75, 3, 1)


def test_scores_read_as_one_line_with_their_protocol():
    ranking = rank(given_similarity([[1.0], [2.0]]), side([7, 8]), side([7], first_image=2))
    assert str(ranking.scores("date", (1,))) == (
        "mAP 100.0%  mINP 100.0%  R1 100.0%  [protocol date, 2 queries, 1 without a match left out]"
    )


def test_scores_say_their_note_and_nothing_of_queries_left_out_where_there_are_none():
    ranking = rank(given_similarity([[1.0]]), side([7]), side([7], first_image=1))
    assert str(ranking.scores("date", (1,), note="dates are of the file")) == (
        "mAP 100.0%  mINP 100.0%  R1 100.0%  [protocol date, 1 queries; dates are of the file]"
    )


@pytest.mark.parametrize(("pids", "gallery_pids"), [([7, 8], [1, 2]), ([7], []), ([], [7])])
def test_no_match_at_all_is_an_error(pids, gallery_pids):
    empty = np.zeros((len(pids), len(gallery_pids)))
    ranking = rank(given_similarity(empty), side(pids), side(gallery_pids, first_image=9))
    assert len(ranking.has_match) == len(pids)
    with pytest.raises(EvaluationError, match=f"none of {len(pids)} queries has a valid match.*'x'"):
        ranking.scores("x")


@pytest.mark.parametrize("row", [0, 1, 2])
def test_nan_similarities_are_refused(road, row):
    features = torch.eye(3)
    features[row] = torch.nan
    both = side([0, 0, 1])
    with pytest.raises(ShapeError, match="similarities of queries 0 to 2 hold NaN"):
        rank(cosine(features, features), both, both)


def test_nan_of_another_identity_is_refused_too(road):
    query, gallery = side([7, 8]), side([7, 8, 9], first_image=2)
    with pytest.raises(ShapeError, match="similarities of queries 0 to 1 hold NaN"):
        rank(given_similarity([[3, 2, 1], [3, 2, np.nan]]), query, gallery)


def records(*rows):
    return Records(tuple(Record(Path(name), **facts) for name, facts in rows))


@pytest.mark.parametrize(
    ("protocol", "matches"),
    [
        ("any", ["same camera", "other camera", "unknown camera"]),
        ("cross-camera", ["other camera"]),
    ],
)
def test_protocols_accept_the_matches_they_promise(protocol, matches):
    query = records(("own image", {"identity": "x", "camera": "1"}))
    gallery = records(
        ("own image", {"identity": "x", "camera": "1"}),
        ("same camera", {"identity": "x", "camera": "1"}),
        ("other camera", {"identity": "x", "camera": "2"}),
        ("unknown camera", {"identity": "x"}),
        ("other identity", {"identity": "y", "camera": "2"}),
    )
    query_side, gallery_side = protocols.sides(query, gallery, protocol)
    neutral = junk(query_side, gallery_side, np.array([0]))[0]
    accepted = (gallery_side.pids == query_side.pids[0]) & ~neutral
    assert [str(gallery[i].path) for i in np.flatnonzero(accepted)] == matches
