"""A model as one file for other programs: ONNX, a torch program, or the backbone's weights alone.

The graph holds the preprocessing, and a file is kept only after it gave the model's features.

Letters: B images, H x W pixels, D feature dimensions.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gracl import disk
from gracl._export_check import BATCHES, FLOAT, HALF, Run, compare, require_close
from gracl._export_graph import Graph, trace
from gracl.disk import UNFINISHED, one_step, put
from gracl.errors import ConfigError, ExportError, did_you_mean
from gracl.models.embedder import Embedder
from gracl.models.fingerprint import fingerprint
from gracl.models.weights import first_line
from gracl.paths import is_folder

Axes = Literal["nchw", "nhwc"]

ENDINGS = {"onnx": (".onnx",), "program": (".pt2",), "torch": (".pt", ".pth")}
"""Formats, and how their files are called."""
OPSET = 18
"""Of ONNX: what torch's exporter writes, and runtimes read since early 2023."""
ONNX_TORCH = "2.7"
"""The first torch that writes ONNX: the exporter of 2.6 fails on every BatchNorm."""
ELSEWHERE = "another OUT"
"""What is told of a file that cannot be written."""
LARGEST = 2**31 - 2**24
"""Bytes of weights that one ONNX file can hold, with some room for the graph."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what it was checked by."""

    path: Path
    format: str
    """One of `ENDINGS`."""
    bytes: int
    """Its size."""
    batches: tuple[int, ...]
    """Images at a time that it was tried with; none for weights alone."""
    difference: float
    """The largest |difference| of a feature's element from the model's."""
    cosine: float
    """The least cosine between a feature and the model's."""
    metadata: dict[str, str]
    """What the file says of itself."""


# -- the three formats ----------------------------------------------------------------------------


def export_onnx(
    model: Embedder,
    path: str | Path,
    *,
    layout: Axes = "nchw",
    resize: bool = False,
    normalized: bool = False,
    half: bool = False,
) -> Exported:
    """One ONNX file: "images" (B, 3, H, W) uint8 RGB -> "features" (B, D) float32 unit rows.

    B is any number of images; H and W are the model's size. Before the file takes its name, ONNX
    Runtime computes the features of soft, black, white and noisy images with it, 1, 2 and 7 at a time.

    Args:
        model: computed as in eval mode, and left as it is. Features of parts are not exported.
        path: ends in .onnx. A file that is there is replaced by one that passed its check only.
        layout: "nhwc" takes (B, H, W, 3), as images lie in memory.
        resize: take images of any height and width, those of a batch alike, and resize them in the
            graph as gracl resizes what it reads: bicubic, with antialiasing.
        normalized: take float32 images that had the backbone's mean subtracted and were divided by its
            standard deviation, for programs that do so to every network's images.
        half: the backbone's weights and computation in float16; images and features stay as they are.

    Raises:
        ConfigError: the ending, the folder, the layout or the choices cannot be; ONNX is not installed,
            or torch is older than 2.7.
        ExportError: torch cannot export the backbone, or the file's features are not the model's.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> done = export_onnx(model, "model.onnx", layout="nhwc")  # doctest: +SKIP
    >>> done.batches, done.difference < 1e-4                    # doctest: +SKIP
    ((1, 2, 7), True)
    """
    path = require_writable(path, "onnx")
    require_onnx()
    graph = Graph(model, layout, resize=resize, normalized=normalized, half=half)
    held = sum(tensor.nbytes for tensor in graph.state_dict().values())
    if held > LARGEST:
        raise ExportError(
            f"the weights take {held / 2**30:.1f} GiB, and one ONNX file holds 2. Give --half, or "
            "--format program"
        )
    return _export(graph, model, path, "onnx", _write_onnx, _open_onnx)


def export_program(
    model: Embedder,
    path: str | Path,
    *,
    layout: Axes = "nchw",
    resize: bool = False,
    normalized: bool = False,
    half: bool = False,
) -> Exported:
    """One torch program (.pt2), of the same graph as `export_onnx` writes, checked in the same way.

    `torch.export.load(path).module()` is a function of images that needs torch alone.

    Args:
        model: see `export_onnx`, also for all below.
        path: ends in .pt2.
        layout: see there.
        resize: see there.
        normalized: see there.
        half: see there.

    Raises:
        ConfigError: the ending, the folder, the layout or the choices cannot be.
        ExportError: torch cannot export the backbone, or the file's features are not the model's.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> features = export_program(model, "model.pt2")  # doctest: +SKIP
    """
    path = require_writable(path, "program")
    graph = Graph(model, layout, resize=resize, normalized=normalized, half=half)
    return _export(graph, model, path, "program", _write_program, _open_program)


def export_weights(model: Embedder, path: str | Path) -> Exported:
    """The backbone's weights as a plain torch file, under the names that timm gives them.

    They are read by `torch.load(path, weights_only=True)`, and `model.weights` of another training
    takes them. Pooling and neck, which come after the backbone, are not in them.

    Args:
        model: left as it is.
        path: ends in .pt or .pth.

    Raises:
        ConfigError: the ending or the folder cannot be.
        ExportError: the file cannot be written.

    >>> from gracl.models.embedder import build_embedder
    >>> model = build_embedder("test_resnet", size=(64, 32))
    >>> done = export_weights(model, "backbone.pt")  # doctest: +SKIP
    """
    path = require_writable(path, "torch")
    tensors = {k: v.detach().cpu().clone() for k, v in model.backbone.state_dict().items()}
    norm = getattr(model.pooling, "norm", None)
    if isinstance(norm, nn.LayerNorm):
        # It was moved from here (see backbones.take_norm), and an Identity was left.
        layers = dict(model.backbone.named_modules())
        home = next(p for p in ("fc_norm", "head.norm") if isinstance(layers.get(p), nn.Identity))
        tensors |= {f"{home}.{k}": v.detach().cpu().clone() for k, v in norm.state_dict().items()}
    content = io.BytesIO()  # torch's own writer ends the process where a disk is full
    torch.save(tensors, content)
    put(path, content.getvalue(), ExportError, ELSEWHERE)
    return Exported(path, "torch", path.stat().st_size, (), 0.0, 1.0, {})


