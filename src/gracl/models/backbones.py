"""Any network of timm as a backbone: made for a size, understood by trying it out, and trimmed.

Letters: B images, C channels, h x w cells of a feature map, n image tokens.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracl.errors import ConfigError, WeightsError, did_you_mean
from gracl.models import ibn
from gracl.models.pooling import Layout
from gracl.models.weights import first_line, require_hub

REFUSALS = (RuntimeError, AssertionError, ValueError, IndexError)
"""What networks of timm raise on images of a size that they were not made for."""

# -- making it ------------------------------------------------------------------------------------


def create(name: str, size: tuple[int, int], *, pretrained: bool = False) -> Any:
    """A network of timm, or an IBN-Net, for images of one size.

    Args:
        name: a timm model's name, with a tag such as `.dino` or without, or one of `ibn.NAMES`.
        size: (height, width); position embeddings are resized to it.
        pretrained: take timm's weights, from the Hugging Face hub or its cache.

    Raises:
        ConfigError: no such backbone, or not for this size.
        WeightsError: timm's weights cannot be had.
    """
    import timm

    if name in ibn.NAMES:
        return _create_ibn(name, pretrained)
    if not timm.is_model(name):
        known = [*(timm.list_models(f"*{name[:4]}*") or timm.list_models("resnet*")), *ibn.NAMES]
        raise ConfigError(f"timm has no backbone '{name}': {did_you_mean(name, known)}")
    if pretrained:
        net = _create_pretrained(name, size)
    else:
        # timm zeroes the last BatchNorm of residual blocks by default, which makes an untrained
        # network little more than its shortcuts: on drawn people its features then retrieve at chance
        # (ResNet-18) or a third worse (ResNet-10-T), and the first clusters are made from these.
        try:
            net = _create(name, img_size=size, zero_init_last=False)
        except REFUSALS as error:
            raise ConfigError(
                f"timm cannot make a backbone '{name}' for images of {size}: {first_line(error)}. "
                "Set model.size to a size it was made for, or give another model.backbone"
            ) from error
    _require_whole_patches(net, name, size)
    return net


def _create(name: str, **choices: Any) -> Any:
    """A network without classifier, and with those of the choices that its architecture has."""
    import timm

    while True:
        try:
            return timm.create_model(name, num_classes=0, **choices)
        except TypeError as error:
            unknown = [choice for choice in choices if f"'{choice}'" in str(error)]
            if not unknown:
                raise
            del choices[unknown[0]]


def _create_ibn(name: str, pretrained: bool) -> Any:
    if pretrained:
        raise WeightsError(
            f"there are no weights of '{name}' in timm. Give a file of IBN-Net's with --model.weights "
            "FILE, or start from random weights with --model.weights none"
        )
    base, _, kind = name.partition("_ibn_")
    net = _create(base, zero_init_last=False)
    ibn.convert(net, kind)
    return net


def _create_pretrained(name: str, size: tuple[int, int]) -> Any:
    import timm

    try:
        cfg = timm.get_pretrained_cfg(name)
        if cfg is None or not cfg.has_weights:
            raise ValueError("timm has none")
        if cfg.hf_hub_id:
            require_hub(cfg.hf_hub_id)
        return _create(name, pretrained=True, img_size=size)
    except Exception as error:  # timm and its hub raise what they like
        raise WeightsError(
            f"timm's weights of '{name}' cannot be had: {first_line(error)}. Without a network, give "
            "a file with --model.weights FILE, or start from random weights with --model.weights none"
        ) from error


def _require_whole_patches(net: Any, name: str, size: tuple[int, int]) -> None:
    """Refuses a size of which patches would leave a margin, which some networks drop in silence."""
    cut = getattr(getattr(net, "patch_embed", None), "proj", None)
    if not isinstance(cut, nn.Conv2d) or cut.stride != cut.kernel_size:
        return
    below = [max(patch, side - side % patch) for side, patch in zip(size, cut.stride, strict=True)]
    above = [side + -side % patch for side, patch in zip(size, cut.stride, strict=True)]
    if list(size) != above:
        raise ConfigError(
            f"backbone '{name}' cuts images into patches of {cut.stride[0]} x {cut.stride[1]} pixels, "
            f"and the size {size} is no multiple of that. Set model.size to {below} or {above}"
        )


# -- understanding it -----------------------------------------------------------------------------


def try_out(net: Any, name: str, size: tuple[int, int]) -> Tensor:
    """The features of one drawn image, with their graph; the network is in eval mode then.

    Raises:
        ConfigError: the network cannot take the size, or gives no tensor.
    """
    # All values differ, and no random number is drawn: a seed gives the same weights with or without.
    image = torch.linspace(-2, 2, 3 * size[0] * size[1]).reshape(1, 3, *size)
    try:
        with torch.enable_grad():
            features = net.eval().forward_features(image)
    except REFUSALS as error:
        raise ConfigError(
            f"backbone '{name}' cannot take images of {size}: {first_line(error)}. Set model.size to "
            "the size it was made for, and model.last_stride to 2"
        ) from error
    if not isinstance(features, Tensor):
        raise ConfigError(
            f"backbone '{name}' gives a {type(features).__name__} of features; expected one tensor. "
            "Give another model.backbone"
        )
    return features


def layout_of(net: Any, name: str, features: Tensor) -> Layout:
    """How the network's features lie.

    Raises:
        ConfigError: neither as maps nor as tokens.

    >>> net = create("test_vit", (32, 16))
    >>> layout_of(net, "test_vit", try_out(net, "test_vit", (32, 16)))
    Layout(order='tokens', prefix=1, class_token=True)
    """
    if features.ndim == 3:
        has_class = getattr(net, "cls_token", None) is not None
        prefix = getattr(net, "num_prefix_tokens", int(has_class))
        return Layout("tokens", prefix=prefix, class_token=has_class)
    if features.ndim == 4 and getattr(net, "output_fmt", "NCHW") == "NHWC":
        return Layout("channels-last")
    if features.ndim == 4 and features.shape[1] == net.num_features:
        return Layout("maps")
    raise ConfigError(
        f"backbone '{name}' gives features of shape {tuple(features.shape)}; expected maps "
        "(B, C, h, w) or tokens (B, n, C). Give another model.backbone"
    )


def choose_pooling(asked: str, net: Any, name: str, layout: Layout, features: Tensor) -> str:
    """ "gem", "average" or "cls": what was asked for, if it makes sense, or the best for "auto".

    Auto is the class token of transformers, unless they normalise an average instead; of maps it is
    GeM where these are never negative, as after a ReLU, since GeM takes powers and roots; else average.

    Raises:
        ConfigError: GeM of tokens, a class token that is not there, an average of no tokens.
    """
    tokens = layout.order == "tokens"
    if asked == "auto":
        if tokens:
            return "cls" if layout.class_token and not norm_after_average(net) else "average"
        return "gem" if features.min() >= 0 else "average"
    if asked == "cls" and not layout.class_token:
        raise ConfigError(
            f"backbone '{name}' has no class token to pool. Set model.pooling to auto, or average"
        )
    if asked == "gem" and tokens:
        raise ConfigError(
            "pooling gem counts negative values as zero, and tokens, such as those of backbone "
            f"'{name}', are as often negative as positive. Set model.pooling to auto, average or cls"
        )
    if asked == "average" and tokens and features.shape[1] == layout.prefix:
        raise ConfigError(f"backbone '{name}' gives its class token only. Set model.pooling to cls")
    return asked


# -- trimming it ----------------------------------------------------------------------------------


def trim(net: nn.Module, features: Tensor, *, keep_norm: bool) -> str:
    """Takes out the parameters that these features, made by the network, do not depend on.

    Args:
        net: the network, whose classifier's parts are of no use to us.
        features: what `try_out` gave.
        keep_norm: leave the LayerNorm between timm's own average and its classifier, if there is one.

    Returns:
        The path of the LayerNorm that was left; "" if there is none.
    """
    trained = {name: value for name, value in net.named_parameters() if value.requires_grad}
    gradients = torch.autograd.grad(features.sum(), list(trained.values()), allow_unused=True)
    unused = {name for name, gradient in zip(trained, gradients, strict=True) if gradient is None}
    norm = norm_after_average(net) if keep_norm else ""
    unused -= {f"{norm}.weight", f"{norm}.bias"}
    for path, layer in list(net.named_modules()):
        parameters = {f"{path}.{name}" for name, _ in layer.named_parameters()}
        if path and parameters and parameters <= unused:
            net.set_submodule(path, nn.Identity())
            unused -= parameters
    for name in unused:  # of layers that are used otherwise
        path, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(path), leaf, None)
    return norm


def norm_after_average(net: nn.Module) -> str:
    """Path of the LayerNorm between timm's own average and its classifier; "" if there is none."""
    layers = dict(net.named_modules())
    paths = ("fc_norm", "head.norm")
    return next((path for path in paths if isinstance(layers.get(path), nn.LayerNorm)), "")


