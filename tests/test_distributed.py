"""Any number of processes, the same result; one that dies ends them all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from gracl import distributed
from gracl.config import Config
from gracl.data.synthetic import draw_people
from gracl.runs import Run

SETTINGS = Config.load("demo").replace(
    {
        "model": {"backbone": "test_resnet"},
        "sampler": {"clusters_per_batch": 6, "images_per_cluster": 4},
        "method": {"k1": 8, "k2": 3, "eps": 0.7, "min_samples": 2},
        "train": {
            "epochs": 3,
            "steps": 4,
            "batchnorm_group": 6,
            "extract_batch": 16,
            "threads": 1,
            "memory": 0.001,
        },
    }
)
ALONE = [sys.executable, "-m", "gracl"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / "drawn"
    return draw_people(folder, identities=12, test_identities=5, cameras=2, images_per_camera=4)


def torchrun(n):
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n)]


def train_command(people, out, config=SETTINGS):
    settings = out.with_suffix(".yaml")
    settings.write_text(config.to_yaml())
    return ["train", str(people), "--out", str(out), "--settings", str(settings)]


def start(command):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def run(command):
    process = start(command)
    output = process.communicate(timeout=300)[0]
    return process.returncode, output


def learnt(folder):
    """All that a run has learnt: weights, labels, losses."""
    found = Run(folder)
    return load_file(folder / "model.safetensors"), found.labels, [e["losses"] for e in found.epochs]


def assert_same(folder, other):
    (weights, labels, losses), (w, y, ls) = learnt(folder), learnt(other)
    assert labels == y
    assert losses == ls
    assert [name for name in weights if not torch.equal(weights[name], w[name])] == []


# -- a process that is alone ----------------------------------------------------------------------


def test_alone_everything_is_ones_own():
    rows = torch.arange(6.0)
    with distributed.processes():
        assert (distributed.rank(), distributed.size()) == (0, 1)
        ends = distributed.split([0, 4, 6])
        assert ends == [0, 6]
        assert distributed.gather(rows, ends) is rows
        assert distributed.of_first(rows) is rows
        assert distributed.from_first(lambda: 3) == 3
        distributed.require_same("rows", [rows])
        distributed.meet()


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize("terms", range(1, 20))
def test_shares_are_added_to_the_same_digits_as_all_terms_alone(monkeypatch, terms, processes):
    values = torch.randn(terms, 50, generator=torch.Generator().manual_seed(terms))

    def term(i):
        return [values[i].clone()]

    (whole,) = distributed.add_in_halves(0, terms, term)
    monkeypatch.setattr(distributed, "size", lambda: processes)
    ends = distributed.split(range(terms + 1))

    def of_process(r):
        if ends[r] == ends[r + 1]:
            return [torch.zeros(50)]
        return distributed.add_in_halves(ends[r], ends[r + 1], term)

    (found,) = distributed.add_in_halves(0, processes, of_process)
    assert torch.equal(found, whole)
    torch.testing.assert_close(whole, values.sum(dim=0))


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_are_whole_pieces_as_equal_as_can_be(monkeypatch, processes):
    monkeypatch.setattr(distributed, "size", lambda: processes)
    borders = [0, 3, 6, 9, 12, 14]
    ends = distributed.split(borders)
    assert set(ends) <= set(borders)
    assert (ends[0], ends[-1]) == (0, 14)
    pieces = [borders.index(b) - borders.index(a) for a, b in pairwise(ends)]
    assert max(pieces) - min(pieces) <= 1


# -- several --------------------------------------------------------------------------------------

EXCHANGE = """
import torch
from gracl import distributed, neighbors
from gracl.errors import DataError, OutOfStep

