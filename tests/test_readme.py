"""What the README shows runs as it stands: its commands, its Python, its two commands' recipes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from conftest import save_image
from gracl.cli import main
from gracl.config import Config
from gracl.data.synthetic import draw_people
from gracl.export import ONNX_TORCH

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = "--model.backbone test_resnet --model.weights none --model.size 32 16 --train.epochs 1 " + (
    "--train.steps 2 --method.eps 0.5 --method.min-samples 2 --method.k1 6 --train.threads 1"
)

TOO_OLD = "cannot write ONNX; expected 2.7 or newer"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line.removeprefix("$ ").split("  #")[0].strip() for line in lines if line.startswith("$ ")]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_people("photos", identities=8, test_identities=40, cameras=2, images_per_camera=3)
    for n in range(3):
        save_image(tmp_path / "new" / f"{n}.png", n, size=(48, 24))


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
def test_the_commands_run(photos, capsys, monkeypatch):
    served = []
    monkeypatch.setattr("gracl.web.serving.serve", lambda app, **_: served.append(app.title))
    shown = [shlex.split(c) for c in commands() if c.startswith("gracl ")]
    verbs = ["data", "train", "cluster", "evaluate", "report", "review", "train"]
    verbs += ["gallery", "calibrate", "gallery", "serve", "embed", "export"]
    verbs += ["compare", "ablate", "train", "profile"]
    assert [words[1] for words in shown] == verbs
    scored = ""
    for words in shown:
        extra = QUICK.split() if words[1] in ("train", "compare", "ablate") else []
        with pytest.raises(SystemExit) as ended:
            main(words[1:] + extra)
        printed, refused = capsys.readouterr()
        # So few images, hardly trained on, may have no sound clusters; then the sweep says so.
        nothing_sound = words[1] == "cluster" and "no eps gives sound clusters" in printed
        too_old = words[1] == "export" and torch.__version__ < ONNX_TORCH and TOO_OLD in refused
        expected = 1 if nothing_sound else 2 if too_old else 0
        assert ended.value.code == expected, (printed, refused)
        scored += printed if words[1] == "evaluate" else ""
    assert "mAP" in scored
    assert "[protocol cross-camera@1, " in scored
    assert Path("runs/photos/model.safetensors").is_file()
    assert Path("runs/photos-2/model.safetensors").is_file()
    assert len(served) == 2


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


def test_the_python_of_the_page_on_data_sets_runs(tmp_path, monkeypatch):
    """On miniature data of each kind, under the names that the page gives them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for n in range(3):
        save_image(tmp_path / "photos" / f"{n}.jpg", n, size=(40, 30))
        save_image(tmp_path / "herd" / "lynx" / f"{n}.jpg", n)
    herd = [{"path": f"lynx/{n}.jpg", "identity": f"lynx{n % 2}"} for n in range(3)]
    lines = ["path,identity", *(",".join(row.values()) for row in herd)]
    (tmp_path / "herd" / "metadata.csv").write_text("\n".join(lines) + "\n")
    root = tmp_path / "data" / "MSMT17_V2"
    for split, folder in (("train", "train"), ("query", "test"), ("gallery", "test")):
        name = f"0000/0000_00{len(split)}_01_0303morning_0015_0.jpg"
        save_image(root / f"mask_{folder}_v2" / name, len(split))
        (root / f"list_{split}.txt").write_text(f"{name} 0\n")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 12]}
    boxes = {
        "images": [{"id": 1, "file_name": "0.jpg", "width": 30, "height": 40}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "lynx"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    detection = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.5, 0.5]}
    found = {
        "info": {"format_version": "1.3"},
        "detection_categories": {"1": "animal"},
        "images": [{"file": "0.jpg", "detections": [detection]}],
    }
    (tmp_path / "found.json").write_text(json.dumps(found))
    names = {"table": herd}
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(re.sub(r"(?m)^(gracl\.)", r"_ = \1", block), names)
        found.append(names["_"].layout)
    assert found == ["msmt17-v2-train", "dataframe", "coco", "megadetector", "huggingface"]


@pytest.mark.filterwarnings("ignore")
def test_the_method_of_the_page_on_methods_trains(photos, monkeypatch):
    from gracl.methods import METHODS

    monkeypatch.setitem(METHODS, "medoid", None)  # taken back afterwards
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    quick = {
        "model": {"backbone": "test_resnet", "weights": "none", "size": [32, 16]},
        "method": {"min_samples": 2, "k1": 6},
        "train": {"epochs": 2, "steps": 2, "threads": 1},
    }
    monkeypatch.setattr(Config, "load", lambda *_: Config().replace(quick))
    names = {}
    exec(block, names)
    assert names["config"].method.name == "medoid"
    assert "medoid" in names["run"].epochs[-1]["losses"]


def test_the_page_on_methods_names_each_of_them():
    from gracl.methods import METHODS

    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[`([a-z-]+)`\]\(\.\./(src[^)]+)\)", page, flags=re.MULTILINE)
    assert [name for name, _ in named] == [*METHODS]
    assert all((ROOT / path).is_file() for _, path in named)
