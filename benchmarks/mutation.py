"""Mutation testing: small faults are put into the code one at a time, and the tests must notice each.

    python benchmarks/mutation.py [metrics jaccard clustering linked_clusters method] [--sample 200]
        [--seed 0] [--again] [--journal FOLDER]

A process that has torch, numba and pytest loaded forks for each mutant; the fork finds the mutated
module in place of the real one and runs its tests until one fails. Nothing is written into the tree.
A compiled function that a fault is in, or that calls it, is compiled afresh, as loops of one thread.
Drawn inputs (hypothesis) are the same for every mutant. A mutant is killed where a test fails or the
process dies, and timed out where the tests hang.

What was found is kept in a journal, where a run that was stopped goes on; `--again` tries those that
survived once more, after tests were written. Why a survivor is no fault stands in
settings/mutation_equivalent.yaml, and it is not tried again.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any, Literal

import _hypothesis_pytestplugin  # type: ignore[import-untyped]
import numba
import pytest
import pytest_timeout  # type: ignore[import-untyped]
import yaml
from hypothesis import Phase, settings

from measuring import RESULTS, save
from mutants import Mutant, depending, mutants, mutated

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "gracl"
EQUIVALENT = Path(__file__).parent / "settings" / "mutation_equivalent.yaml"
MEMORY = 6 * 2**30
"""Bytes that a mutant may take beyond what the first process holds."""
PATIENCE = 3
"""Times the seconds of the tests of the code as it is, and half a minute: then a mutant hangs."""
LOADED = (
    "torch.utils.data", "torch.export", "torchvision.transforms.v2", "timm", "scipy.sparse.csgraph",
    "scipy.cluster.hierarchy", "scipy.spatial.distance", "sklearn.cluster", "sklearn.metrics",
    "sklearn.isotonic", "torchmetrics.functional.retrieval", "igraph", "yaml", "hypothesis.strategies",
    "numba.core.typed_passes",
)  # fmt: skip
# Rewriting assertions, pytest would load the modules whose examples it runs, without the fault.
PYTEST = "-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-m", "not slow"

Outcome = Literal["killed", "crashed", "timed out", "survived"]


@dataclass(frozen=True)
class Target:
    """What is mutated, and what must notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    """Files, or single tests, besides the examples in the docstrings of what is mutated."""


TARGETS = {
    "metrics": Target(("metrics", "_ranks_numba"), ("metrics.py",)),
    "jaccard": Target(
        ("jaccard", "_jaccard_numba", "_jaccard_torch"),
        (
            "jaccard.py",
            "rerank.py::test_similarity_is_minus_the_distance_of_its_naive_twin",
            "rerank.py::test_blocks_of_queries_are_rows_of_the_whole",
            "forecast.py::test_the_forecast_of_labels_counts_features_neighbors_a_block_and_pairs",
            "forecast.py::test_a_graph_that_does_not_fit_is_refused_before_it_is_filled",
        ),
    ),
    "clustering": Target(("clustering", "_dbscan_numba"), ("clustering.py",)),
    "linked_clusters": Target(("linked_clusters",), ("links.py",)),
    "method": Target(
        ("methods/gracl", "methods/groups", "methods/memory", "methods/pseudo_labels"),
        (
            "gracl.py",
            "cluster_contrast.py",
            "hhcl.py",
            "config.py::test_settings_of_a_method_are_exactly_its_keyword_arguments",
        ),
    ),
}


@dataclass
class Journal:
    """What became of each mutant, one line each, the latest last."""

    path: Path
    first: dict[str, Outcome] = field(default_factory=dict)
    last: dict[str, Outcome] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            self._take(json.loads(line))

    def add(self, key: str, outcome: Outcome, seconds: float) -> None:
        """Writes one down."""
        entry = {"key": key, "outcome": outcome, "seconds": round(seconds, 2)}
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        self.first.setdefault(entry["key"], entry["outcome"])
        self.last[entry["key"]] = entry["outcome"]
        self.seconds += entry["seconds"]