def take_norm(net: nn.Module, path: str) -> nn.LayerNorm:
    """Moves a LayerNorm out of a network, as one over the last dimension."""
    layer = net.get_submodule(path)
    assert isinstance(layer, nn.LayerNorm)
    norm = nn.LayerNorm(
        layer.normalized_shape, layer.eps, layer.elementwise_affine, bias=layer.bias is not None
    )
    norm.load_state_dict(layer.state_dict())
    net.set_submodule(path, nn.Identity())
    return norm


# -- the last stride ------------------------------------------------------------------------------


def set_last_stride(net: Any, name: str, size: tuple[int, int]) -> None:
    """Undoes the last halving of the maps: the layers that do it get stride 1, and keep their weights.

    timm's `output_stride=16` would dilate the convolutions of that stage too; the field does not.

    Raises:
        ConfigError: there is no such layer, or the network does not work without its stride.
    """
    layers, before = _last_halving(net, name, size)
    if not layers:
        raise ConfigError(
            f"no stride to change in '{name}' at images of {size}: set model.last_stride to 2, which "
            "leaves it as it is"
        )
    for layer in layers:
        _drop_stride(layer)
    try:
        after = try_out(net, name, size).shape[2:]
        grown = all(abs(new - 2 * old) <= 1 for new, old in zip(after, before, strict=True))
        reason = f"its maps would go from {tuple(before)} to {tuple(after)}"
    except ConfigError as error:
        grown, reason = False, first_line(error.__cause__ or error)
    if not grown:
        raise ConfigError(
            f"the last stride of '{name}' cannot be changed: {reason}. Set model.last_stride to 2"
        )


