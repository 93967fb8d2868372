"""Networks of every kind as backbones: how they are made, pooled, trimmed, strided and filled."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from gracl.config import ModelConfig
from gracl.errors import ConfigError, WeightsError
from gracl.files import load_model, save_model
from gracl.models import backbones, ibn
from gracl.models.embedder import Embedder, build_embedder
from gracl.models.pooling import (
    AveragePooling,
    ClassTokenPooling,
    GeneralizedMeanPooling,
    Layout,
    build_pooling,
)

SIZE = (64, 32)
RELATIVE = ["test_vit_relpos"] if timm.is_model("test_vit_relpos") else []  # timm 1.0.31 has it
TINY = ["test_resnet", "test_convnext", "test_vit", "test_vit2", "test_vit3", *RELATIVE]
TINY += ["test_efficientnet", "test_byobnet", "test_nfnet", "resnet18_ibn_a", "resnet18_ibn_b"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def build(backbone: str = "test_resnet", **settings: Any) -> Embedder:
    return build_embedder(backbone, **{"size": SIZE, **settings})


def images(n: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, *size), generator=draws, dtype=torch.uint8)


def pixels(n: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0))


def scramble(net: nn.Module) -> None:
    """Gives a network tensors of which no two are alike, as after training."""
    draws = torch.Generator().manual_seed(1)
    for value in net.state_dict().values():
        if value.is_floating_point() and value.ndim <= 1:
            value.add_(0.1 + 0.4 * torch.rand(value.shape, generator=draws))


def timm_net(name: str, **settings: Any) -> Any:
    """timm's own network, scrambled, in eval mode."""
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0, **settings).eval()
    scramble(net)
    return net


# -- ResNet-50 as timm has it ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet50() -> Any:
    return timm_net("resnet50")


def with_weights_of(net: nn.Module, backbone: str, **settings: Any) -> Embedder:
    model = build(backbone, **settings).eval()
    model.backbone.load_state_dict(net.state_dict())
    return model


def test_resnet50_gives_the_maps_of_timm(resnet50: Any) -> None:
    model = with_weights_of(resnet50, "resnet50", last_stride=2)
    with torch.no_grad():
        assert torch.equal(
            model.backbone.forward_features(pixels()), resnet50.forward_features(pixels())
        )


def bottleneck(x: Tensor, weights: dict[str, Tensor], path: str) -> Tensor:
    """A block of layer4 at stride 1, from its definition."""

    def normed(x: Tensor, conv: str, norm: str, padding: int = 0) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{path}.{norm}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        maps = F.conv2d(x, weights[f"{path}.{conv}.weight"], padding=padding)
        return F.batch_norm(maps, mean, var, scale, shift)

    inner = normed(x, "conv1", "bn1").relu()
    inner = normed(inner, "conv2", "bn2", padding=1).relu()
    shortcut = (
        normed(x, "downsample.0", "downsample.1") if f"{path}.downsample.0.weight" in weights else x
    )
    return (normed(inner, "conv3", "bn3") + shortcut).relu()


def test_resnet50_of_last_stride_1_differs_in_the_last_stage_only(resnet50: Any) -> None:
    model = with_weights_of(resnet50, "resnet50", last_stride=1)
    net: Any = model.backbone
    with torch.no_grad():
        x, y = (n.maxpool(n.act1(n.bn1(n.conv1(pixels())))) for n in (net, resnet50))
        for stage in ("layer1", "layer2", "layer3"):
            x, y = getattr(net, stage)(x), getattr(resnet50, stage)(y)
            assert torch.equal(x, y)
        expected = y
        for block in range(3):
            expected = bottleneck(expected, resnet50.state_dict(), f"layer4.{block}")
        found = net.forward_features(pixels())
    assert found.shape == (2, 2048, 4, 2)
    torch.testing.assert_close(found, expected)


# -- pooling --------------------------------------------------------------------------------------

