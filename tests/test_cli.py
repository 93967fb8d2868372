"""The command line: quick to start, one line an error, and an exit code that says what happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import random_image, save_image
from gracl import cli
from gracl.commands import train as commands_train
from gracl.data import synthetic
from gracl.data.readers import load_dataset


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def in_new_process(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)


COMMANDS = {
    "": ["demo", "train", "cluster", "evaluate", "profile", "data"],
    "demo": ["--identities", "--out", "--train.epochs"],
    "train": ["--recipe", "--settings", "--method.eps", "own-data"],
    "evaluate": ["run's folder", "--protocol", "--open-set", "--json"],
    "export": ["run's folder", "OUT", "--format", "--layout", "--resize", "--half"],
    "profile": ["run's folder", "--json"],
    "data": ["check", "convert", "split", "draw"],
    "data check": ["as it was unpacked", "--layout", "--json"],
    "data convert": ["OUT", "--size", "--image-format"],
    "data split": ["--by", "--test-share", "--cutoff"],
    "data draw": ["new folder", "--identities", "--seed"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_names_what_it_takes(command: str) -> None:
    done = in_new_process("-m", "gracl", *command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in COMMANDS[command]:
        assert word in done.stdout


def test_import_and_help_load_nothing_heavy() -> None:
    script = """
import sys
import gracl, gracl.cli
try:
    gracl.cli.main(["train", "--help"])
except SystemExit:
    heavy = {"torch", "timm", "torchvision", "scipy", "sklearn", "numba", "numpy", "PIL"}
    print("heavy:", sorted(heavy & sys.modules.keys()))
