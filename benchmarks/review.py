"""How long the page of `gracl review` waits for its server, and a person for the page.

    python benchmarks/review.py --images 30000 --clusters 5000

Features are drawn around one direction for each cluster, and images are small and of one colour: they
are there to be counted, sent and shown. The server is a real one on this machine; the page is looked at
in Chromium, where that and Playwright are there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import torch.nn.functional as F
import uvicorn
from PIL import Image

import measuring
from gracl.data.records import Dataset, Record, Records
from gracl.data.store import ImageStore
from gracl.data.thumbnails import Thumbnails
from gracl.features import Features
from gracl.review.review import Review
from gracl.runs import Run
from gracl.study import Study
from gracl.web.review_app import review_application
from gracl.web.review_desk import Desk
from gracl.web.serving import ADDRESS, guarded, listen

DIM = 512
TOKEN = "secret"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=30_000)
    options.add_argument("--clusters", type=int, default=5_000)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        study = draw_study(Path(folder), given.images, given.clusters)
        start = time.perf_counter()
        with Review.open(study, by="benchmark") as review:
            opened = time.perf_counter() - start
            thumbnails = Thumbnails(study.records, cache=Path(folder) / "cache")
            app = review_application(Desk(review, study, thumbnails=thumbnails), title="benchmark")
            with served(app) as address:
                server = server_times(address, given.rounds)
                page = page_times(address, given.rounds)
    measuring.save(
        "review",
        {
            "command": measuring.command(),
            "images": given.images,
            "clusters": given.clusters,
            "dim": DIM,
            "threads": given.threads,
            "rounds": given.rounds,
            "seed": 0,
            "load_average": [round(value, 1) for value in os.getloadavg()],
            "open_seconds": round(opened, 2),
            "server_ms": server,
            "page_ms": page,
        },
    )


def draw_study(folder: Path, n: int, n_clusters: int) -> Study:
    """Clusters of many sizes, one of them of a tenth of all images; a tenth of the rest in none."""
    random = np.random.default_rng(0)
    weights = random.lognormal(0, 1, n_clusters)
    drawn = random.choice(n_clusters, n - n_clusters, p=weights / weights.sum())
    drawn[random.random(len(drawn)) < 0.1] = -1
    drawn[: n // 10] = 0
    labels = np.concatenate([np.arange(n_clusters), drawn])
    generator = torch.Generator().manual_seed(0)
    whose = F.normalize(torch.randn(n_clusters + 1, DIM, generator=generator))
    noise = torch.randn(n, DIM, generator=generator) / DIM**0.5
    features = F.normalize(whose[torch.from_numpy(labels)] + noise)
    records = []
    for row in range(n):
        path = folder / "photos" / f"{row % 100:02d}" / f"{row:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        Image.new("RGB", (64, 128), colour).save(path)
        records.append(Record(path, camera=f"c{row % 12}", date=f"2026-05-{1 + row % 28:02d}"))
    images = Records(tuple(records))
    (folder / "run").mkdir()
    (folder / "run" / "data.json").write_text(json.dumps({"fingerprint": "0" * 64}))
    return Study(
        Run(folder / "run"),
        Dataset("benchmark", folder / "photos", "folder", images),
        ImageStore(images, torch.zeros(1, 3, 128, 64, dtype=torch.uint8).expand(n, 3, 128, 64)),
        labels,
        Features(features, images, "0" * 64, "none", (128, 64), "0"),
    )


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The application on a free port, in a thread."""
    with listen(0) as place:
        server = uvicorn.Server(
            uvicorn.Config(guarded(app, TOKEN), log_level="error", access_log=False)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://{ADDRESS}:{place.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def server_times(address: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of each kind of question and decision, over the wire."""
    with httpx.Client(
        base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
    ) as client:
        everything = client.get("/api/clusters").json()
        numbers = [one[0] for one in everything["clusters"]]
        largest = max(everything["clusters"], key=lambda one: one[1])
        chosen = np.random.default_rng(1).choice(numbers, 8 * rounds, replace=False).tolist()
        key = client.get("/").text.partition('data-key="')[2].partition('"')[0]
        state = {"version": everything["version"]}

        def decide(kind: str, **body: Any) -> None:
            answer = client.post(f"/api/{kind}", json={**state, **body}).raise_for_status().json()
            state["version"] = answer["version"]

        def move(where: tuple[int, int]) -> None:
            decide("move", rows=[where[0]], number=where[1])

        def first(number: int) -> int:
            row: int = client.get(f"/api/clusters/{number}").json()["rows"][0]
            return row

        rows = iter([first(number) for number in chosen[:rounds]])
        merged, moved = iter(chosen[rounds : 3 * rounds]), iter(chosen[3 * rounds : 5 * rounds])
        looked = iter(chosen[5 * rounds :])
        gone = iter([(first(a), b) for a, b in zip(moved, moved, strict=True)])
        kinds: dict[str, Callable[[], Any]] = {
            "all clusters": lambda: client.get("/api/clusters"),
            "a cluster": lambda: client.get(f"/api/clusters/{next(looked)}"),
            f"the largest cluster, {largest[1]} images": lambda: client.get(
                f"/api/clusters/{largest[0]}"
            ),
            "near clusters": lambda: client.get(f"/api/clusters/{next(looked)}/near?k=6"),
            "filter by file": lambda: client.get("/api/find?text=0123"),
            "similar images": lambda: client.get("/api/similar/77"),
            "a thumbnail": lambda: client.get(f"/thumbnails/{key}/{np.random.randint(1000)}.jpg"),
            "confirm": lambda: decide("confirm", number=next(looked)),
            "merge": lambda: decide("merge", numbers=[next(merged), next(merged)]),
            "eject": lambda: decide("eject", rows=[next(rows)]),
            "move": lambda: move(next(gone)),
            "undo": lambda: decide("undo"),
            "redo": lambda: decide("redo"),
            "a question, the first": lambda: client.get("/api/question"),
            "a question": lambda: client.get("/api/question"),
        }
        sizes = {"all clusters, KiB": round(len(client.get("/api/clusters").content) / 1024)}
        once = {"a question, the first"}
        times = {kind: timed(how, 1 if kind in once else rounds) for kind, how in kinds.items()}
        return {**times, **sizes}


def timed(how: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Milliseconds: the median, and the longest."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        how()
        taken.append(1000 * (time.perf_counter() - start))
    return {"median": round(statistics.median(taken), 1), "longest": round(max(taken), 1)}


def page_times(address: str, rounds: int) -> dict[str, Any] | None:
    """Milliseconds until the list and the first cluster are shown, and from a key to what it does."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if path is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        found: dict[str, list[float]] = {}
        for _ in range(5):
            page.goto(f"{address}/?token={TOKEN}")
            page.wait_for_selector("#app[data-ready=yes]")
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            found.setdefault("first paint", []).append(page.evaluate(paint))
            found.setdefault("list and images shown", []).append(page.evaluate("performance.now()"))
        for key, name in (("j", "next cluster"), ("c", "confirm, and the next"), ("u", "undo")):
            page.evaluate(WATCH)
            for _ in range(rounds):
                page.evaluate("window.changed = null")
                page.keyboard.press(key)
                page.wait_for_function("() => window.changed != null")
                found.setdefault(name, []).append(page.evaluate("window.changed"))
                page.wait_for_timeout(200)
        browser.close()
    return {
        name: {"median": round(statistics.median(v), 1), "longest": round(max(v), 1)}
        for name, v in found.items()
    }


WATCH = """() => {
  if (window.watched) return;
  window.watched = true;
  window.addEventListener('keydown', () => { window.pressed = performance.now(); }, true);
  const note = () => requestAnimationFrame(() => {
    window.changed ??= performance.now() - window.pressed;
  });
  new MutationObserver(note).observe(document.querySelector('#images-title'), { childList: true });
}"""
"""Notes the time from a key to the frame in which the shown cluster is another, or the same anew."""


if __name__ == "__main__":
    main()