LAYOUTS = {
    "maps": Layout(),
    "channels-last": Layout("channels-last"),
    "tokens": Layout("tokens", prefix=5, class_token=True),
}


def features_of(layout: Layout) -> tuple[Tensor, list[Tensor]]:
    """Features of 2 images, and the cells of each as a list (n, C) collected one by one."""
    draws = torch.Generator().manual_seed(0)
    if layout.order == "maps":
        features = torch.randn(2, 4, 3, 2, generator=draws)
        cells = [[image[:, i, j] for i in range(3) for j in range(2)] for image in features]
    elif layout.order == "channels-last":
        features = torch.randn(2, 3, 2, 4, generator=draws)
        cells = [[image[i, j] for i in range(3) for j in range(2)] for image in features]
    else:
        features = torch.randn(2, 5 + 6, 4, generator=draws)
        cells = [[image[5 + i] for i in range(6)] for image in features]
    return features, [torch.stack(image) for image in cells]


@pytest.mark.parametrize("order", LAYOUTS)
def test_average_is_that_of_the_cells_collected_one_by_one(order: str) -> None:
    features, cells = features_of(LAYOUTS[order])
    expected = [[sum(channel) / len(channel) for channel in image.T.tolist()] for image in cells]
    found = AveragePooling(LAYOUTS[order])(features)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", ["maps", "channels-last"])
def test_gem_is_that_of_the_cells_collected_one_by_one(order: str) -> None:
    features, cells = features_of(LAYOUTS[order])
    expected = [
        [
            (sum(max(v, 1e-6) ** 3 for v in channel) / len(channel)) ** (1 / 3)
            for channel in image.T.tolist()
        ]
        for image in cells
    ]
    found = GeneralizedMeanPooling(layout=LAYOUTS[order])(features)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-5)


def test_class_token_is_the_first() -> None:
    features, _ = features_of(LAYOUTS["tokens"])
    assert torch.equal(build_pooling("cls", LAYOUTS["tokens"])(features), features[:, 0])


