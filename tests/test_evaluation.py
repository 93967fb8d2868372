"""Scores of a model: what the settings change, and what they do not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import naive
from gracl import evaluation, jaccard
from gracl.config import Config, EvaluateConfig
from gracl.data import protocols
from gracl.data.readers import load_dataset
from gracl.data.records import Record, Records
from gracl.data.store import open_store
from gracl.data.synthetic import draw_people
from gracl.errors import DataError, EvaluationError, OutOfMemory
from gracl.evaluation import evaluate, evaluate_open_set, score_features
from gracl.extraction import extract
from gracl.training import build_model, initialise


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / "drawn"
    draw_people(folder, identities=3, test_identities=8, cameras=3, images_per_camera=2)
    return load_dataset(folder)


@pytest.fixture
def model(dataset):
    config = Config().replace(
        {"model": {"backbone": "test_resnet", "size": [32, 16]}, "train": {"batchnorm_group": 8}}
    )
    net = build_model(config.model)
    initialise(net, open_store(dataset.train, size=net.size), config)
    return net


def test_each_setting_changes_the_scores_and_is_named_with_them(dataset, model):
    plain = evaluate(model, dataset)
    expanded = evaluate(model, dataset, EvaluateConfig(expand=3))
    sharper = evaluate(model, dataset, EvaluateConfig(expand=3, expand_alpha=3.0))
    reranked = evaluate(model, dataset, EvaluateConfig(rerank=True, rerank_k1=5))
    both = evaluate(model, dataset, EvaluateConfig(rerank=True, rerank_k1=5, expand=3))
    assert len({scores.mAP for scores in (plain, expanded, sharper, reranked, both)}) == 5
    assert plain.protocol == "cross-camera@1"
    assert expanded.protocol == "cross-camera@1 expanded"
    assert reranked.protocol == "cross-camera@1 re-ranked"
    assert both.protocol == "cross-camera@1 expanded re-ranked"


def test_true_positive_rates_are_given_where_asked(dataset, model):
    plain, rated = evaluate(model, dataset), evaluate(model, dataset, EvaluateConfig(tpr=True))
    assert plain.tpr == {}
    assert [*rated.tpr] == [1e-4, 1e-3, 1e-2]
    assert 0 < rated.tpr[1e-2] < 1
    assert "TPR@0.01 " in str(rated)
    assert dataclasses.replace(rated, tpr={}) == plain


@pytest.mark.parametrize("settings", [{}, {"rerank": True}, {"expand": 4}, {"tpr": True}])
def test_memory_does_not_change_the_scores(dataset, model, settings):
    wide = evaluate(model, dataset, EvaluateConfig(**settings))
    narrow = evaluate(model, dataset, EvaluateConfig(**settings, memory=0.001))
    assert narrow.mAP == pytest.approx(wide.mAP, abs=1e-6)


@pytest.mark.parametrize("rerank", [False, True])
def test_what_does_not_fit_is_refused_before_anything_is_extracted(dataset, model, monkeypatch, rerank):
    from gracl import forecast

    monkeypatch.setattr(forecast, "available_memory", lambda: 1000)
    monkeypatch.setattr(evaluation, "extract", lambda *_, **__: pytest.fail("extracted"))
    with pytest.raises(OutOfMemory, match=r"Lower evaluate\.memory"):
        evaluate(model, dataset, EvaluateConfig(rerank=rerank))


def test_one_set_searches_itself_expanded_as_one(dataset, model, monkeypatch):
    """Were only the queries expanded, re-ranking would see every image twice."""
    alone = dataclasses.replace(dataset, query=dataset.train[:0], gallery=dataset.train[:0])
    assert alone.tests_on_training_images
    sizes = []
    encode = jaccard.encode

    def counting(features, *arguments, **settings):
        sizes.append(len(features))
        return encode(features, *arguments, **settings)

    monkeypatch.setattr(jaccard, "encode", counting)
    evaluate(model, alone, EvaluateConfig(rerank=True, expand=2))
    assert sizes == [len(dataset.train)]


# -- protocols ------------------------------------------------------------------------------------


def under(protocol, **others):
    """Settings with any protocol; `EvaluateConfig` checks its own list of them elsewhere."""
    settings = EvaluateConfig(**others)
    object.__setattr__(settings, "protocol", protocol)
    return settings


def people(seed=0, identities=6, images=6, cameras=2):
    """Records of known identity and camera, with noisy features."""
    rows = [(i, n) for i in range(identities) for n in range(images)]
    records = Records(
        tuple(Record(Path(f"{i}_{n}.jpg"), str(i + 1), camera=f"c{n % cameras}") for i, n in rows)
    )
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, 8, generator=random).repeat_interleave(images, dim=0)
    noise = torch.randn(len(rows), 8, generator=random)
    return records, torch.nn.functional.normalize(centres + noise)


@pytest.mark.parametrize("name", ["vehicleid-10x", "cuhk03-single-shot"])
@pytest.mark.parametrize("one_set", [True, False])
def test_scores_of_draws_are_mean_and_deviation_of_the_naive_scores_of_each(name, one_set):
    records, features = people()
    query, gallery = (records, records) if one_set else (records[:18:2], records)
    query_features = features if one_set else features[:18:2]
    found = score_features(query, gallery, query_features, features, under(name))
    sides = protocols.sides(query, gallery, name)
    similarity = (query_features @ features.T).numpy()
    expected = []
    for parts in protocols.draws(*sides, protocols.find(name)):
        ranks = []
        for rows, columns in parts:
            part = similarity[np.ix_(rows, columns)]
            ranks += naive.match_ranks(part, sides[0].take(rows), sides[1].take(columns))
        ranks = [own for own in ranks if own]
        first = [own[0] <= 1 for own in ranks]
        expected.append([naive.mean(map(naive.average_precision, ranks)), naive.mean(first)])
    assert found.n_draws == len(expected) == 10
    assert [found.mAP, found.cmc[1]] == pytest.approx(np.mean(expected, axis=0))
    deviation = np.std(expected, axis=0, ddof=1)
    assert [found.spread["mAP"], found.spread["R1"]] == pytest.approx(deviation, abs=1e-12)
    assert deviation.min() > 0
    assert found.protocol == f"{name}@1"
    assert f"[protocol {name}@1, mean ± standard deviation of 10 draws, " in str(found)


@pytest.mark.parametrize("settings", [{"rerank": True, "rerank_k1": 3}, {"expand": 2}])
def test_what_was_not_drawn_has_no_part_in_a_changed_ranking(settings, monkeypatch):
    from gracl import rerank

    records, features = people()
    seen = []

    def recording(function):
        def call(query_features, gallery_features, **arguments):
            seen.append((len(query_features), len(gallery_features)))
            return function(query_features, gallery_features, **arguments)

        return call

    for name in ("k_reciprocal", "expand_queries"):
        monkeypatch.setattr(rerank, name, recording(getattr(rerank, name)))
    found = score_features(records, records, features, features, under("vehicleid-10x", **settings))
    assert seen == [(30, 6)] * 10
    assert found.protocol in ("vehicleid-10x@1 re-ranked", "vehicleid-10x@1 expanded")


def test_true_positive_rates_of_draws_are_averaged():
    records, features = people()
    found = score_features(records, records, features, features, under("vehicleid-10x", tpr=True))
    assert [*found.spread] == [*found.named]
    assert "TPR@0.01" in found.named


def test_a_camera_whose_queries_have_no_gallery_is_scored_with_the_others():
    records, features = people()
    first = [i for i, record in enumerate(records) if record.camera == "c0"]
    settings = under("cuhk03-single-shot", rerank=True, rerank_k1=3)
    found = score_features(records, records.take(first), features, features[first], settings)
    assert (found.n_queries, found.n_without_match) == (36, 18)


def test_one_threshold_is_not_asked_of_several_galleries():
    records, features = people()
    with pytest.raises(EvaluationError, match=r"Switch evaluate\.tpr off"):
        score_features(records, records, features, features, under("cuhk03-single-shot", tpr=True))


def test_a_fall_to_a_looser_protocol_is_said():
    records, features = people()
    assert score_features(records, records, features, features).note == ""
    bare = Records(tuple(dataclasses.replace(record, camera=None) for record in records))
    found = score_features(bare, bare, features, features)
    assert found.protocol == "any@1"
    assert str(found).endswith(
        "36 queries; fell to any: no camera known, no date known, no sequence known]"
    )
    asked = score_features(bare, bare, features, features, under("any"))
    assert dataclasses.replace(found, note="") == asked


def test_distractors_are_counted_in_a_note_and_make_scores_no_better():
    records, features = people()
    nobody = Records(tuple(Record(Path(f"d{i}"), "0000", camera="c0") for i in range(9)))
    random = torch.randn(9, 8, generator=torch.Generator().manual_seed(5))
    full = torch.cat([features, torch.nn.functional.normalize(random)])
    gallery = Records((*records, *nobody))
    found = score_features(records, gallery, features, full, under("market1501+500k"))
    assert (found.protocol, found.note) == ("market1501+500k@1", "9 distractors in the gallery")
    plain = score_features(records, records, features, features, under("cross-camera"))
    assert 0 < found.mAP <= plain.mAP


def test_no_match_is_refused_before_anything_is_extracted(dataset, model, monkeypatch):
    stranger = Records(tuple(dataclasses.replace(r, identity="stranger") for r in dataset.query))
    lonely = dataclasses.replace(dataset, query=stranger)
    monkeypatch.setattr(evaluation, "extract", lambda *_, **__: pytest.fail("extracted"))
    with pytest.raises(EvaluationError, match=r"none of \d+ queries .* protocol 'any@1'"):
        evaluate(model, lonely)


# -- tracklets ------------------------------------------------------------------------------------


def in_sequences(records):
    """Each individual's images by one camera as one sequence."""
    return Records(tuple(dataclasses.replace(r, sequence=f"{r.identity}-{r.camera}") for r in records))