def _last_halving(net: Any, name: str, size: tuple[int, int]) -> tuple[list[nn.Module], torch.Size]:
    """The layers that bring the maps to their last size, in the stage where that is done; that size."""
    calls: list[tuple[str, nn.Module, torch.Size, torch.Size]] = []

    def watch(path: str, layer: nn.Module) -> Any:
        return layer.register_forward_hook(
            lambda _, given, made: calls.append((path, layer, given[0].shape[2:], made.shape[2:]))
        )

    hooks = [
        watch(path, layer)
        for path, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.MaxPool2d) and layer.stride in (2, (2, 2))
    ]
    try:
        last = try_out(net, name, size).shape[2:]
    finally:
        for hook in hooks:
            hook.remove()
    # Where the last one called has nothing to halve, maps of one cell, an earlier one would be taken.
    if not calls or calls[-1][2] == calls[-1][3]:
        return [], last
    halving = [(path, layer) for path, layer, given, made in calls if made == last != given]
    # Attention in an earlier stage may look at maps of that size, too.
    return [layer for path, layer in halving if _stage(path) == _stage(halving[-1][0])], last


def _stage(path: str) -> str:
    """The path of a layer up to its first number: layer4.0.conv2 -> layer4."""
    found = re.match(r"\D*\d+", path)
    return found[0] if found else path


def _drop_stride(layer: Any) -> None:
    layer.stride = (1, 1)
    if not isinstance(layer, nn.Conv2d):
        # At stride 1 a pooling window would shrink the shortcut by a row and blur it.
        layer.kernel_size, layer.padding = (1, 1), (0, 0)
    elif layer.kernel_size[0] % 2 == 0:
        # A window of 2 would lose a row and a column; padded, every second cell is as it was.
        layer.register_forward_pre_hook(_pad_below_and_right)


def _pad_below_and_right(_: nn.Module, given: tuple[Tensor]) -> Tensor:
    return F.pad(given[0], (0, 1, 0, 1))