class Replaced(SourceFileLoader):
    """Loads a module with a fault in it; its path stays, so caches of the rest of it hold."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self.tree = tree

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002
        """Of the faulty module."""
        return compile(self.tree, self.path, "exec")


@dataclass(frozen=True)
class Finder:
    """Finds the one faulty module before the real one is found."""

    name: str
    tree: ast.Module

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """None for every other module."""
        found = PathFinder.find_spec(name, path, target) if name == self.name else None
        if found is not None:
            assert found.origin is not None
            found.loader = Replaced(name, found.origin, self.tree)
        return found


def key_of(file: str, mutant: Mutant) -> str:
    """Names a mutant by what it changes, not by its line's number, which moves."""
    return f"{file}.py {mutant.function}: {mutant.change}"


def drawn(target: Target, sample: int, seed: int) -> tuple[list[tuple[str, Mutant]], int]:
    """Some mutants of a target in the order of the source, and how many there are.

    Each has a place in line that only it and the seed decide, so another mutant more or less in the
    source changes nothing for the rest.
    """
    known = [
        (file, mutant)
        for file in target.files
        for mutant in mutants((SOURCE / f"{file}.py").read_text())
    ]

    def place(pair: tuple[str, Mutant]) -> str:
        return hashlib.sha256(f"{seed} {key_of(*pair)}".encode()).hexdigest()

    chosen = {key_of(*pair) for pair in sorted(known, key=place)[:sample]}
    return [pair for pair in known if key_of(*pair) in chosen], len(known)


