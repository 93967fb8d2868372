"""The roads of the engine that some methods need: parts, a teacher, cameras, true classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gracl import training
from gracl.config import Config, ModelConfig
from gracl.data.readers import load_dataset
from gracl.data.records import codes
from gracl.data.store import open_store
from gracl.data.synthetic import draw_people
from gracl.errors import ConfigError, DataError
from gracl.extraction import extract
from gracl.files import load_model, load_snapshot, save_model, save_snapshot
from gracl.models.embedder import build_embedder

SMALL = Config.load("demo").replace(
    {
        "model": {"backbone": "test_resnet", "size": [64, 32]},
        "sampler": {"clusters_per_batch": 4, "images_per_cluster": 4},
        "method": {"k1": 8, "k2": 3, "eps": 0.7, "min_samples": 2},
        "train": {"epochs": 2, "steps": 2, "batchnorm_group": 8, "threads": 1},
    }
)
LOSSES = {
    "ice": {"agnostic", "hard", "soft"},
    "cap": {"intra", "inter"},
    "pplr": {"refined", "smoothed", "triplet"},
    "supervised": {"softmax", "triplet"},
}
EACH_METHOD = pytest.mark.parametrize("name", LOSSES)


def config_of(name):
    return SMALL.replace({"method": {"name": name}})


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / "drawn"
    draw_people(folder, identities=8, test_identities=2, cameras=2, images_per_camera=3)
    return load_dataset(folder).train


@pytest.fixture
def images(records):
    return open_store(records, size=(64, 32))


def classes_of(records):
    (classes,) = codes("identity", records)
    return classes


def fit(name, images, *, resume=None, model=None, **more):
    """The model of these settings, trained; and all epochs, each with its snapshot."""
    config = config_of(name)
    model = model or training.build_model(config.model, seed=3)
    epochs = training.fit(
        model, images, config, classes=classes_of(images.records), resume=resume, **more
    )
    return model, [(epoch, epoch.snapshot()) for epoch in epochs]


# -- parts ----------------------------------------------------------------------------------------


def test_each_part_is_the_mean_of_its_stripe_through_its_neck():
    model = build_embedder("test_resnet", size=(64, 32), parts=3).eval()
    for p, neck in enumerate(model.part_necks):
        neck.running_mean.fill_(0.1 * p)
        neck.weight.data.fill_(1.0 + p)
    pixels = torch.randint(0, 256, (2, 3, 64, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model(pixels.to(torch.uint8), parts=True)
        maps = model.backbone.forward_features((pixels.float() - model.mean) / model.std)
        assert found.shape == (2, 4, model.dim)
        assert torch.equal(found[:, 0], model(pixels))
        borders = np.cumsum([0, *(len(a) for a in np.array_split(np.arange(maps.shape[2]), 3))])
        for p, neck in enumerate(model.part_necks):
            rows = maps[:, :, borders[p] : borders[p + 1]]
            expected = F.normalize(neck(rows.mean(dim=(2, 3))))
            torch.testing.assert_close(found[:, 1 + p], expected)


def test_tokens_have_no_parts():
    with pytest.raises(ConfigError, match=r"model\.parts is 3, and the backbone's features are tokens"):
        build_embedder("test_vit", size=(160, 160), parts=3)


def test_a_model_with_parts_is_saved_and_loaded(tmp_path):
    config = ModelConfig(backbone="test_resnet", size=(64, 32), parts=3)
    model = training.build_model(config).eval()
    model.part_necks[1].running_mean.normal_(generator=torch.Generator().manual_seed(0))
    save_model(tmp_path / "m.safetensors", model, config)
    again = load_model(tmp_path / "m.safetensors")
    pixels = torch.full((2, 3, 64, 32), 90, dtype=torch.uint8)
    assert torch.equal(model(pixels, parts=True), again(pixels, parts=True))


def test_extraction_gives_the_parts_behind_the_whole(images):
    model = build_embedder("test_resnet", size=(64, 32), parts=3)
    found, plain = extract(model, images, parts=True), extract(model, images)
    assert found.shape == (len(images), 4, model.dim)
    assert torch.equal(found[:, 0], plain)
    assert not torch.equal(found[:, 1], found[:, 3])


def test_a_network_without_weights_knows_the_statistics_of_its_parts_too(images):
    config = config_of("pplr")
    model = training.build_model(config.model)
    training.initialise(model, images, config)
    for neck in (model.neck, *model.part_necks):
        assert neck.num_batches_tracked == training.CALIBRATION_GROUPS
        assert neck.running_mean.abs().min() > 0


# -- training by each method ----------------------------------------------------------------------


@EACH_METHOD
def test_a_method_trains(name, images):
    _, epochs = fit(name, images)
    assert [epoch.number for epoch, _ in epochs] == [1, 2]
    for epoch, _ in epochs:
        assert epoch.losses.keys() == LOSSES[name] | {"total"}
        assert all(np.isfinite(value) for value in epoch.losses.values())
    if name == "supervised":
        assert np.array_equal(epochs[0][0].labels, classes_of(images.records))


def test_a_classifier_rests_where_the_schedule_lets_the_rate_fall_to_nothing(images):
    over = {"train": {"decay_factor": 0.0, "decay_every": 1}}
    config = config_of("supervised").replace(over)
    model = training.build_model(config.model)
    epochs = training.fit(model, images, config, classes=classes_of(images.records))
    first, second = (epoch.snapshot().state["method"]["rows"] for epoch in epochs)
    assert torch.equal(first, second)


@EACH_METHOD
def test_a_run_that_is_continued_ends_the_same(name, images, tmp_path):
    whole, epochs = fit(name, images)
    save_snapshot(tmp_path / "s.safetensors", epochs[0][1])
    snapshot = load_snapshot(tmp_path / "s.safetensors")
    assert bool(snapshot.state.get("method")) == (name == "supervised")
    assert ("teacher" in snapshot.state) == (name == "ice")
    continued, later = fit(name, images, resume=snapshot)
    assert [epoch.number for epoch, _ in later] == [2]
    assert later[0][0].losses == epochs[1][0].losses
    for (key, a), b in zip(whole.state_dict().items(), continued.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ice", {"train": {"ema": 0.0}}, r"ice needs a teacher\. Set train\.ema to 0\.999"),
        ("pplr", {"model": {"parts": 0}}, r"pplr needs features of parts\. Set model\.parts to 3"),
    ],
)
def test_settings_without_what_a_method_needs_are_refused(name, settings, words, images):
    config = config_of(name).replace(settings)
    with pytest.raises(ConfigError, match=words):
        next(training.fit(training.build_model(config.model), images, config))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cap", "cap needs the camera of each image, and none is known.*column camera"),
        ("supervised", "supervised needs the true identity .*none is known.*column identity"),
    ],
)
def test_images_without_what_a_method_needs_are_refused(name, words):
    config = config_of(name)
    known = training.Known(classes=np.full(5, -1))
    needs = training.METHODS[name].needs
    with pytest.raises(DataError, match=words):
        training.require_needs(needs, known, config)
