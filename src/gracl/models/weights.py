"""Weights from a file, whatever names their keys have. Nothing here unpickles foreign code."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gracl.errors import WeightsError

WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "teacher", "student")
PREFIXES = ("module.", "backbone.", "model.", "base.", "encoder.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or from a torch file (`weights_only`).

    Raises:
        WeightsError: no such file, not a weights file, or it holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path} does not exist. Give a .safetensors or torch weights file, 'pretrained' for "
            "timm's own weights, or 'none'"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # on a file that is none, torch's unpickler raises what it likes
        raise WeightsError(
            f"{path} cannot be read as weights: {str(e).splitlines()[0] if str(e) else e!r}. Only "
            "tensors are loaded; save a state_dict, best as safetensors"
        ) from e
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a {type(found).__name__}; expected tensors by name")
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors; expected a state_dict")
    return tensors


def load_into(module: nn.Module, tensors: dict[str, Tensor], source: str) -> str:
    """Copies weights into a module; returns a sentence on how their names were matched.

    First by name, after prefixes such as `module.` are taken off. If names do not fit, by order: a
    file of the same architecture written by other code lists tensors of the same shapes in the same
    order, and then each takes its place. A classifier at the end of the file is left out. (Files of
    safetensors have no such order: they list names by the alphabet.)

    Raises:
        WeightsError: neither fits; names what is missing.
    """
    wanted = {k: v for k, v in module.state_dict().items() if not _is_counter(k)}
    given = {_plain(k, wanted): v for k, v in tensors.items() if not _is_counter(k)}
    if wanted.keys() <= given.keys():
        matched, how = {k: given[k] for k in wanted}, "by name"
    else:
        # The last part of a name must agree: safetensors lists names by the alphabet, bias before
        # weight, and the vectors of a BatchNorm all have the same shape.
        pairs = zip(wanted, given.items(), strict=False)
        matched = {k: v for k, (name, v) in pairs if _leaf(k) == _leaf(name)}
        how = "by order"
    wrong = [k for k, v in wanted.items() if k not in matched or matched[k].shape != v.shape]
    if wrong:
        missing = sorted(wanted.keys() - given.keys())[:3]
        raise WeightsError(
            f"{source} does not fit the backbone: of {len(wanted)} tensors {len(wrong)} have no "
            f"counterpart of the same shape, by name (missing: {', '.join(missing) or 'none'}) or by "
            f"order (first: {wrong[0]} {tuple(wanted[wrong[0]].shape)}). Set model.backbone to the "
            "architecture of the file"
        )
    module.load_state_dict(matched, strict=False)
    return f"{len(matched)} of {len(tensors)} tensors of {Path(source).name} matched {how}"


def _plain(key: str, wanted: dict[str, Tensor]) -> str:
    for prefix in PREFIXES:
        if key not in wanted and key.startswith(prefix):
            key = key.removeprefix(prefix)
    return key


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
