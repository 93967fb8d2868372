import json

import pytest
import torch

from gracl.cli import main
from gracl.errors import RunError
from gracl.profiling import profile_run
from gracl.runs import Run
from gracl.stopwatch import Stopwatch, peak_memory

LOG = [
    {
        "event": "start",
        "seconds": {"decode": 4.0, "evaluate": 1.0},
        "device": "cpu",
        "processes": 2,
    },
    *(
        {
            "event": "epoch",
            "epoch": number,
            "seconds": {"extract": 2.0, "search": 0.5, "train": 10.0 * number},
            "images_per_second": {"extract": 50.0 + number, "train": 30.0 / number},
            "peak_memory": {"host": number * 2**30},
        }
        for number in (1, 2, 3)
    ),
    {"event": "end", "seconds": {"evaluate": 2.0}},
]


def write_run(folder, log):
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return Run(folder)


def test_stages_add_up(tmp_path):
    found = profile_run(write_run(tmp_path, LOG))
    expected = {"decode": 4, "evaluate": 3, "extract": 6, "search": 1.5, "train": 60}
    assert found.seconds == expected
    assert found.total == sum(expected.values())
    assert found.images_per_second == {"extract": 52, "train": 15}
    assert (found.epochs, found.processes, found.peak_memory) == (3, 2, {"host": 3 * 2**30})


def test_a_run_going_on_is_read_too(tmp_path):
    found = profile_run(write_run(tmp_path, LOG[:2]))
    assert (found.epochs, found.seconds["evaluate"]) == (1, 1)


def test_nothing_to_read_yet_is_said(tmp_path):
    with pytest.raises(RunError, match="no epoch"):
        profile_run(write_run(tmp_path, LOG[:1]))


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
    write_run(tmp_path, LOG)
    with pytest.raises(SystemExit):
        main(["profile", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "3 epochs in 74 s" in printed
    assert "80.5%" in printed
    assert "2 processes" in printed
    with pytest.raises(SystemExit):
        main(["profile", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["seconds"]["train"] == 60


def test_a_watch_adds_up_stages_of_one_name():
    watch = Stopwatch(torch.device("cpu"))
    for stage in ("a", "b", "a"):
        with watch(stage):
            sum(range(1000))
    assert list(watch.seconds) == ["a", "b"]
    assert all(seconds > 0 for seconds in watch.seconds.values())


def test_peak_memory_never_falls_and_sees_a_large_tensor():
    before = peak_memory(torch.device("cpu"))["host"]
    torch.ones(before // 4 + 2**24)  # of float32: as much again
    assert peak_memory(torch.device("cpu"))["host"] >= before + 2**25