AUTO = {
    "test_resnet": GeneralizedMeanPooling,
    "test_byobnet": GeneralizedMeanPooling,
    "mobilenetv2_050": GeneralizedMeanPooling,
    "resnet18_ibn_a": GeneralizedMeanPooling,
    "test_efficientnet": AveragePooling,  # ends in SiLU
    "test_convnext": AveragePooling,
    "test_vit": ClassTokenPooling,
    "test_vit2": AveragePooling,  # registers, no class token
    "test_vit3": AveragePooling,
    **dict.fromkeys(RELATIVE, AveragePooling),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("backbone", AUTO)
def test_auto_pooling_suits_the_backbone_whatever_its_weights(backbone: str, seed: int) -> None:
    torch.manual_seed(seed)
    assert type(build(backbone).pooling) is AUTO[backbone]


def test_auto_pooling_averages_where_a_class_token_is_not_normalised() -> None:
    """BEiT and EVA02 normalise the average instead, DINOv3 its tokens."""
    tokens = Layout("tokens", prefix=1, class_token=True)
    net = nn.Module()
    features = torch.zeros(1, 3, 4)
    assert backbones.choose_pooling("auto", net, "x", tokens, features) == "cls"
    net.fc_norm = nn.Identity()
    assert backbones.choose_pooling("auto", net, "x", tokens, features) == "cls"
    net.fc_norm = nn.LayerNorm(4)
    assert backbones.choose_pooling("auto", net, "x", tokens, features) == "average"


@pytest.mark.parametrize("backbone", ["test_vit2", *RELATIVE, "test_convnext", "test_efficientnet"])
def test_average_is_what_timm_gives_to_its_classifier(backbone: str) -> None:
    size = {"img_size": SIZE} if "vit" in backbone else {}
    net = timm_net(backbone, **size)
    model = build(backbone, pooling="average", last_stride=2)
    backbone_part = {k: v for k, v in net.state_dict().items() if k in model.backbone.state_dict()}
    model.backbone.load_state_dict(backbone_part)
    norm = backbones.norm_after_average(net)
    if norm:
        model.pooling.norm.load_state_dict(net.get_submodule(norm).state_dict())
    with torch.no_grad():
        found = model.eval().pooling(model.backbone.forward_features(pixels()))
        torch.testing.assert_close(found, net(pixels()))
    assert bool(norm) == (backbone != "test_efficientnet")


@pytest.mark.parametrize(("pooling", "token"), [("cls", 0), ("average", slice(1, None))])
def test_features_of_a_transformer_are_its_tokens_pooled_necked_and_of_length_1(
    pooling: str, token: Any
) -> None:
    model = build("test_vit", pooling=pooling).eval()
    scramble(model.neck)
    seen = (images().float() - model.mean) / model.std
    with torch.no_grad():
        tokens = model.backbone.forward_features(seen)
        pooled = tokens[:, 0] if pooling == "cls" else tokens[:, token].mean(dim=1)
        necked = F.batch_norm(
            pooled,
            model.neck.running_mean,
            model.neck.running_var,
            model.neck.weight,
            model.neck.bias,
        )
        torch.testing.assert_close(model(images()), necked / necked.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("backbone", "pooling", "message"),
    [
        ("test_vit", "gem", r"negative as positive\. Set model\.pooling to auto"),
        ("test_resnet", "cls", r"'test_resnet' has no class token .*Set model\.pooling to auto"),
        ("test_vit2", "cls", r"'test_vit2' has no class token"),
        ("pit_ti_224", "average", r"its class token only\. Set model\.pooling to cls"),
    ],
)
def test_pooling_that_makes_no_sense_says_what_to_set(
    backbone: str, pooling: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(backbone, pooling=pooling)


def test_features_of_no_known_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"features of shape \(1, 5\); expected maps"):
        backbones.layout_of(nn.Module(), "x", torch.zeros(1, 5))


class Lists(nn.Module):
    def forward_features(self, x: Tensor) -> list[Tensor]:
        return [x]


def test_features_that_are_no_tensor_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"gives a list of features; .*another model\.backbone"):
        backbones.try_out(Lists(), "x", (8, 8))


def test_maps_with_channels_last_are_read_as_such() -> None:
    model = build("test_mambaout", last_stride=2)
    assert isinstance(model.pooling, AveragePooling)
    assert (model.pooling.layout.order, model.dim) == ("channels-last", 64)
    assert model(images()).shape == (2, 64)


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backbone", TINY)
def test_features_are_float32_unit_rows_under_autocast(backbone: str, training: bool) -> None:
    model = build(backbone).train(training)
    with torch.autocast("cpu", torch.bfloat16):
        features = model(images(3))
    assert (features.shape, features.dtype) == ((3, model.dim), torch.float32)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("backbone", TINY)
def test_nothing_that_is_trained_lies_idle(backbone: str) -> None:
    model = build(backbone)
    (model(images(4)) * torch.randn(4, model.dim)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_layers_after_the_features_are_taken_out() -> None:
    assert "head.norm.weight" in timm.create_model("test_convnext", num_classes=0).state_dict()
    assert not any("head" in name for name in build("test_convnext", pooling="gem").state_dict())
    kept = [
        name for name in build("test_convnext").state_dict() if "norm" in name and "blocks" not in name
    ]
    assert [name for name in kept if "pooling" in name] == ["pooling.norm.weight", "pooling.norm.bias"]
    assert not any("attn_pool" in name for name in build("test_vit3").state_dict())


def test_single_parameters_that_are_not_used_are_taken_out() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask_token = nn.Parameter(torch.zeros(1))
            self.fixed = nn.Parameter(torch.zeros(1), requires_grad=False)
            self.conv = nn.Conv2d(3, 4, 1)
            self.pool = nn.ModuleDict({"project": nn.Linear(4, 4)})
            self.pool.query = nn.Parameter(torch.zeros(4))

    net = Net()
    assert backbones.trim(net, net.conv(torch.ones(1, 3, 2, 2)), keep_norm=True) == ""
    assert sorted(net.state_dict()) == ["conv.bias", "conv.weight", "fixed"]


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "resnet18_ibn_a"])
def test_building_leaves_running_statistics_and_the_training_mode(backbone: str) -> None:
    model = build(backbone)
    statistics = {k: v for k, v in model.state_dict().items() if "running" in k or "num_batches" in k}
    assert statistics
    for name, value in statistics.items():
        assert torch.equal(value, torch.ones_like(value) if "var" in name else torch.zeros_like(value))
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("backbone", TINY)
def test_network_is_rebuilt_from_its_settings(backbone: str) -> None:
    model = build(backbone).eval()
    scramble(model)
    again = build(backbone).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images()), model(images()))


