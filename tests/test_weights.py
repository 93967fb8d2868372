"""Weights from files under any names, and the backbones they go into."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from gracl.config import ModelConfig
from gracl.errors import ConfigError, WeightsError
from gracl.models.embedder import Embedder, build_embedder
from gracl.models.weights import load_into, read_weights
from gracl.training import build_model

SIZE = (32, 16)


def build(backbone: str = "test_resnet", **settings: Any) -> Embedder:
    return build_embedder(backbone, **{"size": SIZE, **settings}).eval()


def images(n: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, *size), generator=draws, dtype=torch.uint8)


@pytest.fixture(scope="module")
def trained() -> Embedder:
    """A network in which no two tensors are alike."""
    model = build()
    draws = torch.Generator().manual_seed(1)
    for value in model.backbone.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:  # of BatchNorm, all alike at first
            value.add_(0.1 + 0.4 * torch.rand(value.shape, generator=draws))
    return model


@pytest.fixture
def tensors(trained: Embedder) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trained.backbone.state_dict().items()}


def assert_same_features(trained: Embedder, file: Path) -> None:
    expected = trained(images())
    assert expected[0].sub(expected[1]).abs().max() > 1e-4
    assert torch.equal(build(weights=file)(images()), expected)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As other code might call them: the order and the last part of each name stay."""
    return {f"part{n}.{name.rpartition('.')[2]}": v for n, (name, v) in enumerate(tensors.items())}


# -- files that fit -------------------------------------------------------------------------------

WRAPPERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda t: t,
    "module.": lambda t: {f"module.{k}": v for k, v in t.items()},
    "module.backbone.": lambda t: {f"module.backbone.{k}": v for k, v in t.items()},
    "encoder.": lambda t: {f"encoder.{k}": v for k, v in t.items()},
    "state_dict": lambda t: {"epoch": 5, "state_dict": t},
    "model, module.": lambda t: {"model": {f"module.{k}": v for k, v in t.items()}, "args": {"lr": 1}},
    "teacher": lambda t: {"teacher": {f"backbone.{k}": v for k, v in t.items()}},
    "with a classifier": lambda t: {**t, "fc.weight": torch.ones(7, 96), "fc.bias": torch.ones(7)},
    "without counters": lambda t: {k: v for k, v in t.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_torch_file_gives_the_same_features(
    tmp_path: Path, trained: Embedder, tensors: dict[str, Tensor], wrapper: str
) -> None:
    turned = dict(reversed(tensors.items()))  # so that only their names can match them
    torch.save(WRAPPERS[wrapper](turned), tmp_path / "w.pth")
    assert_same_features(trained, tmp_path / "w.pth")


@pytest.mark.parametrize("wrapper", ["plain", "module.", "with a classifier"])
def test_safetensors_file_gives_the_same_features(
    tmp_path: Path, trained: Embedder, tensors: dict[str, Tensor], wrapper: str
) -> None:
    save_file(WRAPPERS[wrapper](tensors), tmp_path / "w.safetensors")
    assert_same_features(trained, tmp_path / "w.safetensors")


@pytest.mark.parametrize("wrapper", ["plain", "with a classifier", "without counters"])
def test_renamed_tensors_are_matched_by_order(
    tmp_path: Path, trained: Embedder, tensors: dict[str, Tensor], wrapper: str
) -> None:
    torch.save(renamed(WRAPPERS[wrapper](tensors)), tmp_path / "w.pth")
    assert_same_features(trained, tmp_path / "w.pth")


def test_how_names_were_matched_is_said(trained: Embedder, tensors: dict[str, Tensor]) -> None:
    n = sum("num_batches" not in name for name in tensors)
    said = load_into(trained.backbone, tensors, "folder/w.pth")
    assert said == f"{n} of {len(tensors)} tensors of w.pth matched by name"
    assert load_into(trained.backbone, renamed(tensors), "w.pth").endswith("matched by order")


def test_home_folder_is_written_as_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Embedder, tensors: dict[str, Tensor]
) -> None:
    torch.save(tensors, tmp_path / "w.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_same_features(trained, Path("~/w.pth"))


# -- files that do not ----------------------------------------------------------------------------


def test_other_architecture_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"does not fit the backbone.*Set model.backbone"):
        build("test_efficientnet", weights=tmp_path / "w.pth")


def test_missing_tensor_is_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    del tensors["layer1.0.conv1.weight"]
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"missing: layer1.0.conv1.weight"):
        build(weights=tmp_path / "w.pth")


def test_tensor_of_another_shape_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    tensors["layer1.0.conv1.weight"] = torch.zeros(1, 1, 3, 3)
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 have no counterpart of the same shape"):
        build(weights=tmp_path / "w.pth")


def test_failed_load_leaves_the_network_as_it_was(tensors: dict[str, Tensor]) -> None:
    model = build()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    tensors["layer4.0.bn2.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError):
        load_into(model.backbone, tensors, "w")
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name])


