"""The tutorials run as they stand, their Python and their commands in order, on drawn people."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gracl.cli import main
from gracl.config import Config
from gracl.data.synthetic import draw_people, draw_person
from gracl.review.review import Review
from gracl.study import open_study

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
QUICK = "--model.backbone test_resnet --model.weights none --model.size 32 16 --train.epochs 1 " + (
    "--train.steps 2 --method.eps 0.5 --method.min-samples 2 --method.k1 6 --train.threads 1"
)
TRAINS = ("train", "compare", "ablate")
SETTINGS = {
    "model": {"backbone": "test_resnet", "weights": "none", "size": [32, 16]},
    "method": {"eps": 0.5, "min_samples": 2, "k1": 6},
    "train": {"epochs": 1, "steps": 2, "threads": 1},
}

pytestmark = pytest.mark.filterwarnings("ignore")
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def follow(page, capsys, *, without=(), before=bool):
    """Does what a page says, block by block; gives what commands printed, and the names of its Python.

    `before` is called with each block.
    """
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    names, printed = {}, []
    for language, block in BLOCK.findall(text):
        before(block)
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "))
            assert line.startswith("$ gracl "), line
            if tuple(words[1:3]) in without:
                continue
            with pytest.raises(SystemExit) as ended:
                main(words[1:] + (QUICK.split() if words[1] in TRAINS else []))
            said = capsys.readouterr()
            # A handful of images, hardly trained on, may have no sound clusters; the sweep says so.
            nothing_sound = words[1] == "cluster" and "no eps gives sound clusters" in said.out
            assert ended.value.code == (1 if nothing_sound else 0), (line, said)
            printed.append((words[1], said.out))
    return printed, names


def draw_one(path, person, shot):
    """One person, as an image of its own."""
    Image.fromarray(draw_person(person, camera=0, shot=shot, size=(32, 16))).save(path)


def draw_frame(path, people, shot):
    """Two people side by side on grey; gives their boxes in pixels."""
    picture = np.full((40, 70, 3), 128, np.uint8)
    boxes = []
    for slot, person in enumerate(people):
        left = 5 + 30 * slot
        picture[4:36, left : left + 16] = draw_person(person, camera=0, shot=shot, size=(32, 16))
        boxes.append((left, 4, 16, 32))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return boxes


@pytest.mark.slow
def test_ten_minutes(capsys):
    draw_people("photos", identities=8, test_identities=40, cameras=2, images_per_camera=3)
    for n in range(2):
        draw_frame(Path("new") / f"{n}.png", (n, n + 1), 0)
    printed, names = follow("ten_minutes.md", capsys, without=[("data", "draw")])
    done = [verb for verb, _ in printed]
    assert done == ["data", "train", "report", "cluster", "evaluate", "gallery", "calibrate", "gallery"]
    assert Path("runs/photos/report.html").is_file()
    assert "mAP" in printed[4][1]
    assert names["found"].features.shape[0] == len(names["labels"]) == 48


@pytest.mark.slow
def test_from_no_names_to_names(capsys):
    """Forty drawn people in one folder, somebody who knows them all, and two images that come later."""
    images = [(person, shot) for person in range(40) for shot in range(4)]
    Path("photos").mkdir()
    for n, (person, shot) in enumerate(images):
        draw_one(Path("photos") / f"{n:03}.png", person, shot)
    Path("new").mkdir()
    for n, person in enumerate((3, 70)):
        draw_one(Path("new") / f"{n}.png", person, 5)

    def name_everybody(block):
        """On the page, before the table is written."""
        if "who.csv --confirmed" in block:
            with Review.open(open_study("runs/photos-2"), by="Ann") as review:
                rows = (int(record.path.stem) for record in review.study.records)
                review.assign({n: f"p{images[row][0]}" for n, row in enumerate(rows)}, text="by hand")
        if "--out runs/all" in block:
            (Path("new") / "1.png").rename("photos/new-1.png")

    printed, _ = follow("names.md", capsys, before=name_everybody)
    verbs = [verb for verb, _ in printed]
    assert verbs == [
        *("data", "train", "report", "train", "review", "gallery"),
        *("calibrate", "gallery", "gallery", "train", "review"),
    ]
    with Path("who.csv").open(newline="") as file:
        who = list(csv.DictReader(file))
    assert len(who) == 160
    assert {row["confirmed_by"] for row in who} == {"Ann"}
    with Path("hits.csv").open(newline="") as file:
        assert {row["query"] for row in csv.DictReader(file)} == {"new/0.png", "new/1.png"}
    assert (
        "read 160 images from who.csv" in printed[-1][1]
    )  # and not the stranger, who lies among them now


def test_behind_a_tracker(capsys):
    """Two cameras see twelve people, two at a time."""
    for camera in ("north", "south"):
        lines = []
        for number in range(1, 37):
            pair = (number - 1) // 6
            people = (2 * pair, 2 * pair + 1)
            boxes = draw_frame(Path("frames") / camera / f"{number:06}.jpg", people, number)
            for person, box in zip(people, boxes, strict=True):
                lines.append(f"{number},{person + 1},{','.join(map(str, box))},0.9,-1,-1,-1")
        Path("tracks").mkdir(exist_ok=True)
        (Path("tracks") / f"{camera}.txt").write_text("\n".join(lines) + "\n")
    Path("travel.csv").write_text("from,to,least\nnorth,south,0.2\n")
    printed, names = follow("trackers.md", capsys)
    assert [verb for verb, _ in printed] == ["data", "train", "associate", "associate"]
    assert len(names["rows"]) == 2 * 2 * 18
    with Path("runs/street/labels.csv").open(newline="") as file:
        clusters = {}
        for n, row in enumerate(csv.DictReader(file)):
            clusters.setdefault(names["rows"][n]["sequence"], set()).add(row["cluster"])
    assert all(len(own) == 1 for own in clusters.values())  # tracklets were held together
    for out in ("associated", "timed"):
        assert (Path(out) / "north.txt").read_text().count("\n") == 72
    with Path("timed/tracklets.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 24


def test_wildlife(capsys):
    """Forty drawn animals before two traps on two days, some of them again in summer."""
    images, truth = [], []
    for day in ("2025-04-01", "2025-05-01", "2025-07-01"):
        for place, trap in enumerate(("ridge", "valley")):
            for pair in range(20 if day < "2025-06-01" else 4):
                animals = (2 * pair, 2 * pair + 1)
                file = f"{trap}/{day}-{pair}.jpg"
                boxes = draw_frame(Path("traps") / file, animals, place + 2 * len(truth))
                found = [
                    {"category": "1", "conf": 0.9, "bbox": [x / 70, y / 40, w / 70, h / 40]}
                    for x, y, w, h in boxes
                ]
                somebody = {"category": "2", "conf": 0.9, "bbox": [0, 0, 0.1, 0.1]}
                detections = {"detections": [*found, somebody]}
                images.append({"file": file, "datetime": f"{day} 09:30:00", **detections})
                truth += [f"animal{n}" for n in animals]
    for n in range(2):
        draw_frame(Path("later") / f"{n}.png", (n, 70 + n), 1)
    about = {"info": {"format_version": "1.3"}, "detection_categories": {"1": "animal", "2": "person"}}
    Path("found.json").write_text(json.dumps({**about, "images": images}))

    def say_who_is_who(block):
        """What a person knows of the crops, in the order in which they were cut."""
        if "known.csv" not in block:
            return
        with Path("crops/metadata.csv").open(newline="") as file:
            paths = [row["path"] for row in csv.DictReader(file)]
        lines = [f"crops/{path},{who}" for path, who in zip(paths, truth, strict=True)]
        Path("known.csv").write_text("\n".join(["path,identity", *lines]) + "\n")

    printed, names = follow("wildlife.md", capsys, before=say_who_is_who)
    done = [verb for verb, _ in printed]
    assert done == ["data", "data", "train", "cluster", "review", "gallery", "calibrate", "gallery"]
    assert len(names["crops"]) == 176  # nobody of category 2
    assert {record.camera for record in names["crops"]} == {"ridge", "valley"}
    assert "160 train" in printed[1][1]
    with Path("who.csv").open(newline="") as file:
        who = list(csv.DictReader(file))
    assert {row["identity"] for row in who} >= {f"animal{n}" for n in range(40)}
    with Path("hits.csv").open(newline="") as file:
        assert {row["answer"] for row in csv.DictReader(file)} - {"unknown"} <= set(truth)


@pytest.mark.slow
def test_research(capsys, monkeypatch):
    from gracl.methods import METHODS

    monkeypatch.setitem(METHODS, "concentration", None)  # taken back afterwards
    draw_people("people", identities=8, test_identities=6, cameras=2, images_per_camera=3)
    quick = Config.load("demo").replace(SETTINGS)
    load = Config.load
    monkeypatch.setattr(Config, "load", lambda *w, **how: load(*w, **how) if how else quick)
    printed, names = follow("research.md", capsys)
    assert [verb for verb, _ in printed] == ["compare", "ablate"]
    assert names["paired"].word in ("better", "worse", "not told apart")
    assert "mean" in names["run"].epochs[-1]["losses"]


def test_what_the_page_on_research_types_of_benchmarks_exists():
    text = (TUTORIALS / "research.md").read_text(encoding="utf-8")
    benchmarks = TUTORIALS.parents[1] / "benchmarks"
    source = (benchmarks / "methods.py").read_text() + (benchmarks / "trials.py").read_text()
    lines = re.findall(r"^python benchmarks/methods\.py (.*)$", text, flags=re.MULTILINE)
    assert lines
    for line in lines:
        assert all(f'"{flag}"' in source for flag in re.findall(r"--[a-z]+", line))
