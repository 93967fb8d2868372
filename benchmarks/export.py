"""ONNX Runtime and OpenVINO against torch, on the exported network, one thread each.

    python benchmarks/export.py [--backbone resnet50] [--size 256 128] [--batches 1 16] [--rounds 5]

Random weights, random uint8 images; each gives the same features (the largest difference is in the
results). All compute in float32. One round is one call of each, in turn, in one process; figures are
medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gracl.export import export_onnx
from gracl.models.embedder import Embedder, build_embedder
from measuring import command, save

Engine = Callable[[Any], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="export", help="of the results file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = tuple(arguments.size)
    torch.manual_seed(0)
    model = build_embedder(arguments.backbone, size=size).eval()
    with tempfile.TemporaryDirectory() as folder:
        done = export_onnx(model, Path(folder, "model.onnx"))
        engines = {
            "torch": in_torch(model),
            "onnxruntime": in_onnxruntime(done.path),
            "openvino": in_openvino(done.path),
        }
        rows = [measure(engines, batch, size, arguments.rounds) for batch in arguments.batches]
    for row in rows:
        print(row)
    about = {"backbone": arguments.backbone, "size": size, "bytes": done.bytes}
    versions = {name: metadata.version(name) for name in ("onnx", "onnxruntime", "openvino")}
    head = {"command": command(), "threads": 1, "device": "cpu", "engines": versions}
    save(arguments.name, {**head, **about, "rows": rows})


def measure(
    engines: dict[str, Engine], batch: int, size: tuple[int, ...], rounds: int
) -> dict[str, Any]:
    """Images a second of each engine, its speed relative to torch, and how far its features are off.

    A round before the counted ones is left out: engines plan their memory in it.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch, 3, *size), dtype=np.uint8)
    features = {name: engine(images) for name, engine in engines.items()}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(images)
            seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "batch": batch,
        "rounds": rounds,
        "images_per_second": {name: round(batch / value, 2) for name, value in middle.items()},
        "times_torch": {name: round(middle["torch"] / value, 3) for name, value in middle.items()},
        "seconds_lowest_and_highest": {
            name: [round(min(values), 5), round(max(values), 5)] for name, values in seconds.items()
        },
        "largest_difference_from_torch": {
            name: float(np.abs(found - features["torch"]).max()) for name, found in features.items()
        },
    }


def in_torch(model: Embedder) -> Engine:
    """The model itself, its weights channels last, as gracl trains."""
    model = model.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(images: Any) -> Any:
        return model(torch.from_numpy(images)).numpy()

    return run


def in_onnxruntime(path: Path) -> Engine:
    """One thread, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["features"], {"images": images})[0]


def in_openvino(path: Path) -> Engine:
    """One thread, in float32 as the others: by itself it takes bfloat16 where the processor has it."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda images: compiled(images)[0]


if __name__ == "__main__":
    main()
