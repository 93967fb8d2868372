"""gracl: learns to re-identify people, vehicles, animals or objects without any labels.

>>> import gracl
>>> dataset = gracl.load_dataset("photos/")                               # doctest: +SKIP
>>> run = gracl.train(gracl.Config.load("own-data"), dataset, "runs/a")   # doctest: +SKIP
>>> print(gracl.evaluate(run.model, dataset))                             # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ClusterSampler": "gracl.data.sampler",
    "Config": "gracl.config",
    "Dataset": "gracl.data.records",
    "Embedder": "gracl.models.embedder",
    "Epoch": "gracl.training",
    "GRACL": "gracl.methods.gracl",
    "GraclError": "gracl.errors",
    "ImageStore": "gracl.data.store",
    "Links": "gracl.links",
    "OUTLIER": "gracl.clustering",
    "Record": "gracl.data.records",
    "Records": "gracl.data.records",
    "Run": "gracl.runs",
    "build_model": "gracl.training",
    "check_dataset": "gracl.data.check",
    "cluster": "gracl.clustering",
    "compare_labels": "gracl.agreement",
    "draw_people": "gracl.data.synthetic",
    "evaluate": "gracl.evaluation",
    "expand_queries": "gracl.rerank",
    "extract": "gracl.extraction",
    "fit": "gracl.training",
    "jaccard_distance": "gracl.jaccard",
    "k_reciprocal": "gracl.rerank",
    "load_dataset": "gracl.data.readers",
    "load_model": "gracl.runs",
    "open_store": "gracl.data.store",
    "read_links": "gracl.data.pairs",
    "split_by_identity": "gracl.data.records",
    "sweep_eps": "gracl.sweep",
    "train": "gracl.runs",
}
"""The public surface and where each name lives. Imported on first use: torch alone takes seconds."""

__all__ = [*_HOMES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gracl' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])


if TYPE_CHECKING:
    from gracl.agreement import compare_labels as compare_labels
    from gracl.clustering import OUTLIER as OUTLIER
    from gracl.clustering import cluster as cluster
    from gracl.config import Config as Config
    from gracl.data.check import check_dataset as check_dataset
    from gracl.data.pairs import read_links as read_links
    from gracl.data.readers import load_dataset as load_dataset
    from gracl.data.records import Dataset as Dataset
    from gracl.data.records import Record as Record
    from gracl.data.records import Records as Records
    from gracl.data.records import split_by_identity as split_by_identity
    from gracl.data.sampler import ClusterSampler as ClusterSampler
    from gracl.data.store import ImageStore as ImageStore
    from gracl.data.store import open_store as open_store
    from gracl.data.synthetic import draw_people as draw_people
    from gracl.errors import GraclError as GraclError
    from gracl.evaluation import evaluate as evaluate
    from gracl.extraction import extract as extract
    from gracl.jaccard import jaccard_distance as jaccard_distance
    from gracl.links import Links as Links
    from gracl.methods.gracl import GRACL as GRACL
    from gracl.models.embedder import Embedder as Embedder
    from gracl.rerank import expand_queries as expand_queries
    from gracl.rerank import k_reciprocal as k_reciprocal
    from gracl.runs import Run as Run
    from gracl.runs import load_model as load_model
    from gracl.runs import train as train
    from gracl.sweep import sweep_eps as sweep_eps
    from gracl.training import Epoch as Epoch
    from gracl.training import build_model as build_model
    from gracl.training import fit as fit
