"""A clock that jumps by years, back or forward: nothing is ordered, removed or timed by it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gracl
from gracl.data.readers import load_dataset
from gracl.data.records import Records
from gracl.data.store import open_store
from gracl.errors import RunError
from gracl.files import load_model
from gracl.gallery.gallery import Gallery
from gracl.lock import LOCK, held
from gracl.review.review import Review
from gracl.runs import Run, train
from gracl.study import open_study

LONG_AGO, FAR_OFF = 86_400, 4_102_444_800  # of 1970, and of 2100
JUMPS = pytest.mark.parametrize("then", [LONG_AGO, FAR_OFF])
NOW = {"review/ledger.py"}
"""Where the time of day may be asked for: a decision says when it was made, for people to read."""


def jump(folder, then):
    """All files as if the clock had been wrong when they were written."""
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


def asks_the_clock(tree):
    names = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(ast.unparse(call).removeprefix("datetime.") in names for call in calls)


def test_nothing_but_a_decision_asks_for_the_time_of_day():
    """Durations are taken by clocks that nobody sets; see `gracl.stopwatch`."""
    root = Path(gracl.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if asks_the_clock(ast.parse(path.read_text("utf-8")))
    }
    assert found == NOW


@JUMPS
def test_an_image_that_was_written_at_another_time_is_another_and_the_old_one_is_known(
    then, small_data, tmp_path, cache
):
    people = shutil.copytree(small_data, tmp_path / "people")
    records = load_dataset(people).train
    before = records[0].path.stat().st_mtime_ns
    open_store(records, size=(32, 16))
    os.utime(records[0].path, (then, then))
    open_store(records, size=(32, 16))
    assert len(list(cache.iterdir())) == 2
    os.utime(records[0].path, ns=(before, before))
    open_store(records, size=(32, 16))
    assert len(list(cache.iterdir())) == 2


@JUMPS
def test_a_store_that_is_being_made_is_not_taken_for_one_that_was_left(then, small_data, cache):
    made = cache / "of another process.unfinished"
    made.mkdir()
    (made / "images.npy").touch()
    jump(cache, then)
    with held(made, doing="made"):
        jump(cache, then)
        open_store(Records(load_dataset(small_data).train.items[:3]), size=(32, 16))
        assert (made / "images.npy").exists()
    open_store(Records(load_dataset(small_data).train.items[:4]), size=(32, 16))
    assert not made.exists()


@JUMPS
def test_a_run_goes_on_whatever_its_files_say_of_when_they_were_written(
    then, small_data, small_run, tmp_path
):
    config, dataset = Run(small_run).config, load_dataset(small_data)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, dataset, tmp_path / "run", on_epoch=stop)
    jump(tmp_path / "run", then)
    log = tmp_path / "run/log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = time.strftime("%FT%T%z", time.gmtime(then))
    log.write_text("".join(json.dumps({**line, "time": told}) + "\n" for line in lines))
    run = train(config, dataset, tmp_path / "run")
    assert [line["epoch"] for line in run.epochs] == [1, 2]
    assert all(seconds >= 0 for line in run.epochs for seconds in line["seconds"].values())
    ours, theirs = (load_model(folder).state_dict() for folder in (run.folder, small_run))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)


def test_decisions_are_taken_back_in_the_order_they_were_made_in(small_run, tmp_path):
    """The first is of 2100, the second of 1970, the third of now."""
    study = open_study(shutil.copytree(small_run, tmp_path / "run"))
    with Review.open(study, by="Ann") as review:
        numbers = [cluster.number for cluster in review.clusters()[:2]]
        review.name(numbers[0], "first")
        review.confirm(numbers[1])
    with sqlite3.connect(tmp_path / "run/review.sqlite") as database:
        database.execute("UPDATE decisions SET time = '2100-01-01T00:00:00+00:00' WHERE id = 1")
        database.execute("UPDATE decisions SET time = '1970-01-02T00:00:00+00:00' WHERE id = 2")
    database.close()
    with Review.open(study, by="Ben") as review:
        review.name(numbers[0], "third")
        assert [decision.id for decision in review.history()] == [3, 2, 1]
        assert review.names[numbers[0]] == "third"
        assert {word.by for word in review.confirmed().values()} >= {"Ann"}
        undone = [review.undo() for _ in range(3)]
        assert [decision.id for decision in undone] == [3, 2, 1]
        assert not review.names
        assert [review.redo().id for _ in range(3)] == [1, 2, 3]


def test_who_spoke_last_of_an_image_is_the_last_in_order_and_not_by_the_clock(small_run, tmp_path):
    study = open_study(shutil.copytree(small_run, tmp_path / "run"))
    with Review.open(study, by="Ann") as review:
        number = review.clusters()[0].number
        review.confirm(number)
    with sqlite3.connect(tmp_path / "run/review.sqlite") as database:
        database.execute("UPDATE decisions SET time = '2100-01-01T00:00:00+00:00'")
    database.close()
    with Review.open(study, by="Ben") as review:
        rows = review.cluster(number).rows
        review.confirm(number)
        assert {review.confirmed()[row].by for row in rows} == {"Ben"}


@JUMPS
def test_a_gallery_knows_when_images_were_taken_and_not_when_they_were_added(
    then, small_run, small_data, tmp_path
):
    people = shutil.copytree(small_data, tmp_path / "people")
    images = sorted((people / "images").iterdir())
    with Gallery.create(tmp_path / "g", small_run) as gallery:
        gallery.add([images[0]], time="2030-06-01")
        jump(people, then)
        gallery.add([images[1]], time="1999-06-01")
        assert [e.path for e in gallery.entries(gracl.Where(since="2000"))] == [str(images[0])]
        assert [e.path for e in gallery.entries(gracl.Where(until="2000"))] == [str(images[1])]
        assert [e.id for e in gallery.entries()] == [1, 2]
        assert not gallery.add([images[1]]).entries  # there already: the same file
        os.utime(images[1], (then + 7, then + 7))
        assert len(gallery.add([images[1]])) == 1  # written since, whichever way the clock went


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open")
def test_a_lock_ends_with_its_process_whatever_time_stands_in_it(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from gracl.lock import held\n"
        "with held(Path(sys.argv[1]), doing='trained'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        who = {**json.loads((tmp_path / LOCK).read_text()), "since": "2100-01-01 00:00:00 +0000"}
        (tmp_path / LOCK).write_text(json.dumps(who))
        jump(tmp_path, FAR_OFF)
        with (
            pytest.raises(RunError, match=f"process {holder.pid} .*since 2100"),
            held(tmp_path, doing="trained"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    with held(tmp_path, doing="trained"):
        pass


# -- the whole process in another time ------------------------------------------------------------

LATER = """
import sys
from pathlib import Path
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.review.review import Review
from gracl.runs import Run, train
from gracl.study import open_study
data, settings, folder, epochs, name = sys.argv[1:]
config = Config.load(Path(settings)).replace({"train": {"epochs": int(epochs)}})
run = train(config, load_dataset(data), folder)
with Review.open(open_study(run), by="Ann") as review:
    if name == "undo":
        print([review.undo().text for _ in range(2)])
    else:
        review.name(review.clusters()[0].number, name)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_training_and_its_review_go_on_in_2050_and_in_1990(small_data, small_run, tmp_path):
    """The clock jumps 25 years forward, then 60 back, between checkpoints and between decisions."""
    folder = tmp_path / "run"
    for then, epochs, name in (
        ("2050-03-01 12:00:00", "1", "none"),
        ("1990-03-01 12:00:00", "2", "first"),
        ("2050-03-01 12:00:00", "2", "second"),
        ("1990-03-01 12:00:00", "2", "undo"),
    ):
        if name == "first":  # another model, so the decision of before was about other clusters
            (folder / "review.sqlite").unlink()
        words = [sys.executable, "-c", LATER, small_data, small_run / "config.yaml", folder]
        done = subprocess.run(
            ["faketime", then, *map(str, words), epochs, name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    first, second = ast.literal_eval(done.stdout)
    assert "second" in first
    assert "first" in second
    run = Run(folder)
    assert [line["time"][:4] for line in run.log] == ["2050", "2050", "1990", "1990"]
    ours, theirs = (load_model(place).state_dict() for place in (folder, small_run))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
