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
Searches are made in a gallery of as many images as the threshold was chosen in, as far as there are so
many. The open-set scores are of the test part, half of whose individuals are taken out of the gallery.

The truth is a sample too, of few cows above all: its own interval is given beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
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
from gracl.data.records import Box, Dataset, Records
from gracl.data.synthetic import draw_people
from gracl.error_rates import Rate, list_comparisons, rate_at, threshold_at
from gracl.errors import EvaluationError
from gracl.features import Features
from gracl.files import load_model, save_model
from measuring import save, spread

SEEDS = (0, 1, 2)
ASKED = (("comparison", 0.01), ("comparison", 0.001), ("search", 0.1), ("search", 0.01))
FURTHER = 100
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
    if rate_per == "search":  # its rate belongs to a number of images
        truth = about_as_many(truth, made.gallery)
    seen = evidence.from_identities(truth.features, truth.records, rate=0.02)
    assert seen.searches is not None
    assert seen.genuine is not None
    stated = made.false_matches if rate_per == "comparison" else made.false_answers
    came = seen.impostors if rate_per == "comparison" else seen.searches.strangers
    happened = rate_at(came, made.threshold)
    assert stated is not None
    return {
        "threshold": round(made.threshold, 4),
        "threshold_interval": [round(value, 4) for value in made.threshold_interval],
        "stated": plain(stated),
        "happened": plain(happened),
        "interval_held_it": bool(stated.low <= happened.value <= stated.high),
        "intervals_meet": bool(stated.low <= happened.high and happened.low <= stated.high),
        "true_matches_stated": plain(made.true_matches) if made.true_matches else None,
        "true_matches": plain(rate_at(seen.genuine, made.threshold)),
        "false_answers": plain(rate_at(seen.searches.strangers, made.threshold)),
        "gallery": [made.gallery, len(truth)],
        "n_units": made.n_units,
    }


def plain(rate: Rate) -> dict[str, float]:
    return {"value": round(rate.value, 5), "low": round(rate.low, 5), "high": round(rate.high, 5)}


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
        people = {**trials.PEOPLE, "test_identities": trials.PEOPLE["test_identities"] + FURTHER}
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


def about_as_many(found: Features, images: int) -> Features:
    """Whole individuals, until there are so many images."""
    taken: list[Any] = []
    names = found.records.values("identity")
    for name in dict.fromkeys(names):
        if sum(other in taken for other in names) >= images:
            break
        taken.append(name)
    return rows_of(found, taken)


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

SIMULATED = ((20, 4, 0.01), (50, 4, 0.01), (50, 4, 0.001), (200, 2, 0.001))
"""(individuals, images of each, rate)"""
DIMENSIONS, NOISE, DRAWS, POPULATION = 12, 0.6, 300, 5000


def people_of(random: np.random.Generator, individuals: int, images: int) -> Any:
    centres = np.repeat(random.normal(size=(individuals, DIMENSIONS)), images, axis=0)
    rows = centres + NOISE * random.normal(size=centres.shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def simulate(individuals: int, images: int, rate: float) -> dict[str, Any]:
    """How often the interval held the population's rate at the threshold that was chosen."""
    everyone = people_of(np.random.default_rng(10**6), POPULATION, 1)
    all_pairs = np.sort((everyone @ everyone.T)[np.triu_indices(POPULATION, 1)])
    held = refused = above = 0
    units = np.repeat(np.arange(individuals), images)
    first, second = np.triu_indices(len(units), 1)
    first, second = (side[units[first] != units[second]] for side in (first, second))
    for draw in range(DRAWS):
        rows = people_of(np.random.default_rng(draw), individuals, images)
        values = np.einsum("nd,nd->n", rows[first], rows[second])
        try:
            found = list_comparisons(values, units[first], units[second], individuals)
            threshold, achieved = threshold_at(found, rate)
        except EvaluationError:
            refused += 1
            continue
        true = 1 - np.searchsorted(all_pairs, threshold.value) / len(all_pairs)
        held += bool(achieved.low <= true <= achieved.high)
        above += bool(true > achieved.high)
    return {
        "individuals": individuals,
        "images_each": images,
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
            "interval_held_it": sum(line["interval_held_it"] for line in good),
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
