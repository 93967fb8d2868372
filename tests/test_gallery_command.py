"""`gracl gallery`, as it is typed; the page on galleries runs as it stands."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import gracl
from conftest import save_image
from gracl import cli
from gracl.files import save_model
from gracl.models.embedder import build_embedder

PAGE = (Path(__file__).parents[1] / "docs" / "gallery.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A finished run's model and photos of two, under the names that the page has."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = build_embedder("test_resnet", size=(32, 16))
    settings = gracl.Config().replace({"model": {"backbone": "test_resnet", "size": [32, 16]}}).model
    Path("runs/photos").mkdir(parents=True)
    save_model(Path("runs/photos/model.safetensors"), model, settings)
    for n, name in enumerate(("photos/Ben/1", "photos/Ben/2", "photos/Cleo/1", "new/1", "new/2")):
        save_image(Path(f"{name}.png"), n)
    for n, name in enumerate(("ada/front", "ada/back", "visitor")):
        save_image(Path(f"{name}.jpg"), 10 + n)
    return tmp_path


def run(*words):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return ended.value.code


def output(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_the_commands_of_the_page_run(folder, capsys):
    (block,) = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [line.removeprefix("$ ").split("  #")[0] for line in block.splitlines()]
    words = [shlex.split(line) for line in lines]
    assert [line[2] for line in words] == (
        ["build", "add", "enrol", "search", "search", "list", "name", "remove", "forget"]
    )
    printed = []
    for line in words:
        assert run(*line[1:]) == 0, line
        printed.append(output(capsys))
    assert "3 images added; 3 in all" in printed[0]
    assert "visitor.jpg: unknown" in printed[3] or "visitor.jpg: Ada" in printed[3]
    assert "no threshold was given" in printed[4]
    assert "nothing of them was found in it" in printed[-1]
    with gracl.Gallery.open("herd.gallery") as gallery:
        assert gallery.identities() == {"Ben": 3}  # Ada forgotten, and 3 renamed


def test_the_python_of_the_page_runs(folder):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {}
    exec(block, names)
    assert names["found"].identity in ("unknown", "Ada", "Ben", "Cleo")
    assert len(names["answers"]) == 2
    with gracl.Gallery.open("herd.gallery") as gallery:
        assert "Ada" not in gallery.identities()


def test_building_again_goes_on(folder, capsys):
    assert run("gallery", "build", "a.gallery", "runs/photos", "photos/Ben") == 0
    assert run("gallery", "build", "a.gallery", "runs/photos", "photos", "--unnamed") == 0
    assert "1 images added, 2 were there already; 3 in all" in output(capsys)


def test_names_that_nobody_confirmed_are_told_before_they_are_taken_over(folder, capsys):
    Path("who.csv").write_text(
        "path,identity,confirmed_by\nphotos/Ben/1.png,Ben,Ann\nphotos/Ben/2.png,cluster-4,\n"
    )
    assert run("gallery", "build", "a.gallery", "runs/photos", "who.csv") == 0
    said = output(capsys)
    assert "an identity with nothing in 'confirmed_by' counts as one all the same: once" in said
    assert said.index("confirmed_by") < said.index("2 images added")


def test_a_table_that_names_nobody_is_told(folder, capsys):
    Path("bad.csv").write_text("file,who\nphotos/Ben/1.png,Ben\n")
    assert run("gallery", "build", "a.gallery", "runs/photos", "bad.csv") == 0
    assert "none of them has a name" in output(capsys)
    assert run("gallery", "build", "a.gallery", "runs/photos", "new", "--unnamed") == 0
    assert "none of them has a name" not in output(capsys)


def test_search_as_a_table_and_as_json(folder, capsys):
    run("gallery", "build", "a.gallery", "runs/photos", "photos")
    capsys.readouterr()
    words = ["photos/Ben/1.png", "--k", "2", "--threshold", "0.999"]
    assert run("gallery", "search", "a.gallery", *words, "-o", "hits.csv", "--json") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["identity"] == "Ben"
    with Path("hits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert rows[0]["answer"] == rows[0]["identity"] == "Ben"
    assert [float(row["similarity"]) for row in rows] == pytest.approx(
        [hit["similarity"] for hit in line["hits"]], abs=1e-4
    )


def test_a_box_and_filters_reach_the_search(folder, capsys):
    run("gallery", "build", "a.gallery", "runs/photos", "photos", "--camera", "c1")
    run("gallery", "add", "a.gallery", "new", "--camera", "c2", "--time", "2025-04-01")
    capsys.readouterr()
    assert run("gallery", "search", "a.gallery", "photos/Ben/1.png", "--box", 0, 0, 4, 4, "--json") == 0
    assert json.loads(capsys.readouterr().out)["query"]["box"] == [0, 0, 4, 4]
    words = ["photos/Ben/1.png", "--camera", "c2", "--since", "2025", "--json"]
    assert run("gallery", "search", "a.gallery", *words) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert {hit["entry"]["camera"] for hit in hits} == {"c2"}
    assert len(hits) == 2


def test_a_build_that_cannot_be_leaves_nothing(folder, capsys):
    assert run("gallery", "build", "a.gallery", "runs/photos", "gone") == 2
    assert not Path("a.gallery").exists()


def test_images_that_find_themselves_are_counted(folder, capsys):
    run("gallery", "build", "a.gallery", "runs/photos", "photos")
    capsys.readouterr()
    run("gallery", "search", "a.gallery", "photos/Ben/1.png", "visitor.jpg")
    assert "1 of 2 images are in the gallery themselves" in output(capsys)


def test_a_calibration_for_pairs_says_what_it_means_for_searches(folder, capsys):
    run("gallery", "build", "a.gallery", "runs/photos", "photos")
    for n in range(80):
        save_image(Path(f"many/i{n // 2}/{n}.png"), n)
    found = gracl.embed(gracl.load_model("runs/photos"), "many")
    chosen = gracl.calibrate(found, rate=0.2, evidence="identities")
    gracl.write_calibration("calibration.json", chosen)
    capsys.readouterr()
    words = ["visitor.jpg", "--calibration", "calibration.json"]
    assert run("gallery", "search", "a.gallery", *words) == 0
    assert "made for pairs of images; of strangers who search these 3" in output(capsys)


def test_thumbnails_are_written_out(folder, capsys):
    run("gallery", "build", "a.gallery", "runs/photos", "photos", "--thumbnails")
    assert run("gallery", "list", "a.gallery", "--save-thumbnails", "small", "--identity", "Ben") == 0
    assert len([*Path("small").glob("*.jpg")]) == 2
    assert run("gallery", "list", "a.gallery", "--save-thumbnails", "small") == 2


def test_list_counts_individuals(folder, capsys):
    run("gallery", "build", "a.gallery", "runs/photos", "photos", "new")
    capsys.readouterr()
    run("gallery", "list", "a.gallery")
    assert "2 (no name) 2 Ben 1 Cleo" in output(capsys)
    run("gallery", "list", "a.gallery", "--json", "--identity", "Ben")
    held = json.loads(capsys.readouterr().out)
    assert len(held["entries"]) == 2
    assert held["backbone"] == "test_resnet"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "gone.gallery", "visitor.jpg"], "there is no gallery"),
        (["search", "photos", "visitor.jpg"], "photos is a folder, and a gallery is one file"),
        (["search", "a.gallery"], "no images were given"),
        (["add", "a.gallery", "gone.jpg"], "gone.jpg"),
        (["remove", "a.gallery"], "no condition was given"),
        (["forget", "a.gallery", "Eve"], "nobody is called 'Eve' here; Known: Ben, Cleo"),
        (["search", "a.gallery", "visitor.jpg", "--threshold", "2"], "lies in [-1, 1]"),
        (["search", "a.gallery", "visitor.jpg", "--box", "0", "0", "0", "0"], "crop box"),
        (["search", "a.gallery", "photos", "new", "--box", "0", "0", "4", "4"], "there are 2"),
        (["search", "a.gallery", "visitor.jpg", "-o", "visitor.jpg"], "is not overwritten"),
        (["search", "a.gallery", "visitor.jpg", "--since", "spring"], "since is 'spring'"),
        (
            ["search", "a.gallery", "visitor.jpg", "--identity", "Clea"],
            "did you mean 'Cleo'? Known: Ben",
        ),
        (["list", "a.gallery", "--camera", "rigde"], "has it; no image has a known camera"),
        (["remove", "a.gallery", "--site", "a"], "has it; no image has a known site"),
        (["search", "a.gallery", "visitor.jpg", "--since", "2090"], "meets these filters"),
        (["name", "a.gallery", "Ben"], "no number was given"),
        (["search", "a.gallery", "photos", "--box", "0", "0", "4", "4"], "photos is a folder"),
        (["list", "a.gallery", "--save-thumbnails", "small"], "keeps no thumbnails"),
        (["build", "a.gallery", "runs/photos", "new", "--thumbnails"], "made without thumbnails"),
        (["build", "photos/Ben/1.png", "runs/photos", "new"], "cannot be opened as a gallery"),
        (
            ["build", "runs/photos", "photos", "b.gallery"],
            "The order is: gracl gallery build NEW",
        ),
    ],
)
def test_what_cannot_be_is_told(folder, capsys, words, message):
    run("gallery", "build", "a.gallery", "runs/photos", "photos")
    capsys.readouterr()
    assert run("gallery", *words) == 2
    assert message in capsys.readouterr().err
    assert Path("photos/Ben/1.png").stat().st_size > 0


def test_threshold_and_calibration_are_one_too_many(folder, capsys):
    run("gallery", "build", "a.gallery", "runs/photos", "photos")
    words = ["--threshold", "0.5", "--calibration", "calibration.json"]
    assert run("gallery", "search", "a.gallery", "visitor.jpg", *words) == 2
    assert "give one of them" in capsys.readouterr().err
