"""A run and all that looking at it needs: its images, their features by the model, their clusters.

Letters: N images, D feature dimensions.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl import training
from gracl.clustering import Labels
from gracl.config import Config
from gracl.continuation import fingerprint_of, what_changed
from gracl.data.readers import load_dataset
from gracl.data.records import Dataset, Records
from gracl.data.store import ImageStore, open_store
from gracl.errors import DataError, RunError
from gracl.evaluation import identities_of
from gracl.extraction import extract
from gracl.features import Features, no_features, read_features, write_features
from gracl.runs import Run
from gracl.training import Progress

logger = logging.getLogger(__name__)

FEATURES = "features.npz"
"""Kept in the run's folder, so that a second look does not extract again; may be deleted."""


@dataclass(frozen=True, eq=False)
class Study:
    """A finished run, with what its model and its clusters say of each image trained on."""

    run: Run
    dataset: Dataset
    """What it was trained on, read again."""
    images: ImageStore
    """(N) at the model's size; its records are those of all that follows."""
    labels: Labels
    """(N,) clusters by the finished model, as labels.csv has them; `OUTLIER` is none."""
    found: Features
    """(N, D) by the finished model."""

    @property
    def records(self) -> Records:
        """Of the N images, without identities."""
        return self.images.records

    @property
    def features(self) -> Tensor:
        """(N, D) unit rows."""
        return self.found.features

    @cached_property
    def config(self) -> Config:
        """The run's settings."""
        return self.run.config

    @cached_property
    def distance(self) -> sparse.csr_array:
        """(N, N) the Jaccard distances that clusters are made from."""
        method = training.build_method(self.config.method, training.known_of(self.records, self.config))
        return method.label(self.features)[1]

    @cached_property
    def pids(self) -> NDArray[np.int64]:
        """(N,) true identities as numbers, -1 unknown. For scores and for reports alone."""
        return identities_of(self.records, self.dataset.train)

    @property
    def knows_truth(self) -> bool:
        """Whether any true identity is known."""
        return bool((self.pids >= 0).any())


def open_study(
    run: Run | str | Path,
    *,
    data: str | Path | Dataset | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Opens a finished run to look at it.

    Features are extracted the first time and kept in the run's folder, in `features.npz`, where that
    can be written.

    Args:
        run: the run, or its folder.
        data: where its images lie now, if no longer where they were; or the data set itself.
        device: to extract on.
        progress: called with (stage, done, total).

    Raises:
        RunError: it is not finished, or its images are no longer the same.
        DataError: the images are not there any more.

    >>> found = open_study("runs/photos")                                        # doctest: +SKIP
    >>> len(found.records), found.labels.max() + 1                          # doctest: +SKIP
    (12936, 701)
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    model = run.model.to(training.choose_device(device))
    dataset = dataset_of(run, data)
    images = open_store(
        dataset.train.unlabelled(),
        size=model.size,
        on_bad=run.config.data.on_bad,
        progress=training.stage(progress, "decode"),
    )
    if fingerprint_of(dataset.root, images) != run.data["fingerprint"]:
        raise RunError(
            f"{run.folder} was trained on {run.data['images']} images of {run.data['root']}; now there "
            f"are {len(images)} of {dataset.root}, and they are not the same"
            f"{what_changed(run.folder, dataset.root, images.records)}. Put them back, give the folder "
            "that holds those images (--data FOLDER), or train anew"
        )
    whose = no_features(model)
    kept = run.folder / FEATURES
    found = _kept(kept, whose, images.records)
    if found is None:
        features = extract(
            model,
            images,
            batch_size=run.config.train.extract_batch,
            progress=training.stage(progress, "extract"),
        )
        found = Features(
            features.cpu(), images.records, whose.fingerprint, whose.backbone, whose.size, whose.version
        )
        # A folder that can only be read is looked at all the same.
        if os.access(run.folder, os.W_OK):
            with suppress(OSError):
                kept.unlink(missing_ok=True)
            try:
                write_features(kept, found)
            except RunError as error:  # they are kept to be quick the next time, and no more
                logger.warning("%s", error)
    labels = np.array([cluster for _, cluster in run.labels], dtype=np.int64)
    if len(labels) != len(images):
        raise RunError(
            f"{run.folder}/labels.csv has {len(labels)} rows and there are {len(images)} images. It "
            "was changed since; take it back, or train anew"
        )
    return Study(run, dataset, images, labels, found)


def dataset_of(run: Run, data: str | Path | Dataset | None = None) -> Dataset:
    """What a run was trained on, read again.

    Args:
        run: the run.
        data: where it lies now, if no longer where it was; or the data set itself.

    Raises:
        DataError: it is not there.
    """
    if isinstance(data, Dataset):
        return data
    if data is not None:
        return load_dataset(data)
    about = run.data
    given = about.get("given", (about["layout"], about["root"]))  # runs before this was kept
    if not given:
        raise DataError(
            f"the images of {run.folder} were chosen in Python, so they cannot be read again by "
            "themselves. Give them: open_study(run, data=DATASET), or --data FOLDER"
        )
    try:
        return load_dataset(*given)
    except DataError as error:
        raise DataError(
            f"the images of {run.folder} cannot be read where they were ({about['root']}): {error}. "
            "Say where they are with --data FOLDER (to train on: gracl train FOLDER --continue RUN)"
        ) from error


def _kept(path: Path, whose: Features, records: Records) -> Features | None:
    """Features of an earlier look, if they are of this model and these images."""
    if not path.is_file():
        return None
    try:
        found = read_features(path)
    except DataError:
        return None
    own = (found.fingerprint, found.size) == (whose.fingerprint, whose.size)
    same = [(r.path.absolute(), r.box) for r in records] == [(r.path, r.box) for r in found.records]
    return found if own and same else None
