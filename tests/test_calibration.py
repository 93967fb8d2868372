"""Calibrations from Python, files and the command line: what they say and what they refuse."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gracl
from gracl import all_pairs, calibration, cli
from gracl.calibration import Calibration, calibrate, strongest
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.data.records import Box, Record, Records
from gracl.data.synthetic import draw_people
from gracl.errors import ConfigError, DataError, EvaluationError, FingerprintError, ShapeError
from gracl.evaluation import evaluate_open_set
from gracl.features import Features, no_features
from gracl.files import load_model, read_calibration, write_calibration
from gracl.links import Links
from gracl.models.fingerprint import require_same_model
from gracl.runs import train

DOC = (Path(__file__).parents[1] / "docs" / "calibrate.md").read_text(encoding="utf-8")


def crowd(seed: int = 0, individuals: int = 60, images: int = 4, spread: float = 0.5) -> Features:
    """Features of individuals drawn around centres of their own."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(individuals, 12)), images, axis=0)
    rows = torch.tensor(centres + spread * random.normal(size=centres.shape), dtype=torch.float32)
    records = [
        Record(Path(f"{n}.jpg"), identity=f"p{n // images}", camera=f"c{n % 2}")
        for n in range(len(rows))
    ]
    return Features(
        torch.nn.functional.normalize(rows),
        Records(tuple(records)),
        fingerprint="f" * 64,
        backbone="test_resnet",
        size=(32, 16),
        version="0",
    )


def labels_of(found: Features) -> Any:
    return np.array([int(record.identity[1:]) for record in found.records if record.identity])


# -- what is found --------------------------------------------------------------------------------


def test_the_rates_are_those_of_all_pairs_and_searches() -> None:
    found = crowd()
    made = calibrate(found, rate=0.01)
    similarity = (found.features @ found.features.T).numpy()
    who = labels_of(found)
    same = who[:, None] == who
    above = np.triu(np.ones_like(same), 1)
    reached = similarity >= made.threshold
    impostors, genuine = (
        above & ~same,
        above & same & (np.arange(240)[:, None] % 2 != np.arange(240) % 2),
    )
    assert made.false_matches is not None
    assert made.false_matches.value == pytest.approx(reached[impostors].mean())
    assert made.false_matches.value <= 0.01
    assert made.false_matches.n == impostors.sum()
    assert made.true_matches is not None
    assert made.true_matches.value == pytest.approx(reached[genuine].mean())
    assert made.false_answers is not None
    assert made.false_answers.value == pytest.approx((reached & ~same).any(axis=1).mean())
    assert (made.evidence, made.protocol, made.n_units) == ("identities", "cross-camera@1", 60)
    assert made.threshold_interval[0] < made.threshold < made.threshold_interval[1]


def test_a_rate_per_search_is_kept_per_search() -> None:
    found = crowd()
    per_pair, per_search = (
        calibrate(found, rate=0.1, rate_per=per) for per in ("comparison", "search")
    )  # type: ignore[arg-type]
    assert per_pair.false_answers is not None
    assert per_search.false_answers is not None
    assert per_pair.false_answers.value > 0.9
    assert 0.05 < per_search.false_answers.value <= 0.1
    assert per_search.false_matches is not None
    assert per_search.false_matches.value < 0.01
    assert any("far more often" in note for note in per_pair.notes)
    assert any("larger gallery" in note for note in per_search.notes)


def test_the_bound_on_answers_holds() -> None:
    made = calibrate(crowd(), rate=0.001)
    assert made.false_matches is not None
    assert made.false_answers is not None
    assert made.false_answers.value <= made.most_answers(made.gallery)
    assert made.most_answers(10**6) == 1
    assert replace(made, false_matches=None).most_answers(1) == 1