def test_vectors_of_a_batchnorm_are_not_mixed_up_by_the_alphabet(tmp_path: Path) -> None:
    """All four have one shape, and safetensors lists them as bias, mean, variance, weight."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    renamed = {f"{'ab'[int(k[0])]}.{k[2:]}": v.clone() for k, v in net.state_dict().items()}
    save_file(renamed, tmp_path / "w.safetensors")
    torch.save(renamed, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="does not fit the backbone"):
        load_into(net, read_weights(tmp_path / "w.safetensors"), "w.safetensors")
    assert load_into(net, read_weights(tmp_path / "w.pth"), "w.pth").endswith("by order")


def test_missing_file_says_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not exist. Give a .safetensors .*'pretrained'"):
        build(weights=tmp_path / "gone.pth")


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_foreign_code_in_a_file_is_refused_and_not_run(
    tmp_path: Path, tensors: dict[str, Tensor], writer: str
) -> None:
    content = {"state_dict": tensors, "extra": Harmful(tmp_path / "ran")}
    if writer == "torch":
        torch.save(content, tmp_path / "w.pth")
    else:
        (tmp_path / "w.pth").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match="Only tensors are loaded; save a state_dict"):
        build(weights=tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_torch_that_a_torch_file_can_make_run_code_reads_none(
    tmp_path: Path, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr("gracl.models.weights.UNPICKLES_SAFELY", "2.10")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    torch.save(tensors, tmp_path / f"w{suffix}")
    with pytest.raises(WeightsError, match=r"torch 2\.9\.1 can .* Give a \.safetensors file, or pip"):
        read_weights(tmp_path / f"w{suffix}")
    save_file(tensors, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == tensors.keys()
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0+cpu"))
    assert read_weights(tmp_path / f"w{suffix}").keys() == tensors.keys()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"version https://git-lfs", b"e" * 99])
def test_file_that_holds_no_weights_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name} cannot be read as weights"):
        read_weights(tmp_path / name)


def test_truncated_file_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    for name, save in (("w.pth", torch.save), ("w.safetensors", save_file)):
        save(tensors, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            read_weights(tmp_path / name)


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_weights(tmp_path / "w.pth")
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds a Tensor; expected tensors by name"):
        read_weights(tmp_path / "w.pth")


def test_pretrained_weights_that_cannot_be_had_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub\nand more")

    monkeypatch.setattr("timm.create_model", fail)
    monkeypatch.setattr("gracl.models.backbones.require_hub", lambda _: None)
    with pytest.raises(
        WeightsError, match=r"cannot be had: no route to the hub\. .*--model\.weights FILE"
    ):
        build(weights="pretrained")


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("test_resnet", (64, 64)), ("resnet10t", (64, 32)), ("tf_efficientnet_lite0", (64, 32))],
)
def test_last_stride_of_1_doubles_the_map(backbone: str, size: tuple[int, int]) -> None:
    maps = [
        build(backbone, size=size, last_stride=stride).backbone.forward_features(
            torch.zeros(1, 3, *size)
        )
        for stride in (1, 2)
    ]
    assert maps[0].shape[2:] == (2 * maps[1].shape[2], 2 * maps[1].shape[3])
    assert maps[0].shape[1] == maps[1].shape[1]


def test_last_stride_does_not_change_the_weights() -> None:
    torch.manual_seed(0)
    one = build(last_stride=1).backbone.state_dict()
    torch.manual_seed(0)
    two = build(last_stride=2).backbone.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_backbone_made_for_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot take images of \(64, 32\).*Set model.size"):
        build("efficientformer_l1", size=(64, 32))


def test_unknown_backbone_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no backbone 'resnet5O'.*did you mean 'resnet5"):
        build("resnet5O")


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    config = ModelConfig(backbone="test_resnet", size=SIZE)
    before = torch.random.get_rng_state()
    first, again, other = (build_model(config, seed=seed).eval()(images()) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_residual_block_of_a_random_network_does_something() -> None:
    scales = [
        v for k, v in build("resnet10t").backbone.state_dict().items() if k.endswith("bn2.weight")
    ]
    assert scales
    assert all(scale.abs().min() > 0 for scale in scales)


def test_bytes_and_floats_give_the_same_features(trained: Embedder) -> None:
    assert torch.equal(trained(images()), trained(images().float()))


@pytest.mark.parametrize("pooling", ["gem", "average"])
def test_features_are_unit_rows(pooling: str) -> None:
    model = build(pooling=pooling)
    features = model(images(5))
    assert (features.shape, features.dtype) == ((5, model.dim), torch.float32)
    assert torch.allclose(features.norm(dim=1), torch.ones(5))


def test_poolings_differ() -> None:
    gem, average = (build(pooling=pooling) for pooling in ("gem", "average"))
    average.backbone.load_state_dict(gem.backbone.state_dict())
    assert not torch.allclose(gem(images()), average(images()), atol=1e-3)


def test_pixels_are_normalised_inside_the_model(trained: Embedder) -> None:
    seen: list[Tensor] = []
    model = build()
    model.backbone.forward_features = lambda x: seen.append(x) or torch.ones(len(x), model.dim, 1, 1)
    model(torch.full((1, 3, *SIZE), 255, dtype=torch.uint8))
    cfg = model.backbone.pretrained_cfg
    white = [(1 - m) / s for m, s in zip(cfg["mean"], cfg["std"], strict=True)]
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx(white)


def test_neck_has_no_learnt_bias() -> None:
    model = build()
    assert not model.neck.bias.requires_grad
    assert model.neck.weight.requires_grad
