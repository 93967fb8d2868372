"""One process at a time writes a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from faulty import without_permission
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.errors import RunError
from gracl.lock import LOCK, held
from gracl.runs import Run, train

HOLD = """
import sys, time
from pathlib import Path
from gracl.lock import held
with held(Path(sys.argv[1]), doing="trained"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_holder_is_named(holder, tmp_path):
    with (
        pytest.raises(
            RunError, match=rf"is being trained by process {holder.pid} of .+, since 20\d\d-"
        ),
        held(tmp_path, doing="trained"),
    ):
        pass


def test_a_killed_process_locks_nobody_out(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).stat().st_size
    with held(tmp_path, doing="trained"):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()


def test_a_lock_ends_with_its_block_and_also_by_an_error(tmp_path):
    with pytest.raises(KeyError), held(tmp_path, doing="trained"):
        raise KeyError
    with held(tmp_path, doing="trained"):
        pass
    assert not (tmp_path / LOCK).exists()


def test_whoever_waits_for_a_lock_that_is_removed_does_not_hold_a_ghost(tmp_path):
    """Many threads of several processes: never two at once."""
    script = """
import sys, time
from pathlib import Path
from gracl.errors import RunError
from gracl.lock import held
folder, inside = Path(sys.argv[1]), Path(sys.argv[1]) / "inside"
end = time.time() + 2
while time.time() < end:
    try:
        with held(folder, doing="trained"):
            inside.touch(exist_ok=False)
            inside.unlink()
    except RunError:
        pass
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_one_process_does_not_hold_a_folder_twice(tmp_path):
    with (
        held(tmp_path, doing="read"),
        pytest.raises(RunError, match="being read by process"),
        held(tmp_path, doing="read"),
    ):
        pass


def test_a_run_that_is_being_trained_is_not_trained_by_another(holder, tmp_path, small_data):
    with pytest.raises(RunError, match=f"process {holder.pid}"):
        train(Config.load("demo"), load_dataset(small_data), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_a_folder_of_something_else_gets_no_lock(tmp_path, small_data):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="not a run"):
        train(Config.load("demo"), load_dataset(small_data), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex"}


def test_a_finished_run_is_returned_as_it_is(small_run, small_data):
    run = train(Run(small_run).config, load_dataset(small_data), small_run)
    assert run.epochs


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        without_permission(tmp_path, lambda: held(tmp_path, doing="trained").__enter__())
