"""Tracklets to individuals: ways of joining them against the truth; and time and memory of 20,000.

    python benchmarks/association.py --real mini_mars=FOLDER --weights FILE --features FOLDER

Models are trained as benchmarks/trials.py has it: drawn people in two difficulties (a seed is a world;
of each person the images of one camera are a tracklet), and people in video, on the train half or,
without labels, on the test half itself. Features of the test images are kept in the folder, so that the
command can be stopped and continued. Drawn tracklets are given times of 30 s in 10 minutes, so that
some are seen side by side; the real ones have none. Tracklets count by their images in IDF1.

"in hindsight" is the best of all thresholds by the truth, a bound and not a result. The defaults (eps,
k1 and the price of a false pair) were chosen with seed 0 of each set in view. Results go to
benchmarks/results/association.json.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import gracl
import trials
from gracl.agreement import compare_labels, score_identification
from gracl.association import Association, TrackletFeatures, associate, choose_threshold
from gracl.data.records import Record, Records, codes
from gracl.errors import LinkConflict
from gracl.links import Labels
from gracl.presence import known_apart
from gracl.tracking import tracklets_of
from measuring import measured, save, spread

SETS = ("drawn", "drawn_hard", "mini_mars", "mini_mars_test_half")
GRID = np.arange(0, 1, 0.02)
SPAN, LENGTH = 600.0, 30.0
"""Seconds in which drawn tracklets begin, and that each lasts."""
BIG = {"tracklets": 20_000, "individuals": 4_000, "cameras": 8, "dimensions": 512, "hours": 10}
Scored = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--features", type=Path, required=True, help="where features are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sets = [name for name in SETS if not name.startswith("mini") or arguments.real]
    tables = {}
    for name in sets:
        runs = [score_all(*tracklets(name, seed, arguments), seed) for seed in arguments.seeds]
        tables[name] = {
            way: {score: spread([run[way][score] for run in runs]) for score in runs[0][way]}
            for way in runs[0]
        }
        print(name, {way: row["pair_f1"] for way, row in tables[name].items()}, flush=True)
    save(
        "association",
        {
            "command": "python benchmarks/association.py --real mini_mars=FOLDER --weights FILE"
            " --features FOLDER",
            "seeds": arguments.seeds,
            "sets": tables,
            "big": big(),
        },
    )


# -- tracklets ------------------------------------------------------------------------------------


def tracklets(
    name: str, seed: int, arguments: argparse.Namespace
) -> tuple[TrackletFeatures, NDArray[np.int64]]:
    """Of a trained model, and whose each is."""
    path = Path(arguments.features) / f"{name}-{seed}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        gracl.write_features(path, trained(name, seed, arguments))
    found = gracl.read_features(path)
    records = Records(tuple(map(_with_sequence, found.records)))
    seen, grouped, _ = tracklets_of(dataclasses.replace(found, records=records))
    (pids,) = codes("identity", grouped.records)
    if name.startswith("drawn"):
        first = np.random.default_rng(seed).uniform(0, SPAN, len(seen))
        seen = dataclasses.replace(seen, first=first, last=first + LENGTH)
    return seen, pids


def _with_sequence(record: Record) -> Record:
    if record.sequence is not None:
        return record
    return dataclasses.replace(record, sequence=f"{record.identity}-{record.camera}")


def trained(name: str, seed: int, arguments: argparse.Namespace) -> gracl.Features:
    """Features of the test images by a model of this seed."""
    base = name.removesuffix("_test_half")
    real = tuple(tuple(word.split("=", 1)) for word in arguments.real)
    places = trials.Places(real, str(arguments.weights), str(arguments.features / "worlds"))
    dataset = trials.dataset_of(base, seed, places)
    weights = "none" if base in trials.WORLDS else places.weights
    config = gracl.Config().replace(trials.SETTINGS[base])
    config = config.replace({"model": {"weights": weights}, "train": {"seed": seed, "threads": 1}})
    model = gracl.build_model(config.model, seed=seed)
    images = (dataset.query if name.endswith("_test_half") else dataset.train).unlabelled()
    for _ in gracl.fit(model, images, config):
        pass
    return gracl.embed(model, [*dict.fromkeys((*dataset.query, *dataset.gallery))])


# -- ways -----------------------------------------------------------------------------------------


def score_all(seen: TrackletFeatures, pids: NDArray[np.int64], seed: int) -> dict[str, Scored]:
    """Scores of each way of joining."""

    def scored(labels: Labels) -> Scored:
        agreed = compare_labels(labels, pids)
        boxes = seen.images
        return {
            "pair_f1": agreed.pair_f1,
            "ari": agreed.ari,
            "idf1": score_identification(labels, pids, boxes).idf1,
            "individuals": float(len(np.unique(labels))),
        }

    def joined(**settings: Any) -> Association:
        return associate(seen, **settings)

    level, _ = choose_threshold(seen, gracl.Links(cannot=_apart(seen)))
    where_unknown = TrackletFeatures(seen.features, halves=seen.halves, images=seen.images)
    found = {
        "jaccard (default)": scored(joined(algorithm="jaccard").identities),
        "dbscan": scored(joined(algorithm="dbscan").identities),
        "cosine, threshold chosen": scored(joined(algorithm="cosine").identities),
        "components, threshold chosen": scored(components(seen, level)),
        "jaccard, times not known": scored(associate(where_unknown, algorithm="jaccard").identities),
        "cosine in hindsight": _best(lambda at: scored(joined(threshold=at).identities)),
        "components in hindsight": _best(lambda at: scored(components(seen, at))),
    }
    n_true = float(len(np.unique(pids)))
    print(seed, {way: round(row["pair_f1"], 3) for way, row in found.items()}, n_true, flush=True)
    return found


def _apart(seen: TrackletFeatures) -> NDArray[np.int64]:
    return known_apart(len(seen), cameras=seen.cameras, first=seen.first, last=seen.last)


def _best(scored: Callable[[float], Scored]) -> Scored:
    found = []
    for at in GRID.tolist():
        try:
            found.append({**scored(at), "threshold": at})
        except LinkConflict:
            continue
    return max(found, key=lambda row: row["pair_f1"])


def components(seen: TrackletFeatures, threshold: float) -> Labels:
    """The naive way: whatever hangs together by pairs from the threshold on."""
    rows, columns = np.nonzero((seen.features @ seen.features.T).numpy() >= threshold)
    edges = np.ones(len(rows), dtype=np.int8), (rows, columns)
    near = coo_array(edges, shape=(len(seen), len(seen)))
    labels: Labels = connected_components(near, directed=False)[1].astype(np.int64)
    return labels


# -- size -----------------------------------------------------------------------------------------


def big() -> dict[str, Any]:
    """Seconds and memory of many tracklets, drawn as unit rows around their individuals."""
    n, people, dim = BIG["tracklets"], BIG["individuals"], BIG["dimensions"]
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(people, 32, generator=random) @ torch.randn(32, dim, generator=random)
    pids = torch.randint(0, people, (n,), generator=random)
    noise = 0.8 * 32**0.5 * torch.randn(n, dim, generator=random)
    drawn = np.random.default_rng(0)
    first = drawn.uniform(0, BIG["hours"] * 3600, n)
    seen = TrackletFeatures(
        torch.nn.functional.normalize(centres[pids] + noise),
        cameras=[f"c{camera}" for camera in drawn.integers(0, BIG["cameras"], n)],
        first=first,
        last=first + drawn.exponential(30, n),
    )
    result: dict[str, Any] = {"drawn": BIG, "pairs_known_apart": len(_apart(seen)), "threads": 1}
    for name, settings in {"jaccard": {}, "cosine": {"threshold": 0.5}}.items():
        with measured() as cost:
            found = associate(seen, **settings)  # type: ignore[arg-type]
        agreed = compare_labels(found.identities, pids.numpy())
        result[name] = {**cost.plain(), "pair_f1": round(agreed.pair_f1, 4)}
    return result


if __name__ == "__main__":
    main()