def test_sequences_search_sequences_by_their_mean_features(dataset, model):
    everything = in_sequences((*dataset.query, *dataset.gallery))
    alone = dataclasses.replace(dataset, query=everything, gallery=everything)
    found = evaluate(model, alone, settings=EvaluateConfig(tracklets=True))
    means = naive.mean_features(extract(model, everything).numpy(), everything.values("sequence"))
    records = Records(tuple(Record(Path(n), n.split("-")[0], camera=n.split("-")[1]) for n in means))
    features = torch.tensor(np.array([*means.values()]), dtype=torch.float32)
    expected = score_features(records, records, features, features)
    assert found.protocol == "cross-camera@1 tracklets"
    assert found.n_queries == len(means) < len(everything)
    assert found.named == pytest.approx(expected.named)
    assert evaluate(model, alone).n_queries == len(everything)


def test_query_and_gallery_are_grouped_apart(dataset, model):
    apart = dataclasses.replace(
        dataset, query=in_sequences(dataset.query), gallery=in_sequences(dataset.gallery)
    )
    n = len(set(apart.query.values("sequence")))
    assert evaluate(model, apart, settings=EvaluateConfig(tracklets=True)).n_queries == n


def test_a_mixed_sequence_is_refused_before_anything_is_extracted(dataset, model, monkeypatch):
    mixed = Records(tuple(dataclasses.replace(r, sequence="s") for r in dataset.gallery))
    monkeypatch.setattr(evaluation, "extract", lambda *_, **__: pytest.fail("extracted"))
    with pytest.raises(DataError, match="sequence 's' holds images of identity"):
        evaluate(
            model,
            dataclasses.replace(dataset, query=in_sequences(dataset.query), gallery=mixed),
            settings=EvaluateConfig(tracklets=True),
        )