"""
    done = in_new_process("-c", script)
    assert done.stdout.endswith("heavy: []\n"), done.stderr


def test_import_of_a_public_name_loads_it_on_first_use() -> None:
    script = (
        "import sys, gracl; a = 'torch' in sys.modules; gracl.extract; print(a, 'torch' in sys.modules)"
    )
    assert in_new_process("-c", script).stdout == "False True\n"


@pytest.mark.parametrize("words", [(), ("data",), ("trian", "x"), ("data", "check"), ("train",)])
def test_incomplete_command_exits_with_2(words: tuple[str, ...]) -> None:
    assert run(*words) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trian", "x"), "no command 'trian'; did you mean 'train'? Known: ablate, associate"),
        (("gallery", "serach", "x"), "no command 'gallery serach'; did you mean 'search'? Known: add,"),
        (("data", "check", "gone"), "gone does not exist."),
        (("train", "gone"), "gone does not exist."),
        (("train", "x", "--recipe", "markt1501"), "no recipe 'markt1501'; did you mean 'market1501'?"),
        (("train", "x", "--recipe=markt1501"), "no recipe 'markt1501'; did you mean 'market1501'?"),
        (("train", "x", "--settings", "gone.yaml"), "--settings gone.yaml: there is no such file"),
        (("demo", "--identities", "3"), "identities is 3; expected at least 8"),
        (("data", "draw", "new", "--cameras", "0"), "cameras is 0; expected 1 or more"),
        (("data", "draw", "."), "holds 1 entries"),
        (
            ("evaluate", "photos", "photos"),
            "photos is no model: it has no model.safetensors, which a run writes",
        ),
    ],
)
def test_error_is_one_line_that_says_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    save_image(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method.eps", "5"), "eps is 5.0; it must be in [0.0, 1.0]"),
        (("--method.epss", "0.5"), "--method.eps"),
        (("--method.update", "hard"), "'criterion', 'each', 'mean', 'sample', 'none'"),
    ],
)
def test_wrong_setting_on_the_command_line_names_the_right_one(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert run("train", "photos", *words) == 2
    captured = capsys.readouterr()
    words_only = " ".join((captured.out + captured.err).replace("│", " ").split())
    assert said in words_only


def test_a_mistyped_option_is_compared_with_those_of_its_command_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("gallery", "search", "a.gallery", "x.jpg", "--treshold", "0.4") == 2
    said = capsys.readouterr().err
    assert "--threshold" in said
    assert "gracl gallery search --help" in said
    assert not any(f"gracl {other} --help" in said for other in ("associate", "evaluate"))


def test_names_with_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", "[bold]gone[/]") == 2
    assert "[bold]gone[/] does not exist" in capsys.readouterr().err


def test_stop_by_the_user_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(command: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.ACTIONS, cli.Train, stop)
    assert run("train", "photos") == 130
    assert capsys.readouterr().err.startswith("stopped; a training continues")


def test_drawn_set_passes_its_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--identities", 2, "--test-identities", 2, "--cameras", 2, "--images-per-camera", 2]
    assert run("data", "draw", tmp_path / "people", *sizes) == 0
    assert str(tmp_path / "people") in capsys.readouterr().out
    assert run("data", "check", tmp_path / "people") == 0
    out = capsys.readouterr().out
    assert "cross-camera (4 queries)" in out
    assert "0 problems; usable" in out


def test_python_dash_m_is_the_command(tmp_path: Path) -> None:
    done = in_new_process("-m", "gracl", "data", "check", str(tmp_path / "gone"))
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'gone'} does not exist.\n"


def test_run_is_named_after_data_and_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(commands_train, "_train", lambda *arguments: asked.append(arguments))
    save_image(tmp_path / "herd" / "a.png")
    assert run("train", tmp_path / "herd", "--recipe", "veri776") == 0
    assert run("train", tmp_path / "herd", "--out", tmp_path / "mine") == 0
    assert [out for _, _, out, _ in asked] == [Path("runs/herd-veri776"), tmp_path / "mine"]


def test_demo_begins_a_drawing_again_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_people, trained_on = synthetic.draw_people, []

    def interrupted(folder: Path, **_: object) -> None:
        save_image(folder / "images" / "000000.jpg")
        raise KeyboardInterrupt

    def small(folder: Path, **_: object) -> Path:
        return draw_people(folder, identities=2, test_identities=2, cameras=2, size=(32, 16))

    def train(config: object, dataset: Any, out: Path) -> SimpleNamespace:
        trained_on.append(dataset)
        return SimpleNamespace(model=None)

    monkeypatch.setattr(commands_train, "_train", train)
    monkeypatch.setattr("gracl.pictures.draw_rank_list", lambda *_, **__: random_image())
    monkeypatch.setattr(synthetic, "draw_people", interrupted)
    assert run("demo", "--out", tmp_path) == 130
    monkeypatch.setattr(synthetic, "draw_people", small)
    assert run("demo", "--out", tmp_path) == 0
    assert trained_on[0] == load_dataset(trained_on[0].root)
    assert len(trained_on[0].train) == 2 * 2 * 4
    monkeypatch.setattr(synthetic, "draw_people", interrupted)
    assert run("demo", "--out", tmp_path) == 0  # a finished drawing is used again


def test_a_data_set_is_converted_and_split_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for identity in "abcd":
        for n in range(3):
            save_image(tmp_path / "herd" / identity / f"{n}.png", 10 * ord(identity) + n)
    assert run("data", "convert", tmp_path / "herd", tmp_path / "plain", "--image-format", "png") == 0
    plain = load_dataset(tmp_path / "plain")
    assert (plain.layout, len(plain.train)) == ("csv", 12)
    assert sorted(plain.train.values("identity")) == sorted("abcd" * 3)
    out = tmp_path / "split.csv"
    assert run("data", "split", tmp_path / "plain", "--out", out, "--queries") == 0
    assert "6 train, 2 query, 4 gallery" in capsys.readouterr().out
    divided = load_dataset(out)
    assert not set(divided.train.values("identity")) & set(divided.query.values("identity"))
    assert run("data", "split", tmp_path / "plain", "--out", out, "--cutoff", "2024-01-01") == 2
    assert "belong to --by date" in capsys.readouterr().err


def test_a_data_set_can_be_read_in_the_way_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("bounding_box_train", "query", "bounding_box_test"):
        save_image(tmp_path / split / "0007_c2_a.png", len(split))
    assert run("data", "check", tmp_path) == 0
    assert "read as market-style" in capsys.readouterr().out
    assert run("data", "check", tmp_path, "--layout", "market1501") == 0
    assert "read as market1501" in capsys.readouterr().out
    assert run("data", "check", tmp_path, "--layout", "folder") == 2
    assert "beside query/" in capsys.readouterr().err.replace("\n", " ")
    assert run("data", "check", tmp_path, "--layout", "market1502") == 2
    assert "did you mean 'market1501'" in capsys.readouterr().err
