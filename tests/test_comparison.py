"""Side by side: the same seeds for all, nothing trained twice, no more said than the seeds allow."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import ttest_rel

from gracl import contest, runs
from gracl.cli import main
from gracl.comparison import (
    MEASURES,
    Comparison,
    Outcome,
    paired_difference,
    read_comparison,
)
from gracl.config import Config, differences
from gracl.contenders import Contender, contenders_of, grid
from gracl.contest import compare
from gracl.curves import band, draw_curves
from gracl.data.readers import load_dataset
from gracl.data.records import Records
from gracl.data.splits import split_by_identity
from gracl.data.synthetic import draw_people
from gracl.errors import ConfigError, DataError, EvaluationError, NonFiniteLoss, RunError
from gracl.methods import METHODS
from gracl.profiling import profile_run
from gracl.runs import Run, train

ROOT = Path(__file__).parents[1]
FLAGS = shlex.split(
    "--model.backbone test_resnet --model.weights none --model.size 32 16 --train.epochs 1 "
    "--train.steps 3 --train.batchnorm-group 8 --train.threads 1 --method.eps 0.7 "
    "--method.min-samples 2 --method.k1 6 --method.k2 2 --sampler.clusters-per-batch 4 "
    "--sampler.images-per-cluster 4"
)
TINY = Config.load("own-data").replace(
    {
        "model": {"backbone": "test_resnet", "weights": "none", "size": [32, 16]},
        "train": {"epochs": 1, "steps": 3, "batchnorm_group": 8, "threads": 1},
        "method": {"eps": 0.7, "min_samples": 2, "k1": 6, "k2": 2},
        "sampler": {"clusters_per_batch": 4, "images_per_cluster": 4},
    }
)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / "people"
    return draw_people(
        folder, identities=8, test_identities=3, cameras=2, images_per_camera=3, size=(32, 16)
    )


@pytest.fixture
def dataset(people):
    return load_dataset(people)


def two(base=TINY):
    return contenders_of(["gracl", "cluster-contrast"], base)


def files_of(folder):
    """When each file of the runs below a folder was last written."""
    return {p: p.stat().st_mtime_ns for p in folder.glob("*/seed-*/*")}


def no_training(*_, **__):
    raise AssertionError("something was trained")


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


def outcome(name, seed, mAP, **changes):
    shares = {"mAP": mAP, "R1": mAP, "mINP": mAP / 2, "ARI": 0.5, "minutes": 1.0, "memory": 2.0}
    curves = {"mAP": ((0, 0.1), (2, mAP)), "ARI": ((0, 0.1), (1, 0.2), (2, 0.5))}
    made = Outcome(name, seed, shares, curves, "cross-camera@1", False, {"device": "cpu"})
    return dataclasses.replace(made, **changes)


def comparison_of(scores, **changes):
    """A comparison of contenders by name, with the mAP of each seed; None is a seed that failed."""
    failed = {"measures": {}, "protocol": "", "failure": "one cluster holds all"}
    outcomes = [
        outcome(name, seed, value) if value is not None else outcome(name, seed, 0.0, **failed)
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]
    seeds = tuple(range(len(next(iter(scores.values())))))
    return Comparison("drawn", tuple(scores), seeds, {}, tuple(outcomes), **changes)


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_is_that_of_a_paired_t(n):
    draws = np.random.default_rng(n)
    a, b = draws.random(n), draws.random(n)
    found = paired_difference(a, b)
    expected = ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.n == n


@pytest.mark.parametrize(
    ("a", "word"),
    [
        ([0.50, 0.51, 0.52], "better"),
        ([0.10, 0.11, 0.12], "worse"),
        ([0.9, 0.1, 0.35], "not told apart"),
        ([0.30, 0.31, 0.32], "not told apart"),  # alike in every seed: the interval is zero alone
        ([0.9], "not told apart"),
    ],
)
def test_a_difference_is_called_what_its_interval_allows(a, word):
    found = paired_difference(a, [0.30, 0.31, 0.32][: len(a)])
    assert found.word == word
    assert found.excludes_zero == (word != "not told apart")
    assert (found.low is None) == (len(a) == 1)


def test_rows_are_means_and_sample_deviations_over_seeds():
    found = comparison_of({"a": [0.5, 0.7], "b": [0.4, None]})
    first, second = found.rows
    spread = first.spreads["mAP"]
    assert (spread.mean, spread.std, spread.n) == pytest.approx((0.6, np.std([0.5, 0.7], ddof=1), 2))
    assert (second.spreads["mAP"].mean, second.spreads["mAP"].std, second.finished) == (0.4, None, 1)
    assert [o.seed for o in found.failures] == [1]


def test_only_seeds_that_both_finished_are_paired():
    found = comparison_of({"a": [0.5, None, 0.7, 0.9], "b": [0.4, 0.1, 0.5, None], "c": [None] * 4})
    paired = found.paired("a", "b")
    assert (paired.n, paired.difference) == (2, pytest.approx(0.15))
    assert found.paired("b", "a", "mINP").difference == pytest.approx(-0.075)
    with pytest.raises(ConfigError, match="no seed in which both 'a' and 'c'"):
        found.paired("a", "c")


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a", "bb"), "no contender 'bb'"), (("a", "b", "mAp"), "no measure 'mAp'; did you mean 'mAP'")],
)
def test_names_that_are_not_there_are_refused(names, said):
    with pytest.raises(ConfigError, match=said):
        comparison_of({"a": [0.5], "b": [0.4]}).paired(*names)


def test_a_method_that_lacks_a_setting_differs_in_it():
    other = Config().replace({"method": {"name": "cluster-contrast"}})
    found = differences(Config(), other)
    assert found["method.name"] == ("gracl", "cluster-contrast")
    assert found["method.relation"] == (Config().method.relation, None)
    assert found["method.momentum"] == (None, 0.1)
    assert found.keys() == differences(other, Config()).keys()


# -- who is compared ------------------------------------------------------------------------------


def test_contenders_are_methods_and_files_over_the_base(tmp_path):
    (tmp_path / "large eps.yaml").write_text("method: {eps: 0.65}\n")
    (tmp_path / "other.yml").write_text("recipe: market1501\nmethod: {name: cluster-contrast}\n")
    words = ["cluster-contrast", tmp_path / "large eps.yaml", tmp_path / "other.yml"]
    found = contenders_of([str(word) for word in words], TINY)
    assert [c.name for c in found] == ["cluster-contrast", "large eps", "other"]
    assert found[0].config == TINY.replace({"method": {"name": "cluster-contrast"}})
    assert found[1].config == TINY.replace({"method": {"eps": 0.65}})
    assert (found[2].config.model.backbone, found[2].config.train.epochs) == ("resnet50", 50)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gracel"], "'gracel' is neither a method nor a YAML file.*did you mean 'gracl'.*yaml"),
        (["gracl", "gracl"], "'gracl' and 'gracl' would have the same name"),
        ([], "nothing to compare"),
    ],
)
def test_contenders_that_are_none_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        contenders_of(words, TINY)


VARIED = {"method.relation": ["cosine", "jaccard"], "method.update": ["criterion", "mean"]}
FIRST = TINY.replace({"method": {"relation": "cosine", "update": "criterion"}})


def test_a_grid_is_the_product_or_single_changes():
    whole = grid(FIRST, VARIED)
    assert [c.name for c in whole] == [
        "relation=cosine update=criterion",
        "relation=cosine update=mean",
        "relation=jaccard update=criterion",
        "relation=jaccard update=mean",
    ]
    assert whole[0].config == FIRST
    assert whole[3].config == FIRST.replace({"method": {"relation": "jaccard", "update": "mean"}})
    single = grid(FIRST, VARIED, one_at_a_time=True)
    assert [c.name for c in single] == ["base", "relation=jaccard", "update=mean"]
    assert single[0].config == FIRST
    assert single[2].config == FIRST.replace({"method": {"update": "mean"}})


def test_values_of_a_grid_are_those_of_yaml():
    values = {"model.size": ["[64, 32]"], "train.compile": ["true"], "train.learning_rate": ["5e-4"]}
    (found,) = grid(TINY, values)
    assert (found.config.model.size, found.config.train.compile) == ((64, 32), True)
    assert found.config.train.learning_rate == 5e-4


def test_settings_that_end_alike_are_named_in_full():
    found = grid(TINY, {"train.memory": ["0.1"], "evaluate.memory": ["0.2"], "method.eps": ["0.4"]})
    assert found[0].name == "train.memory=0.1 evaluate.memory=0.2 eps=0.4"


@pytest.mark.parametrize(
    ("varied", "said"),
    [
        ({"method.relatoin": ["cosine"]}, "unknown setting 'method.relatoin'; did you mean 'relation'"),
        ({"relation": ["cosine"]}, "did you mean 'method.relation'"),
        ({"method.relation": ["cosin"]}, "method.relation is 'cosin'; did you mean 'cosine'"),
        ({"method.relation": ["["]}, "not a value in YAML"),
        ({"method.relation": ["2024-13-45"]}, "not a value in YAML"),
        ({"method.relation": ["jaccard", "jaccard"]}, "the same name"),
        ({"method.relation": []}, "nothing is varied"),
        ({}, "nothing is varied"),
    ],
)
def test_grids_that_are_none_are_refused(varied, said):
    with pytest.raises(ConfigError, match=said):
        grid(TINY, varied)


@pytest.mark.parametrize("name", ["a/b", "..", "weights=C:\\x.pt", "é", "x" * 300, "a:b"])
def test_a_folder_is_safe_and_tells_names_apart(name):
    folder = Contender(name, TINY).folder
    assert re.fullmatch(r"[A-Za-z0-9_=,+-][A-Za-z0-9_.=,+-]{0,110}", folder)
    assert folder != Contender(name.replace("/", "-").replace(":", "-") + "-", TINY).folder


# -- training them --------------------------------------------------------------------------------


def test_what_is_compared_is_what_train_gives_and_is_read_back(dataset, tmp_path):
    told = []
    found = compare(two(), dataset, tmp_path, seeds=[0, 1], on_run=told.append)
    assert [(o.seed, o.contender) for o in told] == [
        (seed, name) for seed in (0, 1) for name in ("gracl", "cluster-contrast")
    ]
    assert found.outcomes == tuple(told)
    own = Run(tmp_path / "gracl" / "seed-1")
    assert own.config == TINY.replace({"train": {"seed": 1}})
    scores, measures = own.after["scores"], found.outcomes[2].measures
    assert tuple(measures) == MEASURES
    assert [measures[k] for k in ("mAP", "R1", "mINP")] == [scores[k] for k in ("mAP", "R1", "mINP")]
    assert measures["ARI"] == own.after["agreement"]["ari"]
    (epoch,) = own.epochs
    assert 60 * measures["minutes"] == pytest.approx(sum(epoch["seconds"].values()))
    assert measures["memory"] == epoch["peak_memory"]["host"] / 2**30
    assert found.outcomes[2].curves == {
        "mAP": ((0, own.before["scores"]["mAP"]), (1, scores["mAP"])),
        "ARI": ((0, epoch["agreement"]["ari"]), (1, measures["ARI"])),
    }
    assert found.settings["gracl"]["method.relation"] == TINY.method.relation
    assert found.settings["cluster-contrast"]["method.relation"] is None
    assert "train.epochs" not in found.settings["gracl"]
    assert found.protocols == ("cross-camera@1",)
    assert found.outcomes[0].machine["versions"]["torch"] == torch.__version__.split("+")[0]
    assert read_comparison(tmp_path) == found

    before = files_of(tmp_path)
    again = compare(two(), dataset, tmp_path, seeds=[0, 1])
    assert again == found
    assert files_of(tmp_path) == before


def test_an_interrupted_comparison_has_whole_seeds_and_continues(dataset, tmp_path):
    def stop(outcome):
        if (outcome.seed, outcome.contender) == (1, "gracl"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(two(), dataset, tmp_path / "a", seeds=[0, 1], on_run=stop)
    partial = read_comparison(tmp_path / "a")
    assert [(o.seed, o.contender) for o in partial.outcomes] == [
        (0, "gracl"),
        (0, "cluster-contrast"),
        (1, "gracl"),
    ]
    kept = files_of(tmp_path / "a")
    continued = compare(two(), dataset, tmp_path / "a", seeds=[0, 1])
    assert kept.items() <= files_of(tmp_path / "a").items()
    whole = compare(two(), dataset, tmp_path / "b", seeds=[0, 1])
    for a, b in zip(continued.outcomes, whole.outcomes, strict=True):
        assert (a.curves, a.measures["mAP"], a.seed) == (b.curves, b.measures["mAP"], b.seed)


def test_a_training_that_fails_is_recorded_and_stops_no_other(dataset, tmp_path, monkeypatch):
    original = METHODS["gracl"].loss

    def broken(self, batch, *rest):
        if torch.initial_seed() >= 0 and broken.on:
            return {"inter": batch.features.sum() * float("nan")}
        return original(self, batch, *rest)

    real_train = contest.train

    def train_and_break(config, *arguments, **named):
        broken.on = config.train.seed == 1 and config.method.name == "gracl"
        return real_train(config, *arguments, **named)

    monkeypatch.setattr(METHODS["gracl"], "loss", broken)
    monkeypatch.setattr(contest, "train", train_and_break)
    hopeless = Contender("hopeless", TINY.replace({"method": {"eps": 0.0, "min_samples": 8}}))
    found = compare((*two(), hopeless), dataset, tmp_path, seeds=[0, 1])
    failed = {(o.contender, o.seed): o.failure for o in found.failures}
    assert failed.keys() == {("gracl", 1), ("hopeless", 0), ("hopeless", 1)}
    assert "step 1" in failed["gracl", 1]
    assert "outliers" in failed["hopeless", 0]
    assert [row.finished for row in found.rows] == [1, 2, 0]
    assert found.rows[2].spreads == {}
    assert read_comparison(tmp_path) == found
    with pytest.raises(NonFiniteLoss):
        train_and_break(TINY.replace({"train": {"seed": 1}}), dataset, tmp_path / "alone")


def test_other_errors_stop_the_comparison(dataset, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RunError("the disk is full")

    monkeypatch.setattr(contest, "train", fail)
    with pytest.raises(RunError, match="disk is full"):
        compare(two(), dataset, tmp_path, seeds=[0])


def test_each_seed_may_have_data_of_its_own(dataset, tmp_path):
    whole = dataclasses.replace(dataset, query=Records(), gallery=Records())
    asked = []

    def divided(seed):
        asked.append(seed)
        return split_by_identity(whole, test_share=0.5, seed=seed)

    found = compare(two()[:1], divided, tmp_path, seeds=[0, 1])
    assert asked == [0, 1]
    assert not any(o.on_training_images for o in found.outcomes)
    trained_on = [{path for path, _ in Run(tmp_path / "gracl" / f"seed-{s}").labels} for s in (0, 1)]
    expected = [{str(r.path.absolute()) for r in divided(s).train} for s in (0, 1)]
    assert trained_on == expected
    assert trained_on[0] != trained_on[1]


# -- refused before the first training ------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"model": {"backbone": "resnet5"}}, Exception, "second: .*resnet5"),
        ({"train": {"device": "warp"}}, ConfigError, "second: train.device is 'warp'"),
        ({"evaluate": {"protocol": "date"}}, EvaluationError, "second: protocol 'date' needs"),
        ({"evaluate": {"tracklets": True}}, EvaluationError, "second: .*names no sequence"),
    ],
)
def test_a_wrong_setting_of_any_contender_is_refused_first(
    dataset, tmp_path, monkeypatch, settings, kind, said
):
    monkeypatch.setattr(contest, "train", no_training)
    contenders = (Contender("first", TINY), Contender("second", TINY.replace(settings)))
    with pytest.raises(kind, match=said):
        compare(contenders, dataset, tmp_path / "out", seeds=[0])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("need", "kind", "said"),
    [
        ("cameras", DataError, "camera"),
        ("classes", DataError, "identity"),
        ("parts", ConfigError, "model.parts"),
        ("teacher", ConfigError, "train.ema"),
    ],
)
def test_a_method_whose_needs_are_not_met_is_refused_first(
    dataset, tmp_path, monkeypatch, need, kind, said
):
    monkeypatch.setattr(contest, "train", no_training)
    monkeypatch.setattr(METHODS["cluster-contrast"], "needs", frozenset({need}))
    bare = [dataclasses.replace(r, identity=None, camera=None) for r in dataset.train]
    unknown = dataclasses.replace(dataset, train=Records(tuple(bare)))
    with pytest.raises(kind, match=rf"cluster-contrast: .*{said}"):
        compare(two(), unknown, tmp_path / "out", seeds=[0])


def test_data_without_truth_is_refused_first(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(contest, "train", no_training)
    blind = dataclasses.replace(
        dataset, train=dataset.train.unlabelled(), query=Records(), gallery=Records()
    )
    with pytest.raises(EvaluationError, match="column identity"):
        compare(two(), blind, tmp_path / "out")
    with pytest.raises(DataError, match="no training images"):
        compare(two(), dataclasses.replace(dataset, train=Records()), tmp_path / "out")


def test_a_finished_run_whose_epochs_were_cut_out_is_told(dataset, tmp_path):
    log = train(TINY, dataset, tmp_path / "gracl" / "seed-0").folder / "log.jsonl"
    kept = [line for line in log.read_text().splitlines() if json.loads(line)["event"] != "epoch"]
    log.write_text("\n".join(kept) + "\n")
    with pytest.raises(RunError, match=r"log\.jsonl holds no epoch.*Move the folder away"):
        compare([Contender("gracl", TINY)], dataset, tmp_path, seeds=[0])


@pytest.mark.parametrize("seeds", [[], [0, 0]])
def test_seeds_are_one_or_more_each_once(dataset, tmp_path, seeds):
    with pytest.raises(ConfigError, match="expected one or more, each once"):
        compare(two(), dataset, tmp_path, seeds=seeds)


def test_folders_with_other_runs_are_refused_first(dataset, tmp_path, monkeypatch):
    longer = TINY.replace({"train": {"epochs": 2}})
    train(longer, dataset, tmp_path / "gracl" / "seed-0")
    monkeypatch.setattr(contest, "train", no_training)
    reranked = longer.replace({"evaluate": {"rerank": True}})
    for config, said in (
        (TINY, "run of 2 epochs already, and 1 are asked for"),
        (longer.replace({"method": {"eps": 0.6}}), r"method\.eps was 0\.7, is 0\.6"),
        (
            longer.replace({"method": {"name": "cluster-contrast"}}),
            r"method\.name was gracl, is cluster-contrast",
        ),
        (reranked, r"scored otherwise \(evaluate\.rerank was False, is True\)"),
    ):
        with pytest.raises(ConfigError, match=said):
            compare([Contender("gracl", config)], dataset, tmp_path, seeds=[0])
    (tmp_path / "mine" / "seed-0").mkdir(parents=True)
    (tmp_path / "mine" / "seed-0" / "thesis.tex").write_text("do not lose me")
    with pytest.raises(RunError, match="exists and is not a run"):
        compare([Contender("mine", TINY)], dataset, tmp_path, seeds=[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        compare(two(), dataset, tmp_path / "file", seeds=[0])


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"kind": "other"}'])
def test_what_is_no_comparison_is_said(tmp_path, content):
    if content is not None:
        (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(RunError, match="gracl compare"):
        read_comparison(tmp_path)


# -- scores while training ------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_scoring_between_epochs_changes_no_bit(dataset, tmp_path, ema):
    config = TINY.replace({"train": {"epochs": 3, "ema": ema}})
    plain = train(config, dataset, tmp_path / "plain")
    scored = train(config.replace({"evaluate": {"every": 2}}), dataset, tmp_path / "scored")
    a, b = (load_file(r.folder / "model.safetensors") for r in (plain, scored))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [e["losses"] for e in plain.epochs] == [e["losses"] for e in scored.epochs]
    assert plain.after == scored.after
    assert ["scores" in e for e in scored.epochs] == [False, True, False]
    assert not any("scores" in e or "evaluate" in e["seconds"] for e in plain.epochs)
    shorter = train(config.replace({"train": {"epochs": 2}}), dataset, tmp_path / "shorter")
    assert scored.epochs[1]["scores"] == shorter.after["scores"]
    assert scored.epochs[1]["seconds"]["evaluate"] > 0
    found = profile_run(scored)
    assert found.seconds["evaluate"] == pytest.approx(
        sum(line["seconds"].get("evaluate", 0) for line in scored.log)
    )


def test_an_epoch_says_how_its_clusters_agree_where_the_truth_is_known(dataset, tmp_path):
    run = train(TINY, dataset, tmp_path / "known")
    assert run.epochs[0]["agreement"] == run.before["agreement"]  # of one and the same model
    blind = dataclasses.replace(dataset, train=dataset.train.unlabelled())
    assert "agreement" not in train(TINY, blind, tmp_path / "blind").epochs[0]


def test_scoring_may_be_asked_for_when_a_run_continues(dataset, tmp_path):
    config = TINY.replace({"train": {"epochs": 2}})
    with pytest.raises(KeyboardInterrupt):
        train(config, dataset, tmp_path, on_epoch=no_more)
    run = train(config.replace({"evaluate": {"every": 1}}), dataset, tmp_path)
    assert ["scores" in e for e in run.epochs] == [False, True]
    assert run.epochs[1]["scores"] == run.after["scores"]


def no_more(_epoch):
    raise KeyboardInterrupt


# -- curves ---------------------------------------------------------------------------------------


def test_a_band_holds_the_epochs_that_all_finished_seeds_have():
    curves = {"mAP": ((0, 0.2), (1, 0.3), (2, 0.4))}
    found = comparison_of({"a": [0.5, 0.7, None]})
    longer = (*found.outcomes[:1], dataclasses.replace(found.outcomes[1], curves=curves))
    found = dataclasses.replace(found, outcomes=(*longer, found.outcomes[2]))
    epochs, values = band(found, "a", "mAP")
    assert epochs == [0, 2]
    np.testing.assert_allclose(values, [[10, 50], [20, 40]])
    assert band(found, "a", "ARI")[0] == []


def test_curves_are_drawn_for_those_who_finished(tmp_path):
    pytest.importorskip("matplotlib")
    draw_curves(comparison_of({"a": [0.5, 0.7], "b": [None, None]}), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_without_matplotlib_name_the_extra_before_any_training(
    people, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(contest, "train", no_training)
    assert run("compare", "gracl", "--data", people, "--out", tmp_path, "--plot", *FLAGS) == 2
    assert "a plot needs matplotlib: pip install 'gracl[report]'" in capsys.readouterr().err


# -- commands -------------------------------------------------------------------------------------


def test_compare_prints_a_table_and_differences_to_the_first(people, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    words = ["compare", "gracl", "cluster-contrast", "--data", people, "--seeds", 2, "--out", tmp_path]
    assert run(*words, "--plot", "--evaluate.every", 1, *FLAGS) == 0
    printed = capsys.readouterr().out
    found = read_comparison(tmp_path)
    for row in found.rows:
        spread = row.spreads["mAP"]
        assert f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f}" in printed
    paired = found.paired("cluster-contrast", "gracl")
    sentence = f"cluster-contrast against gracl: mAP {100 * paired.difference:+.1f} points "
    interval = f"[{100 * paired.low:+.1f}, {100 * paired.high:+.1f}], {paired.word}"
    assert sentence + interval in printed
    assert "last epoch in percent, protocol cross-camera@1, 2 seeds" in printed
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "cluster-contrast" / "seed-1" / "model.safetensors").is_file()

    assert run(*words, "--json", *FLAGS) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "comparison.json").read_text())
    assert [line["measures"]["mAP"] for line in told["runs"]] == [
        o.measures["mAP"] for o in found.outcomes
    ]


def test_ablate_divides_data_anew_with_each_seed(people, tmp_path, capsys):
    table = (people / "metadata.csv").read_text().replace("query", "train").replace("gallery", "train")
    (people / "whole.csv").write_text(table)
    words = ["ablate", "--data", people / "whole.csv", "--vary", "method.eps=0.7,0.6"]
    words += ["--vary", "model.size=[32,16]", "--one-at-a-time", "--seeds", 1, "--out", tmp_path]
    assert run(*words, "--test-share", 0.4, *FLAGS) == 0
    printed = capsys.readouterr().out
    assert "eps=0.6 against base: mAP" in printed
    assert "one seed gives no interval" in printed
    assert "search each other" not in printed
    labels = Run(tmp_path / "base" / "seed-0").labels
    assert len(labels) == 7 * 6  # of 11 people 4 are the test
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "comparison.json", "eps=0.6"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compare",), "nothing to compare"),
        (("compare", "gracel"), "did you mean 'gracl'"),
        (("compare", "gracl", "--seeds", "0"), "--seeds is 0; expected 1 or more"),
        (("compare", "gracl", "--test-share", "0.5"), "has one. Leave it out"),
        (("ablate",), "nothing is varied"),
        (("ablate", "--vary", "method.eps"), "--vary method.eps: expected one such as"),
        (("ablate", "--vary", "method.epss=0.5"), "did you mean 'eps'"),
        (
            ("ablate", "--vary", "method.eps=0.5", "--vary", "method.eps=0.6"),
            "--vary method.eps is given twice",
        ),
    ],
)
def test_wrong_words_are_one_line_before_any_training(people, monkeypatch, capsys, words, said):
    monkeypatch.setattr(contest, "train", no_training)
    assert run(*words, "--data", people, *FLAGS) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith("error: ")
    assert said in told.err


def test_a_table_says_what_failed_and_what_cannot_be_compared(capsys):
    from gracl.terminal import print_comparison

    found = comparison_of({"a": [0.5, 0.6], "b": [None, 0.4], "c": [None, None]})
    other = dataclasses.replace(found.outcomes[3], protocol="any@1", on_training_images=True)
    print_comparison(
        dataclasses.replace(found, outcomes=(*found.outcomes[:3], other, *found.outcomes[4:]))
    )
    printed = capsys.readouterr().out
    assert "failed: b, seed 0: one cluster holds all" in printed
    assert "c against a: no seed that both finished" in printed
    assert "b against a: mAP -20.0 points, not told apart: one seed gives no interval" in printed
    assert "protocol any@1 and cross-camera@1 (the training images search each other)" in printed
    assert "figures are of the seeds that it finished" in printed
    assert "Scores under different protocols cannot be compared" in printed


# -- the page -------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
def test_the_commands_and_the_python_of_the_page_run(people, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people").symlink_to(people, target_is_directory=True)
    lines = [
        line for block in re.findall(r"```console\n(.*?)```", PAGE, re.S) for line in block.split("\n")
    ]
    shown = [shlex.split(line[2:].split("  #")[0]) for line in lines if line.startswith("$ gracl ")]
    assert [words[1] for words in shown] == ["compare", "ablate", "ablate", "compare"]
    for words in shown:
        assert run(*words[1:], "--seeds", 1, *FLAGS) == 0, capsys.readouterr().err
    assert (tmp_path / "runs" / "curves" / "curves.png").is_file()
    assert len(read_comparison("runs/grid").contenders) == 4
    assert read_comparison("runs/single").contenders == ("base", "eps=0.5", "k1=4")
    quick = SimpleNamespace(replace=lambda _: TINY)
    monkeypatch.setattr(Config, "load", lambda name, **_: quick if name == "own-data" else TINY)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names = {}
    exec(block, names)
    assert names["again"] == names["found"]
    assert [c.name for c in names["ablation"]] == ["base", "eps=0.5", "k1=20"]


def test_the_interval_is_as_wide_as_the_page_says():
    for n, width in ((3, 2.5), (5, 1.2), (10, 0.7)):
        delta = np.random.default_rng(0).standard_normal(n)
        found = paired_difference(delta, np.zeros(n))
        assert round((found.high - found.low) / 2 / delta.std(ddof=1), 1) == width


def test_a_run_of_another_method_is_refused_by_train_too(dataset, tmp_path):
    train(TINY, dataset, tmp_path)
    with pytest.raises(ConfigError, match=r"method\.name was gracl, is cluster-contrast"):
        runs.train(TINY.replace({"method": {"name": "cluster-contrast"}}), dataset, tmp_path)
