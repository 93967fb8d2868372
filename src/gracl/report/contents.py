"""All that a report shows, gathered from a run: values only, and where each picture is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gracl.calibration import Calibration
from gracl.data.records import Records
from gracl.errors import EvaluationError, FingerprintError
from gracl.evaluation import can_be_scored
from gracl.files import read_calibration
from gracl.logbook import ends_of
from gracl.metrics import Side
from gracl.models.embedder import Embedder
from gracl.models.fingerprint import require_same_model
from gracl.rank_lists import Searched, search
from gracl.report.album import Album
from gracl.report.clusters import Clusters, show_clusters
from gracl.report.facts import Facts, facts_of
from gracl.report.feature_map import FeatureMap, draw_map
from gracl.report.figures import Chart
from gracl.report.heat import Heat, heat_maps
from gracl.report.retrieval import Lists, differences_to_scores, neighbours, rank_lists
from gracl.report.similarity import distributions, draw_similarities
from gracl.report.training_curves import training_charts
from gracl.study import Study
from gracl.training import Progress


@dataclass(frozen=True)
class Similarities:
    """Distributions of similarity, and the threshold that they are read by."""

    chart: Chart
    kinds: tuple[str, str]
    """What the two kinds of pairs are."""
    source: str
    """Whose pairs."""
    calibration: Calibration | None
    note: str
    """Why a calibration that is there is not shown."""


@dataclass(frozen=True)
class Contents:
    """Everything on the page, from top to bottom."""

    facts: Facts
    charts: tuple[Chart, ...]
    ends: tuple[tuple[str, str, str], ...]
    """Score, before, after."""
    scores: dict[str, Any] | None
    """After training, as the log has them."""
    on_training_images: bool
    lists: tuple[Lists, ...]
    protocol: str
    """Of the rank lists, with its rule; "" where the truth is not known."""
    list_notes: tuple[str, ...]
    clusters: Clusters
    map: FeatureMap
    heat: tuple[Heat, ...]
    similarities: Similarities | None


def gather(
    study: Study,
    model: Embedder,
    album: Album,
    *,
    images: int,
    seed: int,
    calibration: Path | None,
    progress: Progress | None = None,
) -> Contents:
    """Computes what is shown.

    Args:
        study: the run, opened.
        model: its model, on the device that computes.
        album: where pictures are asked for, the most important first.
        images: on the map at most.
        seed: of all that is drawn.
        calibration: a file; the run's own if there is one and none is given.
        progress: called with (stage, done, total).

    Raises:
        DataError: the calibration cannot be read.
        FingerprintError: the one that was given is another model's.
    """
    threshold = _calibration(study, calibration)  # refused before any work
    searched = _searched(study, model)
    settings = study.config.evaluate
    if searched is not None:
        lists = rank_lists(searched, album, seed=seed)
        rule = f"{searched.protocol}: {searched.protocol.rule}"
        notes = differences_to_scores(searched, settings)
    else:
        lists = neighbours(study.features, study.labels, study.records, album, seed=seed)
        rule, notes = "", []
    features, labels, records = study.features, study.labels, study.records
    tell = progress or (lambda *_: None)
    after = study.run.after
    clusters = show_clusters(features, labels, study.pids, records, album, seed)
    heat = () if album.empty else tuple(heat_maps(model, study.images, album, seed=seed))
    tell("map", 0, 1)
    drawn = draw_map(features, labels, _with_identities(study), album, images=images, seed=seed)
    tell("map", 1, 1)
    return Contents(
        facts=facts_of(study),
        charts=tuple(training_charts(study.run)),
        ends=tuple(ends_of(study.run.before, after)),
        scores=after.get("scores"),
        on_training_images=bool(after.get("on_training_images")),
        lists=tuple(lists),
        protocol=rule,
        list_notes=tuple(notes),
        clusters=clusters,
        map=drawn,
        heat=heat,
        similarities=_similarities(study, searched, seed, *threshold),
    )


def _searched(study: Study, model: Embedder) -> Searched | None:
    """Queries and gallery, where they can be scored."""
    if not can_be_scored(study.dataset):
        return None
    try:
        return search(model, study.dataset, study.config.evaluate, features=study.features)
    except EvaluationError:  # under the run's own protocol no query has a match
        return None


def _with_identities(study: Study) -> Records:
    """The images trained on, with what is known of who they show."""
    known = {(r.path, r.box): r.identity for r in study.dataset.train}
    named = (replace(r, identity=known.get((r.path, r.box))) for r in study.records)
    return Records(tuple(named))


def _similarities(
    study: Study, searched: Searched | None, seed: int, calibration: Calibration | None, note: str
) -> Similarities | None:
    kinds = ("one individual", "two individuals")
    if searched is not None:
        rows = searched.query_features, searched.gallery_features
        sides = searched.sides
        whose = "training images" if study.dataset.tests_on_training_images else "queries and gallery"
        source = f"{whose}, under {searched.protocol}"
    else:
        kinds = ("one cluster", "two clusters")
        rows = study.features, study.features
        side = Side(study.labels, np.arange(len(study.labels)))
        sides = side, side
        source = "training images, by cluster; outliers left out"
    found = distributions(*rows, sides, seed=seed)
    chart = draw_similarities(found, kinds, calibration.threshold if calibration else None)
    if chart is None:
        return None
    if found.n_searched < int((sides[0].pids >= 0).sum()):
        source += f"; {found.n_searched:,} drawn at random are compared with all"
    return Similarities(chart, kinds, source, calibration, note)


def _calibration(study: Study, given: Path | None) -> tuple[Calibration | None, str]:
    """The calibration, and why the run's own is not taken."""
    path = given or study.run.folder / "calibration.json"
    if given is None and not path.is_file():
        return None, ""
    calibration = read_calibration(path)
    try:
        require_same_model(calibration, study.found)
    except FingerprintError:
        if given is not None:
            raise
        return None, "calibration.json in the run's folder is another model's, so it is not shown"
    return calibration, ""