def test_a_threshold_keeps_its_word_on_other_individuals() -> None:
    """Of twenty crowds: their intervals hold everyone's rate about as often as stated."""
    everyone = crowd(999, individuals=1500, images=1)
    similarity = (everyone.features @ everyone.features.T).numpy()[np.triu_indices(1500, 1)]
    held = 0
    for seed in range(20):
        rate = calibrate(crowd(seed), rate=0.01)
        assert rate.false_matches is not None
        held += (
            rate.false_matches.low <= (similarity >= rate.threshold).mean() <= rate.false_matches.high
        )
    assert held >= 16


def test_clusters_that_are_the_truth_give_its_threshold() -> None:
    found = crowd()
    untold = replace(found, records=found.records.unlabelled())
    made = calibrate(untold, rate=0.01, evidence="clusters", labels=labels_of(found))
    assert made.threshold == calibrate(found, rate=0.01).threshold
    assert (made.evidence, made.unit) == ("clusters", "clusters")
    assert any("guesses" in note for note in made.notes)


def test_judged_pairs_and_tracklets_calibrate_too() -> None:
    found = crowd(individuals=120)
    random = np.random.default_rng(0)
    cannot = np.stack([4 * random.permutation(120), 4 * random.permutation(120) + 1], axis=1)
    cannot = cannot[cannot[:, 0] // 4 != cannot[:, 1] // 4]
    must = 4 * np.arange(120)[:, None] + [0, 1]
    made = calibrate(found, rate=0.1, pairs=Links(must, cannot))
    assert (made.evidence, made.gallery, made.false_answers) == ("pairs", 0, None)
    assert made.false_matches is not None
    assert made.false_matches.n == len(cannot)
    walking = [
        replace(r, identity=None, sequence=r.identity, path=Path(f"{n // 8}.jpg"), box=Box(n, 0, 1, 1))
        for n, r in enumerate(found.records)
    ]
    made = calibrate(replace(found, records=Records(tuple(walking))), rate=0.1)
    assert (made.evidence, made.n_units) == ("tracklets", 120)
    assert made.false_matches is not None
    assert made.false_matches.n == 60 * 16
    assert any("look more alike" in note for note in made.notes)
    with pytest.raises(EvaluationError, match="needs a gallery to be searched"):
        calibrate(found, rate=0.1, rate_per="search", pairs=Links(must, cannot))


def test_the_strongest_evidence_comes_first() -> None:
    boxes = [Record(Path("a.jpg"), sequence=f"s{n}", box=Box(n, 0, 1, 1)) for n in range(2)]
    named = [replace(r, identity=f"{n}") for n, r in enumerate(boxes)]
    assert strongest(Records(tuple(named)), Links()) == "pairs"
    assert strongest(Records(tuple(named))) == "identities"
    assert strongest(Records(tuple(boxes))) == "tracklets"
    assert strongest(Records(tuple(boxes[:1]))) == "clusters"


def test_what_is_drawn_is_said_and_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_pairs, "PRODUCTS", 100 * 240)
    one, again = calibrate(crowd(), rate=0.01), calibrate(crowd(), rate=0.01)
    other = calibrate(crowd(), rate=0.01, seed=1)
    assert one == again
    assert one.threshold != other.threshold
    assert any("100 of 240 images, drawn with seed 0" in note for note in one.notes)


def test_too_thin_evidence_is_refused() -> None:
    with pytest.raises(
        EvaluationError, match=r"not supported by .* that 5 individuals make.*--rate 0\.\d"
    ):
        calibrate(crowd(individuals=5))
    with pytest.raises(EvaluationError, match="no impostor comparison"):
        calibrate(crowd(), pairs=Links(must=np.array([[0, 1]])))
    with pytest.raises(EvaluationError, match="1 identities are known"):
        calibrate(crowd(individuals=1), evidence="identities")
    with pytest.raises(EvaluationError, match="nothing shows who is who"):
        calibrate(replace(crowd(), records=crowd().records.unlabelled()))
    with pytest.raises(EvaluationError, match="give them"):
        calibrate(crowd(), evidence="pairs")


