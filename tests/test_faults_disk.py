"""A full disk, and one that is read-only: real ones, for all that gracl writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from faulty import without_permission
from gracl import disk as disks
from gracl.comparison import read_comparison
from gracl.contenders import Contender
from gracl.contest import compare
from gracl.data import store
from gracl.data.readers import load_dataset
from gracl.data.records import Records
from gracl.data.store import open_store
from gracl.data.synthetic import draw_people
from gracl.data.thumbnails import Thumbnails
from gracl.errors import ConfigError, DataError, GalleryError, GraclError, ReviewError, RunError
from gracl.features import read_features
from gracl.files import load_model, load_snapshot
from gracl.gallery.gallery import Gallery
from gracl.lock import held
from gracl.review.review import Review
from gracl.runs import Run, train
from gracl.study import FEATURES, open_study

WRITERS = {
    # what is typed; the bytes that are left, so that it fails half-way, where none is not enough
    "features.npz": (("embed", "RUN", "DATA", "--out", "DISK/features.npz"), 20_000),
    "features.csv": (("embed", "RUN", "DATA", "--out", "DISK/features.csv"), 20_000),
    "features.parquet": (("embed", "RUN", "DATA", "--out", "DISK/features.parquet"), 20_000),
    "clusters": (("cluster", "RUN", "DATA", "--out", "DISK/c.csv"), 0),
    "animalclef": (
        ("cluster", "RUN", "DATA", "--out", "AWAY/c.csv", "--animalclef", "DISK/a.csv"),
        0,
    ),
    "plot": (
        ("cluster", "RUN", "DATA", "--out", "AWAY/p.csv", "--sweep", "--plot", "DISK/p.png"),
        8_192,
    ),
    "calibration": (("calibrate", "RUN", "DATA", "--rate", "0.05", "--out", "DISK/c.json"), 0),
    "report": (("report", "RUN", "--out", "DISK/r.html"), 40_000),
    "review's table": (("review", "RUN", "--export", "DISK/e.csv"), 0),
    "hits": (("gallery", "search", "GALLERY", "PERSON", "--out", "DISK/hits.csv"), 0),
    "thumbnails": (("gallery", "list", "GALLERY", "--save-thumbnails", "DISK/small"), 16_000),
    "drawing": (
        ("data", "draw", "DISK/drawn", "--identities", "3", "--test-identities", "0"),
        12_000,
    ),
    "conversion": (("data", "convert", "DATA", "DISK/converted"), 60_000),
    "split": (("data", "split", "DATA", "--out", "DISK/s.csv"), 0),
    "weights": (("export", "RUN", "DISK/w.pt"), 60_000),
    "model for the hub": (("hub", "save", "RUN", "DISK/hub"), 60_000),
    "gallery": (("gallery", "build", "DISK/new.gallery", "RUN", "DATA"), 0),
    "gallery, half-way": (("gallery", "build", "DISK/new.gallery", "RUN", "DATA"), 60_000),
    "program": (("export", "RUN", "DISK/p.pt2"), 60_000),
    "onnx": (("export", "RUN", "DISK/m.onnx"), 60_000),
}
SLOW = ("program", "onnx")
BEGUN = {"new.gallery", "new.gallery-journal", "hub/config.json", "hub/README.md"}
"""What is there of a thing that was begun, is known as gracl's, and is gone on with."""


def writers():
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in WRITERS]


@pytest.fixture
def words(disk, tmp_path, small_data, small_run, small_gallery):
    """What is typed for one of the writers, with real names."""
    places = {
        "RUN": shutil.copytree(small_run, tmp_path / "run"),
        "DATA": small_data,
        "GALLERY": small_gallery,
        "PERSON": small_data / "images/000003.jpg",
    }

    def of(name):
        named = (str(places.get(word, word)) for word in WRITERS[name][0])
        return [w.replace("DISK", str(disk.path)).replace("AWAY", str(tmp_path)) for w in named]

    return of


