"""Activation maps, against a loop over cells and channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gracl.activation import activation_maps, grid_of, last_features
from gracl.errors import ShapeError
from gracl.models.embedder import build_embedder

KINDS = {"test_resnet": (4, 2), "test_convnext": (4, 2), "test_vit": (4, 2), "test_vit3": (4, 2)}


def model_of(backbone, size=(64, 32)):
    torch.manual_seed(0)
    return build_embedder(backbone, size=size, last_stride=2).eval()


def pixels(count=2, size=(64, 32)):
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 3, *size), np.uint8))


def by_hand(model, images):
    """(B, h, w) from the definition, one cell after the other, before resizing."""
    model.backbone.norm = torch.nn.Identity()  # timm's own forward, without the norm of transformers
    with torch.no_grad():
        features = model.backbone.forward_features((images.float() - model.mean) / model.std)
    order, prefix = model.layout.order, model.layout.prefix
    height, width = grid_of(model, features)
    found = np.zeros((len(images), height, width))
    for b in range(len(images)):
        for y in range(height):
            for x in range(width):
                if order == "maps":
                    channels = features[b, :, y, x]
                elif order == "channels-last":
                    channels = features[b, y, x]
                else:
                    channels = features[b, prefix + y * width + x]
                found[b, y, x] = sum(float(value) ** 2 for value in channels) / len(channels)
    return found


@pytest.mark.parametrize("backbone", KINDS)
def test_a_map_is_the_mean_of_squares_resized_and_spread(backbone):
    model, images = model_of(backbone), pixels()
    found = activation_maps(model, images)
    assert found.mean() > 0.05
    for strength, seen in zip(by_hand(model, images), found, strict=True):
        large = torch.nn.functional.interpolate(
            torch.tensor(strength)[None, None], size=(64, 32), mode="bilinear"
        )[0, 0]
        expected = (large - large.min()) / (large.max() - large.min())
        assert torch.allclose(seen.double(), expected, atol=1e-4)


def test_each_map_reaches_from_nothing_to_one():
    found = activation_maps(model_of("test_resnet"), pixels(3))
    assert found.shape == (3, 64, 32)
    assert found.amin(dim=(1, 2)).tolist() == [0, 0, 0]
    assert found.amax(dim=(1, 2)).tolist() == [1, 1, 1]


def test_a_strong_corner_shows_in_its_corner():
    class Corner(torch.nn.Module):
        def forward_features(self, images):
            features = torch.zeros(len(images), 5, 4, 2)
            features[:, 3, 0, 1] = -2  # the square counts, not the sign
            return features

    model = model_of("test_resnet")
    model.backbone = Corner()
    (found,) = activation_maps(model, pixels(1))
    assert found[0, -1] == 1
    assert found[32:].max() == 0


def test_features_that_are_equal_everywhere_are_strong_nowhere():
    model = model_of("test_resnet")
    model.backbone.forward_features = lambda images: torch.ones(len(images), 5, 4, 2)
    assert activation_maps(model, pixels(1)).max() == 0


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit3"])
def test_a_norm_at_the_end_does_not_make_all_tokens_alike(backbone):
    model, images = model_of(backbone), pixels()
    with torch.no_grad():
        normed = model.backbone.forward_features((images.float() - model.mean) / model.std)
        strength = model.layout.cells(normed).square().mean(dim=1)
        assert strength.std(dim=1).max() < 1e-3  # there is nothing to see after it
        before = model.layout.cells(last_features(model, images)).square().mean(dim=1)
    assert (before.std(dim=1) / before.mean(dim=1)).min() > 0.01


def test_rounding_is_not_taken_for_strength():
    model = model_of("test_resnet")
    noise = 1 + 1e-7 * torch.rand(1, 5, 4, 2)
    model.backbone.forward_features = lambda _: noise
    assert activation_maps(model, pixels(1)).max() == 0


def test_class_token_and_registers_are_no_part_of_the_image():
    model = model_of("test_vit3")
    real = model.backbone.forward_features

    def loud(images):
        features = real(images).clone()
        features[:, : model.layout.prefix] = 1e6
        return features

    model.backbone.norm = torch.nn.Identity()
    expected = activation_maps(model, pixels())
    model.backbone.forward_features = loud
    assert torch.equal(activation_maps(model, pixels()), expected)


def test_the_model_stays_in_its_mode_and_keeps_its_statistics():
    model = model_of("test_resnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    activation_maps(model, pixels())
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_tokens_that_form_no_grid_are_refused():
    model = model_of("test_vit")
    with pytest.raises(ShapeError, match="7 tokens form no grid for images of 64 x 32"):
        grid_of(model, torch.zeros(1, model.layout.prefix + 7, 8))


def test_a_map_is_laid_over_its_picture_in_the_pictures_proportions():
    import io

    from gracl.report.heat import overlay

    jpeg = overlay(Image.new("RGB", (90, 128)), np.eye(64, 32, dtype=np.float32))
    assert Image.open(io.BytesIO(jpeg)).size == (90, 128)


def test_what_is_strong_is_lighter():
    import io

    from gracl.report.heat import overlay

    half = np.zeros((64, 32), np.float32)
    half[:32] = 1
    picture = Image.open(io.BytesIO(overlay(Image.new("RGB", (64, 128), "grey"), half))).convert("L")
    assert np.asarray(picture)[:40].mean() > np.asarray(picture)[-40:].mean() + 80
