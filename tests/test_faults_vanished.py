"""Images that go while they are needed: deleted, moved, replaced, or gone under a command's hands."""

from __future__ import annotations

import os
import shutil

import pytest

from conftest import save_image
from gracl.continuation import fingerprint_of
from gracl.data.readers import load_dataset
from gracl.data.records import Record, Records
from gracl.data.store import open_store
from gracl.data.thumbnails import Thumbnails
from gracl.embedding import embed
from gracl.errors import DataError, RunError
from gracl.files import load_model
from gracl.gallery.gallery import Gallery
from gracl.review.review import Review
from gracl.runs import Run, train
from gracl.study import open_study


@pytest.fixture
def people(small_data, tmp_path):
    """A copy of the drawn people, that may be spoilt."""
    return shutil.copytree(small_data, tmp_path / "people")


@pytest.fixture
def begun(people, small_run, tmp_path):
    """A run on them with one epoch of two."""
    folder = tmp_path / "run"

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Run(small_run).config, load_dataset(people), folder, on_epoch=stop)
    return folder


def trained_images(people):
    return [record.path for record in load_dataset(people).train]


def go_on(run, people):
    return train(Run(run).config, load_dataset(people), run)


# -- between a training and the next look ---------------------------------------------------------


def test_deleted_images_are_counted_and_named_before_a_run_goes_on_with_others(begun, people):
    first, second = trained_images(people)[:2]
    kept = first.read_bytes(), second.read_bytes()
    first.unlink()
    second.unlink()
    words = (
        rf"begun with 80 images .* now there are 78 .*: 2 are gone \(images/{first.name}, "
        rf"images/{second.name}\)\. Put them back, or give another --out"
    )
    with pytest.raises(RunError, match=words):
        go_on(begun, people)
    for path, content in zip((first, second), kept, strict=True):
        path.write_bytes(content)
    assert len(go_on(begun, people).epochs) == 2  # put back, they are the same as before


def test_many_that_are_gone_are_named_in_part(begun, people):
    for path in trained_images(people)[:9]:
        path.unlink()
    with pytest.raises(RunError, match=r": 9 are gone \((images/\d+\.jpg, ){4}\S+ and 4 more\)"):
        go_on(begun, people)


def test_a_file_that_was_replaced_by_one_of_another_size_is_named(begun, people):
    path = trained_images(people)[3]
    save_image(path, seed=1, size=(50, 30))
    with pytest.raises(RunError, match=rf"80 .*: 1 is of another size \(images/{path.name}\)"):
        go_on(begun, people)


def test_a_folder_that_is_gone_is_named_by_a_run_that_goes_on(begun, people, typed):
    config = begun / "config.yaml"
    people.rename(people.with_name("elsewhere"))
    error = typed("train", people, "--settings", config, "--out", begun).error
    assert f"{people} does not exist" in error


def test_a_moved_folder_is_told_by_all_that_looks_at_a_run_and_can_be_given(
    people, small_run, tmp_path, typed
):
    run = train(Run(small_run).config, load_dataset(people), tmp_path / "run").folder
    moved = people.rename(tmp_path / "moved")
    looks = (
        ("report", run, "--out", tmp_path / "r.html"),
        ("review", run, "--export", tmp_path / "e.csv"),
    )
    for words in looks:
        error = typed(*words).error
        assert str(people) in error
        assert "--data FOLDER" in error
        assert typed(*words, "--data", moved).code == 0
    next_run = tmp_path / "next"
    error = typed("train", "--continue", run, "--out", next_run).error
    assert "gracl train FOLDER --continue RUN" in error
    assert typed("train", moved, "--continue", run, "--out", next_run).code == 0


def test_an_image_that_is_gone_is_named_by_a_report_and_a_review(people, small_run, tmp_path, typed):
    run = train(Run(small_run).config, load_dataset(people), tmp_path / "run").folder
    path = trained_images(people)[0]
    path.unlink()
    for words in (("report", run), ("review", run, "--export", tmp_path / "e.csv")):
        assert f": 1 is gone (images/{path.name}). Put them back" in typed(*words).error
    assert not (run / "report.html").exists()