@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit", "test_vit2", "resnet18_ibn_a"])
def test_saved_model_is_read_as_it_was(tmp_path: Path, backbone: str) -> None:
    model = build(backbone, pooling="average").eval()
    scramble(model)
    settings = ModelConfig(backbone=backbone, size=SIZE, pooling="average")
    save_model(tmp_path / "model.safetensors", model, settings)
    again = load_model(tmp_path / "model.safetensors")
    assert torch.equal(again(images()), model(images()))


def test_normalisation_is_saved_and_old_models_without_it_load() -> None:
    model, other = build(), build()
    model.mean += 5
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.mean, model.mean)
    old = {name: value for name, value in model.state_dict().items() if name not in ("mean", "std")}
    copy.deepcopy(other).load_state_dict(old)
    other.load_state_dict(old)
    assert torch.equal(other.mean, model.mean)


# -- size -----------------------------------------------------------------------------------------


@pytest.fixture
def file_of_vit(tmp_path: Path) -> Path:
    net = timm_net("test_vit")
    torch.nn.init.normal_(net.pos_embed)
    torch.save(net.state_dict(), tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


@pytest.mark.parametrize("size", [(256, 128), (64, 32), (160, 160), (96, 240)])
def test_position_embeddings_of_a_file_are_resized_as_timm_does(
    file_of_vit: Path, size: tuple[int, int]
) -> None:
    found = build("test_vit", size=size, weights=file_of_vit).backbone.state_dict()
    expected = timm.create_model(
        "test_vit",
        pretrained=True,
        num_classes=0,
        img_size=size,
        pretrained_cfg_overlay={"file": str(file_of_vit)},
    ).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    if size == (160, 160):
        assert torch.equal(found["pos_embed"], torch.load(file_of_vit, weights_only=True)["pos_embed"])


def test_resizing_keeps_the_class_token_and_the_order_of_rows(tmp_path: Path) -> None:
    net = timm_net("test_vit")
    rows = torch.arange(10.0).repeat_interleave(10)  # 10 x 10 patches
    net.pos_embed.data = torch.cat([torch.tensor([99.0]), rows])[None, :, None].expand(1, 101, 64)
    torch.save(net.state_dict(), tmp_path / "vit.pth")
    position = build("test_vit", size=(80, 32), weights=tmp_path / "vit.pth").backbone.pos_embed
    assert torch.all(position[0, 0] == 99)
    image = position[0, 1:, 0].reshape(5, 2)
    torch.testing.assert_close(image[:, 0], image[:, 1])
    torch.testing.assert_close(image[2, 0], torch.tensor(4.5))
    assert torch.all(image.diff(dim=0) > 1)


def test_file_of_a_transformer_must_fit_otherwise(file_of_vit: Path) -> None:
    tensors = torch.load(file_of_vit, weights_only=True)
    broken = {name: value for name, value in tensors.items() if name != "blocks.0.norm1.weight"}
    torch.save(broken, file_of_vit)
    with pytest.raises(WeightsError, match=r"missing: blocks\.0\.norm1\.weight"):
        build("test_vit", weights=file_of_vit)
    torch.save({**tensors, "cls_token": torch.zeros(1, 1, 65)}, file_of_vit)
    with pytest.raises(WeightsError, match="1 have no counterpart of the same shape"):
        build("test_vit", weights=file_of_vit)


def test_published_names_that_timm_knows_are_converted(tmp_path: Path) -> None:
    """ConvNeXt's authors call its layers otherwise."""
    net = timm_net("test_convnext")
    names = {"stem.": "downsample_layers.0.", "conv_dw": "dwconv", "mlp.fc": "pwconv"}
    published = {}
    for name, value in net.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if name.startswith("stages") and "downsample" in name:
            _, stage, _, rest = name.split(".", 3)
            name = f"downsample_layers.{stage}.{rest}"
        published[name.replace(".blocks", "").replace("head.norm", "norm")] = value
    torch.save(dict(reversed(published.items())), tmp_path / "w.pth")
    model = build("test_convnext", last_stride=2, weights=tmp_path / "w.pth").eval()
    with torch.no_grad():
        found = model.pooling(model.backbone.forward_features(pixels()))
        torch.testing.assert_close(found, net(pixels()))


def test_size_that_is_no_multiple_of_the_patch_says_which_are_near() -> None:
    with pytest.raises(
        ConfigError, match=r"16 x 16 pixels, .*Set model\.size to \[64, 16\] or \[64, 32\]"
    ):
        build("test_vit", size=(64, 30))
    with pytest.raises(ConfigError, match=r"to \[16, 16\] or \[16, 16\]"):
        build("test_vit", size=(9, 16))
    with pytest.raises(ConfigError, match=r"14 x 14 pixels.*\[252, 126\] or \[266, 140\]"):
        build("eva02_tiny_patch14_224", size=(256, 128))
    assert build("test_vit", size=(64, 16))(images(size=(64, 16))).shape == (2, 64)


def test_backbone_that_timm_cannot_make_for_a_size_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"cannot make .* for images of \(64, 32\): Model only handles"
    ):
        build("nest_tiny")
    with pytest.raises(ConfigError, match=r"Invalid pretrained tag"):
        build("test_resnet.nobody")


