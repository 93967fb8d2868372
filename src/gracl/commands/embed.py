"""`gracl embed`: features of images, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gracl.commands.options import LayoutName, load
from gracl.paths import is_file
from gracl.terminal import Bars, console, print_left_out, print_notes

if TYPE_CHECKING:
    from gracl.data.records import Dataset


@dataclass(frozen=True)
class Embed:
    """Write the features of images, by a run's model, as one table."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder, a model.safetensors, or hf-hub:ORG/NAME."""
    data: Annotated[
        tyro.conf.Positional[Path],
        tyro.conf.arg(metavar="IMAGES", help="As DATA of 'gracl train', or the file of one image."),
    ]
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("features.parquet")
    """What to write: .parquet (extra parquet), .npz or .csv."""
    batch_size: int = 256
    """Images that the model sees at a time; lower it if memory runs out."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """An image that cannot be read: stop with its name, or leave it out and say so."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    layout: LayoutName = None


def embed(command: Embed) -> None:
    """Write features of images."""
    from gracl import embedding, features
    from gracl.data.parts import is_image
    from gracl.files import load_model
    from gracl.training import use_threads

    features.require_writable(command.out)
    use_threads(command.threads)
    model = load_model(command.run)
    images: Path | Dataset = command.data
    if not (is_file(command.data) and is_image(command.data.name)):
        images = load(command)
        print_notes(images)
    with Bars() as bars:
        found = embedding.embed(
            model,
            images,
            batch_size=command.batch_size,
            device=command.device,
            on_bad=command.on_bad,
            progress=lambda done, total: bars("embed", done, total or done),
        )
    features.write_features(command.out, found)
    print_left_out(found.left_out)
    console.print(
        f"{len(found)} images, {found.dim} features each, by {found.backbone} "
        f"{found.fingerprint[:12]}: {command.out}",
        soft_wrap=True,
    )
