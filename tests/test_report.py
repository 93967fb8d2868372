"""A report holds what the log says, no more than it may, and looks sound in a browser."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gracl
from browser import NARROW, WIDE, overflow
from conftest import save_image
from gracl import cli
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.data.records import Box, Record, Records
from gracl.errors import ConfigError, DataError, FingerprintError, RunError
from gracl.metrics import Side, junk
from gracl.report import album as albums
from gracl.report.album import Album, below, without_folders
from gracl.report.clusters import show_clusters
from gracl.report.feature_map import SIDE, group, places
from gracl.report.figures import Series, line_chart, number, percent
from gracl.report.page import write_report
from gracl.report.similarity import BINS, distributions, draw_similarities
from gracl.runs import Run, train

DOC = (Path(__file__).parents[1] / "docs" / "report.md").read_text(encoding="utf-8")
VOID = {"meta", "link", "input", "br", "img", "hr"}
CLOSED = {"use", "circle", "path", "line", "rect", "image", "stop"}
QUICK = {
    "model": {"backbone": "test_resnet", "size": [32, 16], "weights": "none"},
    "method": {"eps": 0.6, "min_samples": 2, "k1": 6, "k2": 2},
    "sampler": {"clusters_per_batch": 2, "images_per_cluster": 2},
    "train": {"epochs": 1, "steps": 1, "batchnorm_group": 16, "threads": 1},
}


class Page(HTMLParser):
    """A page's elements; complains of any that is not closed where it should be."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.found, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        assert tag in CLOSED, f"<{tag}/> is no end in HTML"

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def made(small_run, tmp_path_factory):
    """The report of a small run, and its text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = write_report(small_run, tmp_path_factory.mktemp("report") / "small.html")
    return out, out.read_text(encoding="utf-8")


@pytest.fixture
def finished(small_run, tmp_path):
    """A copy of a finished run that a test may change."""
    return shutil.copytree(small_run, tmp_path / "run")


@pytest.fixture
def unlabelled(tmp_path):
    """A run on a folder of images of which nothing is known, one of them named to do harm."""
    for n in range(12):
        save_image(tmp_path / "data" / f"{n}.png", n % 4, size=(32, 16))
    save_image(tmp_path / "data" / "<script>alert(1)<&lt;script>'\".png", 3, size=(32, 16))
    dataset = load_dataset(tmp_path / "data")
    return train(Config.load("demo").replace(QUICK), dataset, tmp_path / "run")


def run(*words):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return ended.value.code


def written(run, **how):
    """The text of a report beside the run."""
    return write_report(run, **how).read_text(encoding="utf-8")


# -- what it says ---------------------------------------------------------------------------------


def test_the_page_is_whole_html_with_headings_in_order_and_titled_tables(made):
    shown = Page(made[1])
    levels = [int(tag[1]) for tag, _ in shown.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(shown.all("caption")) == len(shown.all("table"))
    assert all(cell.get("scope") in ("col", "row") for cell in shown.all("th"))


def test_ids_are_unique_and_links_lead_to_them(made):
    shown = Page(made[1])
    ids = [attributes["id"] for _, attributes in shown.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {link["href"][1:] for link in shown.all("a") + shown.all("use")}
    wanted |= {name for _, a in shown.found for name in a.get("aria-labelledby", "").split()}
    assert wanted <= set(ids)


def test_every_picture_has_words(made):
    shown = Page(made[1])
    pictures = [a for a in shown.all("svg") if a.get("class") == "picture"]
    assert len(pictures) > 50
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    drawn = [a for a in shown.all("svg") if a.get("aria-hidden") != "true"]
    assert all(a.get("aria-label") for a in drawn)


def test_the_numbers_are_those_of_the_log(made, small_run):
    shown, log = Page(made[1]).text, Run(small_run)
    for epoch in log.epochs:
        for value in epoch["losses"].values():
            assert number(value) in shown
        assert percent(epoch["outlier_share"]) in shown
        assert percent(epoch["agreement"]["ari"]) in shown
    for side in (log.before, log.after):
        for name in ("mAP", "mINP", "R1"):
            assert percent(side["scores"][name]) in shown
        assert str(side["clusters"]["n_clusters"]) in shown
    assert "Protocol cross-camera@1 : 10 queries, 0 without a match left out" in shown
    assert log.log[0]["versions"]["torch"] in shown


def test_the_charts_hold_the_log_point_by_point(small_run):
    from gracl.report.training_curves import training_charts

    log = Run(small_run)
    charts = {chart.title: chart for chart in training_charts(log)}
    rows = charts["Losses"].rows
    assert rows == tuple(
        (str(line["epoch"]), *(number(value) for value in line["losses"].values()))
        for line in log.epochs
    )
    states = [line["n_clusters"] for line in log.epochs] + [log.after["clusters"]["n_clusters"]]
    assert charts["Clusters"].rows == tuple((str(n), str(v)) for n, v in enumerate(states))
    ends = percent(log.before["scores"]["mAP"]), percent(log.after["scores"]["mAP"])
    assert charts["Retrieval"].rows == (("0", ends[0]), ("2", ends[1]))


def test_nothing_points_outside_the_file(made):
    shown = Page(made[1])
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[\w+/=]+", "", made[1]))
    for tag, attributes in shown.found:
        for name in ("src", "href", "action", "srcset", "poster"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, value)
    (policy,) = [a["content"] for a in shown.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_a_picture_is_in_the_file_once(made):
    images = [a["href"] for a in Page(made[1]).all("image")]
    assert len(images) == len(set(images))
    assert f"This file holds {len(images)} pictures" in Page(made[1]).text


def test_paths_are_shown_below_the_datas_root_only(made, small_data, small_run):
    told = json.loads(re.search(r'id="map-data">(.*?)</script>', made[1])[1])["paths"]
    assert all((small_data / path).is_file() for path in told)
    for folder in (small_data, small_run.parent, Path.home()):
        assert str(folder) not in made[1]


def test_folders_above_the_root_are_not_told(tmp_path):
    assert below(tmp_path, tmp_path / "a" / "b.png") == "a/b.png"
    assert below(tmp_path, Path("/secret/place/b.png")) == "b.png"
    words = f"cannot identify image file '{tmp_path}/a.png'; see /secret/place/x.png"
    told = without_folders(words, tmp_path, Path("/secret/place/x.png"))
    assert told == "cannot identify image file 'a.png'; see x.png"


def test_of_a_file_of_weights_the_name_alone_is_shown(finished):
    config = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(
        config.replace("weights: none", "weights: /secret/place/w.pt")
    )
    shown = written(finished)
    assert "weights: w.pt" in shown
    assert "secret" not in shown


def test_the_same_run_and_seed_give_the_same_file(finished):
    first = write_report(finished, images=30, seed=3).read_bytes()
    assert write_report(finished, images=30, seed=3).read_bytes() == first
    assert write_report(finished, images=30, seed=4).read_bytes() != first


def test_fewer_images_make_a_smaller_file(finished):
    few = write_report(finished, images=5)
    size, text = few.stat().st_size, few.read_text()
    assert "5 of 80 images, drawn at random," in Page(text).text
    assert len(json.loads(re.search(r'id="map-data">(.*?)</script>', text)[1])["x"]) == 5
    assert write_report(finished).stat().st_size > size


# -- what it leaves out ---------------------------------------------------------------------------


def test_without_pictures_there_is_none_and_images_are_named(finished, capsys):
    assert run("report", finished, "--no-images") == 0
    assert "with no picture" in " ".join(capsys.readouterr().out.split())
    text = (finished / "report.html").read_text()
    shown = Page(text)
    assert shown.all("image") == []
    assert "base64" not in text.split("<style>")[0] + text.split("</style>")[1].replace("sha256", "")
    assert "This file holds no picture" in shown.text
    missing = [a for a in shown.all("span") if a.get("class") == "missing"]
    assert len(missing) > 50


def test_pictures_that_cannot_be_read_are_named(finished, monkeypatch):
    from gracl.data import thumbnails

    real, victim = thumbnails.thumbnail, load_dataset(Run(finished).data["root"]).train[0].path

    def broken(record, **how):
        if record.path == victim:
            raise DataError("it is gone")
        return real(record, **how)

    monkeypatch.setattr("gracl.data.thumbnails.thumbnail", broken)
    shown = Page(written(finished)).text
    assert "Pictures of 1 images cannot be read" in shown


def test_the_room_for_pictures_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(albums, "AT_ONCE", 2)
    records = [Record(save_image(tmp_path / f"{n}.png", n, size=(60, 30))) for n in range(9)]
    full = Album(tmp_path)
    shots = [full.place(record) for record in records]
    full.develop()
    assert len(full.prints) == 9
    sizes = [len(full.prints[shot.number].data) * 3 // 4 for shot in shots]
    small = Album(tmp_path, room=sum(sizes[:4]))
    for record in records:
        small.place(record)
    small.develop()
    assert sorted(small.prints) == [0, 1, 2, 3]
    assert small.left_out == 5


def test_one_image_is_one_shot_and_boxes_are_several(tmp_path):
    album = Album(tmp_path)
    whole, part = Record(tmp_path / "a.png"), Record(tmp_path / "a.png", box=Box(1, 2, 3, 4))
    assert album.place(whole) == album.place(replace(whole, identity="x"))
    assert album.place(part).path == "a.png [1, 2, 3, 4]"
    assert album.place(part) != album.place(whole)


# -- runs that are hardly any ---------------------------------------------------------------------


def test_names_that_are_html_are_letters(unlabelled):
    text = written(unlabelled)
    assert "<script>alert" not in text
    shown = Page(text)
    assert [a for a in shown.all("script") if a.get("type") != "application/json"] == [{}]
    assert (
        "<script>alert(1)<&lt;script>'\".png"
        in json.loads(re.search(r'id="map-data">(.*?)</script>', text)[1])["paths"]
    )


def test_without_truth_neighbours_stand_for_rank_lists(unlabelled):
    shown = Page(written(unlabelled)).text
    assert "Nearest neighbours" in shown
    assert "cannot be scored" in shown
    assert "average precision" not in shown
    assert "pairs of one cluster and of two clusters" in shown
    assert Run(unlabelled.folder).epochs


def test_all_outliers_are_shown(finished):
    lines = (finished / "labels.csv").read_text().splitlines()
    alone = [lines[0], *(f"{line.rpartition(',')[0]},-1" for line in lines[1:])]
    (finished / "labels.csv").write_text("\n".join(alone) + "\n")
    shown = Page(written(finished)).text
    assert "There is no cluster: all 80 images are outliers." in shown


def test_a_log_without_an_epoch_is_no_hindrance(finished):
    log = [line for line in Run(finished).log if line["event"] != "epoch"]
    (finished / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    shown = Page(written(finished)).text
    assert "The log has no epoch, so there is nothing to draw." in shown
    assert "The log has no epoch with times." in shown


def test_one_camera_is_enough(tmp_path):
    rows = ["path,identity,camera"]
    for n in range(12):
        save_image(tmp_path / "data" / f"{n}.png", n % 4, size=(32, 16))
        rows.append(f"{n}.png,p{n % 4},east")
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(rows) + "\n")
    done = train(Config.load("demo").replace(QUICK), load_dataset(tmp_path / "data"), tmp_path / "run")
    shown = Page(written(done)).text
    assert "any@1" in shown
    assert "They were taken on the very images that were trained on." in shown


def test_an_unfinished_run_and_no_run_are_refused(finished, tmp_path):
    (finished / "model.safetensors").unlink()
    with pytest.raises(RunError, match="not finished"):
        write_report(finished)
    with pytest.raises(RunError, match="is not a run"):
        write_report(tmp_path / "nothing")
    assert run("report", tmp_path / "nothing") == 2


def test_images_that_moved_are_found_where_it_is_said(finished, small_data, tmp_path):
    moved = shutil.copytree(small_data, tmp_path / "moved")
    text = (finished / "data.json").read_text().replace("people", "nowhere")
    (finished / "data.json").write_text(text)
    with pytest.raises(DataError, match="--data FOLDER"):
        write_report(finished)
    assert run("report", finished, "--data", moved, "--images", 5) == 0


# -- where it is written --------------------------------------------------------------------------


def test_a_report_is_overwritten_and_nothing_else(finished, tmp_path):
    other = tmp_path / "page.html"
    other.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(ConfigError, match="no report that gracl wrote"):
        write_report(finished, other)
    assert "mine" in other.read_text()
    own = write_report(finished, tmp_path / "own.html", images=5)
    assert write_report(finished, own, images=6) == own
    with pytest.raises(ConfigError, match="expected a file in a folder that exists"):
        write_report(finished, tmp_path / "no" / "folder.html")


def test_a_folder_that_can_only_be_read_is_said_before_the_work(finished, monkeypatch):
    monkeypatch.setattr("gracl.report.page.os.access", lambda *_: False)
    monkeypatch.setattr("gracl.report.page.open_study", None)
    with pytest.raises(ConfigError, match=r"cannot be written into\. Give another --out"):
        write_report(finished)


def test_what_is_missing_is_said_with_what_to_install(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"pip install 'gracl\[report\]'"):
        write_report(finished)


def test_no_image_on_the_map_is_refused(finished):
    with pytest.raises(ConfigError, match="--no-images"):
        write_report(finished, images=0)


# -- the calibration ------------------------------------------------------------------------------


def test_a_calibrated_threshold_is_drawn(finished):
    found = gracl.open_study(finished)
    evidence = gracl.embed(found.run.model, found.dataset.gallery)
    made = gracl.calibrate(evidence, rate=0.2)
    gracl.write_calibration(finished / "calibration.json", made)
    text = written(finished)
    assert f"threshold {made.threshold:.4f}" in Page(text).text
    assert [a for a in Page(text).all("line") if a.get("class") == "rule"]


def test_another_models_calibration_is_left_out_or_refused(finished, tmp_path):
    found = gracl.open_study(finished)
    made = gracl.calibrate(gracl.embed(found.run.model, found.dataset.gallery), rate=0.2)
    gracl.write_calibration(finished / "calibration.json", replace(made, fingerprint="0" * 64))
    shown = Page(written(finished)).text
    assert "another model's, so it is not shown" in shown
    with pytest.raises(FingerprintError):
        write_report(finished, calibration=finished / "calibration.json")


# -- the parts ------------------------------------------------------------------------------------


def test_distributions_count_every_valid_pair():
    random = np.random.default_rng(0)
    rows = F.normalize(torch.tensor(random.normal(size=(20, 5)), dtype=torch.float32))
    pids, scenes = random.integers(-1, 3, 20), random.integers(0, 2, 20)
    side = Side(pids, np.arange(20), scenes)
    found = distributions(rows, rows, (side, side), seed=0)
    genuine, impostor = np.zeros(BINS, int), np.zeros(BINS, int)
    for a in range(20):
        for b in range(20):
            if a == b or pids[a] < 0 or pids[b] < 0:
                continue
            if pids[a] == pids[b] and scenes[a] == scenes[b]:
                continue
            at = min(BINS - 1, max(0, int((float(rows[a] @ rows[b]) + 1) * BINS / 2)))
            (genuine if pids[a] == pids[b] else impostor)[at] += 1
    assert abs(found.genuine - genuine).sum() <= 2  # a value on the edge of two bins
    assert abs(found.impostor - impostor).sum() <= 2
    assert found.genuine.sum() == genuine.sum()
    assert not junk(side, side, np.arange(20))[0, 1:].all()


def test_of_many_pairs_some_queries_are_drawn():
    side = Side(np.arange(100) // 2, np.arange(100))
    rows = F.normalize(torch.ones(100, 3))
    found = distributions(rows, rows, (side, side), seed=0, pairs=1000)
    assert found.n_searched == 10
    assert found.genuine.sum() == 10
    assert found.impostor.sum() == 980


def test_a_histogram_holds_all_of_its_pairs():
    random = np.random.default_rng(0)
    rows = F.normalize(torch.tensor(random.normal(size=(60, 8)), dtype=torch.float32))
    side = Side(np.arange(60) // 3, np.arange(60))
    found = distributions(rows, rows, (side, side), seed=0)
    chart = draw_similarities(found, ("one", "two"), threshold=0.3)
    assert [row[:2] for row in chart.rows] == [("one", "120"), ("two", "3,420")]
    median = float(
        np.median([float(rows[a] @ rows[b]) for a in range(60) for b in range(60) if a // 3 != b // 3])
    )
    assert float(chart.rows[1][4]) == pytest.approx(median, abs=0.005)
    assert [rule.text for rule in chart.rules] == ["threshold"]


def test_no_pair_is_no_chart():
    side = Side(np.array([-1, -1]), np.arange(2))
    rows = torch.eye(2)
    assert draw_similarities(distributions(rows, rows, (side, side), seed=0), "ab", None) is None


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 40])
def test_every_number_of_images_has_places(count):
    rows = np.random.default_rng(0).normal(size=(count, 7)).astype(np.float32)
    found = places(rows, seed=0)
    assert found.shape == (count, 2)
    assert found.min() >= 0
    assert found.max() <= SIDE
    assert count == 1 or np.ptp(found, axis=0).max() > SIDE * 0.9


def test_images_that_are_all_alike_lie_in_the_middle():
    assert places(np.ones((9, 4), np.float32), seed=0).tolist() == [[SIDE // 2] * 2] * 9


def test_two_far_crowds_are_two_crowds_on_the_map():
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(2, 20) * 9, 40, axis=0)
    found = places((centres + random.normal(size=centres.shape)).astype(np.float32), seed=1)
    first, second = found[:40].mean(axis=0), found[40:].mean(axis=0)
    spread = max(found[:40].std(), found[40:].std())
    assert np.linalg.norm(first - second) > 2 * spread


def test_the_largest_groups_differ_from_each_other():
    names = [str(n) for n in range(32) for _ in range(2)] + [None]
    found = group("cluster", names, "outliers")
    marks = {(g.colour, g.shape) for g in found.groups}
    assert len(marks) == 33
    assert found.groups[-1].name == "outliers"
    assert [found.groups[at].name for at in found.of_point] == [n or "outliers" for n in names]


def test_clusters_are_shown_by_size_and_by_doubt(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, -1], [6, 9, 3, 2])
    centres = np.concatenate([np.eye(3, 8), np.zeros((1, 8))])[labels]
    rows = centres + np.where(labels == 2, 0.5, 0.05)[:, None] * random.normal(size=(20, 8))
    records = Records(tuple(Record(tmp_path / f"{n}.png") for n in range(20)))
    features = F.normalize(torch.tensor(rows, dtype=torch.float32))
    pids = np.repeat([0, 1, 2, -1], [5, 10, 3, 2])
    found = show_clusters(features, labels, pids, records, Album(tmp_path), 0)
    assert [card.number for card in found.largest] == [1, 0, 2]
    assert found.doubtful[0].number == 2
    assert [card.size for card in found.largest] == [9, 6, 3]
    assert found.largest[1].truth == "2 identities, 83.3% of one"
    assert found.n_outliers == len(found.outliers) == 2
    assert list(found.largest[0].image_doubts) == sorted(found.largest[0].image_doubts)


def test_a_line_goes_through_its_points():
    chart = line_chart("t", [Series("a", ((0, 0.0), (2, 1.0)))], x_label="x", ceiling=1)
    assert chart.drawn[0].marks == ((chart.left, chart.bottom), (chart.right, chart.top))
    assert [tick.text for tick in chart.x_ticks] == ["0", "1", "2"] or chart.x_ticks[0].text == "0"


@pytest.mark.parametrize("values", [[0.0], [-0.2, 0.4], [5e-9], [7e9, 8e9], [0.0, 0.0]])
def test_any_values_can_be_drawn(values):
    chart = line_chart("t", [Series("a", tuple(enumerate(values)))], x_label="x")
    ys = [y for _, y in chart.drawn[0].marks]
    assert all(chart.top <= y <= chart.bottom for y in ys)
    assert len(chart.y_ticks) >= 2


# -- in a browser ---------------------------------------------------------------------------------


@pytest.fixture
def opened(page, complaints, made):
    """The report in a browser; of the file itself alone was asked."""
    page.goto(made[0].as_uri())
    assert complaints == [f"asked for {made[0].as_uri()}"]
    complaints.clear()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_sticks_out(opened, size, scheme):
    opened.set_viewport_size(size)
    opened.emulate_media(color_scheme=scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert overflow(opened) == []


def test_a_pointer_on_the_map_shows_the_image(opened):
    mark = opened.locator("#map-marks use").nth(7)
    opened.locator("#map-plane").scroll_into_view_if_needed()
    mark.hover(force=True)
    look = opened.locator("#map-look")
    assert look.is_visible()
    assert "cluster" in look.inner_text()
    assert look.locator("svg use").count() == 1
    opened.mouse.move(2, 2)
    assert look.is_hidden()


def test_the_keyboard_goes_from_image_to_image(opened):
    plane, look, told = (opened.locator(i) for i in ("#map-plane", "#map-look", "#map-told"))
    plane.focus()
    seen = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown", "Enter"):
        opened.keyboard.press(key)
        assert look.is_visible()
        assert look.locator(".path").inner_text() in told.text_content()
        seen.add(told.text_content())
    assert len(seen) >= 3
    opened.keyboard.press("Escape")
    assert look.is_hidden()


def test_the_map_comes_closer_and_marks_keep_their_size(opened):
    first = opened.locator("#map-marks use").first
    drawing, plane = opened.locator("#map-plane > svg"), opened.locator("#map-plane")
    before = drawing.get_attribute("viewBox"), first.bounding_box()["width"]
    plane.focus()
    opened.keyboard.press("ArrowRight")
    for _ in range(3):
        opened.keyboard.press("+")
    assert drawing.get_attribute("viewBox") != before[0]
    assert opened.locator("#map-look").is_visible()
    ring, box = opened.locator("#map-ring").bounding_box(), plane.bounding_box()
    assert box["x"] <= ring["x"] + ring["width"] / 2 <= box["x"] + box["width"]
    assert first.bounding_box()["width"] == pytest.approx(before[1], rel=0.1)
    opened.get_by_role("button", name="Whole map").click()
    assert drawing.get_attribute("viewBox") == before[0]


def test_the_legend_shows_a_group_by_itself(opened):
    first = opened.locator(".legend:visible button").first
    first.click()
    assert first.get_attribute("aria-pressed") == "true"
    count = int(first.locator("small").inner_text())
    total = opened.locator("#map-marks use").count()
    assert opened.locator("#map-marks use.off").count() == total - count
    opened.locator("#map-all").click()
    assert opened.locator("#map-marks use.off").count() == 0


def test_colours_follow_another_fact(opened):
    before = opened.evaluate("[...document.querySelectorAll('#map-marks use')].map(e => e.outerHTML)")
    opened.locator("#map-by input[value=camera]").check()
    after = opened.evaluate("[...document.querySelectorAll('#map-marks use')].map(e => e.outerHTML)")
    assert before != after
    assert opened.locator(".legend:visible").get_attribute("data-by") == "camera"
    assert len({re.search(r'class="(\w+)', mark)[1] for mark in after}) == 2
    opened.locator("#map-find").fill("zzz")
    assert opened.locator(".legend:visible li:visible").count() == 0


CONTRAST = """() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255).map(
      v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)|transparent/.test(c)) return c; } };
  const bad = [];
  const letters = 'h1,h2,h3,h4,p,a,td,th,dt,dd,small,summary,li,label,figcaption,.tag';
  for (const e of document.querySelectorAll(letters)) {
    if (!e.innerText?.trim() || e.closest('[hidden]')) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(e.tagName + ' ' + e.className + ' ' + ratio.toFixed(2));
  }
  return bad;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_from_their_ground(opened, scheme):
    opened.emulate_media(color_scheme=scheme)
    assert opened.evaluate(CONTRAST) == []