class Quick:
    """A plugin of pytest: quick tests first, and of drawn inputs that fail, the first will do."""

    def __init__(self, seconds: Path) -> None:
        self.path = seconds
        self.known: dict[str, float] = json.loads(seconds.read_text()) if seconds.exists() else {}
        self.seen: dict[str, float] = {}

    def pytest_sessionstart(self) -> None:
        """Takes the settings of the tests, and leaves out the search for a smaller example."""
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("quick", parent=settings(), phases=phases)
        settings.load_profile("quick")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """By the seconds that each took with the code as it is."""
        items.sort(key=lambda item: self.known.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes the seconds of a test, with those of what it needs."""
        self.seen[report.nodeid] = self.seen.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Keeps them for the runs to come."""
        if exitstatus == 0:
            self.path.write_text(json.dumps(self.seen))


def run_tests(target: Target, scratch: Path) -> int:
    """Runs the tests in this process; pytest's exit code."""
    quick = Quick(scratch / f"{target.tests[0]}.json")
    paths = [f"tests/test_{name}" for name in target.tests]
    paths += [f"src/gracl/{name}.py" for name in target.files]
    arguments = [*PYTEST, f"--basetemp={scratch / 'pytest'}", *paths]
    return int(pytest.main(arguments, plugins=[quick, _hypothesis_pytestplugin, pytest_timeout]))


def in_fork(action: Callable[[], int], limit: float, output: Path) -> tuple[Outcome, float]:
    """What became of an action that ends with pytest's exit code, and the seconds it took."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = 70
        try:
            code = action()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        seconds = time.perf_counter() - start
        if done:
            break
        if seconds > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timed out", seconds
        time.sleep(0.01)
    if os.WIFSIGNALED(status):
        return "crashed", seconds
    code = os.WEXITSTATUS(status)
    return "survived" if code == 0 else "killed" if code in (1, 2) else "crashed", seconds


def with_fault(file: str, mutant: Mutant, target: Target, scratch: Path) -> Callable[[], int]:
    """What a fork does for one mutant."""
    source = (SOURCE / f"{file}.py").read_text()
    name = "gracl." + file.replace("/", ".")
    afresh = depending(source, mutant.function) if file.endswith("_numba") else set()
    compiled = numba.njit

    def njit(*arguments: Any, **options: Any) -> Any:
        def decorate(function: Any) -> Any:
            if function.__module__ == name and function.__name__ in afresh:
                return compiled(*arguments, **{**options, "cache": False, "parallel": False})(function)
            return compiled(*arguments, **options)(function)

        return decorate

    def action() -> int:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        numba.njit = njit
        sys.meta_path.insert(0, Finder(name, mutated(source, mutant)))
        code = run_tests(target, scratch)
        assert code or isinstance(sys.modules[name].__loader__, Replaced), f"{name} had no fault"
        return code

    return action


def try_all(name: str, options: argparse.Namespace, journal: Journal, scratch: Path) -> dict[str, Any]:
    """Tries the mutants of a target that the journal does not know, or those that survived."""
    target = TARGETS[name]
    chosen, n_known = drawn(target, options.sample, options.seed)
    reasons = excused(name)
    keys = {key_of(*pair): pair for pair in chosen}
    untried = {key for key in keys if key not in journal.last}
    again = {key for key in keys if options.again and journal.last.get(key) == "survived"}
    to_try = untried | again - reasons.keys()
    print(f"{name}: {len(to_try)} to try of {len(chosen)}, of {n_known} known", flush=True)
    output = scratch / "output.txt"
    seconds = measured_seconds(target, scratch, output) if to_try else 0.0
    for key, (file, mutant) in keys.items():
        if key in to_try:
            action = with_fault(file, mutant, target, scratch)
            outcome, taken = in_fork(action, 30 + PATIENCE * seconds, output)
            journal.add(key, outcome, taken)
            if outcome != "killed":
                print(f"  {outcome} in {taken:.1f} s, line {mutant.line}: {key}", flush=True)
    typed = f"python benchmarks/mutation.py {name} --sample {options.sample} --seed {options.seed}"
    return {"command": typed, "known": n_known, **summary(name, list(keys), journal)}


def measured_seconds(target: Target, scratch: Path, output: Path) -> float:
    """Of the tests of the code as it is, which must pass; the first run fills the compiled cache."""
    for _ in range(2):
        outcome, seconds = in_fork(lambda: run_tests(target, scratch), 900, output)
        if outcome != "survived":
            raise SystemExit(f"the tests fail on the code as it is:\n{output.read_text()[-3000:]}")
    return seconds


def excused(name: str) -> dict[str, str]:
    """Mutants of a target that are no fault, and why."""
    reasons: dict[str, str] = (yaml.safe_load(EQUIVALENT.read_text()) or {}).get(name, {})
    return reasons


def summary(name: str, keys: Sequence[str], journal: Journal) -> dict[str, Any]:
    """Counts of a target, and each survivor."""
    reasons = excused(name)
    last = {key: journal.last[key] for key in keys}
    survived = [key for key in keys if last[key] == "survived"]
    return {
        "mutants": len(keys),
        "killed": sum(outcome in ("killed", "crashed") for outcome in last.values()),
        "timed_out": sum(outcome == "timed out" for outcome in last.values()),
        "survived": len(survived),
        "of_killed_survived_at_first": sum(
            journal.first[key] == "survived" and last[key] != "survived" for key in keys
        ),
        "seconds": round(journal.seconds),
        "equivalent": {key: reasons[key] for key in survived if key in reasons},
        "open": [key for key in survived if key not in reasons],
    }


def load_once(journal: Path) -> None:
    """What every fork needs, and no thread is started by."""
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    os.environ |= {
        "NUMBA_CACHE_DIR": str(journal / "compiled"),
        "GRACL_CACHE": str(journal / "cache"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    numba.config.reload_config()  # type: ignore[no-untyped-call]
    for name in LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a fork that collects its rubbish need not look at, and copy, all of this


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all if none is named")
    parser.add_argument("--sample", type=int, default=200, help="mutants of a target at most")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--again", action="store_true", help="try those that survived once more")
    parser.add_argument("--journal", type=Path, default=Path(tempfile.gettempdir()) / "gracl-mutation")
    options = parser.parse_args()
    load_once(options.journal)
    path = RESULTS / "mutation.json"
    found = json.loads(path.read_text())["modules"] if path.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.targets or TARGETS:
            journal = Journal(options.journal / f"{name}-{options.seed}.jsonl")
            found[name] = try_all(name, options, journal, Path(scratch))
            print(name, {k: v for k, v in found[name].items() if isinstance(v, int)}, flush=True)
            ordered = {target: found[target] for target in TARGETS if target in found}
            save("mutation", {"modules": ordered})


if __name__ == "__main__":
    main()
