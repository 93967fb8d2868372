"""`gracl serve` under many users at once: a real server process, asked over loopback.

    python benchmarks/serve.py --run runs/demo [--users 50] [--seconds 30] [--rows 100000]

Two galleries of the run's model: drawn people, embedded as `gracl gallery build` does, and random unit
vectors under made-up names. Each is served by `gracl serve` in a process of its own; the users are
threads of this one, each with a connection of its own, that send another drawn picture as soon as they
are answered. So latency is that of a queue of as many as there are users. The same is measured with one
user, and the network alone, in this process while no server runs: one picture at a time, and sixteen
together. Results go to benchmarks/results/serve.json.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from gracl.data.readers import load_dataset
from gracl.data.records import Record, Records
from gracl.data.synthetic import draw_people
from gracl.embedding import embed_pixels
from gracl.features import no_features
from gracl.files import load_model
from gracl.gallery.gallery import Gallery
from gracl.models.embedder import Embedder
from gracl.web.uploads import read_picture
from measuring import command, save

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", required=True, help="a finished run's folder")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2, help="of the server")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        draw_people(people, identities=2, test_identities=50, seed=1)
        dataset = load_dataset(people)
        pictures = [record.path.read_bytes() for record in dataset.query]
        model = load_model(arguments.run)
        torch.set_num_threads(arguments.threads)
        network = alone(model, pictures)
        with Gallery.create(Path(folder) / "people.gallery", arguments.run) as gallery:
            gallery.add(dataset.gallery)
            found["drawn_people"] = {"images": len(gallery)}
        with Gallery.create(Path(folder) / "random.gallery", arguments.run) as gallery:
            fill(gallery, model, arguments.rows)
            found["random_vectors"] = {"images": len(gallery)}
        for name, place in (("drawn_people", "people"), ("random_vectors", "random")):
            with served(Path(folder) / f"{place}.gallery", arguments.threads) as (address, token):
                for users in (1, arguments.users):
                    seconds = arguments.seconds if users > 1 else arguments.seconds / 3
                    key = "one_user" if users == 1 else "many_users"
                    found[name][key] = asked(address, token, pictures, users, seconds)
            one, many = found[name]["one_user"], found[name]["many_users"]
            one["share_of_network"] = round(network["one_at_a_time_ms"] / one["latency_ms"]["p50"], 3)
            many["times_network_one_at_a_time"] = round(
                many["searches_a_second"] * network["one_at_a_time_ms"] / 1000, 3
            )
            print(name, found[name])
    about = {"command": command(), "threads": arguments.threads, "k": K, "model": model.backbone_name}
    size = {"height": model.size[0], "width": model.size[1]}
    save("serve", {**about, "size": size, "network_alone": network, **found})


def alone(model: Embedder, pictures: list[bytes]) -> dict[str, Any]:
    """Milliseconds a picture of the network by itself, and of decoding; medians of many."""
    decoding, single, together = [], [], []
    pixels = []
    for content in pictures[:100]:
        start = time.perf_counter()
        pixels.append(read_picture(content, model.size).pixels)
        decoding.append(time.perf_counter() - start)
    stacks = [np.stack(pixels[start : start + 16]) for start in range(0, 96, 16)]
    embed_pixels(model, stacks[0])
    for _ in range(3):
        for one in pixels:
            start = time.perf_counter()
            embed_pixels(model, np.stack([one]))
            single.append(time.perf_counter() - start)
        for stack in stacks:
            start = time.perf_counter()
            embed_pixels(model, stack)
            together.append((time.perf_counter() - start) / 16)
    return {
        "decoding_ms": milliseconds(decoding),
        "one_at_a_time_ms": milliseconds(single),
        "sixteen_together_ms_each": milliseconds(together),
    }


def milliseconds(seconds: list[float]) -> float:
    return round(1000 * statistics.median(seconds), 3)


def fill(gallery: Gallery, model: Embedder, rows: int) -> None:
    """Random unit vectors, 20 to a name."""
    generator = torch.Generator().manual_seed(0)
    whose = no_features(model)
    for start in range(0, rows, 10_000):
        n = min(10_000, rows - start)
        drawn = torch.randn(n, model.dim, generator=generator)
        records = Records(
            tuple(
                Record(Path(f"drawn-{at}"), f"i{at // 20:06d}", f"c{at % 8}")
                for at in range(start, start + n)
            )
        )
        unit = torch.nn.functional.normalize(drawn)
        gallery.add_features(replace(whose, features=unit, records=records))


@contextmanager
def served(place: Path, threads: int) -> Iterator[tuple[str, str]]:
    """The command in a process of its own; gives its address and its token."""
    words = ["serve", str(place), "--port", "0", "--threads", str(threads)]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "gracl", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = ""
        while "token=" not in line:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the server ended")
        address, _, token = line.strip().partition("?token=")
        yield address, token
    finally:
        process.terminate()
        process.wait()


def asked(
    address: str, token: str, pictures: list[bytes], users: int, seconds: float
) -> dict[str, Any]:
    """Latency, throughput and errors of so many users."""
    latencies: list[float] = []
    answers: Counter[str] = Counter()
    lock = threading.Lock()
    begin = time.perf_counter() + 1.0

    def user(number: int) -> None:
        at = number
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}) as client:
            time.sleep(max(0.0, begin - time.perf_counter()))
            while (start := time.perf_counter()) < begin + seconds:
                files = {"picture": pictures[at % len(pictures)]}
                try:
                    answer = client.post("api/search", files=files, data={"k": str(K)}, timeout=60)
                    said = str(answer.status_code)
                except httpx.HTTPError as error:
                    said = type(error).__name__
                with lock:
                    latencies.append(time.perf_counter() - start)
                    answers[said] += 1
                at += users

    threads = [threading.Thread(target=user, args=(number,)) for number in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    points = statistics.quantiles(latencies, n=100, method="inclusive")
    return {
        "users": users,
        "seconds": round(took, 1),
        "searches": len(latencies),
        "searches_a_second": round(answers["200"] / took, 1),
        "latency_ms": {f"p{n}": round(1000 * points[n - 1], 1) for n in (50, 95, 99)},
        "errors": {said: n for said, n in answers.items() if said != "200"},
    }


if __name__ == "__main__":
    main()
