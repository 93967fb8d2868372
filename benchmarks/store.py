"""The image store against decoding each image each time it is wanted.

    python benchmarks/store.py [--images 2000] [--rounds 3]

Drawn people saved as JPEG, at 128 x 64 as in Market-1501 and four times as tall and wide as photos may
be, all wanted at 256 x 128 in random batches of 64. The alternative decodes and resizes each image of a
batch with Pillow, in this process, on one thread, as a loader without workers does; with W workers on
W cores it would take a W-th of the wall time and the same CPU seconds. Both read files that the system
has in memory. Building the store is given by itself: it is paid once, not once an epoch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gracl.data.feed import Feed
from gracl.data.readers import load_dataset
from gracl.data.records import Record, Records
from gracl.data.store import decode, open_store
from gracl.data.synthetic import draw_people
from measuring import command, save

SIZE, BATCH = (256, 128), 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_people(
            Path(folder) / "drawn", identities=arguments.images // 16, test_identities=2
        )
        for height, width in ((128, 64), (512, 256)):
            records = as_jpeg(load_dataset(drawn).train, Path(folder) / f"{height}", (height, width))
            rows.append(measure(records, Path(folder) / "cache", arguments.rounds))
            rows[-1] = {"files": [height, width], **rows[-1]}
            print(rows[-1], flush=True)
    save("store", {"command": command(), "threads": 1, "wanted": SIZE, "rows": rows})


def as_jpeg(records: Records, folder: Path, size: tuple[int, int]) -> Records:
    """The same images as JPEG files of another size."""
    folder.mkdir()
    made = []
    for number, record in enumerate(records):
        path = folder / f"{number}.jpg"
        with Image.open(record.path) as image:
            image.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=90)
        made.append(Record(path))
    return Records(tuple(made))


def measure(records: Records, cache: Path, rounds: int) -> dict[str, Any]:
    """Images a second by each road, and the ratio."""
    cpu, wall = time.process_time(), time.perf_counter()
    store = open_store(records, size=SIZE, cache=cache)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    feed = Feed(store, torch.device("cpu"))

    def batches(seed: int) -> Iterator[torch.Tensor]:
        order = np.random.default_rng(seed).permutation(len(records))
        return iter(torch.split(torch.from_numpy(order), BATCH))

    def by_store(seed: int) -> Iterator[torch.Tensor]:
        return feed.batches(batches(seed))

    def by_decoding(seed: int) -> Iterator[torch.Tensor]:
        for rows in batches(seed):
            yield torch.from_numpy(np.stack([decode(records[i], SIZE) for i in rows.tolist()]))

    def seconds(road: Callable[[int], Iterator[torch.Tensor]], seed: int) -> float:
        start = time.process_time()
        for _ in road(seed):
            pass
        return time.process_time() - start

    same = all(torch.equal(a, b) for a, b in zip(by_store(0), by_decoding(0), strict=True))
    ours, theirs = zip(
        *((seconds(by_store, seed), seconds(by_decoding, seed)) for seed in range(1, rounds + 1)),
        strict=True,
    )
    n = len(records)
    return {
        "images": n,
        "rounds": rounds,
        "store_images_per_cpu_second": round(n / statistics.median(ours)),
        "decoding_images_per_cpu_second": round(n / statistics.median(theirs)),
        "ratio": round(statistics.median(t / o for o, t in zip(ours, theirs, strict=True)), 1),
        "same_pixels": same,
        "building": {
            "threads": os.cpu_count(),
            "seconds": round(wall, 2),
            "cpu_seconds": round(cpu, 2),
            "images_per_second": round(n / wall),
        },
    }


if __name__ == "__main__":
    main()
