"""What the README shows runs as it stands: its commands, its Python, its two commands' recipes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gracl.cli import main
from gracl.config import Config
from gracl.data.synthetic import draw_people

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = "--model.backbone test_resnet --model.weights none --model.size 32 16 --train.epochs 1 " + (
    "--train.steps 2 --method.eps 0.5 --method.min-samples 2 --method.k1 6 --train.threads 1"
)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line.removeprefix("$ ").split("  #")[0].strip() for line in lines if line.startswith("$ ")]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_people("photos", identities=8, test_identities=3, cameras=2, images_per_camera=3)


def test_the_make_commands_exist_and_the_gate_runs_both():
    made = [c for c in commands() if c.startswith("make ")]
    assert made == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    gate = (ROOT / ".ci" / "run").read_text()
    for command in made:
        assert re.search(rf"^{command.removeprefix('make ')}:", makefile, flags=re.MULTILINE)
        assert re.search(rf"^{command}$", gate, flags=re.MULTILINE)
    assert "gracl demo" in makefile


@pytest.mark.filterwarnings("ignore")
def test_the_commands_run(photos, capsys):
    shown = [shlex.split(c) for c in commands() if c.startswith("gracl ")]
    verbs = ["data", "train", "cluster", "evaluate", "train", "profile"]
    assert [words[1] for words in shown] == verbs
    scored = ""
    for words in shown:
        extra = QUICK.split() if words[1] == "train" else []
        with pytest.raises(SystemExit) as ended:
            main(words[1:] + extra)
        printed = capsys.readouterr().out
        # So few images, hardly trained on, may have no sound clusters; then the sweep says so.
        nothing_sound = words[1] == "cluster" and "no eps gives sound clusters" in printed
        assert ended.value.code == (1 if nothing_sound else 0), printed
        scored += printed if words[1] == "evaluate" else ""
    assert "mAP" in scored
    assert "[protocol cross-camera@1, " in scored
    assert Path("runs/photos/model.safetensors").is_file()


@pytest.mark.filterwarnings("ignore")
def test_the_python_runs(photos, monkeypatch):
    quick = Config.load("own-data").replace(
        {
            "model": {"backbone": "test_resnet", "weights": "none", "size": [32, 16]},
            "method": {"eps": 0.5, "min_samples": 2, "k1": 6},
            "train": {"epochs": 1, "steps": 2, "threads": 1},
        }
    )
    monkeypatch.setattr(Config, "load", lambda *_: quick)
    for block in blocks("python"):
        names = {}
        exec(block, names)
        assert names["similarity"].shape == (len(names["dataset"].train),) * 2


def test_every_setting_and_recipe_that_is_named_exists():
    settings = {f"{s}.{k}" for s, values in Config().plain().items() for k in values}
    named = {name.replace("-", "_") for name in re.findall(r"--([a-z]+\.[a-z0-9-]+)", README)}
    assert named
    assert named <= settings
    for recipe in re.findall(r"--recipe ([a-z0-9-]+)", README):
        assert Config.load(recipe)


def test_every_file_that_is_linked_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_no_placeholder_is_left():
    assert not re.search(r"^[A-Z_]+_TABLE$", README, flags=re.MULTILINE)
