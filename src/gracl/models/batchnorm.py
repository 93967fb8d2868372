"""BatchNorm over groups of a stated size, so that the number of devices does not change the result.

Several devices normalise each its own share of a batch. One device that normalises the whole batch
at once trains another model: 82.6 mAP fall to 59.1 in reports of the field's baseline. So the group
is a setting, and one device goes through its batch group by group, as several devices would.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def forward_in_groups(model: nn.Module, images: Tensor, group: int) -> Tensor:
    """The model's output for a batch, BatchNorm seeing about `group` images at a time.

    The batch is cut into round(B / group) runs of neighbouring images, as equal as can be. Each
    BatchNorm's running statistics move once a batch, by its momentum m, towards the mean of the
    groups' statistics: running <- (1 - m) running + m mean(groups). The order of the groups, and
    which device holds which of them, is therefore of no consequence.

    Args:
        model: any module; without BatchNorm, or with BatchNorm in eval mode, the result is
            `model(images)`.
        images: (B, ...) a batch.
        group: images a group; at least B takes the batch as one.
    """
    parts = images.tensor_split(max(1, round(len(images) / group)))
    if len(parts) == 1:
        return model(images)  # type: ignore[no-any-return]
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.momentum is not None]
    momenta = [layer.momentum or 0.0 for layer in layers]
    outputs = []
    try:
        for number, part in enumerate(parts, 1):
            for layer, momentum in zip(layers, momenta, strict=True):
                # Going through the groups in turn with this momentum leaves each with the weight
                # m / G in the end: the weights of later groups shrink those of earlier ones.
                layer.momentum = momentum / (len(parts) - (len(parts) - number) * momentum)
            outputs.append(model(part))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    return torch.cat(outputs)


@torch.no_grad()
def calibrate(model: nn.Module, batches: list[Tensor]) -> None:
    """Sets running statistics to the mean over these batches, and leaves the weights alone.

    An untrained network's running statistics (0 and 1) describe nothing, so its features in eval
    mode would be arbitrary; one pass over some images makes them those of the data.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative mean
        for batch in batches:
            model(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes:
            module.training = training