def test_tracklets_without_sequences_are_refused(dataset, model):
    half = dataclasses.replace(dataset, query=in_sequences(dataset.query))
    for unnamed in (dataset, half):
        with pytest.raises(
            EvaluationError, match=r"Add a column .sequence., or switch evaluate\.tracklets off"
        ):
            evaluate(model, unnamed, settings=EvaluateConfig(tracklets=True))


# -- open sets ------------------------------------------------------------------------------------


def test_new_individuals_are_told_from_known_ones(dataset, model):
    some = sorted(set(dataset.gallery.values("identity")))[:2]
    kept = Records(tuple(r for r in dataset.gallery if r.identity not in some))
    partly = dataclasses.replace(dataset, gallery=kept)
    scores, queries, answers = evaluate_open_set(model, partly)
    assert (scores.n_new, scores.n_known + scores.n_new) == (
        sum(r.identity in some for r in dataset.query),
        len(dataset.query),
    )
    similarity = (extract(model, partly.query) @ extract(model, kept).T).numpy()
    pids = [side.values("identity") for side in (partly.query, kept)]
    expected = naive.open_set_scores(similarity, *pids, scores.threshold)
    assert (scores.baks, scores.baus, scores.auroc) == pytest.approx(expected)
    assert queries == partly.query
    assert set(answers) <= {*kept.values("identity"), "new_individual"}
    everyone, _, all_known = evaluate_open_set(model, partly, threshold=-2.0)
    assert (everyone.baus, everyone.geometric_mean) == (0, 0)
    assert "new_individual" not in all_known


def test_an_individual_that_only_junk_shows_is_new(dataset, model):
    camera = dataset.query[0].camera
    query = Records(tuple(r for r in dataset.query if r.camera == camera))
    some = sorted(set(query.values("identity")))[:2]
    by_that_camera = Records(
        tuple(
            dataclasses.replace(r, camera=camera) if r.identity in some else r for r in dataset.gallery
        )
    )
    apart = dataclasses.replace(dataset, query=query, gallery=by_that_camera)
    scores, queries, answers = evaluate_open_set(model, apart, protocol="cross-camera", threshold=-2.0)
    assert scores.protocol == "cross-camera@1"
    assert scores.n_new == sum(r.identity in some for r in query)
    own = [r.identity == a for r, a in zip(queries, answers, strict=True) if r.identity in some]
    assert not any(own)


def test_a_threshold_is_not_chosen_on_the_labels_of_the_queries(dataset, model):
    alone = dataclasses.replace(dataset, query=dataset.train[:0], gallery=dataset.train[:0])
    with pytest.raises(EvaluationError, match="Give query and gallery of their own, or a threshold"):
        evaluate_open_set(model, alone)


def test_identities_are_needed(dataset, model):
    unlabelled = dataclasses.replace(dataset, query=dataset.query.unlabelled())
    for scoring in (evaluate, evaluate_open_set):
        with pytest.raises(EvaluationError, match="has no identities"):
            scoring(model, unlabelled)
