"""Weights from a file or the hub, whatever names their keys have. Nothing unpickles foreign code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gracl.errors import ConfigError, WeightsError
from gracl.models.hub import fetch
from gracl.paths import is_file

WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "teacher", "student")
UNPICKLES_SAFELY = "2.10"
"""The first torch that a file of "tensors only" cannot make run code (CVE-2026-24747)."""
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
PREFIXES = ("module.", "backbone.", "model.", "base.", "encoder.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or from a torch file (`weights_only`).

    Raises:
        WeightsError: no such file, not a weights file, it holds more than tensors, or this torch
            cannot read torch files safely.
    """
    if not is_file(path):
        raise WeightsError(
            f"{path} does not exist. Give a .safetensors or torch weights file, 'pretrained' for "
            "timm's own weights, or 'none'"
        )
    is_pickled = path.suffix != ".safetensors"
    if is_pickled and not unpickles_safely():
        raise WeightsError(
            f"{path} is a torch file, and torch {torch.__version__} can be made to run code by one "
            "(CVE-2026-24747). Give a .safetensors file, or pip install 'torch>=2.10'"
        )
    try:
        if not is_pickled:
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # on a file that is none, torch's unpickler raises what it likes
        raise WeightsError(
            f"{path} cannot be read as weights: {first_line(e)}. Only "
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


def unpickles_safely() -> bool:
    """Whether this torch reads tensors from a pickle, as a stranger may have made it, and no more."""
    return torch.__version__ >= UNPICKLES_SAFELY


def read_hub(repository: str, backbone: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and timm's notes on them, from the Hugging Face hub or its cache.

    Args:
        repository: "org/name" of a model that timm can read, that is, with timm's config.json.
        backbone: the architecture that it must be of.

    Raises:
        WeightsError: it cannot be had.
        ConfigError: it is of another architecture.
    """
    try:
        require_hub(repository)
        if not unpickles_safely():
            fetch(repository, "model.safetensors")  # which timm then takes, rather than a pickle
        from timm.models import load_model_config_from_hf, load_state_dict_from_hf

        cfg, architecture, _ = load_model_config_from_hf(repository)
        tensors = load_state_dict_from_hf(repository, weights_only=True)
    except Exception as error:  # timm and its hub raise what they like
        raise WeightsError(
            f"the weights hf-hub:{repository} cannot be had: {first_line(error)}. "
            "Without a network, give a file with --model.weights FILE, or start from random weights "
            "with --model.weights none"
        ) from error
    if architecture != backbone.split(".")[0]:
        raise ConfigError(
            f"hf-hub:{repository} holds a '{architecture}', and the backbone is '{backbone}'. Set "
            f"model.backbone to {architecture}"
        )
    return tensors, cfg


def require_hub(repository: str) -> None:
    """Fails at once where the hub's own client would try for a minute.

    Raises:
        ConnectionError: the repository has no weights in the cache, and the hub does not answer.
    """
    from huggingface_hub import constants

    name = repository.split("@")[0].replace("/", "--")  # a revision may follow
    folder = Path(constants.HF_HUB_CACHE, f"models--{name}", "snapshots")
    if constants.HF_HUB_OFFLINE or any(file.suffix in SUFFIXES for file in folder.glob("*/*")):
        return
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=5).close()
    except HTTPError:
        return  # whatever it says, it answers
    except OSError as error:
        raise ConnectionError(
            f"{constants.ENDPOINT} does not answer ({error}), and {constants.HF_HUB_CACHE} has no "
            f"weights of {repository}"
        ) from error


def load_into(module: nn.Module, tensors: dict[str, Tensor], source: str) -> str:
    """Copies weights into a module; returns a sentence on how their names were matched.

    First by name, after prefixes such as `module.` are taken off, and with timm's own converter of the
    architecture, which resizes position embeddings to the images' size and knows names that others
    published under. If names do not fit, by order: a
    file of the same architecture written by other code lists tensors of the same shapes in the same
    order, and then each takes its place. A classifier at the end of the file is left out. (Files of
    safetensors have no such order: they list names by the alphabet.)

    Raises:
        WeightsError: neither fits; names what is missing.
    """
    wanted = {k: v for k, v in module.state_dict().items() if not _is_counter(k)}
    given = {_plain(k, wanted): v for k, v in tensors.items() if not _is_counter(k)}
    converted = _converted(module, given)
    if wanted.keys() <= converted.keys():
        given = converted
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


def _converted(module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as timm would convert them for a network of its own; as they are if it cannot."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        return dict(convert(dict(tensors), module))
    except Exception:  # written for known files; of any other it asks names that are not there
        return tensors


def first_line(error: BaseException) -> str:
    """What an exception says, as a part of a sentence.

    >>> first_line(ValueError("It is 5.\\nSee above."))
    'It is 5'
    """
    return next(iter(str(error).splitlines()), repr(error)).rstrip(".")


def _plain(key: str, wanted: dict[str, Tensor]) -> str:
    for prefix in PREFIXES:
        if key not in wanted and key.startswith(prefix):
            key = key.removeprefix(prefix)
    return key


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
