"""A classifier that a method learns beside the network: one row a cluster, moved by Adam.

The training loop steps the network's weights alone, so a classifier takes its step in `update`. The
gradient is written out: that of a cross entropy with targets which sum to 1, over the whole batch.

Source of the step: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

Letters: B images of a batch, C clusters, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

DECAY = (0.9, 0.999)
"""Shares of the OLD moments that Adam keeps."""
EPSILON = 1e-8


class Classifier:
    """Rows that are products with features, and the moments of their Adam.

    Args:
        rows: (C, D), moved in place; they need not stay of unit length.
        temperature: products are divided by it.
        learning_rate: of Adam, at its highest.
    """

    def __init__(self, rows: Tensor, *, temperature: float, learning_rate: float) -> None:
        self.rows, self.temperature, self.learning_rate = rows, temperature, learning_rate
        self.first, self.second = torch.zeros_like(rows), torch.zeros_like(rows)
        self.steps = 0

    def logits(self, features: Tensor) -> Tensor:
        """(B, D) features -> (B, C)."""
        return features @ self.rows.T / self.temperature

    @torch.no_grad()
    def step(self, features: Tensor, targets: Tensor, *, rate: float = 1.0) -> None:
        """Moves the rows down the gradient of the mean cross entropy.

        d/drows of  -mean over b of sum over c of targets_bc * log softmax(logits_b)_c
        = (softmax(logits) - targets)^T features / (B * temperature)

        Args:
            features: (B, D), as they were in the loss.
            targets: (B, C), each row sums to 1.
            rate: share of the learning rate that this step is taken with.
        """
        surplus = self.logits(features).softmax(dim=1) - targets
        gradient = surplus.T @ features / (len(features) * self.temperature)
        self.steps += 1
        self.first.mul_(DECAY[0]).add_((1 - DECAY[0]) * gradient)
        self.second.mul_(DECAY[1]).add_((1 - DECAY[1]) * gradient.square())
        first = self.first / (1 - DECAY[0] ** self.steps)
        second = self.second / (1 - DECAY[1] ** self.steps)
        self.rows.sub_(rate * self.learning_rate * first / (second.sqrt() + EPSILON))

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU of the rows and of all that the next step needs."""
        found = {"rows": self.rows, "first": self.first, "second": self.second}
        copies = {name: value.detach().cpu().clone() for name, value in found.items()}
        return {**copies, "steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continues from a `state`, on the device that the rows lie on."""
        for name in ("rows", "first", "second"):
            getattr(self, name).copy_(state[name])
        self.steps = int(state["steps"])
