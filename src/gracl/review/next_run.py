"""The run after a review: from the reviewed run's weights, honouring what was said of its images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gracl import distributed
from gracl.config import Config
from gracl.data.pairs import read_links
from gracl.data.records import Dataset, Records
from gracl.data.store import open_store
from gracl.evaluation import identities_of
from gracl.links import Links
from gracl.review.carrying import LEDGER, corrections, earlier_labels, has_review, read
from gracl.review.since import Since, compare
from gracl.runs import Run, train
from gracl.study import dataset_of
from gracl.training import Epoch, Progress


def continue_training(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    config: Config | None = None,
    data: str | Path | Dataset | None = None,
    links: str | Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Trains on from a finished run, with the decisions of its review as must-links and cannot-links.

    The run itself stays as it is; the new one is reviewed further, and what was said is carried over.
    The same call continues after an interruption.

    Args:
        run: the reviewed run, or its folder. One without a review is trained on all the same.
        out: the new run's folder; see `next_folder`.
        config: all settings; those of `next_config` if not given.
        data: where the images lie now, if no longer where they were, or the data set itself.
        links: a CSV of further pairs, see `gracl.read_links`.
        on_epoch, progress: see `gracl.train`.

    Raises:
        RunError: the run is not finished.
        ReviewError: its review cannot be read, or another process has it open.

    >>> from gracl import continue_training
    >>> run = continue_training("runs/photos")                              # doctest: +SKIP
    >>> run.folder                                                          # doctest: +SKIP
    PosixPath('runs/photos-2')
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    dataset = dataset_of(run, data)

    def known(records: Records) -> Links:
        # One process at a time may read a review.
        said = distributed.from_first(lambda: corrections(run.folder, records, dataset.root))
        more = Links() if links is None else read_links(links, records, root=dataset.root)
        must = np.concatenate([said.must, more.must])
        return Links(must, np.concatenate([said.cannot, more.cannot]))

    return train(
        config or next_config(run),
        dataset,
        out if out is not None else next_folder(run.folder),
        links=known,
        continues=run,
        on_epoch=on_epoch,
        progress=progress,
    )


def next_config(run: Run) -> Config:
    """A run's settings, starting from its finished weights."""
    run.labels  # noqa: B018 - refuses a run that is not finished
    weights = run.folder / "model.safetensors"
    return run.config.replace({"model": {"weights": str(weights.absolute())}})


def since_review(run: Run, done: Run, dataset: Dataset) -> Since:
    """How a run's clusters differ from those of the run before it, as its review left them.

    Args:
        run: the run before.
        done: the run that continued it.
        dataset: what both were trained on.
    """
    images = open_store(dataset.train.unlabelled(), size=done.model.size)
    labels = np.array([cluster for _, cluster in done.labels], dtype=np.int64)
    pids = identities_of(images.records, dataset.train)
    if has_review(run.folder):
        earlier = earlier_labels(read(run.folder / LEDGER), images.records, dataset.root)
    else:
        earlier = np.array([cluster for _, cluster in run.labels], dtype=np.int64)
    return compare(earlier, labels, pids if bool((pids >= 0).any()) else None)


def next_folder(folder: Path) -> Path:
    """Where the run after this one goes, beside it.

    >>> next_folder(Path("runs/photos")).name, next_folder(Path("runs/photos-2")).name
    ('photos-2', 'photos-3')
    """
    found = re.fullmatch(r"(.+)-(\d+)", folder.name)
    stem, number = (found[1], int(found[2])) if found else (folder.name, 1)
    return folder.with_name(f"{stem}-{number + 1}")
