"""Every method learns the same, to the digit, on one process and on two."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load_file

from gracl.config import Config
from gracl.data.synthetic import draw_people
from gracl.methods import METHODS
from test_distributed import run, torchrun

SETTINGS = Config.load("demo").replace(
    {
        "model": {"backbone": "test_resnet", "size": [64, 32]},
        "sampler": {"clusters_per_batch": 6, "images_per_cluster": 4},
        "method": {"k1": 8, "k2": 3, "eps": 0.7, "min_samples": 2},
        "train": {
            "epochs": 2,
            "steps": 3,
            "batchnorm_group": 6,
            "extract_batch": 16,
            "threads": 1,
            "memory": 0.001,
            "device": "cpu",
        },
    }
)
EPOCHS = SETTINGS.train.epochs

ALL = """
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from gracl import distributed, training
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.data.records import codes
from gracl.data.store import open_store
from gracl.methods import METHODS

_, settings, data, out = sys.argv
made = []
build = training.build_method
training.build_method = lambda *given: made.append(build(*given)) or made[-1]

def learn(name, images, classes):
    config = Config.load(settings).replace({"method": {"name": name}})
    model = training.build_model(config.model, seed=3)
    found = {}
    for epoch in training.fit(model, images, config, classes=classes):
        found[f"labels {epoch.number}"] = torch.from_numpy(epoch.labels)
        found[f"loss {epoch.number}"] = torch.tensor(epoch.losses["total"], dtype=torch.float64)
        parts = {**epoch.snapshot().state, "bank": made[-1].banks}
        for part, tensors in parts.items():
            for key, value in tensors.items():
                found[f"{part} {key} {epoch.number}"] = value.detach().clone().contiguous()
    return found

with distributed.processes():
    training.use_threads(1)
    records = load_dataset(Path(data)).train
    with distributed.first_of_machine_first():
        images = open_store(records, size=(64, 32))
    (classes,) = codes("identity", images.records)
    for name in METHODS:
        found = learn(name, images, classes)
        save_file(found, f"{out}-{name}-{distributed.rank()}.safetensors")
    distributed.meet()
"""


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """Where each process left what it learnt by each method: "one" alone, "two" with another."""
    folder = tmp_path_factory.mktemp("methods")
    draw_people(folder / "people", identities=12, test_identities=2, cameras=2, images_per_camera=4)
    (folder / "all.py").write_text(ALL)
    (folder / "settings.yaml").write_text(SETTINGS.to_yaml())
    for name, launcher in (("one", [sys.executable]), ("two", torchrun(2))):
        given = [folder / "all.py", folder / "settings.yaml", folder / "people", folder / name]
        code, output = run([*launcher, *map(str, given)])
        assert code == 0, output
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_learn_what_one_does(name, learnt):
    alone = load_file(learnt / f"one-{name}-0.safetensors")
    assert {f"labels {EPOCHS}", f"loss {EPOCHS}"} < alone.keys()
    for part in ("model", "optimizer", "bank"):
        assert any(key.startswith(part) for key in alone)
    for process in (0, 1):
        found = load_file(learnt / f"two-{name}-{process}.safetensors")
        assert found.keys() == alone.keys()
        assert [key for key in alone if not torch.equal(alone[key], found[key])] == []
