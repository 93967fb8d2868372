"""Scores of a model: what the settings change, and what they do not."""

import dataclasses

import pytest

from gracl import evaluation, jaccard
from gracl.config import Config, EvaluateConfig
from gracl.data.readers import load_dataset
from gracl.data.store import open_store
from gracl.data.synthetic import draw_people
from gracl.errors import OutOfMemory
from gracl.evaluation import evaluate
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
    assert plain.protocol == "cross-camera"
    assert expanded.protocol == "cross-camera expanded"
    assert reranked.protocol == "cross-camera re-ranked"
    assert both.protocol == "cross-camera expanded re-ranked"


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
