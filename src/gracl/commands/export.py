"""`gracl export`: a model as one file for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gracl.errors import ConfigError
from gracl.terminal import print_exported


@dataclass(frozen=True)
class Export:
    """Write a run's model as one file for other programs, checked against the model."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder, a model.safetensors, or hf-hub:ORG/NAME."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The file to write: .onnx, .pt2 (a torch program) or .pt (the backbone's weights for timm)."""
    format: Literal["onnx", "program", "torch"] | None = None
    """What to write; the ending of OUT tells it if not given."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    """Where images have their channels: (B, 3, H, W), or (B, H, W, 3) as they lie in memory."""
    resize: bool = False
    """Take images of any height and width, and resize them in the graph as gracl does."""
    normalized: bool = False
    """Take float32 images that the program has normalised already, as BoxMOT does."""
    half: bool = False
    """Compute the backbone in float16; images and features stay as they are."""


def export(command: Export) -> None:
    """Write a run's model for other programs."""
    from gracl import export as exporting
    from gracl.files import load_model

    kind = exporting.format_of(command.out, command.format)
    choices: dict[str, Any] = {
        name: getattr(command, name) for name in ("layout", "resize", "normalized", "half")
    }
    exporting.require_writable(command.out, kind)
    if kind == "torch":
        given = [f"--{name}" for name, value in choices.items() if value not in (False, "nchw")]
        if given:
            raise ConfigError(f"{', '.join(given)}: weights alone have no graph; leave it out")
        done = exporting.export_weights(load_model(command.run), command.out)
    else:
        write = exporting.export_onnx if kind == "onnx" else exporting.export_program
        done = write(load_model(command.run), command.out, **choices)
    print_exported(done)