@pytest.mark.parametrize("name", writers())
def test_a_full_disk_is_one_sentence_leaves_no_piece_and_the_same_goes_on_with_room(
    name, disk, words, typed
):
    disk.fill(WRITERS[name][1])
    error = typed(*words(name)).error
    assert "No space left on device" in error
    assert "Free some space there or give another" in error
    assert disk.path.as_posix() in error
    assert disk.content().keys() <= BEGUN
    disk.make_room()
    assert typed(*words(name)).code == 0
    assert disk.content()


@pytest.mark.parametrize("name", [name for name in WRITERS if "half" not in name and name not in SLOW])
def test_a_read_only_disk_is_one_sentence(name, disk, words, typed):
    disk.set("ro")
    error = typed(*words(name)).error
    assert "Read-only file system" in error or "cannot be written into" in error
    assert "ive another" in error
    assert "Free some space" not in error


def test_what_was_there_survives_a_full_disk(disk, words, typed):
    """Features, a report and a calibration that are overwritten by what finds no room."""
    names = ("features.npz", "report", "calibration")
    for name in names:
        assert typed(*words(name)).code == 0
    before = disk.content()
    disk.fill()
    for name in names:
        assert "what was written before is intact" in typed(*words(name)).error
    assert disk.content() == before
    assert len(read_features(disk.path / "features.npz")) == 120


# -- training -------------------------------------------------------------------------------------


def test_a_training_that_has_no_room_for_its_checkpoints_is_told_before_the_first_epoch(
    disk, small_data, small_run
):
    config, epochs = Run(small_run).config, []
    disk.fill(1_000_000)
    words = r"disk is too full: a training's checkpoint.* needs 10\.5 MB in .* 1\.0 MB are free"
    with pytest.raises(RunError, match=words):
        train(config, load_dataset(small_data), disk.path / "r", on_epoch=epochs.append)
    assert not epochs
    disk.make_room()
    assert train(config, load_dataset(small_data), disk.path / "r").model


def test_a_training_whose_disk_fills_up_keeps_its_checkpoint_and_comes_to_the_same_model(
    disk, small_data, small_run
):
    config, dataset = Run(small_run).config, load_dataset(small_data)
    with pytest.raises(RunError, match=r"checkpoint.*No space left on device.*is intact"):
        train(config, dataset, disk.path / "r", on_epoch=lambda _: disk.fill(100_000))
    assert load_snapshot(disk.path / "r/checkpoint.safetensors").epoch == 1
    assert not list(disk.path.glob("r/*.unfinished"))
    disk.make_room()
    run = train(config, dataset, disk.path / "r")
    assert run.labels == Run(small_run).labels
    assert [line["epoch"] for line in run.epochs] == [1, 2]
    ours, theirs = (load_model(folder).state_dict() for folder in (run.folder, small_run))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)


def test_a_training_that_failed_at_its_first_checkpoint_goes_on(disk, small_data, small_run):
    """The labels of its first epoch are there, and nothing that ties the folder to its settings."""
    run = disk.path / "r"
    run.mkdir()
    for name in ("config.yaml", "data.json", "images.csv", "log.jsonl", "labels.csv"):
        shutil.copy(small_run / name, run)
    assert train(Run(small_run).config, load_dataset(small_data), run).model


def test_a_log_or_labels_that_find_no_room_are_told_and_the_run_goes_on(disk, small_data, small_run):
    config, dataset = Run(small_run).config, load_dataset(small_data)
    with pytest.raises(RunError, match=r"(log\.jsonl|labels\.csv): No space left"):
        train(config, dataset, disk.path / "r", on_epoch=lambda _: disk.fill())
    disk.make_room()
    assert [line["epoch"] for line in train(config, dataset, disk.path / "r").epochs] == [1, 2]


def test_a_lock_that_finds_no_room_is_told(disk):
    disk.fill()
    with pytest.raises(RunError, match="No space left on device"), held(disk.path, doing="trained"):
        pass
    disk.make_room()
    with held(disk.path, doing="trained"):
        pass


