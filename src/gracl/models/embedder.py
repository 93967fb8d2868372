"""The network that turns crops into unit feature vectors.

Letters: B images, D feature dimensions, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracl.errors import ConfigError, WeightsError, did_you_mean
from gracl.models.pooling import build_pooling
from gracl.models.weights import load_into, read_weights

Pooling = Literal["gem", "average"]


class Embedder(nn.Module):
    """Backbone, pooling, BatchNorm neck, unit length: the field's network.

    Takes pixels as they are (0..255); the normalisation that the backbone was trained with is part
    of the model, so an exported model needs no note on preprocessing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dim: int,
        size: tuple[int, int],
        pooling: Pooling = "gem",
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = build_pooling(pooling)
        self.neck = nn.BatchNorm1d(dim)
        self.neck.bias.requires_grad_(False)
        self.size = size
        """(height, width) of the images it is meant for."""
        self.dim = dim
        """D."""
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) pixels 0..255, uint8 or float -> (B, D) float32 unit features."""
        maps = self.backbone.forward_features((images.float() - self.mean) / self.std)  # type: ignore[operator]
        return F.normalize(self.neck(self.pooling(maps)))


def build_embedder(
    backbone: str = "resnet50",
    *,
    size: tuple[int, int] = (256, 128),
    weights: str | Path = "none",
    pooling: Pooling = "gem",
    last_stride: int = 1,
) -> Embedder:
    """An `Embedder` on any timm backbone that gives feature maps.

    Args:
        backbone: a timm model's name.
        size: (height, width) of the images.
        weights: "none" starts from random weights, "pretrained" takes timm's (from its hub or its
            cache), anything else is a file of weights (safetensors or torch).
        pooling: "gem" or "average".
        last_stride: 1 keeps the last stage at twice the resolution, as the field does; 2 leaves the
            backbone as it is.

    Raises:
        ConfigError: no such backbone, or its last stride cannot be changed.
        WeightsError: the weights cannot be had or do not fit.

    >>> model = build_embedder("test_resnet", size=(64, 32)).eval()
    >>> model(torch.zeros(2, 3, 64, 32, dtype=torch.uint8)).shape
    torch.Size([2, 96])
    """
    import timm

    if not timm.is_model(backbone):
        known = timm.list_models(f"*{backbone[:4]}*") or timm.list_models("resnet*")
        raise ConfigError(f"timm has no backbone '{backbone}': {did_you_mean(backbone, known)}")
    net: Any
    arguments: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    if weights == "pretrained":
        try:
            net = timm.create_model(backbone, pretrained=True, **arguments)
        except Exception as error:  # timm and its hub raise what they like
            raise WeightsError(
                f"timm's weights of '{backbone}' cannot be had: "
                f"{str(error).splitlines()[0].rstrip('.')}. Without a network, give a file with "
                "--model.weights FILE, or start from random weights with --model.weights none"
            ) from error
    elif weights == "none":
        net = _create_random(backbone, arguments)
    else:
        net = timm.create_model(backbone, pretrained=False, **arguments)
        file = Path(weights).expanduser()
        load_into(net, read_weights(file), str(file))
    maps = _try_out(net, backbone, size)
    if last_stride == 1:
        halved = maps.shape[2:]
        set_last_stride(net, backbone)
        maps = _try_out(net, backbone, size)
        if any(
            new not in (2 * old - 1, 2 * old) for new, old in zip(maps.shape[2:], halved, strict=True)
        ):
            raise ConfigError(
                f"the last stride of '{backbone}' cannot be changed: its maps would grow from "
                f"{tuple(halved)} to {tuple(maps.shape[2:])}. Set model.last_stride to 2"
            )
    cfg: dict[str, Any] = net.pretrained_cfg
    return Embedder(
        net.train(),
        dim=maps.shape[1],
        size=size,
        pooling=pooling,
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
    )


def _create_random(backbone: str, arguments: dict[str, Any]) -> Any:
    """A network of random weights in which every block already does something.

    timm zeroes the last BatchNorm of residual blocks by default, which makes an untrained network
    little more than its shortcuts: on drawn people its features then retrieve at chance (ResNet-18)
    or a third worse (ResNet-10-T), and the first clusters are made from these features.
    """
    import timm

    try:
        return timm.create_model(backbone, pretrained=False, zero_init_last=False, **arguments)
    except TypeError:  # an architecture without this choice
        return timm.create_model(backbone, pretrained=False, **arguments)


def _try_out(net: Any, backbone: str, size: tuple[int, int]) -> Tensor:
    """The feature maps of one image; refuses a network that gives none."""
    try:
        with torch.no_grad():
            maps: Tensor = net.eval().forward_features(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"backbone '{backbone}' cannot take images of {size}: {str(error).splitlines()[0]}. Set "
            "model.size to the size it was made for, and model.last_stride to 2"
        ) from error
    if maps.ndim != 4 or maps.shape[1] != net.num_features:
        raise ConfigError(
            f"backbone '{backbone}' gives features of shape {tuple(maps.shape)}; expected maps "
            "(B, C, h, w), as convolutional backbones of timm give"
        )
    return maps


def set_last_stride(net: nn.Module, name: str) -> None:
    """Sets the stride of the last block that halves the feature map to 1.

    timm's `output_stride=16` would dilate the convolutions of that stage too; the field does not.
    """
    strided = [
        (path, module)
        for path, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.AvgPool2d | nn.MaxPool2d) and module.stride in (2, (2, 2))
    ]
    if not strided:
        raise ConfigError(
            f"no stride to change in '{name}': set model.last_stride to 2, which leaves it as it is"
        )
    block = strided[-1][0].split(".downsample")[0].rpartition(".")[0] or strided[-1][0]
    if ".downsample" in strided[-1][0]:
        block = strided[-1][0].split(".downsample")[0]
    for path, module in strided:
        if not path.startswith(block):
            continue
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        else:
            # At stride 1 a pooling window would shrink the shortcut by a row and blur it.
            module.kernel_size = 1
            module.stride = 1
