"""A run's files that were changed or cut short are refused in words, with their place."""

from __future__ import annotations

import json
import re

import pytest

from gracl.card import training_of
from gracl.comparison import Comparison, Outcome, read_comparison, to_json
from gracl.errors import RunError
from gracl.profiling import profile_run
from gracl.run_json import KINDS, checked, read_lines, read_object
from gracl.runs import Run

CLUSTERS = {"n_images": 4, "n_clusters": 2, "outlier_share": 0.0, "largest_share": 0.5}
LOG = [
    {
        "event": "start",
        "seconds": {},
        "device": "cpu",
        "processes": 1,
        "before": {"clusters": CLUSTERS},
    },
    {
        "event": "epoch",
        "epoch": 1,
        "losses": {"inter": 0.5},
        "seconds": {"train": 2.0},
        "images_per_second": {"train": 9.0},
        "peak_memory": {"host": 1},
    },
    {"event": "end", "seconds": {}, "after": {"clusters": CLUSTERS}},
]
DATA = {
    "name": "x", "root": "x", "layout": "folder", "images": 4, "left_out": [], "fingerprint": "f",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A finished run, as far as its own files tell."""
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "data.json").write_text(json.dumps(DATA))
    (tmp_path / "labels.csv").write_text("path,cluster\na.png,0\nb.png,-1\n")
    write_log(tmp_path, LOG)
    return Run(tmp_path)


def write_log(folder, lines):
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def look_at(run):
    training_of(run)
    profile_run(run)
    return run.labels


def test_a_whole_run_is_read(run):
    assert look_at(run) == [("a.png", 0), ("b.png", -1)]
    assert run.after["clusters"]["n_clusters"] == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.jsonl", b'{"event"\n', "log.jsonl, line 1 cannot be read as JSON"),
        ("log.jsonl", b"\xc0\n", "log.jsonl cannot be read: 'utf-8'"),
        ("log.jsonl", b"[]\n", "line 1 holds []; expected an object"),
        ("log.jsonl", b"{}\n", "line 1 has no 'event'"),
        ("log.jsonl", b'{"event": 3}\n', "event is 3; expected text"),
        ("log.jsonl", b'{"event": "end", "after": 1}\n', "after is 1; expected an object"),
        ("log.jsonl", b'{"event": "end"}\n', "line 1 has no 'after'"),
        ("log.jsonl", b'{"event": "end", "after": {}}\n', "no 'start' yet"),
        ("log.jsonl", b'{"event": "x", "losses": {"a": NaN}}\n', "expected an object of numbers"),
        ("log.jsonl", b'{"event": "x", "epoch": -1}\n', "expected a whole number, 0 or more"),
        ("log.jsonl", b'{"event": "x", "after": {"ari": 1' + b"0" * 400 + b"}}\n", "ari is 1000"),
        ("log.jsonl", b'{"after":' * 5000 + b"\n", "cannot be read as JSON"),
        ("data.json", b"", "data.json cannot be read as JSON"),
        ("data.json", b"\xc0", "data.json cannot be read"),
        ("data.json", b"{}", "data.json has no 'name'"),
        ("data.json", b'{"name": []}', "name is []; expected text"),
        ("data.json", b'{"left_out": true}', "left_out is true; expected a list of objects"),
        ("data.json", b'{"given": ["a", "b", "c"]}', "expected two texts at most"),
        ("labels.csv", b"", "no columns path and cluster"),
        ("labels.csv", b"path\na\n", "no columns path and cluster"),
        ("labels.csv", b"path,cluster\na\n", "in line 2 the cluster is None"),
        ("labels.csv", b"path,cluster\na,0\nb,\n", "in line 3 the cluster is ''"),
        ("labels.csv", b"path,cluster\na," + b"9" * 5000, "expected a whole number, or -1"),
        ("labels.csv", b"path,cluster\na,\xc0\n", "labels.csv cannot be read as the clusters of a run"),
        ("labels.csv", b"path,cluster\n" + b"x" * 200_000 + b",1\n", "field larger than field limit"),
    ],
)
def test_a_damaged_file_is_named_with_its_place(run, name, content, words):
    (run.folder / name).write_bytes(content)
    with pytest.raises(RunError, match=re.escape(words)) as refused:
        look_at(run)
    assert "back from a copy" in str(refused.value) or "not finished" in str(refused.value)


def test_a_last_line_that_was_not_finished_is_passed_over(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"event": "start"}\n{"eve')
    assert read_lines(tmp_path / "log.jsonl") == [{"event": "start"}]


def test_what_older_runs_did_not_tell_is_asked_for_by_get(tmp_path):
    (tmp_path / "x.json").write_text('{"peak_memory": {}, "more": {"seed": "x"}}')
    found = read_object(tmp_path / "x.json")
    assert found.get("given", "none") == "none"
    with pytest.raises(RunError, match="no 'host'"):
        found["peak_memory"]["host"]
    assert found["more"] == {"seed": "x"}  # a name within what no file has means anything


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_refuses_what_is_of_none(name):
    with pytest.raises(RunError, match=rf"x: {name} is \[null\]; expected "):
        checked({name: [None]}, "x")


# -- comparisons ----------------------------------------------------------------------------------

OUTCOME = Outcome("a", 0, {"mAP": 0.5}, {"mAP": ((0, 0.1),)}, "any@1", False, {"device": "cpu"})
FOUND = Comparison("x", ("a",), (0,), {"a": {}}, (OUTCOME,))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"seeds"', '"seats"', "no 'seeds'"),
        ('"settings": {', '"settings": {"b": 1, ', "expected an object of objects"),
        ('"mAP": 0.5', '"mAP": "much"', "expected an object of numbers"),
        ('"contender": "a"', '"contender": {}', "contender is {}; expected text"),
        ('"failure"', '"failures"', "no 'failure'"),
        ("0.1", "[]", "expected an object of lists of [epoch, number]"),
        ('"data": "x"', '"data": null', "data is null; expected text"),
    ],
)
def test_a_damaged_comparison_says_what_is_wrong(tmp_path, old, new, words):
    text = to_json(FOUND)
    assert old in text
    (tmp_path / "comparison.json").write_text(text)
    assert read_comparison(tmp_path) == FOUND
    (tmp_path / "comparison.json").write_text(text.replace(old, new))
    with pytest.raises(RunError, match=re.escape(words)) as refused:
        read_comparison(tmp_path)
    assert "gracl compare" in str(refused.value)
