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
    "Association": "gracl.association",
    "Box": "gracl.data.records",
    "Calibration": "gracl.calibration",
    "ClusterSampler": "gracl.data.sampler",
    "Comparison": "gracl.comparison",
    "Config": "gracl.config",
    "Contender": "gracl.contenders",
    "Dataset": "gracl.data.records",
    "Detection": "gracl.data.tracks",
    "Embedder": "gracl.models.embedder",
    "Epoch": "gracl.training",
    "Features": "gracl.features",
    "GRACL": "gracl.methods.gracl",
    "Gallery": "gracl.gallery.gallery",
    "GraclError": "gracl.errors",
    "ImageStore": "gracl.data.store",
    "Links": "gracl.links",
    "OUTLIER": "gracl.clustering",
    "Record": "gracl.data.records",
    "Records": "gracl.data.records",
    "Review": "gracl.review.review",
    "Run": "gracl.runs",
    "Study": "gracl.study",
    "TrackletFeatures": "gracl.association",
    "Tracks": "gracl.data.tracks",
    "Where": "gracl.gallery.entries",
    "associate": "gracl.association",
    "build_model": "gracl.training",
    "calibrate": "gracl.calibration",
    "check_dataset": "gracl.data.check",
    "cluster": "gracl.clustering",
    "compare": "gracl.contest",
    "compare_labels": "gracl.agreement",
    "contenders_of": "gracl.contenders",
    "continue_training": "gracl.review.next_run",
    "convert_dataset": "gracl.data.convert",
    "crops": "gracl.embedding",
    "draw_curves": "gracl.curves",
    "draw_people": "gracl.data.synthetic",
    "draw_queries": "gracl.data.splits",
    "embed": "gracl.embedding",
    "embed_batches": "gracl.embedding",
    "embed_tracks": "gracl.tracking",
    "evaluate": "gracl.evaluation",
    "evaluate_open_set": "gracl.evaluation",
    "expand_queries": "gracl.rerank",
    "export_onnx": "gracl.export",
    "export_program": "gracl.export",
    "export_weights": "gracl.export",
    "extract": "gracl.extraction",
    "fingerprint": "gracl.models.fingerprint",
    "fit": "gracl.training",
    "from_dataframe": "gracl.data.tables",
    "from_huggingface": "gracl.data.huggingface",
    "from_pretrained": "gracl.hub",
    "gather_tracklets": "gracl.association",
    "grid": "gracl.contenders",
    "index_frames": "gracl.tracking",
    "jaccard_distance": "gracl.jaccard",
    "join_features": "gracl.features",
    "k_reciprocal": "gracl.rerank",
    "load_dataset": "gracl.data.readers",
    "load_model": "gracl.files",
    "open_store": "gracl.data.store",
    "open_study": "gracl.study",
    "paired_difference": "gracl.comparison",
    "push_to_hub": "gracl.hub",
    "read_calibration": "gracl.files",
    "read_coco": "gracl.data.boxes",
    "read_comparison": "gracl.comparison",
    "read_features": "gracl.features",
    "read_links": "gracl.data.pairs",
    "read_megadetector": "gracl.data.boxes",
    "read_pairs": "gracl.data.pairs",
    "read_tracks": "gracl.data.tracks",
    "require_same_model": "gracl.features",
    "save_pretrained": "gracl.repository",
    "score_features": "gracl.evaluation",
    "score_identification": "gracl.agreement",
    "split_by_burst": "gracl.data.splits",
    "split_by_date": "gracl.data.splits",
    "split_by_identity": "gracl.data.splits",
    "sweep_eps": "gracl.sweep",
    "train": "gracl.runs",
    "write_calibration": "gracl.files",
    "write_features": "gracl.features",
    "write_report": "gracl.report.page",
    "write_split": "gracl.data.splits",
    "write_tracks": "gracl.tracking",
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
    from gracl.agreement import score_identification as score_identification
    from gracl.association import Association as Association
    from gracl.association import TrackletFeatures as TrackletFeatures
    from gracl.association import associate as associate
    from gracl.association import gather_tracklets as gather_tracklets
    from gracl.calibration import Calibration as Calibration
    from gracl.calibration import calibrate as calibrate
    from gracl.clustering import OUTLIER as OUTLIER
    from gracl.clustering import cluster as cluster
    from gracl.comparison import Comparison as Comparison
    from gracl.comparison import paired_difference as paired_difference
    from gracl.comparison import read_comparison as read_comparison
    from gracl.config import Config as Config
    from gracl.contenders import Contender as Contender
    from gracl.contenders import contenders_of as contenders_of
    from gracl.contenders import grid as grid
    from gracl.contest import compare as compare
    from gracl.curves import draw_curves as draw_curves
    from gracl.data.boxes import read_coco as read_coco
    from gracl.data.boxes import read_megadetector as read_megadetector
    from gracl.data.check import check_dataset as check_dataset
    from gracl.data.convert import convert_dataset as convert_dataset
    from gracl.data.huggingface import from_huggingface as from_huggingface
    from gracl.data.pairs import read_links as read_links
    from gracl.data.pairs import read_pairs as read_pairs
    from gracl.data.readers import load_dataset as load_dataset
    from gracl.data.records import Box as Box
    from gracl.data.records import Dataset as Dataset
    from gracl.data.records import Record as Record
    from gracl.data.records import Records as Records
    from gracl.data.sampler import ClusterSampler as ClusterSampler
    from gracl.data.splits import draw_queries as draw_queries
    from gracl.data.splits import split_by_burst as split_by_burst
    from gracl.data.splits import split_by_date as split_by_date
    from gracl.data.splits import split_by_identity as split_by_identity
    from gracl.data.splits import write_split as write_split
    from gracl.data.store import ImageStore as ImageStore
    from gracl.data.store import open_store as open_store
    from gracl.data.synthetic import draw_people as draw_people
    from gracl.data.tables import from_dataframe as from_dataframe
    from gracl.data.tracks import Detection as Detection
    from gracl.data.tracks import Tracks as Tracks
    from gracl.data.tracks import read_tracks as read_tracks
    from gracl.embedding import crops as crops
    from gracl.embedding import embed as embed
    from gracl.embedding import embed_batches as embed_batches
    from gracl.errors import GraclError as GraclError
    from gracl.evaluation import evaluate as evaluate
    from gracl.evaluation import evaluate_open_set as evaluate_open_set
    from gracl.evaluation import score_features as score_features
    from gracl.export import export_onnx as export_onnx
    from gracl.export import export_program as export_program
    from gracl.export import export_weights as export_weights
    from gracl.extraction import extract as extract
    from gracl.features import Features as Features
    from gracl.features import join_features as join_features
    from gracl.features import read_features as read_features
    from gracl.features import require_same_model as require_same_model
    from gracl.features import write_features as write_features
    from gracl.files import load_model as load_model
    from gracl.files import read_calibration as read_calibration
    from gracl.files import write_calibration as write_calibration
    from gracl.gallery.entries import Where as Where
    from gracl.gallery.gallery import Gallery as Gallery
    from gracl.hub import from_pretrained as from_pretrained
    from gracl.hub import push_to_hub as push_to_hub
    from gracl.jaccard import jaccard_distance as jaccard_distance
    from gracl.links import Links as Links
    from gracl.methods.gracl import GRACL as GRACL
    from gracl.models.embedder import Embedder as Embedder
    from gracl.models.fingerprint import fingerprint as fingerprint
    from gracl.report.page import write_report as write_report
    from gracl.repository import save_pretrained as save_pretrained
    from gracl.rerank import expand_queries as expand_queries
    from gracl.rerank import k_reciprocal as k_reciprocal
    from gracl.review.next_run import continue_training as continue_training
    from gracl.review.review import Review as Review
    from gracl.runs import Run as Run
    from gracl.runs import train as train
    from gracl.study import Study as Study
    from gracl.study import open_study as open_study
    from gracl.sweep import sweep_eps as sweep_eps
    from gracl.tracking import embed_tracks as embed_tracks
    from gracl.tracking import index_frames as index_frames
    from gracl.tracking import write_tracks as write_tracks
    from gracl.training import Epoch as Epoch
    from gracl.training import build_model as build_model
    from gracl.training import fit as fit