with distributed.processes():
    rank, size = distributed.rank(), distributed.size()
    assert size == 3
    # shares of unequal size, one of them empty
    for borders in ([0, 5, 6], [0, 2, 4, 9, 10], [0, 4]):
        rows = torch.arange(borders[-1] * 2.0).view(-1, 2)
        ends = distributed.split(borders)
        part = rows[ends[rank] : ends[rank + 1]]
        assert torch.equal(distributed.gather(part, ends), rows)
    tensors = [torch.full((2, 3), float(rank)), torch.tensor([1.0]), torch.randn(4).float()]
    mine = tensors[2].clone()
    distributed.add_up(tensors)
    assert torch.equal(tensors[0], torch.full((2, 3), 3.0))
    assert tensors[1].tolist() == [3.0]
    assert torch.equal(distributed.of_first(tensors[2].clone()), tensors[2])
    assert distributed.of_first(torch.tensor([rank + 5])).tolist() == [5]
    assert distributed.from_first(lambda: rank) == 0

    def refuse():
        assert rank == 0
        raise DataError("not here")

    try:
        distributed.from_first(refuse)
    except DataError as error:
        assert str(error) == "not here"
    else:
        raise AssertionError
    distributed.require_same("rows", [torch.ones(3), torch.arange(4)])
    try:
        distributed.require_same("rows", [torch.full((3,), 1.0 + (rank == 2))])
    except OutOfStep as error:
        assert "rows of process 2 differ from those of process 0" in str(error)
    else:
        raise AssertionError

    features = torch.nn.functional.normalize(
        torch.randn(101, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    found = neighbors.search(features, 5, memory=4 * 101 * 10, farthest=True)
    half = neighbors.search(features, 5, algorithm="half", memory=4 * 101 * 10)
alone = neighbors.search(features, 5, memory=4 * 101 * 10, farthest=True)
assert distributed.size() == 1
assert torch.equal(found.indices, alone.indices) and torch.equal(found.indices, half.indices)
assert torch.equal(found.similarities, alone.similarities)
assert torch.equal(found.farthest, alone.farthest)
print(f"done {rank}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_three_processes_exchange_what_they_have(tmp_path):
    script = tmp_path / "exchange.py"
    script.write_text(EXCHANGE)
    code, output = run([*torchrun(3), str(script)])
    assert code == 0, output
    assert sorted(re.findall(r"done (\d)", output)) == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "settings"),
    [
        (2, {}),
        (2, {"train": {"ema": 0.9, "schedule": "cosine", "warmup": 1.0, "clip": 1.0}}),
        (4, {"sampler": {"clusters_per_batch": 3}}),  # two groups: two processes have none
    ],
)
def test_the_number_of_processes_does_not_change_a_digit(people, tmp_path, n, settings):
    config = SETTINGS.replace(settings)
    for name, launcher in (("one", ALONE), ("many", [*torchrun(n), "-m", "gracl"])):
        code, output = run([*launcher, *train_command(people, tmp_path / name, config)])
        assert code == 0, output
    assert_same(tmp_path / "one", tmp_path / "many")
    start_line = Run(tmp_path / "many").log[0]
    assert start_line["processes"] == n
    assert Run(tmp_path / "many").after == Run(tmp_path / "one").after


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run_and_any_number_continues_it(people, tmp_path, victim):
    config = SETTINGS.replace({"train": {"epochs": 40}})
    process = start([*torchrun(2), "-m", "gracl", *train_command(people, tmp_path / "run", config)])
    for _ in range(600):
        if (tmp_path / "run" / "checkpoint.safetensors").is_file():
            break
        time.sleep(0.1)
    workers = [p for p in psutil.Process(process.pid).children() if p.environ().get("RANK")]
    (doomed,) = [p for p in workers if p.environ()["RANK"] == str(victim)]
    doomed.send_signal(signal.SIGKILL)
    died = time.monotonic()
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0, output
    assert "SIGKILL" in output or "-9" in output
    assert time.monotonic() - died < 60
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in workers)

    done = len(Run(tmp_path / "run").epochs)
    assert 1 <= done < 40
    for name in ("run", "whole"):
        shorter = SETTINGS.replace({"train": {"epochs": done + 1}})
        code, output = run([*ALONE, *train_command(people, tmp_path / name, shorter)])
        assert code == 0, output
    assert_same(tmp_path / "run", tmp_path / "whole")


DRIFT = """
import sys
import torch
from gracl.cli import main
from gracl.methods.gracl import GRACL

original = GRACL.update

def drifting(self, batch):
    original(self, batch)
    if torch.distributed.get_rank() == 1:
        self.banks["inter"][0, 0] += 1e-7

GRACL.update = drifting
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_processes_that_drift_apart_are_stopped(people, tmp_path):
    script = tmp_path / "drift.py"
    script.write_text(DRIFT)
    code, output = run([*torchrun(2), str(script), *train_command(people, tmp_path / "run")])
    assert code != 0
    assert "weights and memory of process 1 differ from those of process 0" in output
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


LET_GO = """
import importlib
from pathlib import Path

from gracl import distributed

def threads():
    return [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]

with distributed.processes():
    importlib.import_module("torch._dynamo")
    distributed.meet()
    print("during", *threads())
print("after", *threads())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's list of threads")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that did, and had a tensor to let go of, aborted the process after all was done."""
    (tmp_path / "script.py").write_text(LET_GO)
    code, output = run([*torchrun(1), str(tmp_path / "script.py")])
    assert code == 0, output
    during, after = output.splitlines()
    assert "pt_gloo_runloop" in during
    assert "gloo" not in after


@pytest.mark.slow
def test_what_stops_all_processes_is_said_once(people, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("do not lose me")
    code, output = run([*torchrun(2), "-m", "gracl", *train_command(people, tmp_path / "taken")])
    assert code != 0
    assert output.count("exists and is not a run") == 1, output
    assert [p.name for p in (tmp_path / "taken").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_only_training_shares_its_work(tmp_path):
    command = ["data", "draw", str(tmp_path / "x")]
    code, output = run([*torchrun(2), "-m", "gracl", *command])
    assert code != 0
    assert "without torchrun" in output
    assert not (tmp_path / "x").exists()
