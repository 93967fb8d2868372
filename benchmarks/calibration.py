"""Whether a calibrated threshold keeps its word on individuals that had no part in it.

    python benchmarks/calibration.py --real cows=FOLDER --weights FILE --models FOLDER

For each seed a model is trained without labels as benchmarks/trials.py does it (kept in --models), and
thresholds are chosen

    on what it was trained on: by identities, by clusters, and of drawn people by tracklets (made up: in
    each camera people walk by in threes, drawn by chance);
    on individuals that it has not seen: by identities.

Then the false match rate, the rate of false answers and the true match rate are counted on other
individuals again. Of drawn people these are 100 further ones of the same world; of cows, those of the
test part (where thresholds come from unseen cows, one half of these is asked, the other gives them).
Searches are made in ten galleries, drawn, of as many images as the threshold was chosen in, as far as
there are so many; the mean counts. The open-set scores are of the test part, half of whose individuals
are taken out of the gallery.

The truth is a sample too, of few cows above all: its own interval is given beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gracl
import trials
from gracl import evidence, metrics, openset, training
from gracl.config import Config
from gracl.data import protocols
from gracl.data.records import Box, Dataset, Record, Records
from gracl.data.synthetic import draw_people
from gracl.error_rates import Rate, rate_at
from gracl.errors import EvaluationError
from gracl.features import Features
from gracl.files import load_model, save_model
from measuring import save, spread

SEEDS = (0, 1, 2)
ASKED = (("comparison", 0.01), ("comparison", 0.001), ("search", 0.1), ("search", 0.01))
FURTHER = 100
GALLERIES = 10
"""Drawn from the individuals that are asked, for a rate per search."""
TOGETHER = 3
"""People who walk by a camera at one time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--weights", type=Path, help="of the backbone for real data")
    parser.add_argument("--worlds", type=Path, default=Path(tempfile.gettempdir()) / "gracl-worlds")
    parser.add_argument("--models", type=Path, required=True, help="where trained models are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    places = trials.Places.of(arguments)
    arguments.models.mkdir(parents=True, exist_ok=True)
    names = ["drawn", *trials.real_of(arguments)]
    lines = [
        {"data": name, "seed": seed, **measure(name, seed, places, arguments.models)}
        for name in names
        for seed in SEEDS
    ]
    content = {
        "command": "python benchmarks/calibration.py --real cows=FOLDER --weights FILE --models FOLDER",
        "settings": {name: trials.SETTINGS[name] for name in names},
        "coverage_on_simulated_individuals": [simulate(*case) for case in SIMULATED],
        "summary": {name: summary([line for line in lines if line["data"] == name]) for name in names},
        "seeds": lines,
    }
    save("calibration", content)


# -- one seed -------------------------------------------------------------------------------------


def measure(name: str, seed: int, places: trials.Places, models: Path) -> dict[str, Any]:
    dataset = trials.dataset_of(name, seed, places)
    config = config_of(name, seed, places)
    model = trained(models / f"{name}-{seed}.safetensors", dataset, config, seed)
    about = gracl.embed(model, dataset.train)
    test = gracl.embed(model, Records((*dataset.query, *dataset.gallery)))
    others = further(seed, places, model) if name == "drawn" else test
    calibrations: dict[str, Any] = {}
    for source, found, told, truth in sources(name, about, test, others, config):
        for rate_per, rate in ASKED:
            line = kept_word(found, told, truth, rate_per, rate)
            calibrations[f"{source}, {rate:g} per {rate_per}"] = line
            print(name, seed, source, rate, rate_per, line, flush=True)
    thresholds = {key: line["threshold"] for key, line in calibrations.items() if "threshold" in line}
    return {"calibrations": calibrations, "open_set": open_set(test, dataset, thresholds)}


def sources(
    name: str, about: Features, test: Features, others: Features, config: Config
) -> Iterator[tuple[str, Features, dict[str, Any], Features]]:
    """(what a threshold is chosen on, its images, what is told of them, who is asked then)."""
    yield "trained on, identities", about, {"evidence": "identities"}, others
    labels, _ = training.build_method(config.method).label(about.features)
    yield "trained on, clusters", about, {"evidence": "clusters", "labels": labels}, others
    if name == "drawn":
        yield "trained on, tracklets", walked_by(about), {"evidence": "tracklets"}, others
        yield "unseen, identities", test, {"evidence": "identities"}, others
        return
    names = sorted({*test.records.values("identity")} - {None}, key=str)
    one, other = (rows_of(test, names[start::2]) for start in (0, 1))
    yield "unseen, identities", one, {"evidence": "identities"}, other


def kept_word(
    found: Features, told: dict[str, Any], truth: Features, rate_per: Any, rate: float
) -> dict[str, Any]:
    """A threshold, and what came of it on other individuals."""
    try:
        made = gracl.calibrate(found, rate=rate, rate_per=rate_per, **told)
    except EvaluationError as error:
        return {"refused": str(error)}
    # A rate per search belongs to a number of images, and the truth to many galleries of so many.
    draws = GALLERIES if rate_per == "search" else 1
    size = made.gallery if rate_per == "search" else len(truth)
    asked = [about_as_many(truth, size, draw) for draw in range(draws)]
    seen = [evidence.from_identities(part.features, part.records, rate=0.02) for part in asked]
    strangers = [rate_at(part.searches.strangers, made.threshold) for part in seen if part.searches]
    matches = [rate_at(part.genuine, made.threshold) for part in seen if part.genuine]
    stated = made.false_matches if rate_per == "comparison" else made.false_answers
    happened = strangers
    if rate_per == "comparison":
        happened = [rate_at(part.impostors, made.threshold) for part in seen]
    came = mean_of(happened)
    assert stated is not None
    return {
        "threshold": round(made.threshold, 4),
        "threshold_interval": [round(value, 4) for value in made.threshold_interval],
        "stated": plain(stated),
        "happened": came,
        "interval_held_it": bool(stated.low <= came["value"] <= stated.high),
        "intervals_meet": bool(stated.low <= came["high"] and came["low"] <= stated.high),
        "true_matches_stated": plain(made.true_matches) if made.true_matches else None,
        "true_matches": mean_of(matches),
        "false_answers": mean_of(strangers),
        "gallery": [made.gallery, len(asked[0])],
        "n_units": made.n_units,
    }


def plain(rate: Rate) -> dict[str, float]:
    return {"value": round(rate.value, 5), "low": round(rate.low, 5), "high": round(rate.high, 5)}


def mean_of(rates: list[Rate]) -> dict[str, float]:
    """The mean rate, and the means of the intervals' ends."""
    ends = [plain(rate) for rate in rates]
    return {key: round(sum(one[key] for one in ends) / len(ends), 5) for key in ends[0]}


def open_set(test: Features, dataset: Dataset, thresholds: dict[str, float]) -> dict[str, Any]:
    """BAKS, BAUS and AUROC by how the threshold was found."""
    names = sorted({*test.records.values("identity")} - {None}, key=str)
    queries = test.features[: len(dataset.query)]
    kept = [
        row
        for row, record in enumerate(test.records)
        if row >= len(queries) and record.identity in set(names[::2])
    ]
    gallery = test.features[kept]
    records = test.records[: len(queries)], test.records.take(kept)
    protocol = protocols.choose(*records)
    sides = protocols.sides(*records, protocol)
    found = openset.nearest(metrics.cosine(queries, gallery), *sides)
    thresholds = {
        "choose_threshold": openset.choose_threshold(metrics.cosine(gallery, gallery), sides[1]),
        **thresholds,
    }
    lines = {}
    for key, threshold in thresholds.items():
        scores = openset.score_open_set(found, *sides, threshold=threshold)
        lines[key] = {
            "threshold": round(threshold, 4),
            "baks": round(scores.baks, 4),
            "baus": round(scores.baus, 4),
            "geometric_mean": round(scores.geometric_mean, 4),
        }
    return {"protocol": protocol, "auroc": round(scores.auroc, 4), "scores": lines}


# -- models and images ----------------------------------------------------------------------------


def config_of(name: str, seed: int, places: trials.Places) -> Config:
    weights = "none" if name in trials.WORLDS else places.weights
    more = {"model": {"weights": weights}, "train": {"seed": seed, "threads": 1}}
    return Config().replace(trials.SETTINGS[name]).replace(more)


def trained(file: Path, dataset: Dataset, config: Config, seed: int) -> Any:
    """The model of a seed; trained if it is not there."""
    if not file.is_file():
        model = gracl.build_model(config.model, seed=seed)
        for _ in gracl.fit(model, dataset.train.unlabelled(), config):
            pass
        save_model(file, model, config.model)
    return load_model(file)


def further(seed: int, places: trials.Places, model: Any) -> Features:
    """People of the seed's world whom neither training nor test knows."""
    folder = Path(places.worlds) / f"drawn-{seed}-further"
    if not (folder / "metadata.csv").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        people: Any = {**trials.PEOPLE, "test_identities": trials.PEOPLE["test_identities"] + FURTHER}
        world: Any = trials.WORLDS["drawn"]
        draw_people(folder, **people, **world, seed=trials.FIRST_WORLD + seed)
    known = {*trials.dataset_of("drawn", seed, places).train.values("identity")}
    known |= {*trials.dataset_of("drawn", seed, places).gallery.values("identity")}
    drawn = gracl.load_dataset(folder)
    images = (*drawn.query, *drawn.gallery)
    return gracl.embed(model, Records(tuple(r for r in images if r.identity not in known)))


def rows_of(found: Features, identities: list[Any]) -> Features:
    rows = [row for row, record in enumerate(found.records) if record.identity in set(identities)]
    return dataclasses.replace(found, features=found.features[rows], records=found.records.take(rows))


def about_as_many(found: Features, images: int, draw: int) -> Features:
    """Whole individuals, drawn, until there are so many images."""
    names = found.records.values("identity")
    counts = Counter(names)
    order = np.random.default_rng(draw).permutation(len(counts))
    taken: set[Any] = set()
    left = images
    for name in (sorted(counts, key=str)[at] for at in order):
        if left <= 0:
            break
        taken.add(name)
        left -= counts[name]
    return rows_of(found, sorted(taken, key=str))


def walked_by(found: Features) -> Features:
    """The same images as crops of pictures in which people walk by in threes, by camera."""
    random = np.random.default_rng(0)
    records = list(found.records)
    cameras = sorted({record.camera for record in records}, key=str)
    for camera in cameras:
        people = sorted({r.identity for r in records if r.camera == camera}, key=str)
        group = {people[at]: n // TOGETHER for n, at in enumerate(random.permutation(len(people)))}
        for row, record in enumerate(records):
            if record.camera == camera:
                records[row] = dataclasses.replace(
                    record,
                    path=Path(f"{camera}-{group[record.identity]}.jpg"),
                    box=Box(row, 0, 1, 1),
                    sequence=f"{record.identity}-{camera}",
                    identity=None,
                )
    return dataclasses.replace(found, records=Records(tuple(records)))


# -- simulated ------------------------------------------------------------------------------------

SIMULATED: tuple[tuple[int, int, Any, float], ...] = (
    (20, 4, "comparison", 0.01),
    (50, 4, "comparison", 0.01),
    (50, 4, "comparison", 0.001),
    (200, 2, "comparison", 0.001),
    (40, 8, "search", 0.1),
    (100, 4, "search", 0.02),
)
"""(individuals, images of each, what of, rate)"""
DIMENSIONS, NOISE, DRAWS, POPULATION = 12, 0.6, 300, 5000


def crowd(seed: int, individuals: int, images: int) -> Features:
    """Features of individuals around centres of their own."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(individuals, DIMENSIONS)), images, axis=0)
    rows = torch.tensor(centres + NOISE * random.normal(size=centres.shape), dtype=torch.float32)
    names = range(len(rows))
    records = tuple(Record(Path(f"{n}"), identity=f"{n // images:06}") for n in names)
    rows = torch.nn.functional.normalize(rows)
    return Features(rows, Records(records), fingerprint="", backbone="", size=(1, 1), version="")


def everyone(individuals: int, images: int, rate_per: str) -> Any:
    """What strangers of the population reach, rising: in pairs, or in searches of such galleries."""
    if rate_per == "comparison":
        rows = crowd(10**6, POPULATION, 1).features
        return np.sort((rows @ rows.T).numpy()[np.triu_indices(POPULATION, 1)])
    found = (crowd(10**6 + draw, individuals, images) for draw in range(DRAWS))
    searches = (evidence.from_identities(one.features, one.records).searches for one in found)
    return np.sort(np.concatenate([s.strangers.similarities for s in searches if s is not None]))


def simulate(individuals: int, images: int, rate_per: Any, rate: float) -> dict[str, Any]:
    """How often the interval held the population's rate at the threshold that was chosen."""
    population = everyone(individuals, images, rate_per)
    held = refused = above = 0
    for draw in range(DRAWS):
        try:
            made = gracl.calibrate(crowd(draw, individuals, images), rate=rate, rate_per=rate_per)
        except EvaluationError:
            refused += 1
            continue
        stated = made.false_matches if rate_per == "comparison" else made.false_answers
        assert stated is not None
        true = 1 - np.searchsorted(population, made.threshold) / len(population)
        held += bool(stated.low <= true <= stated.high)
        above += bool(true > stated.high)
    return {
        "individuals": individuals,
        "images_each": images,
        "rate_per": rate_per,
        "rate": rate,
        "draws": DRAWS,
        "refused": refused,
        "interval_held_the_truth": round(held / max(1, DRAWS - refused), 3),
        "truth_was_above": round(above / max(1, DRAWS - refused), 3),
    }


# -- tables ---------------------------------------------------------------------------------------


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Over seeds: what was stated, what happened, what thresholds of open sets are worth."""
    table: dict[str, Any] = {"calibrations": {}, "open_set": {}}
    for key in lines[0]["calibrations"]:
        good = [c for line in lines if "stated" in (c := line["calibrations"][key])]
        table["calibrations"][key] = {
            "seeds": len(good),
            **{
                name: spread([line[name]["value"] for line in good])
                for name in ("happened", "true_matches", "false_answers")
                if good
            },
            **(
                {"true_matches_stated": spread([c["true_matches_stated"]["value"] for c in good])}
                if good
                else {}
            ),
            "interval_held_it": sum(line["interval_held_it"] for line in good),
            "intervals_meet": sum(line["intervals_meet"] for line in good),
        }
    for key in dict.fromkeys(key for line in lines for key in line["open_set"]["scores"]):
        good = [line["open_set"]["scores"][key] for line in lines if key in line["open_set"]["scores"]]
        table["open_set"][key] = {
            "seeds": len(good),
            **{
                name: spread([line[name] for line in good])
                for name in ("baks", "baus", "geometric_mean")
            },
        }
    table["auroc"] = spread([line["open_set"]["auroc"] for line in lines])
    return table


if __name__ == "__main__":
    main()
