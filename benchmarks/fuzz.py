"""Bad input, counted: what every reader does with files that are damaged, odd or hostile.

    python benchmarks/fuzz.py [--scale 1] [--seed 0] [--only images,tables] [--out fuzz]

Each case is read, refused in words (an error of gracl's own, or a problem with its reason), or a crash:
any other exception, a signal, more than 10 s of the processor, more than 1.5 GiB above what was held
before. Every case follows from the seed, its kind and its number, so that a crash can be made again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import fuzz_files
import fuzz_images
from fuzz_watch import CPU_SECONDS, MEMORY, SECONDS, Case, Ending, Kind, Outcome, Plan, feed_all, watch
from measuring import command, save


@cache
def _client() -> Any:
    """The search application over a small gallery, in this process; for as long as it lives."""
    from starlette.testclient import TestClient

    from gracl.web.search_app import search_application
    from gracl.web.search_desk import Desk

    held = tempfile.TemporaryDirectory(prefix="fuzz-")  # removed when this process ends
    place = Path(held.name) / "x.gallery"
    place.write_bytes(fuzz_files.good("x.gallery"))
    client = TestClient(search_application(Desk(place, device="cpu")), raise_server_exceptions=False)
    client.held = held  # type: ignore[attr-defined]
    return client


def upload(rng: np.random.Generator, _: Path) -> Case:
    """A picture sent to the search application: anything but a 5xx answer."""
    what, ending, content = fuzz_images.bad_content(rng)
    form: dict[str, str] = {}
    if rng.random() < 0.3:
        form["box"] = str(
            rng.choice(["0,0,5,5", "1,1,99999,99999", "-5,0,1,1", "nan,0,1,1", "", "9" * 400])
        )
    if rng.random() < 0.1:
        form["k"] = str(rng.choice(["0", "5", "-1", "x", "9" * 50]))
    client = _client()

    def feed() -> Ending:
        files = {"picture": (f"x{ending}", content)}
        answer = client.post("/api/search", files=files, data=form)
        if answer.status_code >= 500:
            raise AssertionError(f"{answer.status_code}: {answer.text[:200]}")
        answer.json()
        return "read" if answer.status_code == 200 else "refused"

    return Case(what, feed)


KINDS: dict[str, Kind] = {
    "images": fuzz_images.one_image,
    "folders": fuzz_images.folder_of_images,
    "large images": fuzz_images.large_image,
    "tables": fuzz_files.table,
    "json": fuzz_files.tree,
    "settings": fuzz_files.settings,
    "weights": fuzz_files.weights,
    "features": fuzz_files.features,
    "galleries": fuzz_files.gallery,
    "reviews": fuzz_files.review,
    "uploads": upload,
}
COUNTS = {
    "images": 10_000,
    "folders": 50,
    "large images": 60,
    "tables": 3_000,
    "json": 3_000,
    "settings": 1_500,
    "weights": 800,
    "features": 1_000,
    "galleries": 500,
    "reviews": 600,
    "uploads": 600,
}


def fuzz(plans: Sequence[Plan], seed: int, scratch: Path) -> Iterable[Outcome]:
    """Feeds all cases under watch."""
    worker = [sys.executable, str(Path(__file__)), "--worker", str(scratch), "--seed", str(seed)]
    return watch(worker, plans)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts of one kind, and its worst cases."""
    endings = Counter(outcome.ending for outcome in outcomes)
    return {
        "cases": len(outcomes),
        **{ending: endings[ending] for ending in ("read", "refused", "crash")},
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        "slowest_seconds": max(outcome.seconds for outcome in outcomes),
        "peak_gib_above_start": max(outcome.peak_gib for outcome in outcomes),
        "crashes": [
            f"{outcome.number}: {outcome.what}: {outcome.words}"
            for outcome in outcomes
            if outcome.ending == "crash"
        ][:50],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times the number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, by commas")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--out", default="fuzz", help="name in results; none if empty")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("plans", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        words = [plan.split(":") for plan in options.plans]
        plans = [Plan(kind, int(first), int(behind)) for kind, first, behind in words]
        feed_all(KINDS, plans, options.seed, Path(tempfile.mkdtemp(dir=options.worker)))
        return
    first = options.first
    plans = [
        Plan(kind, first, first + max(1, round(COUNTS[kind] * options.scale)))
        for kind in options.only.split(",")
    ]
    found: dict[str, list[Outcome]] = {}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        for outcome in fuzz(plans, options.seed, Path(scratch)):
            found.setdefault(outcome.kind, []).append(outcome)
            if outcome.ending == "crash":
                print(f"{outcome.kind} {outcome.number}: {outcome.what}: {outcome.words}", flush=True)
    kinds = {kind: summary(outcomes) for kind, outcomes in found.items()}
    for kind, counts in kinds.items():
        print(kind, {name: value for name, value in counts.items() if name != "crashes"})
    if options.out:
        total = {
            name: sum(counts[name] for counts in kinds.values())
            for name in ("cases", "read", "refused", "crash")
        }
        content = {
            "command": command(),
            "seed": options.seed,
            "bounds": {"cpu_seconds": CPU_SECONDS, "seconds": SECONDS, "gib_above_start": MEMORY},
            "seconds": round(time.perf_counter() - start, 1),
            "total": total,
            "kinds": kinds,
        }
        save(options.out, content)


if __name__ == "__main__":
    main()
