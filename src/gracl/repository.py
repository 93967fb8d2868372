"""A model's folder as the Hugging Face hub has it, whole by itself: what `gracl.hub` puts there.

    model.safetensors   the model, which `gracl.load_model` needs nothing besides
    config.json         what it is, for programs: architecture, preprocessing, fingerprint
    README.md           its card, for people (see `gracl.card`)

No other file is ever written: no image, and no list of images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import torch

from gracl.card import Facts, Said, Training, origin_in, training_of, write_card
from gracl.config import Config, ModelConfig
from gracl.disk import told
from gracl.errors import ConfigError, WeightsError, did_you_mean
from gracl.files import DESCRIPTION, WEIGHTS, load_model, read_description, rebuild, save_model, write
from gracl.models.embedder import Embedder
from gracl.models.fingerprint import fingerprint
from gracl.models.licences import IDENTIFIERS
from gracl.paths import is_file, is_folder, is_there
from gracl.runs import Run

CARD = "README.md"
FILES = (WEIGHTS, CARD, DESCRIPTION)
MARK = "\n<!-- written by gracl; sha256 of all above: "
"""Begins the card's last line, by which one that was changed by hand is told from one that was not."""
Source = Run | Embedder | str | Path
"""A run, its folder, a model, its file, or a folder that `save_pretrained` wrote."""


class Sayings(TypedDict, total=False):
    """What an author can say in the card, by the names of `save_pretrained`."""

    license: str | None
    license_name: str | None
    license_link: str | None
    data_license: str | None
    datasets: str | Sequence[str]
    title: str | None
    notes: str | None


def save_pretrained(
    source: Source,
    folder: str | Path,
    *,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    data_license: str | None = None,
    datasets: str | Sequence[str] = (),
    title: str | None = None,
    notes: str | None = None,
    repo_id: str | None = None,
) -> Path:
    """Writes a folder that is a complete model repository of the Hugging Face hub.

    The card tells what the run knows: data, method, settings, scores before and after, licences. What
    is not known is called so. No folder of this machine is named, and no image.

    Args:
        source: best a finished run, or its folder. Of a model alone, its training is not known.
        folder: new, empty, or what this function wrote. A card changed by hand is not overwritten.
        license: of the weights, as the hub calls it: "apache-2.0", "cc-by-nc-4.0"; or "other".
        license_name: its name, with "other".
        license_link: where its text is.
        data_license: of the images trained on.
        datasets: their names, best those of the hub. If not given, what the run calls them.
        title: of the card.
        notes: Markdown for the card's end.
        repo_id: "organisation/name" that the card says to load the model by.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder holds something else, or the licence is none that the hub knows.
        RunError: the run is not finished.
        WeightsError: the model was not made by `gracl.build_model`, or cannot be made again from it.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> folder = save_pretrained(model, "model", license="apache-2.0")  # doctest: +SKIP
    """
    said = Said(
        license,
        license_name,
        license_link,
        data_license,
        (datasets,) if isinstance(datasets, str) else tuple(datasets),
        title,
        notes,
    )
    _require_licence(said)
    folder = Path(folder).expanduser()
    require_own(folder)
    model, training = _opened(source)
    config = _config_of(model)
    _require_same_again(model, config)
    facts = _facts(model, config, training, repo_id)
    card = write_card(facts, said)
    with told(folder, ConfigError, "another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    # The description goes first: by it the folder is known as ours, should the rest be interrupted.
    write(folder / DESCRIPTION, (json.dumps(_description(facts, model), indent=2) + "\n").encode())
    write(folder / CARD, f"{card}{MARK}{_digest(card)} -->\n".encode())
    save_model(folder / WEIGHTS, model, config)
    return folder


def _opened(source: Source) -> tuple[Embedder, Training | None]:
    """The model, and what its training says of itself where it is at hand."""
    if isinstance(source, Embedder):
        return source, None
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if not is_folder(path) or not is_file(path / "config.yaml"):
            return load_model(source), None
        source = Run(path)
    return source.model, training_of(source)


def _config_of(model: Embedder) -> ModelConfig:
    """The settings that make its network again."""
    if not (model.backbone_name and model.pooling_name):
        raise WeightsError(
            "this model does not say what it was built on, so nobody could load it again. Make it by "
            "gracl.build_model or gracl.load_model"
        )
    settings = {
        "backbone": model.backbone_name,
        "size": model.size,
        "pooling": model.pooling_name,
        "last_stride": model.last_stride,
        "parts": len(model.part_necks),
    }
    return Config().replace({"model": settings}).model


def _require_same_again(model: Embedder, config: ModelConfig) -> None:
    """Makes the model anew from what is going to be written, and compares features."""
    tensors = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    try:
        again = rebuild(tensors, config)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights of this model do not fit a '{config.backbone}' as gracl builds it, so nobody "
            "could load it again. Make it by gracl.build_model or gracl.load_model"
        ) from error
    device, before = model.mean.device, model.training
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *model.size), dtype=torch.uint8, generator=draws)
    try:
        with torch.inference_mode():
            there, here = model.eval()(images.to(device)).cpu(), again(images)
    finally:
        model.train(before)
    # A GPU adds up in another order, and in TF32 where that is on.
    if not torch.allclose(there, here, atol=1e-5 if device.type == "cpu" else 1e-2):
        raise WeightsError(
            f"a '{config.backbone}' that gracl builds from these weights gives other features (up to "
            f"{(there - here).abs().max():.2g} off): the network was changed after it was built. Only "
            "networks as gracl.build_model makes them can be saved"
        )


