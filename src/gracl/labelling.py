"""Images clustered by a model as each epoch of a training does it, and the links they honour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from gracl import training
from gracl.clustering import Labels
from gracl.config import Config, DataConfig
from gracl.data.pairs import links_of, read_links
from gracl.data.records import Dataset, Problem, Records
from gracl.data.store import open_store
from gracl.errors import DataError
from gracl.extraction import extract
from gracl.links import Links, must_groups
from gracl.method_settings import MethodConfig
from gracl.models.embedder import Embedder
from gracl.training import Progress

LinkSource = str | Path | Callable[[Records], Links]
"""A CSV of pairs, or what gives the links of the images that could be read, in their order."""


@dataclass(frozen=True)
class Clustering:
    """Images clustered by a model."""

    records: Records
    """The images that could be read."""
    problems: tuple[Problem, ...]
    """Those that could not."""
    labels: Labels
    """(N,) the cluster of each; `OUTLIER` is none."""
    distance: sparse.csr_array
    """(N, N) the Jaccard distances that the clusters rest on."""
    links: Links
    """What they honour."""
    method: MethodConfig
    """How they were made."""


def cluster_images(
    model: Embedder,
    dataset: Dataset,
    config: Config,
    *,
    links: LinkSource | None = None,
    progress: Progress | None = None,
) -> Clustering:
    """Clusters the training images of a data set by a model; identities are not read.

    Args:
        model: on the device to use.
        dataset: what `gracl.load_dataset` gives.
        config: data, method and train are read.
        links: a CSV of image pairs that must or cannot share a cluster, see `gracl.read_links`; or a
            function that gives the links of the images that could be read.
        progress: called with (stage, done, total).
    """
    require_training_images(dataset)
    images = open_store(
        dataset.train.unlabelled(),
        size=model.size,
        on_bad=config.data.on_bad,
        progress=training.stage(progress, "decode"),
    )
    known = known_links(images.records, config.data, source=links, root=dataset.root)
    training.forecast_labels(len(images), model.dim, config).announce()
    features = extract(
        model,
        images,
        batch_size=config.train.extract_batch,
        progress=training.stage(progress, "extract"),
    )
    method = training.build_method(
        config.method, training.known_of(images.records, config, links=known)
    )
    labels, distance = method.label(features)
    return Clustering(images.records, images.problems, labels, distance, known, config.method)


def require_training_images(dataset: Dataset) -> None:
    """Refuses a data set that has only query and gallery."""
    if not len(dataset.train):
        raise DataError(
            f"{dataset.name} has no training images, only query and gallery. Give a folder of images "
            "to learn from, or name one 'train'"
        )


def known_links(
    records: Records, settings: DataConfig, *, source: LinkSource | None, root: Path
) -> Links:
    """Links from a source, if there is one, and those that the settings take from the records."""
    told = links_of(records, sequences=settings.link_sequences, boxes=settings.separate_boxes)
    if source is None:
        read = Links()
    elif callable(source):
        read = source(records)
    else:
        read = read_links(source, records, root=root)
    links = Links(
        np.concatenate([told.must, read.must]),
        np.concatenate([told.cannot, read.cannot]),
        names=[str(record.path) for record in records],
    )
    must_groups(links, len(records))  # a contradiction is named now, not after the first epoch
    return links
