"""A finished run to review, made without training: drawn images, and features that tell who it is."""

from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image

from gracl.config import Config
from gracl.continuation import fingerprint_of
from gracl.data.readers import load_dataset
from gracl.data.store import open_store
from gracl.data.synthetic import draw_person
from gracl.features import Features, no_features, write_features
from gracl.files import append, save_model, write_labels
from gracl.runs import Run
from gracl.study import FEATURES
from gracl.training import build_model

DIM = 96  # of test_resnet
SETTINGS = {
    "model": {"backbone": "test_resnet", "size": [64, 32], "weights": "none"},
    "train": {"epochs": 1, "steps": 1, "threads": 1},
}


def write_run(
    folder, *, people, images, size=(64, 32), cameras=3, seed=0, faults=True, spread=0.5, draw=None
):
    """A run's folder as `gracl.train` leaves it, with its images beside it.

    Cluster p holds the images of person p, but for faults: the last tenth of the people are in two
    clusters each, every 20th image is in the cluster of the next person, and every 25th in none.

    Args:
        folder: made; `run` and `photos` are written below it.
        people, images: how many, and images of each.
        size: (height, width) of the images.
        cameras: images go round them.
        seed: another one, other people.
        faults: whether there are any.
        spread: of features around those of their person, whose length is 1.
        draw: (person, shot) -> (H, W, 3) of uint8; people of `draw_person` if not given.

    Returns:
        The run's folder.
    """
    photos = folder / "photos"
    (photos / "images").mkdir(parents=True)
    rows = ["path,camera,date"]
    for person in range(people):
        for shot in range(images):
            name, camera = f"images/p{person:04d}-{shot:03d}.jpg", shot % cameras
            pixels = (
                draw(person, shot)
                if draw is not None
                else draw_person(person, camera=camera, shot=shot, size=size, nuisance=0.7, seed=seed)
            )
            Image.fromarray(pixels).save(photos / name, quality=90)
            rows.append(f"{name},c{camera},2026-05-{1 + shot % 28:02d}")
    (photos / "metadata.csv").write_text("\n".join(rows) + "\n")

    config, run = Config.load("demo").replace(SETTINGS), folder / "run"
    dataset = load_dataset(photos)
    store = open_store(dataset.train.unlabelled(), size=config.model.size)
    order = np.array([int(r.path.stem[1:5]) * images + int(r.path.stem[6:]) for r in store.records])
    run.mkdir()
    (run / "config.yaml").write_text(config.to_yaml())
    about = {
        "name": dataset.name,
        "root": str(dataset.root),
        "layout": dataset.layout,
        "given": list(dataset.given),
        "images": len(store),
        "left_out": [],
        "fingerprint": fingerprint_of(dataset.root, store),
    }
    (run / "data.json").write_text(json.dumps(about))
    append(
        run / "log.jsonl",
        {"event": "end", "seconds": {}, "after": {"clusters": {"n_clusters": people}}},
    )
    model = build_model(config.model, seed=seed)
    save_model(run / "model.safetensors", model, config.model)
    write_labels(run / "labels.csv", store.records, labels_of(people, images, faults)[order])
    whose = no_features(model)
    features = torch.from_numpy(features_of(people, images, spread, seed)[order])
    found = Features(
        features, store.records, whose.fingerprint, whose.backbone, whose.size, whose.version
    )
    write_features(run / FEATURES, found)
    return Run(run).folder


def labels_of(people, images, faults):
    """(people * images,) clusters, person after person."""
    labels = np.repeat(np.arange(people), images)
    if faults:
        rows = np.arange(len(labels))
        split = (labels >= people - people // 10) & (rows % images >= images // 2)
        labels[split] += people // 10
        labels[rows % 20 == 7] = (labels[rows % 20 == 7] + 1) % people
        labels[rows % 25 == 11] = -1
    return np.unique(labels, return_inverse=True)[1] - int((labels == -1).any())


def features_of(people, images, spread, seed):
    """(people * images, DIM) unit rows around one direction for each person."""
    random = np.random.default_rng(seed)
    whose = random.normal(size=(people, DIM))
    whose /= np.linalg.norm(whose, axis=1, keepdims=True)
    noise = random.normal(size=(people * images, DIM)) * spread / np.sqrt(DIM)
    features = np.repeat(whose, images, axis=0) + noise
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