def test_a_picture_that_goes_while_a_review_is_open_is_named_and_the_review_goes_on(
    people, small_run, tmp_path
):
    run = train(Run(small_run).config, load_dataset(people), tmp_path / "run")
    study = open_study(run)
    with Review.open(study, by="Ann") as review:
        path = study.records[0].path
        path.unlink()
        with pytest.raises(DataError, match=f"{path.name} cannot be shown"):
            Thumbnails(study.records).jpeg(0)
        with pytest.raises(DataError, match=rf"{path.name} cannot be read any more.*write a \.csv"):
            review.export(tmp_path / "e.json")
        review.name(review.clusters()[0].number, "Rosa")
        assert "Rosa" in review.export(tmp_path / "e.csv").read_text()


def test_a_gallery_whose_images_are_gone_is_searched_and_names_what_cannot_be_added(
    people, small_run, tmp_path
):
    dataset = load_dataset(people)
    with Gallery.build(small_run, people, tmp_path / "g") as gallery:
        person = shutil.copy(dataset.query[0].path, tmp_path / "person.jpg")
        shutil.rmtree(people)
        assert gallery.search(person, k=1)[0].path == str(dataset.query[0].path)
        gone = Records((Record(people / "images/new.jpg"),))
        with pytest.raises(DataError, match=r"new\.jpg"):
            gallery.add(gone)


# -- under a command's hands ----------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """More images than are decoded ahead."""
    folder = tmp_path / "many"
    first = save_image(folder / "0000.png", size=(8, 4))
    for i in range(1, 1100):
        os.link(first, folder / f"{i:04d}.png")
    return folder


def records_below(folder):
    return Records(tuple(Record(path) for path in sorted(folder.iterdir())))


def test_images_that_vanish_while_they_are_decoded_are_named_and_not_left_out_for_good(many, cache):
    records = records_below(many)
    kept = many.with_name("kept")
    kept.mkdir()

    def take_away(done, total):
        if done == 1:
            for record in records[-3:]:
                record.path.rename(kept / record.path.name)

    words = r"3 of 1100 images vanished while .*1097\.png, .*1098\.png, .*1099\.png\. Put them back"
    with pytest.raises(DataError, match=words):
        open_store(records, size=(8, 4), progress=take_away)
    assert not list(cache.iterdir())
    for path in kept.iterdir():
        path.rename(many / path.name)
    assert len(open_store(records, size=(8, 4))) == 1100


def test_an_image_that_is_replaced_while_others_are_decoded_is_not_taken_for_the_old_one(many, cache):
    records = records_below(many)

    def replace(done, total):
        if done == 1:
            records[-1].path.unlink()
            save_image(records[-1].path, seed=5, size=(16, 8))

    with pytest.raises(DataError, match="images changed while they were decoded"):
        open_store(records, size=(8, 4), progress=replace)
    assert not list(cache.iterdir())


def test_images_that_go_once_they_are_decoded_are_named(people):
    images = open_store(load_dataset(people).train, size=(64, 32))
    images.records[7].path.unlink()
    name = images.records[7].path.name
    with pytest.raises(DataError, match=rf"1 of 80 images .* since they were decoded: images/{name}"):
        fingerprint_of(people, images)


def test_an_image_that_goes_before_it_is_embedded_is_named(people, small_run):
    dataset = load_dataset(people)
    path = dataset.gallery[0].path
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        embed(load_model(small_run), dataset)
    found = embed(load_model(small_run), dataset, on_bad="skip")
    assert [problem.path for problem in found.left_out] == [path]
    assert len(found) == 119


def test_a_cache_that_is_emptied_under_a_training_changes_nothing(people, small_run, tmp_path, cache):
    def empty(_):
        shutil.rmtree(cache, ignore_errors=True)

    run = train(Run(small_run).config, load_dataset(people), tmp_path / "run", on_epoch=empty)
    assert run.labels
    assert [cluster for _, cluster in run.labels] == [cluster for _, cluster in Run(small_run).labels]


def test_a_runs_folder_that_is_deleted_under_its_training_is_named(people, small_run, tmp_path):
    def delete(_):
        shutil.rmtree(tmp_path / "run")

    with pytest.raises(RunError, match=r"cannot write .*run/\S+: there is no folder .*Make it"):
        train(Run(small_run).config, load_dataset(people), tmp_path / "run", on_epoch=delete)
