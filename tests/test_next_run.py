"""The run after a review: corrections are honoured, carried over, and what changed is said."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from gracl import cli
from gracl.clustering import OUTLIER
from gracl.errors import ReviewError, RunError
from gracl.files import load_model
from gracl.review.next_run import continue_training, next_config, next_folder
from gracl.review.review import Review
from gracl.review.since import compare
from gracl.runs import Run
from gracl.study import open_study


@pytest.fixture
def reviewed(small_run, tmp_path):
    """A finished run with some decisions, and who is who by them."""
    folder = shutil.copytree(small_run, tmp_path / "people")
    with Review.open(open_study(folder), by="Ann") as review:
        pids = review.study.pids
        for _ in range(12):
            question = review.question()
            review.answer(question, bool(pids[question.first] == pids[question.second]))
        review.name(review.clusters()[-1].number, "Ada")
    return folder


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    return stopped.value.code


def require_honoured(folder, before):
    labels = np.array([cluster for _, cluster in Run(folder).labels])
    with Review.open(open_study(before), by="Ann") as review:
        links = review.links()
    assert len(links.must)
    assert len(links.cannot)
    for a, b in links.must:
        assert labels[a] == labels[b] != OUTLIER
    for a, b in links.cannot:
        assert labels[a] != labels[b] or labels[a] == OUTLIER


def test_the_next_run_starts_from_the_weights_and_honours_the_review(reviewed):
    done = continue_training(reviewed)
    assert done.folder == reviewed.with_name("people-2")
    assert done.data["continues"] == str(reviewed)
    require_honoured(done.folder, reviewed)
    assert done.config.model.weights == str(reviewed / "model.safetensors")
    assert done.before["scores"]["mAP"] == pytest.approx(Run(reviewed).after["scores"]["mAP"])


def test_the_next_review_goes_on_where_this_one_ended(reviewed):
    done = continue_training(reviewed)
    with Review.open(open_study(reviewed), by="Ann") as before:
        ended = before.labels
    with Review.open(open_study(done), by="Bea") as review:
        assert set(review.names.values()) == {"Ada"}
        assert review.progress().n_decisions == 13
        since = review.since()
        assert since.n_images == len(ended)
        assert since.ari_before is not None
        assert since == compare(ended, review.labels, review.study.pids)


def test_an_individual_seen_once_keeps_its_name_and_who_gave_it(reviewed):
    with Review.open(open_study(reviewed), by="Ann") as review:
        row = review.clusters()[0].rows[0]
        review.split([row])
        review.name(int(review.labels[row]), "Dora")
    done = continue_training(reviewed)
    with Review.open(open_study(done), by="Bea") as review:
        (number,) = (n for n, name in review.names.items() if name == "Dora")
        assert review.labels[row] == number
        assert review.confirmed()[row].by == "Ann"


def test_the_same_call_goes_on_and_other_decisions_need_another_folder(reviewed):
    done = continue_training(reviewed)
    log = done.log
    assert continue_training(reviewed).log == log
    with Review.open(open_study(reviewed), by="Ann") as review:
        review.undo()
    with pytest.raises(RunError, match="other links"):
        continue_training(reviewed)


def test_links_of_a_file_are_honoured_too(reviewed, tmp_path):
    with Review.open(open_study(reviewed), by="Ann") as review:
        while review.undo() is not None:
            pass
        paths = [str(record.path) for record in review.study.records]
    with (tmp_path / "links.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("first", "second", "link"), (paths[0], paths[1], "must")])
    done = continue_training(reviewed, links=tmp_path / "links.csv")
    labels = dict(done.labels)
    assert labels[paths[0]] == labels[paths[1]] != OUTLIER


def test_the_command_trains_on_and_says_what_changed(reviewed, capsys):
    assert run("train", "--continue", reviewed, "--train.epochs", 1) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"since the review of {reviewed}: " in said
    assert "moved to another cluster" in said
    assert "ARI " in said
    assert f"gracl review {reviewed}-2" in said
    settings = Run(f"{reviewed}-2").config
    assert settings.train.epochs == 1
    assert settings.method == Run(reviewed).config.method
    require_honoured(f"{reviewed}-2", reviewed)


def test_a_run_that_was_not_reviewed_is_trained_on_and_that_is_said(small_run, tmp_path, capsys):
    folder = shutil.copytree(small_run, tmp_path / "people-7")
    assert run("train", "--continue", folder, "--train.epochs", 1) == 0
    assert "was never reviewed" in capsys.readouterr().out
    assert (tmp_path / "people-8" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train",), "give DATA, or --continue RUN"),
        (("train", "--continue", "nowhere"), "is not a run"),
        (("train", "--continue", "{run}", "--recipe", "demo"), "leave --recipe out"),
        (("train", "--continue", "{run}", "--model.backbone", "resnet10t"), ""),
    ],
)
def test_what_cannot_be_continued_is_said(reviewed, capsys, words, said):
    assert run(*(word.replace("{run}", str(reviewed)) for word in words)) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_open_review_is_closed_before_training(reviewed):
    with (
        Review.open(open_study(reviewed), by="Ann"),
        pytest.raises(ReviewError, match="being reviewed by process"),
    ):
        continue_training(reviewed)


def test_a_run_that_is_not_finished_is_refused(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "people")
    (folder / "labels.csv").unlink()
    with pytest.raises(RunError, match="not finished"):
        next_config(Run(folder))


def test_the_weights_are_those_of_the_run(reviewed):
    model = load_model(reviewed)
    from gracl.training import build_model

    started = build_model(next_config(Run(reviewed)).model)
    assert all(
        (value == started.state_dict()[name]).all()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )


def test_folders_are_numbered(tmp_path):
    assert next_folder(tmp_path / "a-9").name == "a-10"
    assert next_folder(tmp_path / "2024").name == "2024-2"


# -- since ----------------------------------------------------------------------------------------


def naive(earlier, labels):
    moved = joined = left = 0
    for was, now in zip(earlier, labels, strict=True):
        if was == OUTLIER and now != OUTLIER:
            joined += 1
        if was != OUTLIER and now == OUTLIER:
            left += 1
        if OUTLIER not in (was, now):
            mates = [w for w, n in zip(earlier, labels, strict=True) if n == now and w != OUTLIER]
            most = min(set(mates), key=lambda w: (-mates.count(w), w))
            moved += was != most
    return moved, joined, left


@pytest.mark.parametrize("seed", range(20))
def test_what_changed_is_counted_image_by_image(seed):
    draws = np.random.default_rng(seed)
    earlier, labels = draws.integers(-1, 5, 40), draws.integers(-1, 5, 40)
    found = compare(earlier, labels)
    assert (found.n_moved, found.n_joined, found.n_left) == naive(earlier.tolist(), labels.tolist())
    assert found.ari is None


def test_images_that_were_not_there_are_not_counted():
    found = compare(np.array([0, 0, -2, -1]), np.array([3, 3, 3, -1]), np.array([0, 0, 0, 1]))
    assert found.n_images == 3
    assert (found.n_moved, found.n_joined, found.n_left) == (0, 0, 0)
    assert found.ari == found.ari_before == pytest.approx(1)