def test_wrong_words_and_nan_are_refused() -> None:
    for settings, said in (
        ({"rate": 0.0}, "expected a share"),
        ({"rate_per": "image"}, "rate_per is 'image'; expected one of comparison, search"),
        ({"evidence": "cameras"}, "evidence is 'cameras'; expected one of auto, pairs"),
    ):
        with pytest.raises(ConfigError, match=said):
            calibrate(crowd(), **settings)  # type: ignore[arg-type]
    spoilt = crowd()
    spoilt.features[7] = torch.nan
    with pytest.raises(ShapeError, match="NaN"):
        calibrate(spoilt, rate=0.1)


def test_a_model_that_tells_nobody_apart_is_told_so() -> None:
    made = calibrate(crowd(spread=6.0), rate=0.02)
    assert made.true_matches is not None
    assert made.true_matches.value < 0.2
    assert any("of genuine pairs are missed" in note for note in made.notes)


# -- files ----------------------------------------------------------------------------------------


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    for made in (calibrate(crowd(), rate=0.01), calibrate(crowd(), rate=0.1, rate_per="search")):
        assert read_calibration(write_calibration(tmp_path / "c.json", made)) == made  # over its own
    bare = replace(made, false_matches=None, true_matches=None, false_answers=None, true_answers=None)
    assert read_calibration(write_calibration(tmp_path / "d.json", bare)) == bare


@pytest.mark.parametrize("content", ["", "{}", "[]", "7", '{"gracl_calibration": 2}', "notes of mine"])
def test_files_of_others_are_neither_read_nor_overwritten(content: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(content)
    with pytest.raises(DataError, match="cannot be read as a calibration"):
        read_calibration(file)
    if "gracl" not in content:
        with pytest.raises(ConfigError, match="so it is not overwritten"):
            write_calibration(file, calibrate(crowd(), rate=0.01))
        assert file.read_text() == content


def test_broken_files_are_refused(tmp_path: Path) -> None:
    file = write_calibration(tmp_path / "c.json", calibrate(crowd(), rate=0.01))
    whole = json.loads(file.read_text())
    changes: list[dict[str, Any]] = [
        {"threshold": float("nan")}, {"threshold": "high"}, {"notes": None}, {"more": 1},
        {"threshold": 10**400}, {"threshold_interval": [0.1]}, {"size": ["a", 1]}, {"n_units": [1]},
        {"unit": 3}, {"notes": [3]}, {"rate": {}},
        {"false_matches": {**whole["false_matches"], "low": []}},
    ]  # fmt: skip
    for change in changes:
        file.write_text(json.dumps({**whole, **change}))
        with pytest.raises(DataError, match="cannot be read as a calibration"):
            read_calibration(file)
    file.write_text('{"a":' * 100_000)
    with pytest.raises(DataError, match="cannot be read as a calibration"):
        read_calibration(file)
    file.write_text(json.dumps(whole)[:40])
    with pytest.raises(DataError, match="cannot be read as a calibration"):
        read_calibration(file)
    with pytest.raises(DataError, match="does not exist"):
        read_calibration(tmp_path / "gone.json")
    with pytest.raises(ConfigError, match="a folder that exists"):
        write_calibration(tmp_path / "no" / "c.json", calibrate(crowd(), rate=0.01))


def test_a_calibration_says_all_of_itself() -> None:
    said = str(calibrate(crowd(), rate=0.01))
    assert re.match(
        r"threshold 0\.\d{4} \(95% interval 0\.\d{4} to 0\.\d{4}\) for a rate of 0\.01", said
    )
    assert "comparisons of two individuals that reach it, of 28320" in said
    assert "evidence: identities, 60 individuals, genuine pairs under cross-camera@1" in said


# -- with models, and on the command line ---------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of photos: thirty people to train on, thirty others to test with."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        draw_people(
            folder / "photos", identities=30, test_identities=30, cameras=2, images_per_camera=2
        )
        quick = Config.load("demo").replace(
            {
                "model": {"backbone": "test_resnet", "size": [32, 16]},
                "sampler": {"clusters_per_batch": 4, "images_per_cluster": 4},
                "method": {"k1": 6, "k2": 3, "eps": 0.7, "min_samples": 2},
                "train": {"epochs": 1, "steps": 2, "batchnorm_group": 8, "threads": 1},
            }
        )
        train(quick, load_dataset(folder / "photos"), folder / "runs" / "photos")
    return folder


