"""From a backbone's features to one vector an image.

Letters: B images, C channels, h x w cells of a feature map, n cells or image tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gracl.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """Where a backbone's features have their channels and cells.

    >>> tokens = torch.zeros(2, 1 + 8 * 4, 192)  # a class token, then 8 x 4 patches
    >>> Layout("tokens", prefix=1, class_token=True).cells(tokens).shape
    torch.Size([2, 192, 32])
    """

    order: Literal["maps", "channels-last", "tokens"] = "maps"
    """(B, C, h, w), (B, h, w, C), or (B, prefix + n, C)."""
    prefix: int = 0
    """Tokens before those of the image: class token and registers."""
    class_token: bool = False
    """Whether the first token is a class token."""

    def cells(self, features: Tensor) -> Tensor:
        """The part of the features that lies over the image, (B, C, n)."""
        if self.order == "tokens":
            return features[:, self.prefix :].transpose(1, 2)
        if self.order == "channels-last":
            return features.flatten(1, 2).transpose(1, 2)
        return features.flatten(2)

    def stripes(self, features: Tensor, count: int) -> tuple[Tensor, ...]:
        """The image cut across into so many stripes, top to bottom, each (B, C, its cells).

        Raises:
            ConfigError: tokens, or fewer rows of cells than stripes.
        """
        height = 0 if self.order == "tokens" else features.shape[2 if self.order == "maps" else 1]
        if count > height:
            found = "are tokens" if not height else f"have {height} rows of cells"
            raise ConfigError(
                f"model.parts is {count}, and the backbone's features {found}. Take a convolutional "
                "backbone, a larger model.size or fewer parts"
            )
        cells = self.cells(features)
        rows = cells.reshape(*cells.shape[:2], height, -1)
        return tuple(part.flatten(2) for part in torch.tensor_split(rows, count, dim=2))


MAPS = Layout()


class GeneralizedMeanPooling(nn.Module):
    """(mean of x^p)^(1/p) over the cells, with p learnt; p = 1 is the mean, p -> inf the maximum.

    Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019,
    section 3.2.

    >>> GeneralizedMeanPooling(p=1.0)(torch.tensor([[[[1.0, 3.0]]]])).tolist()
    [[2.0]]
    """

    def __init__(self, p: float = 3.0, epsilon: float = 1e-6, layout: Layout = MAPS) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.epsilon = epsilon
        self.layout = layout

    def forward(self, features: Tensor) -> Tensor:
        """Features of its layout -> (B, C) float32; values below `epsilon` count as `epsilon`."""
        powers = self.layout.cells(features).float().clamp(min=self.epsilon).pow(self.p)
        return powers.mean(dim=2).pow(1 / self.p)


class AveragePooling(nn.Module):
    """The mean over the cells, then the norm that the backbone was trained with after its own mean.

    >>> AveragePooling()(torch.tensor([[[[1.0, 3.0]]]])).tolist()
    [[2.0]]
    """

    def __init__(self, layout: Layout = MAPS, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layout = layout
        self.norm = norm or nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Features of its layout -> (B, C) float32."""
        pooled: Tensor = self.norm(self.layout.cells(features).float().mean(dim=2))
        return pooled.float()


class ClassTokenPooling(nn.Module):
    """The first token, in which a transformer sums up the image.

    >>> ClassTokenPooling()(torch.tensor([[[5.0], [1.0], [3.0]]])).tolist()
    [[5.0]]
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, prefix + n, C) -> (B, C) float32."""
        return tokens[:, 0].float()


def build_pooling(name: str, layout: Layout = MAPS, norm: nn.Module | None = None) -> nn.Module:
    """ "gem", "average" or "cls", of features in this layout; `norm` follows the average."""
    if name == "gem":
        return GeneralizedMeanPooling(layout=layout)
    return ClassTokenPooling() if name == "cls" else AveragePooling(layout, norm)
