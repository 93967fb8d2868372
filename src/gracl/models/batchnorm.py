"""BatchNorm over groups of a stated size, so that the number of devices does not change the result.

Several devices normalise each its own share of a batch. One device that normalises the whole batch
at once trains another model: 82.6 mAP fall to 59.1 in reports of the field's baseline. So the group
is a setting, and a batch is taken group by group, whoever takes which.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def group_borders(n: int, group: int) -> list[int]:
    """Where the groups of a batch of n images begin, and n: about `group` each, as equal as can be.

    >>> group_borders(256, 64), group_borders(10, 4), group_borders(3, 64)
    ([0, 64, 128, 192, 256], [0, 5, 10], [0, 3])
    """
    groups = max(1, min(round(n / group), n // 2))  # one image alone has no variance
    return [n * g // groups for g in range(groups + 1)]


class RunningStatistics:
    """Running statistics that move once a batch, however many groups it is taken in.

    By a BatchNorm's momentum m, they move towards the mean of the groups' statistics:
    running <- (1 - m) running + m mean(groups), which is the mean over the groups of where each of
    them alone would have moved. The order of the groups, and who takes them, is of no consequence.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.momentum is not None]
        both = [b for layer in layers for b in (layer.running_mean, layer.running_var)]
        counters = [layer.num_batches_tracked for layer in layers]
        self.values: list[Tensor] = [b for b in both if b is not None]
        self.counters: list[Tensor] = [c for c in counters if c is not None]
        self._before = [value.clone() for value in self.values]
        self._count = [counter.clone() for counter in self.counters]

    def begin_batch(self) -> None:
        """What follows are the groups of one batch."""
        _copy(self._before, self.values)
        _copy(self._count, self.counters)

    def begin_group(self) -> None:
        """What follows is one pass of the model, in train mode."""
        _copy(self.values, self._before)

    def moved(self) -> list[Tensor]:
        """Where the group alone moves them, as copies."""
        return [value.clone() for value in self.values]

    def undo_batch(self) -> None:
        """Leaves what was there before the batch."""
        _copy(self.values, self._before)
        _copy(self.counters, self._count)

    def end_batch(self, totals: list[Tensor], groups: int) -> None:
        """Moves them to the mean over all groups, given the sums of what `moved` gave for each."""
        if self.values:
            _copy(self.values, list(torch._foreach_div(totals, groups)))
        _copy(self.counters, [count + 1 for count in self._count])


def _copy(to: list[Tensor], values: list[Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, values)


@torch.no_grad()
def calibrate(model: nn.Module, batches: list[Tensor], **forward: Any) -> None:
    """Sets running statistics to the mean over these batches, and leaves the weights alone.

    An untrained network's running statistics (0 and 1) describe nothing, so its features in eval
    mode would be arbitrary; one pass over some images makes them those of the data. A layer that
    `forward`, the arguments besides the batch, leaves out keeps 0 and 1.
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
            model(batch, **forward)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes:
            module.training = training
