"""`gracl review` without its page: who is who, written and read, and what is refused at once."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from gracl.cli import main
from gracl.commands.review import _user
from gracl.review.review import Review
from gracl.study import open_study

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(small_run, tmp_path):
    return shutil.copytree(small_run, tmp_path / "run")


def gracl(*words):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return ended.value.code


def test_who_is_who_is_written_and_read_back(run, tmp_path, capsys):
    with Review.open(open_study(run), by="Ann") as review:
        number = review.clusters()[0].number
        review.name(number, "Ada")
        labels = review.labels
    table = tmp_path / "who.csv"
    assert gracl("review", run, "--export", table) == 0
    said = capsys.readouterr().out
    assert "who.csv" in said
    assert said.count("\n") == 1  # no empty line of bars that nobody watched
    with table.open() as lines:
        found = [row["identity"] for row in csv.DictReader(lines)]
    assert [name == "Ada" for name in found] == (labels == number).tolist()

    other = shutil.copytree(run, tmp_path / "other")
    for file in other.glob("review.sqlite*"):
        file.unlink()
    assert gracl("review", other, "--import", table, "--by", "Bea") == 0
    with Review.open(open_study(other), by="Ann") as review:
        assert review.names == {number: "Ada"}
        assert review.history()[0].by == "Bea"


def test_a_path_relative_to_where_one_is_names_an_image(run, tmp_path, monkeypatch):
    image = open_study(run).records[3].path
    monkeypatch.chdir(image.parents[2])  # one above the data's own folder
    (tmp_path / "who.csv").write_text(f"path,identity\n{image.relative_to(image.parents[2])},Ada\n")
    assert gracl("review", run, "--import", tmp_path / "who.csv") == 0
    with Review.open(open_study(run), by="Ann") as review:
        assert review.names[int(review.labels[3])] == "Ada"


def test_the_form_of_the_file_can_be_said(run, tmp_path):
    assert gracl("review", run, "--export", tmp_path / "who.json") == 0
    assert {"images", "annotations"} <= json.loads((tmp_path / "who.json").read_text()).keys()
    assert gracl("review", run, "--export", tmp_path / "a.csv", "--form", "animalclef") == 0
    assert (tmp_path / "a.csv").read_text().startswith("image_id,cluster")


def test_export_and_import_are_not_done_at_once(run, tmp_path, capsys):
    assert gracl("review", run, "--export", "a.csv", "--import", "b.csv") == 2
    assert "give one, then the other" in capsys.readouterr().err


def test_a_page_without_its_packages_names_what_to_install(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert gracl("review", run) == 2
    assert "pip install 'gracl[serve]'" in capsys.readouterr().err


def test_a_second_reviewer_at_the_same_time_is_told_so(run, capsys):
    with Review.open(open_study(run), by="Ann"):
        assert gracl("review", run, "--by", "Bea") == 2
    assert f"being reviewed by process {os.getpid()} of" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(run, capsys):
    from gracl.web.serving import listen

    with listen(0) as taken:
        port = taken.getsockname()[1]
        assert gracl("review", run, "--port", port) == 2
    assert f"port {port}" in capsys.readouterr().err


def test_a_machine_without_a_user_has_someone(monkeypatch):
    def nobody():
        raise KeyError("uid")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert _user() == "someone"


def test_each_key_of_the_page_is_in_its_help_and_in_the_docs():
    source = (ROOT / "src/gracl/web/static/review_keys.js").read_text()
    table = source.partition("export const KEYS = {")[2].partition("};")[0]
    keys = set(re.findall(r'(?:^|[{,]) *"?([^" ,:]+?)"?: "', table, flags=re.MULTILINE))
    assert len(keys) > 20
    spoken = {"Escape": "Esc", "=": "+", "ctrl+z": "Z", "ctrl+Z": "Z", "ctrl+y": "Y", "ctrl+a": "A"}
    docs = (ROOT / "docs/review.md").read_text().partition("## Keys")[2].partition("\n## ")[0]
    told = re.findall(r"`([^`]+)`", docs)
    helped = re.findall(r'"([^"]+)"', source.partition("const HELP = [")[2])
    assert {spoken.get(key, key) for key in keys} - set(told) == set()
    assert {spoken.get(key, key) for key in keys} - {*helped, "Z", "Y", "-", "z"} == set()


@pytest.mark.filterwarnings("ignore")
def test_the_commands_of_the_page_run_as_they_stand(run, tmp_path, monkeypatch, capsys):
    """In order, but for the server, which says its address and ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gracl.web.serving.serve", lambda _, **how: how["tell"]("http://127.0.0.1:1/"))
    monkeypatch.setattr("webbrowser.open", lambda address: print("opened", address))
    shutil.copytree(run, "runs/photos")
    with Review.open(open_study("runs/photos"), by="Ann") as review:
        review.confirm(review.clusters()[0].number)
    page = (ROOT / "docs" / "review.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 9
    for line in lines:
        words = shlex.split(line.removeprefix("$ gracl "), comments=True)
        assert gracl(*words) == 0, (line, capsys.readouterr())
    said = capsys.readouterr().out
    assert "opened http://127.0.0.1:1/" in said
    assert Path("who.csv").read_text().startswith("image_id,cluster")  # the last form that is written
    assert {"images", "annotations"} <= json.loads(Path("who.json").read_text()).keys()
    with Review.open(open_study("runs/photos-2"), by="Ann") as review:
        assert review.progress().n_confirmed_images > 0


@pytest.mark.parametrize("name", ["review.png", "review_narrow.png"])
def test_the_pictures_of_the_docs_are_small(name):
    assert 20_000 < (ROOT / "docs" / name).stat().st_size < 400_000