# -- the last stride ------------------------------------------------------------------------------


def test_tokens_have_no_stride_to_change() -> None:
    torch.manual_seed(0)
    one = build("test_vit", last_stride=1).eval()
    two = build("test_vit", last_stride=2).eval()
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(images()), two(images()))


@pytest.mark.parametrize("backbone", ["test_convnext", "test_byobnet", "pvt_v2_b0"])
def test_last_stride_of_1_doubles_other_maps_too(backbone: str) -> None:
    one, two = (
        build(backbone, last_stride=stride).backbone.forward_features(pixels()) for stride in (1, 2)
    )
    assert one.shape == (2, two.shape[1], 2 * two.shape[2], 2 * two.shape[3])


def test_every_second_cell_of_an_even_window_is_as_it_was() -> None:
    """ConvNeXt halves by windows of 2 x 2; also at odd sizes, and in a copy."""
    one, two = build("test_convnext", last_stride=1), build("test_convnext", last_stride=2)
    two.load_state_dict(one.state_dict())
    before, after = (m.backbone.get_submodule("stages.3.downsample") for m in (two, copy.deepcopy(one)))
    maps = torch.randn(1, before[0].weight.numel(), 6, 4)
    torch.testing.assert_close(after(maps)[:, :, ::2, ::2], before(maps))
    assert after(maps[:, :, :5, :3]).shape[2:] == (5, 3)


def test_only_the_last_halving_is_undone() -> None:
    """Attention of PVT looks at smaller maps in its earlier stages; that is not the last stride."""
    net: Any = build("pvt_v2_b0").backbone
    strides = {name: m.stride for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    assert strides["stages.3.downsample.proj"] == (1, 1)
    assert strides["stages.2.blocks.0.attn.sr"] == (2, 2)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_mambaout"])
def test_network_with_nothing_to_halve_says_what_to_set(backbone: str) -> None:
    with pytest.raises(ConfigError, match=r"no stride to change .*: set model\.last_stride to 2"):
        build(backbone, size=(16, 16))


@pytest.mark.skipif(not timm.is_model("test_coatnet"), reason="timm 1.0.31 has it")
def test_network_that_needs_its_last_stride_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"cannot be changed: The size .*Set model\.last_stride to 2"):
        build("test_coatnet", last_stride=1)
    assert build("test_coatnet", last_stride=2).dim == 128