def format_of(path: str | Path, asked: str | None = None) -> str:
    """The format that was asked for, or that a file's ending tells.

    Raises:
        ConfigError: neither is known.

    >>> format_of("model.onnx"), format_of("weights.pth")
    ('onnx', 'torch')
    """
    if asked is not None and asked not in ENDINGS:
        raise ConfigError(f"no format '{asked}'; {did_you_mean(asked, ENDINGS)}")
    told = [name for name, endings in ENDINGS.items() if Path(path).suffix.lower() in endings]
    if asked is None and not told:
        known = ", ".join(ending for endings in ENDINGS.values() for ending in endings)
        raise ConfigError(f"{path} does not tell a format by its ending; expected one of {known}")
    return asked or told[0]


def require_writable(path: str | Path, kind: str) -> Path:
    """The path of a file of this format, if it can be one; before work is spent on it.

    Raises:
        ConfigError: its ending is another format's, or it lies in no folder.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS[kind]:
        raise ConfigError(f"a file of format {kind} ends in {' or '.join(ENDINGS[kind])}; found {path}")
    if is_folder(path) or not is_folder(path.parent):
        raise ConfigError(f"{path} cannot be written; expected a file in a folder that exists")
    disk.require_writable(path, ConfigError, ELSEWHERE)
    return path


def require_onnx() -> None:
    """Raises a `ConfigError` where ONNX could not be written or checked, before work is spent on it."""
    if torch.__version__ < ONNX_TORCH:
        raise ConfigError(
            f"torch {torch.__version__} cannot write ONNX; expected {ONNX_TORCH} or newer: pip install "
            "--upgrade torch torchvision. Or give OUT the ending .pt2, for a torch program"
        )
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "ONNX needs onnx, onnxruntime and onnxscript: pip install 'gracl[export]'"
        ) from error


# -- writing --------------------------------------------------------------------------------------


def _export(
    graph: Graph,
    model: Embedder,
    path: Path,
    kind: str,
    write: Callable[[Any, dict[str, str]], bytes],
    open_file: Callable[[Path], Run],
) -> Exported:
    """Writes beside the target, compares, and only then gives the file its name."""
    about = _about(graph, model)
    beside = path.with_name(f"{path.stem}{UNFINISHED}{path.suffix}")  # readers go by the ending
    with one_step(path, ExportError, ELSEWHERE, beside=beside) as unfinished:
        try:
            unfinished.write_bytes(write(trace(graph), about))
            difference, cosine = compare(graph, model, open_file(unfinished))
        except OSError:
            raise
        except Exception as error:  # exporters and runtimes raise what they like
            raise ExportError(
                f"torch {torch.__version__} cannot export '{about['gracl.backbone']}' as {kind}: "
                f"{first_line(error)}. Try another --format, or without --resize and --half"
            ) from error
        require_close(path, difference, cosine, HALF if graph.half_backbone else FLOAT)
    return Exported(path, kind, path.stat().st_size, BATCHES, difference, cosine, about)


def _write_onnx(program: Any, about: dict[str, str]) -> bytes:
    import onnx

    found: Any = torch.onnx.export(
        program,
        (),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["features"],
        verbose=False,
    )
    content = found.model_proto
    _name_sides(content.graph, about["gracl.layout"])
    for node in content.graph.node:
        del node.metadata_props[:]  # where on this machine torch's code and gracl's lies, among others
    del content.graph.value_info[:]
    onnx.helper.set_model_props(content, about)
    packed: bytes = content.SerializeToString()
    return packed


def _name_sides(graph: Any, layout: str) -> None:
    """Calls what is free batch, height, width; torch numbers them."""
    axes = {"n": "batch", "h": "height", "w": "width"}
    sides = graph.input[0].type.tensor_type.shape.dim
    names = {
        side.dim_param: axes[axis] for side, axis in zip(sides, layout, strict=True) if side.dim_param
    }
    for value in (graph.input[0], graph.output[0]):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = names[side.dim_param]


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])

    return run


def _write_program(program: Any, about: dict[str, str]) -> bytes:
    content = io.BytesIO()  # as above
    torch.export.save(program, content, extra_files={"gracl.json": json.dumps(about)})
    return content.getvalue()


def _open_program(path: Path) -> Run:
    run: Run = torch.export.load(path).module()
    return run


def _about(graph: Graph, model: Embedder) -> dict[str, str]:
    """What the file says of itself."""
    height, width = model.size
    found = {
        "version": metadata.version("gracl"),
        "backbone": model.backbone_name or type(model.backbone).__name__,
        "height": height,
        "width": width,
        "dim": model.dim,
        "layout": graph.layout,
        "pixels": "normalized" if graph.normalized else "uint8",
        "resize": "bicubic" if graph.resize else "none",
        "precision": "float16" if graph.half_backbone else "float32",
        "fingerprint": fingerprint(model),
    }
    return {f"gracl.{name}": str(value) for name, value in found.items()}