def test_a_comparison_whose_disk_fills_up_keeps_what_was_trained(disk, small_data, small_run):
    config, dataset, told = Run(small_run).config, load_dataset(small_data), []
    short = config.replace({"train": {"epochs": 1, "steps": 1}})
    gracl = [Contender("gracl", short)]

    def fill(outcome):
        told.append(outcome.seed)
        disk.fill(100_000)

    with pytest.raises(GraclError, match=r"disk is too full|No space left on device"):
        compare(gracl, dataset, disk.path / "out", seeds=[0, 1], on_run=fill)
    assert told == [0]
    assert [one.seed for one in read_comparison(disk.path / "out").outcomes] == [0]
    first = (disk.path / "out/gracl/seed-0/model.safetensors").stat().st_mtime_ns
    disk.make_room()
    found = compare(gracl, dataset, disk.path / "out", seeds=[0, 1])
    assert [one.seed for one in found.outcomes] == [0, 1]
    assert (disk.path / "out/gracl/seed-0/model.safetensors").stat().st_mtime_ns == first


def test_a_finished_run_on_a_read_only_disk_is_returned_and_looked_at(disk, small_run, small_data):
    run = shutil.copytree(small_run, disk.path / "r")
    (run / FEATURES).unlink(missing_ok=True)
    disk.set("ro")
    assert train(Run(run).config, load_dataset(small_data), run).epochs
    assert len(open_study(run).images) == 80


# -- the cache ------------------------------------------------------------------------------------

BUILD = """
import sys
from gracl.data.readers import load_dataset
from gracl.data.store import open_store
from gracl.errors import DataError
try:
    open_store(load_dataset(sys.argv[1]).train, size=(64, 32))
except DataError as error:
    print(error)
"""


def test_an_image_store_that_finds_no_room_does_not_end_the_process(disk, small_data, monkeypatch):
    """A memory map does, by SIGBUS; and a disk may fill up after it was looked at."""
    monkeypatch.setattr(store, "require_room", lambda *_: None)
    records = load_dataset(small_data).train
    disk.fill(100_000)
    with pytest.raises(DataError, match=r"the image store into .*No space left on device"):
        open_store(records, size=(64, 32), cache=disk.path / "cache")
    assert not disk.content()
    disk.make_room()
    assert len(open_store(records, size=(64, 32), cache=disk.path / "cache")) == len(records)