class Shrinks(nn.Module):
    """Its maps are of one size, whatever its stride."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward_features(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.conv(x), 4)


def test_stride_without_effect_on_the_maps_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"go from \(4, 4\) to \(4, 4\)\. Set model\.last_stride to 2"
    ):
        backbones.set_last_stride(Shrinks(), "x", (8, 8))


# -- IBN ------------------------------------------------------------------------------------------


def test_half_of_the_channels_are_normalised_by_image_half_by_batch() -> None:
    layer, maps = ibn.InstanceBatchNorm(5), torch.randn(4, 5, 3, 2) + torch.rand(4, 5, 1, 1)
    scramble(layer)
    scale = torch.cat([layer.IN.weight, layer.BN.weight]).tolist()
    shift = torch.cat([layer.IN.bias, layer.BN.bias]).tolist()
    x, found = maps.double().numpy(), layer(maps).detach().numpy()
    for image in range(4):
        for c in range(5):
            values = x[image, c] if c < 2 else x[:, c]
            normed = (x[image, c] - values.mean()) / np.sqrt(values.var() + 1e-5)
            np.testing.assert_allclose(found[image, c], normed * scale[c] + shift[c], atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18_ibn_a", "resnet50_ibn_a"])
def test_ibn_a_mixes_the_first_norm_of_each_block_of_three_layers(name: str) -> None:
    net: Any = build(name).backbone
    mixed = {n for n, m in net.named_modules() if isinstance(m, ibn.InstanceBatchNorm)}
    blocks = {"resnet18_ibn_a": (2, 2, 2), "resnet50_ibn_a": (3, 4, 6)}[name]
    assert mixed == {f"layer{i}.{j}.bn1" for i, n in enumerate(blocks, 1) for j in range(n)}
    assert type(net.bn1) is nn.BatchNorm2d
    plain = timm.create_model(name.partition("_")[0], num_classes=0).state_dict()
    sizes = {n: v.numel() for n, v in net.state_dict().items() if n.endswith("weight")}
    assert sum(sizes.values()) == sum(v.numel() for n, v in plain.items() if n.endswith("weight"))


@pytest.mark.parametrize(("name", "last"), [("resnet18_ibn_b", 2), ("resnet50_ibn_b", 3)])
def test_ibn_b_normalises_each_image_after_stem_and_additions(name: str, last: int) -> None:
    net: Any = build(name).backbone.eval()
    scramble(net)
    norms = {n for n, m in net.named_modules() if isinstance(m, nn.InstanceNorm2d)}
    ends = {f"layer{i}.{len(getattr(net, f'layer{i}')) - 1}.act{last}.IN" for i in (1, 2)}
    assert norms == {"bn1"} | ends
    block = net.layer1[-1]
    norm = getattr(block, f"act{last}").IN
    x = pixels(2)[:, :1] * torch.rand(1, norm.num_features, 1, 1)
    with torch.no_grad():
        found = block(x)
        setattr(block, f"act{last}", nn.Identity())
        added = block(x)
    mean, var = added.mean(dim=(2, 3), keepdim=True), added.var(dim=(2, 3), keepdim=True, correction=0)
    normed = (added - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[
        :, None, None
    ]
    torch.testing.assert_close(found, normed.relu(), atol=1e-5, rtol=1e-4)


def test_published_files_of_ibn_fit(tmp_path: Path) -> None:
    """a by name; b, whose last norms have other names there, by order."""
    for name in ("resnet18_ibn_a", "resnet18_ibn_b"):
        net: Any = build(name).backbone.eval()
        scramble(net)
        tensors = {f"module.{k.replace('act2.IN', 'IN')}": v for k, v in net.state_dict().items()}
        if name.endswith("a"):
            assert "module.layer1.0.bn1.IN.weight" in tensors
        tensors |= {"module.fc.weight": torch.zeros(7, 512), "module.fc.bias": torch.zeros(7)}
        torch.save(tensors, tmp_path / "w.pth")
        again: Any = build(name, weights=tmp_path / "w.pth").backbone.eval()
        assert torch.equal(again.forward_features(pixels()), net.forward_features(pixels()))


def test_ibn_has_no_weights_in_timm() -> None:
    with pytest.raises(WeightsError, match=r"no weights of 'resnet50_ibn_a' in timm\. Give a file"):
        build("resnet50_ibn_a", weights="pretrained")


def test_ibn_is_among_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'resnet50_ibn_a'"):
        build("resnet50_ibna")


# -- the hub --------------------------------------------------------------------------------------


def fill_cache(home: Path, net: nn.Module, **about: Any) -> None:
    """A Hugging Face cache that holds one model, as after a download."""
    folder = home / "hub" / "models--someone--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    cfg = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.1, 0.2, 0.3],
        "input_size": [3, 160, 160],
        "classifier": "head",
    }
    (snapshot / "config.json").write_text(
        json.dumps({"architecture": "test_vit", "num_classes": 7, "pretrained_cfg": cfg, **about})
    )
    save_file(net.state_dict(), snapshot / "model.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_model_of_the_hub_is_had_from_its_cache(hub: Path) -> None:
    net = timm_net("test_vit")
    fill_cache(hub, net)
    model = build("test_vit", size=(160, 160), weights="hf-hub:someone/model").eval()
    with torch.no_grad():
        assert torch.equal(
            model.backbone.forward_features(pixels(size=(160, 160))),
            net.forward_features(pixels(size=(160, 160))),
        )
    torch.testing.assert_close(model.mean.flatten(), 255 * torch.tensor([0.5, 0.4, 0.3]))
    torch.testing.assert_close(model.std.flatten(), 255 * torch.tensor([0.1, 0.2, 0.3]))
    smaller = build("test_vit", weights="hf-hub:someone/model")
    assert smaller(images()).shape == (2, 64)


def test_model_of_another_architecture_is_refused(hub: Path) -> None:
    fill_cache(hub, timm_net("test_vit"))
    with pytest.raises(ConfigError, match=r"holds a 'test_vit', .* Set model\.backbone to test_vit"):
        build("test_resnet", weights="hf-hub:someone/model")


def test_model_of_the_hub_must_fit(hub: Path) -> None:
    fill_cache(hub, timm_net("test_resnet"))
    with pytest.raises(WeightsError, match=r"hf-hub:someone/model does not fit the backbone"):
        build("test_vit", weights="hf-hub:someone/model")


@pytest.mark.parametrize("weights", ["pretrained", "hf-hub:someone/model"])
def test_without_cache_or_network_it_says_what_to_do_and_soon(
    hub: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    for offline in (True, False):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
        began = time.monotonic()
        with pytest.raises(WeightsError, match=r"cannot be had: .*--model\.weights FILE"):
            build("test_vit", weights=weights)
        assert time.monotonic() - began < 6


def test_network_without_weights_in_timm_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm.models.PretrainedCfg, "has_weights", False)
    with pytest.raises(WeightsError, match=r"'test_vit' cannot be had: timm has none\. Without"):
        build("test_vit", weights="pretrained")


def test_offline_process_finds_a_model_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    """As a user meets it: by environment alone."""
    fill_cache(tmp_path, timm_net("test_vit"))
    code = (
        "from gracl.models.embedder import build_embedder\n"
        "print(build_embedder('test_vit', size=(64, 32), weights='hf-hub:someone/model').dim)"
    )
    home = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.strip() == "64"
