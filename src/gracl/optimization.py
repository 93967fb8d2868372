"""The optimiser: its rate at each step, a step that refuses rubbish, the teacher that follows it."""

from __future__ import annotations

import copy
import math
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from gracl.config import TrainConfig
from gracl.precision import Precision

Model = TypeVar("Model", bound=nn.Module)

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def learning_rate(settings: TrainConfig, done: float) -> float:
    """The rate when so many epochs are done, fractions of one included.

    Over the first `warmup` epochs the rate rises in a straight line from a hundredth. Besides, "step"
    multiplies it by `decay_factor` every `decay_every` epochs, "cosine" lets it fall along half a
    cosine from the end of the warm-up to 0 at the end of training, and "constant" leaves it.

    >>> [f"{learning_rate(TrainConfig(), done):.1e}" for done in (0, 19.9, 20, 40)]
    ['3.5e-04', '3.5e-04', '3.5e-05', '3.5e-06']
    >>> cosine = TrainConfig(schedule="cosine", warmup=10, epochs=50, learning_rate=0.1)
    >>> [f"{learning_rate(cosine, done):.3f}" for done in (0, 5, 10, 30, 50)]
    ['0.001', '0.051', '0.100', '0.050', '0.000']
    """
    rate = settings.learning_rate
    if done < settings.warmup:
        rate *= 0.01 + 0.99 * done / settings.warmup
    if settings.schedule == "step":
        rate *= settings.decay_factor ** int(done / settings.decay_every)
    elif settings.schedule == "cosine" and done >= settings.warmup:
        left = (done - settings.warmup) / max(settings.epochs - settings.warmup, 1e-9)
        rate *= (1 + math.cos(math.pi * min(left, 1.0))) / 2
    return rate


def share_of_height(settings: TrainConfig, done: float) -> float:
    """Share of `train.learning_rate` that warm-up and schedule leave, in [0, 1]; see `learning_rate`.

    >>> [share_of_height(TrainConfig(), done) for done in (0, 19.9)]
    [1.0, 1.0]
    """
    return learning_rate(settings, done) / settings.learning_rate


class Optimizer:
    """Gradients of a model's weights, and steps by them.

    Args:
        model: the network; weights without gradient are left alone.
        settings: optimizer, learning_rate, weight_decay, clip, schedule and what it takes.
        precision: float16 has the loss scaled up, so that small gradients do not vanish, and passes
            over a step whose gradients overflow.
    """

    def __init__(self, model: nn.Module, settings: TrainConfig, precision: Precision) -> None:
        self.settings, self.clip = settings, settings.clip
        self.weights = [p for p in model.parameters() if p.requires_grad]
        # One pass over the weights for the whole step, on CPU and GPU.
        fused = precision.device.type in ("cuda", "cpu")
        self.moving: list[Tensor] = []
        self.torch = OPTIMIZERS[settings.optimizer](
            self.weights,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=fused,
        )
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.needs_scaling)

    def backward(self, loss: Tensor) -> list[Tensor]:
        """A loss's gradients of all weights that have one; scaled in float16."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.moving = [weight for weight in self.weights if weight.grad is not None]
        gradients = [weight.grad for weight in self.moving if weight.grad is not None]
        self.torch.zero_grad(set_to_none=True)
        return gradients

    def take(self, gradients: list[Tensor]) -> Tensor:
        """Takes the gradients to step by; gives their length, true to scale."""
        for weight, gradient in zip(self.moving, gradients, strict=True):
            weight.grad = gradient
        self.scaler.unscale_(self.torch)
        return torch.nn.utils.get_total_norm(gradients)

    @property
    def may_pass_over(self) -> bool:
        """Whether gradients that overflow are the scale's fault: it is lowered, and the step left out.

        At a scale of 1 or less it is the gradients' own, and lowering it further would learn nothing.
        """
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def step(self, done: float, norm: Tensor) -> None:
        """Moves the weights by what `take` took, and forgets it.

        Args:
            done: epochs that are done, fractions of one included; gives the rate.
            norm: what `take` gave. Gradients longer than `clip` are shortened to it.
        """
        for group in self.torch.param_groups:
            group["lr"] = learning_rate(self.settings, done)
        if self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.weights, self.clip, norm)
        self.scaler.step(self.torch)
        self.scaler.update()
        self.torch.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """All that continues it, by "<number of the weight>.<name>"; copies, on the CPU."""
        found = {
            f"{number}.{name}": value.detach().cpu().clone()
            for number, values in self.torch.state_dict()["state"].items()
            for name, value in values.items()
        }
        for name in ("scale", "_growth_tracker"):
            if name in self.scaler.state_dict():
                found[f"scaler.{name}"] = torch.tensor(self.scaler.state_dict()[name])
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Continues from a `state`."""
        by_weight: dict[int, dict[str, Tensor]] = {}
        scaling: dict[str, Any] = {}
        for key, value in state.items():
            owner, _, name = key.partition(".")
            if owner == "scaler":
                scaling[name] = value.item()
            else:
                by_weight.setdefault(int(owner), {})[name] = value
        groups = self.torch.state_dict()["param_groups"]
        self.torch.load_state_dict({"state": by_weight, "param_groups": groups})
        if scaling and self.scaler.is_enabled():
            self.scaler.load_state_dict({**self.scaler.state_dict(), **scaling})


class Teacher(Generic[Model]):
    """A model whose weights and running statistics follow another's: theirs averaged over its steps.

    teacher <- momentum * teacher + (1 - momentum) * model, after each step.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, section 2.
    """

    def __init__(self, model: Model, momentum: float) -> None:
        self.model: Model = copy.deepcopy(model).requires_grad_(False)
        self.momentum = momentum
        mine, theirs = self.model.state_dict(), model.state_dict()
        followed = [name for name, value in mine.items() if value.is_floating_point()]
        self.mine = [mine[name] for name in followed]
        self.theirs = [theirs[name] for name in followed]

    @torch.no_grad()
    def follow(self) -> None:
        """One move towards the model as it is now."""
        torch._foreach_lerp_(self.mine, self.theirs, 1 - self.momentum)
