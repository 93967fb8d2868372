"""IBN-Net: ResNets that mix InstanceNorm into BatchNorm, so that looks of a camera count for less.

Source: Pan et al., "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
ECCV 2018, section 3.2 and figure 3. Timm has none, so its ResNets are converted here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

NAMES = tuple(f"resnet{depth}_ibn_{kind}" for kind in "ab" for depth in (18, 34, 50, 101))
"""What can be asked for as a backbone; what comes before _ibn_ is timm's name of the ResNet."""


class InstanceBatchNorm(nn.Module):
    """InstanceNorm for the first half of the channels, BatchNorm for the others.

    Its parts are called IN and BN, as in the published files of weights.

    >>> InstanceBatchNorm(6)(torch.randn(2, 6, 4, 4)).shape
    torch.Size([2, 6, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.IN = nn.InstanceNorm2d(channels // 2, affine=True)
        self.BN = nn.BatchNorm2d(channels - channels // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        half = self.IN.num_features
        return torch.cat([self.IN(maps[:, :half]), self.BN(maps[:, half:])], dim=1)


def convert(resnet: Any, kind: str) -> None:
    """Makes an untrained ResNet of timm an IBN-Net, in place.

    Args:
        resnet: a ResNet of basic or bottleneck blocks.
        kind: "a" mixes both norms after the first convolution of each block of layers 1 to 3; "b"
            normalises each image after the stem's convolution and at the ends of layers 1 and 2,
            between addition and activation.

    >>> import timm
    >>> net = timm.create_model("resnet18")
    >>> convert(net, "a")
    >>> sorted(name for name in net.state_dict() if name.startswith("layer3.1.bn1.IN"))
    ['layer3.1.bn1.IN.bias', 'layer3.1.bn1.IN.weight']
    """
    if kind == "a":
        for block in (*resnet.layer1, *resnet.layer2, *resnet.layer3):
            block.bn1 = InstanceBatchNorm(block.bn1.num_features)
        return
    resnet.bn1 = nn.InstanceNorm2d(resnet.bn1.num_features, affine=True)
    for block in (resnet.layer1[-1], resnet.layer2[-1]):
        last = 3 if hasattr(block, "bn3") else 2  # bottleneck or basic block
        channels = getattr(block, f"bn{last}").num_features
        parts = OrderedDict(
            IN=nn.InstanceNorm2d(channels, affine=True), act=getattr(block, f"act{last}")
        )
        setattr(block, f"act{last}", nn.Sequential(parts))
