"""The network that turns crops into unit feature vectors.

Letters: B images, D feature dimensions, H x W pixels, P parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracl.models import backbones
from gracl.models.hub import HUB
from gracl.models.pooling import MAPS, Layout, build_pooling
from gracl.models.weights import load_into, read_hub, read_weights

Pooling = Literal["auto", "gem", "average", "cls"]


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
        pooling: nn.Module,
        layout: Layout = MAPS,
        parts: int = 0,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        backbone_name: str = "",
        pooling_name: str = "",
        last_stride: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.neck = nn.BatchNorm1d(dim)
        self.neck.bias.requires_grad_(False)
        self.layout = layout
        self.part_necks = nn.ModuleList(nn.BatchNorm1d(dim) for _ in range(parts))
        self.size = size
        """(height, width) of the images it is meant for."""
        self.dim = dim
        """D."""
        self.backbone_name = backbone_name
        """What the backbone is called, as given to `build_embedder`; "" where nobody said."""
        self.pooling_name = pooling_name
        """What `auto` came to: "gem", "average" or "cls"; "" where nobody said."""
        self.last_stride = last_stride
        """As given to `build_embedder`."""
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor, *, parts: bool = False) -> Tensor:
        """(B, 3, H, W) pixels 0..255, uint8 or float -> (B, D) float32 unit features.

        With `parts`, (B, 1 + P, D): the image's, then those of P stripes from top to bottom, each the
        mean over its cells through a neck of its own.

        Under autocast only the backbone computes in lower precision: every pooling gives float32, and
        neck and length keep it.
        """
        features = self.backbone.forward_features((images.float() - self.mean) / self.std)  # type: ignore[operator]
        whole = F.normalize(self.neck(self.pooling(features)))
        if not parts:
            return whole
        stripes = self.layout.stripes(features, len(self.part_necks))
        means = [stripe.float().mean(dim=2) for stripe in stripes]
        necks = zip(self.part_necks, means, strict=True)
        return torch.stack([whole, *(F.normalize(neck(mean)) for neck, mean in necks)], dim=1)

    def _load_from_state_dict(self, tensors: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Models of gracl 0.1 saved neither: both followed from the backbone then, as they do here.
        tensors.setdefault(f"{prefix}mean", self.mean)
        tensors.setdefault(f"{prefix}std", self.std)
        super()._load_from_state_dict(tensors, prefix, *rest)


@torch.inference_mode(False)
@torch.enable_grad()  # a backbone is understood by its gradients, also where a caller has them off
def build_embedder(
    backbone: str = "resnet50",
    *,
    size: tuple[int, int] = (256, 128),
    weights: str | Path = "none",
    pooling: Pooling = "auto",
    last_stride: int = 1,
    parts: int = 0,
) -> Embedder:
    """An `Embedder` on any timm backbone that gives feature maps or tokens.

    Args:
        backbone: a timm model's name, or `resnet50_ibn_a` and its like (see `gracl.models.ibn`).
        size: (height, width) of the images; position embeddings are resized to it.
        weights: "none" starts from random weights, "pretrained" takes timm's (from its hub or its
            cache), "hf-hub:org/name" those of a timm model on the Hugging Face hub, and anything else
            is a file of weights (safetensors or torch); of one that gracl trained, pooling and neck
            too.
        pooling: "gem" or "average" over the cells of maps, "average" over the image's tokens, "cls"
            for the class token; "auto" is what suits the backbone (see `backbones.choose_pooling`).
        last_stride: 1 keeps the maps of the last stage at twice the resolution, as the field does; 2
            leaves the backbone as it is. Tokens have no stride, and are left as they are by both.
        parts: stripes of the image, top to bottom, that have features of their own; maps only.

    Raises:
        ConfigError: no such backbone, or its size, pooling or last stride cannot be as asked for.
        WeightsError: the weights cannot be had or do not fit.

    >>> model = build_embedder("test_resnet", size=(64, 32)).eval()
    >>> model(torch.zeros(2, 3, 64, 32, dtype=torch.uint8)).shape
    torch.Size([2, 96])
    """
    net = backbones.create(backbone, size, pretrained=weights == "pretrained")
    features = backbones.try_out(net, backbone, size)
    layout = backbones.layout_of(net, backbone, features)
    chosen = backbones.choose_pooling(pooling, net, backbone, layout, features)
    norm = backbones.trim(net, features, keep_norm=chosen == "average")
    if last_stride == 1 and layout.order != "tokens":
        backbones.set_last_stride(net, backbone, size)
    if parts:
        layout.stripes(backbones.try_out(net, backbone, size), parts)  # refused now if it cannot be
    cfg, tensors = _load(net, backbone, weights)
    model = Embedder(
        net.train(),
        dim=layout.cells(features).shape[1],
        size=size,
        pooling=build_pooling(chosen, layout, backbones.take_norm(net, norm) if norm else None),
        layout=layout,
        parts=parts,
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        backbone_name=backbone,
        pooling_name=chosen,
        last_stride=last_stride,
    )
    _load_head(model, tensors)
    return model


def _load(net: Any, backbone: str, weights: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fills the network from a file or the hub; gives timm's notes on its weights, and what it read."""
    cfg: dict[str, Any] = net.pretrained_cfg
    if weights in ("none", "pretrained"):
        return cfg, {}
    if str(weights).startswith(HUB):
        tensors, found = read_hub(str(weights).removeprefix(HUB), backbone)
        cfg = {**cfg, **found}
    else:
        tensors = read_weights(Path(weights).expanduser())
    load_into(net, tensors, str(weights))
    return cfg, tensors


def _load_head(model: Embedder, tensors: dict[str, Tensor]) -> None:
    """Of a model that gracl trained also what follows the backbone, as far as it is made alike."""
    if "neck.weight" not in tensors:
        return
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    alike = {k: tensors[k] for k, v in own.items() if k in tensors and tensors[k].shape == v.shape}
    model.load_state_dict(alike, strict=False)
