"""Bad input of every kind, a few hundred cases, in a process under watch: no reader crashes.

`python benchmarks/fuzz.py` feeds many more, and `benchmarks/guided.py` goes on by coverage.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def fuzz(monkeypatch):
    """The script, as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import fuzz

    return fuzz


def test_no_reader_crashes_at_bad_input(fuzz, tmp_path):
    cases = {kind: 30 for kind in fuzz.KINDS if kind != "large images"} | {"images": 100, "folders": 2}
    plans = [fuzz.Plan(kind, 0, number) for kind, number in cases.items()]
    outcomes = list(fuzz.fuzz(plans, 1, tmp_path))
    crashes = [outcome for outcome in outcomes if outcome.ending == "crash"]
    assert not crashes, "\n".join(map(str, crashes))
    assert Counter(outcome.kind for outcome in outcomes) == cases
    assert {outcome.ending for outcome in outcomes} == {"read", "refused"}  # not all hopeless


FAMILIES = ("tables", "pairs", "boxes", "tracks", "reviews", "hugging face", "settings", "runs",
            "descriptions", "weights", "features")  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_guided_fuzzer_begins_with_is_read_and_no_change_of_it_crashes(fuzz, tmp_path, family):
    from fuzz_watch import judge
    from guided_files import FILES

    assert {*FILES} == {*FAMILIES}
    target, rng = FILES[family](tmp_path), np.random.default_rng(0)
    whole = [judge(lambda seed=seed: target.feed(seed)) for seed in target.seeds]
    for seed in target.seeds * (1 if family == "settings" else 5):
        changed = target.change(rng, seed)
        whole.append(judge(lambda changed=changed: target.feed(changed)))
    assert not [words for ending, words in whole if ending == "crash"]
    hostile = family == "settings"  # most of these are to be refused
    assert hostile or {ending for ending, _ in whole[: len(target.seeds)]} == {"read"}, whole


FEEDS = """
import os, sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
import fuzz_watch
from gracl.errors import DataError
fuzz_watch.CPU_SECONDS, fuzz_watch.MEMORY = 1.5, 0.2

def busy():
    while True:
        pass

def refused():
    raise DataError("no such thing")

def silent():
    raise DataError("")

def slow():
    end = time.process_time() + 2.0
    while time.process_time() < end:
        pass
    return "read"

def large():
    np.ones(2**28, np.uint8)
    return "read"

def flood():
    held = []
    while True:
        held.append(np.ones(2**24, np.uint8))
        time.sleep(0.01)

FEEDS = [lambda: "read", refused, silent, lambda: 1 / 0, busy, lambda: os.abort(), flood, slow, large,
         lambda: "read"]
kinds = {"x": lambda rng, folder: fuzz_watch.Case("case", FEEDS[int(folder.name.partition("-")[2])])}
plans = [fuzz_watch.Plan(k, int(a), int(b)) for k, a, b in (w.split(":") for w in sys.argv[3:])]
import tempfile
fuzz_watch.feed_all(kinds, plans, 0, Path(tempfile.mkdtemp(dir=sys.argv[2])))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is watched on Linux alone")
def test_the_watch_sees_each_way_to_crash_and_goes_on(fuzz, tmp_path, monkeypatch):
    import fuzz_watch

    monkeypatch.setattr(fuzz_watch, "CPU_SECONDS", 1.5)
    monkeypatch.setattr(fuzz_watch, "MEMORY", 0.2)
    command = [sys.executable, "-c", FEEDS, str(BENCHMARKS), str(tmp_path)]
    found = list(fuzz_watch.watch(command, [fuzz.Plan("x", 0, 10)]))
    assert [outcome.number for outcome in found] == list(range(10))
    assert [outcome.ending for outcome in found] == ["read", "refused", *["crash"] * 7, "read"]
    said = ("no such", "without a word", "ZeroDivision", "a hang", "SIGABRT", "memory", "s of", "GiB")
    for outcome, words in zip(found[1:], said, strict=False):
        assert words in outcome.words, outcome