@pytest.fixture
def at_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").symlink_to(home / "photos")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "photos").mkdir()
    for file in (home / "runs" / "photos").iterdir():
        (tmp_path / "runs" / "photos" / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_open_sets_take_a_calibration_of_their_model_only(at_home: Path) -> None:
    model, dataset = load_model("runs/photos"), load_dataset("photos")
    made = calibrate(gracl.embed(model, dataset.gallery), rate=0.2)
    require_same_model(made, model)
    some = sorted({*dataset.gallery.values("identity")} - {None}, key=str)[::2]
    kept = Records(tuple(r for r in dataset.gallery if r.identity in some))
    partly = replace(dataset, gallery=kept)
    by_file, *_ = evaluate_open_set(model, partly, threshold=made)
    by_number, *_ = evaluate_open_set(model, partly, threshold=made.threshold)
    assert by_file == by_number
    assert by_file.threshold == made.threshold
    for other in (replace(made, fingerprint="0" * 64), replace(made, size=(64, 32))):
        with pytest.raises(FingerprintError, match="a threshold holds for its own model only"):
            evaluate_open_set(model, partly, threshold=other)
        with pytest.raises(FingerprintError):
            require_same_model(no_features(model), other)
    with pytest.raises(ConfigError, match="threshold is NaN"):
        evaluate_open_set(model, partly, threshold=float("nan"))


def test_the_command_calibrates_on_the_gallery_and_writes_into_the_run(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("calibrate", "runs/photos", "photos", "--rate", 0.2, "--threads", 1)
    assert run(*words) == 0
    said = capsys.readouterr().out
    made = read_calibration("runs/photos/calibration.json")
    model, dataset = load_model("runs/photos"), load_dataset("photos")
    assert made == replace(calibrate(gracl.embed(model, dataset.gallery), rate=0.2), notes=made.notes)
    assert f"threshold {made.threshold:.4f}" in said
    assert "written: runs/photos/calibration.json" in said
    assert not any("trained on" in note for note in made.notes)
    assert run(*words, "--part", "train", "-o", "c.json", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data"] == "photos"
    assert told["threshold"] == read_calibration("c.json").threshold
    assert "was trained on 120 of these 120 images" in " ".join(told["notes"])
    assert told.keys() == {"data", *asdict(made)}


def test_without_labels_the_command_takes_clusters(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = at_home / "plain"
    plain.mkdir()
    for number, record in enumerate(load_dataset("photos").train):
        (plain / f"{number}.jpg").symlink_to(record.path.resolve())
    for more in ((), ("--evidence", "clusters")):
        words = ("calibrate", "runs/photos", plain, "--rate", 0.3, "-o", "c.json", "--threads", 1)
        assert run(*words, *more) == 0, capsys.readouterr().err
        assert read_calibration("c.json").evidence == "clusters"
    model = "runs/photos/model.safetensors"
    assert run("calibrate", model, plain, "--rate", 0.3) == 2
    assert "give its folder as RUN" in capsys.readouterr().err.replace("\n", " ")


def test_the_command_reads_judged_pairs(at_home: Path) -> None:
    images = [record for record in load_dataset("photos").gallery if record.identity]
    lines = [
        f"{a.path.absolute()},{b.path.absolute()},{int(a.identity == b.identity)}"
        for n, a in enumerate(images)
        for b in images[:n]
    ]
    Path("judged.csv").write_text("\n".join(["first,second,same", *lines]))
    words = ("calibrate", "runs/photos", "photos", "--rate", 0.2, "--pairs", "judged.csv")
    assert run(*words, "-o", "c.json") == 0
    assert read_calibration("c.json").evidence == "pairs"
    whole = calibrate(gracl.embed(load_model("runs/photos"), load_dataset("photos").gallery), rate=0.2)
    assert read_calibration("c.json").threshold == pytest.approx(whole.threshold, abs=1e-5)


def test_the_command_says_what_is_wrong_before_it_works(
    at_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gracl import embedding

    Path("mine.json").write_text("{}")
    monkeypatch.setattr(embedding, "embed", lambda *_, **__: pytest.fail("embedded"))
    for words, said in (
        (("--rate", 2), "--rate is 2"),
        (("-o", "mine.json"), "so it is not overwritten"),
        (("-o", "no/c.json"), "a folder that exists"),
        (("--evidence", "pairs"), "give --pairs FILE"),
        (("--pairs", "p.csv", "--evidence", "clusters"), "does not read it"),
        (("--pairs", "p.csv", "--part", "train"), "names its images"),
        (("--protocol", "cross-camra"), "no protocol"),
        (("--protocol", "any", "--evidence", "clusters"), "leave it out"),
    ):
        assert run("calibrate", "runs/photos", "photos", *words) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")
    assert Path("mine.json").read_text() == "{}"


def test_open_sets_of_the_command_line_take_the_file(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load_dataset("photos")
    some = sorted({*dataset.gallery.values("identity")} - {None}, key=str)[::2]
    lines = [
        f"{r.path},{r.identity},{split}"
        for split in ("query", "gallery")
        for r in getattr(dataset, split)
        if split == "query" or r.identity in some
    ]
    Path("open.csv").write_text("\n".join(["path,identity,split", *lines]))
    assert run("calibrate", "runs/photos", "photos", "--rate", 0.2, "-o", "c.json") == 0
    made = read_calibration("c.json")
    words = ("evaluate", "runs/photos", "open.csv", "--threads", 1)
    capsys.readouterr()
    assert run(*words, "--open-set", "--calibration", "c.json") == 0
    assert f"threshold {made.threshold:.3f}" in capsys.readouterr().out
    write_calibration("other.json", replace(made, fingerprint="0" * 64))
    for more, said in (
        (("--open-set", "--calibration", "other.json"), "a threshold holds for its own model only"),
        (("--open-set", "--calibration", "c.json", "--threshold", 0.5), "leave --threshold out"),
        (("--open-set", "--calibration", "open.csv"), "cannot be read as a calibration"),
        (("--calibration", "c.json"), "give that too"),
    ):
        assert run(*words, *more) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")


# -- the page -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_the_page_runs(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With higher rates than it shows: so few photos support no others."""
    images = [record for record in load_dataset("photos").gallery if record.identity]
    lines = [
        f"{a.path.absolute()},{b.path.absolute()},{int(a.identity == b.identity)}"
        for n, a in enumerate(images)
        for b in images[:n]
    ]
    Path("judged.csv").write_text("\n".join(["first,second,same", *lines]))
    shown = [
        line.removeprefix("$ ").split("  #")[0]
        for block in re.findall(r"```console\n(.*?)```", DOC, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert len(shown) >= 4
    for command in shown:
        program, *words = shlex.split(re.sub(r"--rate 0\.\d+", "--rate 0.3", command))
        assert program == "gracl"
        if "--open-set" in words:  # all of the gallery's people are known here
            continue
        rate = () if "--rate" in words else ("--rate", "0.3")
        assert run(*words, *rate) == 0, (command, capsys.readouterr().err)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOC, re.DOTALL):
        exec(re.sub(r"rate=0\.\d+", "rate=0.3", block), names)
    assert isinstance(names["calibration"], Calibration)
    assert names["calibration"] == read_calibration("runs/photos/calibration.json")
    assert calibration.calibrate is gracl.calibrate
