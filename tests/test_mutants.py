"""The faults that `benchmarks/mutation.py` puts into the code are the ones it says."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path

import pytest
import yaml

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

SOURCE = '''
LIMIT = 3

def least(values: list[int], start: int | None = None) -> int:
    """The 1 that is least."""
    if len(values) <= 0 and start is None:
        raise ValueError(f"{len(values) + 1} values")
    return min(values, key=abs)

def twice(values):
    return least(values) * least(values)
'''


@pytest.fixture
def mutation(monkeypatch):
    """The script, as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import mutation

    return mutation


def changed(mutation):
    return {
        mutant.change: ast.unparse(mutation.mutated(SOURCE, mutant))
        for mutant in mutation.mutants(SOURCE)
    }


def test_each_fault_is_one_place_of_the_code_and_nothing_of_its_words(mutation):
    faults = changed(mutation)
    assert [change.split(" | ")[0] for change in faults] == [
        "3 -> 4",
        "3 -> 2",
        "not (len(values) <= 0 and start is None)",
        "len(values) <= 0 and start is None -> len(values) <= 0 or start is None",
        "len(values) <= 0 -> len(values) < 0",
        "0 -> 1",
        "0 -> -1",
        "start is None -> start is not None",
        "without raise ValueError(f'{len(values) + 1} values')",
        "return None",
        "without key=abs in min",
        "min -> max in min(values, key=abs)",
        "return None",
        "least(values) * least(values) -> least(values) / least(values)",
    ]
    plain = ast.unparse(ast.parse(SOURCE)).splitlines()
    for code in faults.values():
        compile(code, "mutant", "exec")
        assert sum(a != b for a, b in zip(plain, code.splitlines(), strict=True)) == 1


def test_what_depends_on_a_function_is_compiled_afresh_with_it(mutation):
    assert mutation.depending(SOURCE, "least") == {"least", "twice"}
    assert mutation.depending(SOURCE, "twice") == {"twice"}
    assert mutation.depending(SOURCE, "") == {"least", "twice"}  # a constant


def test_no_two_faults_share_a_name_and_every_excused_one_is_still_there(mutation):
    excused = yaml.safe_load(mutation.EQUIVALENT.read_text())
    assert excused.keys() <= mutation.TARGETS.keys()
    for name, target in mutation.TARGETS.items():
        chosen, n_known = mutation.drawn(target, 10**6, seed=0)
        names = {mutation.key_of(*pair) for pair in chosen}
        assert len(names) == len(chosen) == n_known
        assert excused.get(name, {}).keys() <= names
        few, _ = mutation.drawn(target, 20, seed=0)
        assert len(few) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("0", "survived"),
        ("1", "killed"),
        ("os.kill(os.getpid(), 9)", "crashed"),
        ("time.sleep(60)", "timed out"),
    ],
)
def test_a_fork_tells_how_it_ended(mutation, tmp_path, action, outcome):
    names = {"os": os, "time": time}
    found, seconds = mutation.in_fork(lambda: eval(action, names), 2.0, tmp_path / "output.txt")
    assert found == outcome
    assert seconds < 20