def test_names_that_are_html_do_nothing_in_a_browser(page, complaints, unlabelled):
    out = write_report(unlabelled)
    said = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(out.as_uri())
    page.locator("#map-plane").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert said == []
    complaints.remove(f"asked for {out.as_uri()}")


# -- the page on reports --------------------------------------------------------------------------


@pytest.fixture
def at_hand(small_run, small_data, tmp_path, monkeypatch):
    """The run under the name that the page has."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run, "runs/photos")
    Path("photos").symlink_to(small_data)


def test_the_commands_of_the_page_run(at_hand, capsys):
    (block,) = re.findall(r"```console\n(.*?)```", DOC, flags=re.DOTALL)
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for line in block.splitlines()]
    assert len(lines) >= 3
    for line in lines:
        assert run(*shlex.split(line)[1:]) == 0, line
        assert "MB), with" in " ".join(capsys.readouterr().out.split())


def test_the_python_of_the_page_runs(at_hand):
    (block,) = re.findall(r"```python\n(.*?)```", DOC, flags=re.DOTALL)
    exec(block, {})
    assert Path("photos.html").is_file()


def test_the_figures_of_the_page_are_those_measured():
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "report.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 3
    for row in rows:
        seconds, size = row["cpu_seconds"], row["megabytes"]
        assert size["mean"] < 30
        told = (
            f"| {seconds['mean']:.0f} ± {seconds['std']:.0f} | {size['mean']:.1f} ± {size['std']:.1f} |"
        )
        assert told in DOC