def _facts(
    model: Embedder, config: ModelConfig, training: Training | None, repository: str | None
) -> Facts:
    return Facts(
        backbone=config.backbone,
        size=config.size,
        pooling=config.pooling,
        last_stride=config.last_stride,
        parts=config.parts,
        dim=model.dim,
        fingerprint=fingerprint(model),
        version=metadata.version("gracl"),
        training=training,
        repository=repository,
        origin=origin_in(training),
    )


def _description(facts: Facts, model: Embedder) -> dict[str, Any]:
    """config.json: "architecture" and "pretrained_cfg" as timm has them, and gracl's own below "gracl".

    By the first two `model.weights` takes the backbone for another training.
    """
    mean, std = ((value / 255).flatten().tolist() for value in (model.mean, model.std))
    height, width = facts.size
    return {
        "architecture": facts.backbone.split(".")[0],
        "num_classes": 0,
        "num_features": facts.dim,
        "library_name": "gracl",
        "pretrained_cfg": {
            "input_size": [3, height, width],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": [round(value, 6) for value in mean],
            "std": [round(value, 6) for value in std],
            "num_classes": 0,
        },
        "gracl": {
            "version": facts.version,
            "fingerprint": facts.fingerprint,
            "backbone": facts.backbone,
            "pooling": facts.pooling,
            "last_stride": facts.last_stride,
            "parts": facts.parts,
            "dim": facts.dim,
            "height": height,
            "width": width,
            "resize": "bicubic",
            "pixels": "uint8 RGB, 0 to 255; normalised by the model",
        },
    }


def require_own(folder: Path) -> None:
    """Refuses a folder that holds what this module did not write, or a card that was changed since."""
    if not is_there(folder):
        return
    if not is_folder(folder):
        raise ConfigError(f"{folder} is a file; expected a new folder")
    names = {p.name for p in folder.iterdir() if p.name[0] != "." and p.suffix != ".unfinished"}
    if not names:
        return
    try:
        read_description(folder)
    except WeightsError as error:
        raise ConfigError(
            f"{folder} exists and is not what gracl.save_pretrained wrote. Give a new folder"
        ) from error
    card = folder / CARD
    if card.exists():
        text, mark, told = card.read_text(encoding="utf-8", errors="replace").partition(MARK)
        if not mark or told.split(" ")[0] != _digest(text):
            raise ConfigError(
                f"{card} was changed since gracl wrote it, and is not overwritten. Give a new folder, "
                "or move the card away"
            )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _require_licence(said: Said) -> None:
    if said.license is not None and said.license not in IDENTIFIERS:
        raise ConfigError(
            f"the hub knows no licence '{said.license}'; {did_you_mean(said.license, IDENTIFIERS)}. "
            "For any other give the licence 'other', and its name as license_name"
        )
    if (said.license == "other") != (said.license_name is not None):
        raise ConfigError(
            "a licence's name (license_name) belongs to the licence 'other', and 'other' needs a name"
        )