def test_an_image_store_without_room_is_told_before_it_is_begun(disk, small_data):
    disk.fill(100_000)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(small_data)],
        env={**os.environ, "GRACL_CACHE": str(disk.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the image store of 80 images needs 0.5 MB" in done.stdout
    assert "0.1 MB are free. Free some space there or give another cache folder" in done.stdout
    assert "export GRACL_CACHE=FOLDER" in done.stdout


def test_a_read_only_cache_is_named_with_its_variable_and_what_is_in_it_can_be_used(
    disk, small_data, monkeypatch
):
    monkeypatch.setenv("GRACL_CACHE", str(disk.path))
    records = load_dataset(small_data).train
    open_store(records, size=(64, 32))
    disk.set("ro")
    assert len(open_store(records, size=(64, 32))) == 80
    for action in (lambda: open_store(records, size=(32, 16)), lambda: Thumbnails(records)):
        with pytest.raises(DataError, match=r"Read-only file system.*export GRACL_CACHE=FOLDER"):
            action()


def test_small_pictures_that_find_no_room_are_shown_all_the_same(disk, small_data, caplog):
    records = load_dataset(small_data).train
    small = Thumbnails(records, cache=disk.path)
    disk.fill()
    rows = range(len(records))
    assert small.prepare(rows) == []
    assert all(small.jpeg(row).startswith(b"\xff\xd8") for row in rows)
    assert sum("shown and not kept" in line for line in caplog.messages) == 1
    disk.make_room()
    small.jpeg(0)
    small.close()


def test_a_demo_that_finds_no_room_names_the_cache(disk, typed, monkeypatch, tmp_path):
    monkeypatch.setenv("GRACL_CACHE", str(disk.path))
    disk.fill(8_000)
    error = typed("demo", "--identities", "8", "--out", tmp_path / "r").error
    assert "No space left on device" in error
    assert "export GRACL_CACHE=FOLDER" in error


# -- galleries and reviews ------------------------------------------------------------------------


def test_a_gallery_on_a_full_disk_keeps_all_that_was_confirmed(disk, small_gallery, small_data):
    path = shutil.copy(small_gallery, disk.path / "g")
    images = load_dataset(small_data).query
    gallery = Gallery.open(path)
    n = len(gallery)
    disk.fill(30_000)
    extra = draw_people(
        disk.path.parent / "more", identities=9, test_identities=0, cameras=2, images_per_camera=4
    )
    with pytest.raises(GalleryError, match=r"No space left on device.*was confirmed before is intact"):
        gallery.add(load_dataset(extra))
    assert len(gallery) == n
    assert gallery.search(images[0].path, k=1)[0].path == str(images[0].path)
    gallery.close()
    with Gallery.open(path) as again:
        assert len(again) == n
        disk.make_room()
        assert len(again.add(load_dataset(extra))) == 72
        assert len(again.forget("p0001")) == 16


def test_forgetting_on_a_full_disk_is_not_said_to_be_done(disk, small_gallery):
    path = shutil.copy(small_gallery, disk.path / "g")
    with Gallery.open(path) as gallery:
        disk.fill(30_000)
        with pytest.raises(GalleryError, match="No space left on device"):
            gallery.forget("p0001")
        disk.make_room()
        gallery.forget("p0001")  # the same again ends it
        assert not [entry for entry in gallery.entries() if entry.identity == "p0001"]


@pytest.mark.parametrize("words", [("search", "PERSON"), ("list",)])
def test_a_gallery_on_a_disk_without_any_room_says_so(disk, typed, small_gallery, small_data, words):
    path = shutil.copy(small_gallery, disk.path / "g")
    person = str(small_data / "images/000003.jpg")
    disk.fill()
    typed_words = [person if word == "PERSON" else word for word in words[1:]]
    assert "No space left on device" in typed("gallery", words[0], path, *typed_words).error
    disk.make_room()
    assert typed("gallery", words[0], path, *typed_words).code == 0


def test_a_read_only_gallery_is_searched_and_not_changed(disk, small_gallery, small_data):
    path = shutil.copy(small_gallery, disk.path / "g")
    disk.set("ro")
    person = load_dataset(small_data).query[0].path
    with Gallery.open(path) as gallery:
        assert gallery.search(person, k=1)[0].path == str(person)
        for change in (lambda: gallery.forget("p0001"), lambda: gallery.name([1], "somebody")):
            with pytest.raises(GalleryError, match=r"Read-only file system.*Searches need no perm"):
                change()
    assert sorted(p.name for p in disk.path.iterdir()) == ["g"]


def test_a_read_only_gallery_with_writes_that_are_not_in_the_file_is_not_read_without_them(
    disk, small_gallery, tmp_path
):
    """As it is where a process was killed, and the disk then was mounted to be read only."""
    path = shutil.copy(small_gallery, tmp_path / "g")
    with Gallery.open(path) as gallery:
        gallery.name([1], "somebody")
        for name in ("g", "g-wal"):  # as they lie when the process is killed here
            shutil.copy(tmp_path / name, disk.path / name)
    disk.set("ro")
    with pytest.raises(GalleryError, match=r"g-wal beside it holds what is not .*Copy both"):
        Gallery.open(disk.path / "g")
    for name in ("g", "g-wal"):
        shutil.copy(disk.path / name, tmp_path / f"copy{name.removeprefix('g')}")
    with Gallery.open(tmp_path / "copy") as copy:
        assert "somebody" in {entry.identity for entry in copy.entries()}


def reviewed(small_run, folder):
    """The study of a copy of a run, with a review in which one thing was decided."""
    study = open_study(shutil.copytree(small_run, folder))
    with Review.open(study, by="Ann") as review:
        review.name(review.clusters()[0].number, "Rosa")
    return study


def name_all(review, numbers):
    for i, number in enumerate(numbers):
        review.name(number, f"somebody {'x' * 200} {i}")


def test_a_review_on_a_full_disk_keeps_all_that_was_decided(disk, small_run):
    study = reviewed(small_run, disk.path / "r")
    with Review.open(study, by="Ann") as review:
        numbers = [cluster.number for cluster in review.clusters()]
        disk.fill()
        with pytest.raises(ReviewError, match=r"No space left on device.*was decided before stands"):
            name_all(review, numbers * 100)
        before = review.names, len(review.history())
        assert "Rosa" in before[0].values()
    disk.make_room()
    with Review.open(study, by="Ann") as review:
        assert (review.names, len(review.history())) == before
        review.name(numbers[1], "Ben")


def test_a_read_only_review_is_exported_and_not_changed(disk, small_run, tmp_path):
    study = reviewed(small_run, disk.path / "r")
    disk.set("ro")
    with Review.open(study, by="Ann") as review:
        assert "Rosa" in review.export(tmp_path / "e.csv").read_text()
        with pytest.raises(ReviewError, match=r"Read-only file system.*copy of the run's folder"):
            review.name(review.clusters()[1].number, "Ben")


def test_a_review_is_not_begun_on_a_read_only_disk(disk, small_run):
    run = shutil.copytree(small_run, disk.path / "r")
    disk.set("ro")
    with pytest.raises(ReviewError, match=r"Read-only file system.*copy of the run's folder"):
        Review.open(open_study(run), by="Ann")


# -- without a disk of its own --------------------------------------------------------------------

LIMITED = """
import resource, sys
from pathlib import Path
from gracl.data.readers import load_dataset
from gracl.data.store import open_store
from gracl.disk import put
from gracl.errors import DataError, RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
out = Path(sys.argv[2])
for action in (
    lambda: put(out / "a.csv", bytes(60_000), RunError, "another --out"),
    lambda: open_store(load_dataset(sys.argv[1]).train, size=(64, 32), cache=out),
):
    try:
        action()
    except (DataError, RunError) as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_limit_on_the_size_of_files_is_told(tmp_path, small_data):
    out = tmp_path / "out"
    out.mkdir()
    words = [sys.executable, "-c", LIMITED, str(small_data), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("RunError cannot write ")
    assert second.startswith("DataError cannot write the image store into ")
    for line in (first, second):
        assert "File too large: this process may write no larger one (ulimit -f)" in line
    assert not list(out.iterdir())


def test_somebody_elses_folder_is_told_and_what_is_in_it_can_be_read(
    tmp_path, small_gallery, small_data, cache
):
    place = tmp_path / "theirs"
    place.mkdir()
    path = shutil.copy(small_gallery, place / "g")
    os.chmod(path, 0o444)  # noqa: PTH101
    records = Records(load_dataset(small_data).train.items[:4])
    with Gallery.open(path) as gallery:
        model = gallery.model
    refused = {
        "put": lambda: disks.put(place / "a.csv", b"1", RunError, "another --out"),
        "lock": lambda: held(place, doing="trained").__enter__(),
        "store": lambda: open_store(records, size=(16, 8), cache=place),
        "thumbnails": lambda: Thumbnails(records, cache=place),
        "gallery": lambda: Gallery.create(place / "new", model),
        "before": lambda: disks.require_writable(place / "a.csv", ConfigError, "another --out"),
    }
    said = {}

    def as_others_may():
        for name, action in refused.items():
            with pytest.raises(GraclError) as told:
                action()
            said[name] = str(told.value)
        with Gallery.open(path, model=model) as opened:
            with pytest.raises(GalleryError, match="Permission denied"):
                opened.forget("p0001")
            return opened.entries()

    vectors = without_permission(place, as_others_may)
    assert len(vectors) == 120
    for name, words in said.items():
        assert "ermission denied" in words, (name, words)
        assert "Give" in words, (name, words)
    assert "GRACL_CACHE=FOLDER" in said["store"]
    assert [p.name for p in place.iterdir()] == ["g"]
