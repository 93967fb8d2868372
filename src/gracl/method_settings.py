"""Settings of the methods: what all share, and what each has besides.

The settings of a method are the keyword arguments of its class, with the same defaults, and the ranges
that they must lie in. Nothing heavy is imported here, so that `gracl --help` stays quick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gracl.errors import ConfigError, did_you_mean
from gracl.sections import Section, ranged, shown

Algorithm = Literal["dbscan", "hdbscan", "agglomerative", "community"]


@dataclass(frozen=True)
class MethodConfig(Section):
    """Pseudo labels, which all methods share, and all settings of a method that has no others."""

    brings: ClassVar[Mapping[str, Any]] = {}
    """Settings of other sections that the method cannot do without; choosing it sets them."""

    name: str = "gracl"
    """Which method; the other settings of this section are those of the method named."""
    k1: int = ranged(30, 1)
    """Neighbours of the Jaccard distance, the image itself included."""
    k2: int = ranged(6, 1)
    """Nearest encodings that are averaged, the image itself included."""
    eps: float = ranged(0.6, 0.0, 1.0)
    """Jaccard distance up to which two images are neighbours. Larger: fewer, larger clusters."""
    min_samples: int = ranged(4, 1)
    """Neighbours, itself included, that an image needs to start a cluster."""
    clustering: Algorithm = "dbscan"
    """How distances become clusters; hdbscan uses no eps, community needs the extra of its name."""
    search: Literal["auto", "product", "half", "pruned", "approximate"] = "auto"
    """How neighbours are found; all but approximate are exact, and that needs the extra faiss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = settings_of(self.name)
        if type(self) is not kind:
            raise ConfigError(
                f"name is '{self.name}', whose settings are a {kind.__name__}; found a "
                f"{type(self).__name__}. Make a {kind.__name__}, or take the settings of a method by "
                f"Config().replace({{'method': {{'name': '{self.name}'}}}})"
            )

    def chosen_by(self, settings: Mapping[str, Any]) -> MethodConfig:
        """These settings, or those of the method that `settings` names.

        Of the old method's settings, those of the pseudo labels are kept, and others that both have,
        where they were changed and the new method takes their values.
        """
        name = settings.get("name", self.name)
        if name == self.name:
            return self
        kind = settings_of(name)
        shared = {item.name for item in dataclasses.fields(MethodConfig)} - {"name"}
        theirs = {item.name for item in dataclasses.fields(kind)}
        kept = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name in shared
            or (
                item.name in theirs - {"name"}
                and getattr(self, item.name) != item.default
                and _takes(kind, name, {item.name: getattr(self, item.name)})
            )
        }
        return kind(name=name, **kept)


@dataclass(frozen=True)
class GRACLConfig(MethodConfig):
    """GRACL: two relation-aware proxies a cluster (see gracl/methods/gracl.py)."""

    relation: Literal["cosine", "jaccard"] = "jaccard"
    """The relation that proxies are selected by."""
    inter_nearest: int = ranged(1, 0)
    """Nearest foreign images that the inter-ID relation is the mean of; 0 is all of them."""
    intra: Literal["mean", "min"] = "mean"
    """Intra-ID relation: the mean, or the least, of the relations to the own cluster."""
    update: Literal["criterion", "each", "mean", "sample", "none"] = "none"
    """Which images of a batch move the memory."""
    start: Literal["sample", "mean"] = "sample"
    """A memory row starts as the selected sample, or as the cluster's mean."""
    inter_momentum: float = ranged(0.1, 0.0, 1.0)
    """Share of the old row that the inter bank keeps; with update "none" all rows stay."""
    intra_momentum: float = ranged(0.1, 0.0, 1.0)
    """Share of the old row that the intra bank keeps; with update "none" all rows stay."""
    centroid_momentum: float = ranged(0.1, 0.0, 1.0)
    """Share of the old row that the centroid bank keeps."""
    negatives: Literal["own", "all"] = "own"
    """Contrast with the other rows of the same bank, or of all banks."""
    outliers: Literal["dropped", "others", "singletons"] = "dropped"
    """Images in no cluster take no part, count as others in relations, or are clusters of one."""
    temperature: float = ranged(0.05, 1e-3, 10.0)
    """Of the contrasts; smaller is sharper."""
    inter_weight: float = ranged(0.25, 0.0)
    """Weight of the inter-ID contrast."""
    intra_weight: float = ranged(0.25, 0.0)
    """Weight of the intra-ID contrast."""
    centroid_weight: float = ranged(0.5, 0.0)
    """Weight of a contrast with the clusters' means; 0 is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.inter_weight + self.intra_weight + self.centroid_weight > 0:
            raise ConfigError("all loss weights are 0, so nothing would be learnt; set one above 0")


@dataclass(frozen=True)
class ClusterContrastConfig(MethodConfig):
    """Cluster Contrast: one proxy a cluster (see gracl/methods/cluster_contrast.py)."""

    name: str = "cluster-contrast"
    """Which method; the settings of this section are its own."""
    update: Literal["each", "mean", "hardest"] = "each"
    """Which images of a batch move the memory: each in turn, their mean, or the farthest."""
    momentum: float = ranged(0.1, 0.0, 1.0)
    """Share of the old row that the bank keeps."""
    temperature: float = ranged(0.05, 1e-3, 10.0)
    """Of the contrast; smaller is sharper."""


@dataclass(frozen=True)
class HHCLConfig(MethodConfig):
    """HHCL: a proxy for the mean, one for the hardest images (see gracl/methods/hhcl.py)."""

    name: str = "hhcl"
    """Which method; the settings of this section are its own."""
    hard_weight: float = ranged(0.5, 0.0, 1.0)
    """Weight of the contrast with the hard bank; the mean bank has the rest."""
    momentum: float = ranged(0.1, 0.0, 1.0)
    """Share of the old row that both banks keep."""
    temperature: float = ranged(0.05, 1e-3, 10.0)
    """Of both contrasts; smaller is sharper."""


@dataclass(frozen=True)
class SpCLConfig(MethodConfig):
    """SpCL: all images are remembered, only reliable clusters kept (see gracl/methods/spcl.py)."""

    name: str = "spcl"
    """Which method; the settings of this section are its own."""
    eps_gap: float = ranged(0.02, 0.0, 1.0)
    """How much looser, and tighter, the clusterings are that a reliable cluster must agree with."""
    momentum: float = ranged(0.2, 0.0, 1.0)
    """Share of the old row that the memory keeps."""
    temperature: float = ranged(0.05, 1e-3, 10.0)
    """Of the contrast; smaller is sharper."""


@dataclass(frozen=True)
class DCMIPConfig(MethodConfig):
    """DCMIP: two proxies a cluster, and many of its images (see gracl/methods/dcmip.py)."""

    name: str = "dcmip"
    """Which method; the settings of this section are its own."""
    update: Literal["hardest", "each"] = "hardest"
    """Which images of a batch move the hard proxy: the farthest, or each in turn."""
    instances: int = ranged(16, 1)
    """Images of each cluster that are remembered."""
    min_loss: float = ranged(0.2, 0.0)
    """The contrast with the mean is not lowered below this."""
    hard_weight: float = ranged(0.5, 0.0, 1.0)
    """Weight of the contrast with the hard proxies; the means have the rest."""
    instance_weight: float = ranged(1.0, 0.0)
    """Weight of the contrast with the images remembered."""
    momentum: float = ranged(0.1, 0.0, 1.0)
    """Share of the old row that the two proxies keep."""
    temperature: float = ranged(0.05, 1e-3, 10.0)
    """Of all contrasts; smaller is sharper."""


@dataclass(frozen=True)
class ICEConfig(MethodConfig):
    """ICE: proxies, and a teacher's view of the batch (see gracl/methods/ice.py)."""

    brings: ClassVar[Mapping[str, Any]] = {"train": {"ema": 0.999}}
    """A teacher."""

    name: str = "ice"
    """Which method; the settings of this section are its own."""
    momentum: float = ranged(1.0, 0.0, 1.0)
    """Share of the old row that the bank keeps; 1 keeps the rows for the epoch."""
    temperature: float = ranged(0.5, 1e-3, 100.0)
    """Of the contrast with proxies, for features of BatchNorm's length; smaller is sharper."""
    hard_temperature: float = ranged(0.1, 1e-3, 10.0)
    """Of the contrast with the hardest image of the cluster."""
    soft_temperature: float = ranged(0.4, 1e-3, 10.0)
    """Of the similarities that are to be like the teacher's."""
    hard_weight: float = ranged(1.0, 0.0)
    """Weight of the contrast with the hardest image."""
    soft_weight: float = ranged(10.0, 0.0)
    """Weight of being like the teacher."""


@dataclass(frozen=True)
class CAPConfig(MethodConfig):
    """CAP: a proxy for each camera of a cluster (see gracl/methods/cap.py)."""

    name: str = "cap"
    """Which method; the settings of this section are its own."""
    positives: Literal["all", "others"] = "all"
    """Proxies of its cluster that an image is pulled to: all, or those of other cameras."""
    hardest: int = ranged(50, 1)
    """Proxies of other clusters that it is pushed from, the most similar ones."""
    momentum: float = ranged(0.2, 0.0, 1.0)
    """Share of the old row that the bank keeps."""
    temperature: float = ranged(0.07, 1e-3, 10.0)
    """Of both contrasts; smaller is sharper."""
    inter_weight: float = ranged(0.5, 0.0)
    """Weight of the contrast over all cameras."""


@dataclass(frozen=True)
class PPLRConfig(MethodConfig):
    """PPLR: labels refined by parts of the image (see gracl/methods/pplr.py)."""

    brings: ClassVar[Mapping[str, Any]] = {"model": {"parts": 3}}
    """Features of parts."""

    name: str = "pplr"
    """Which method; the settings of this section are its own."""
    agreement_nearest: int = ranged(20, 1)
    """Neighbours by which an image and a part agree, without the image itself."""
    beta: float = ranged(0.5, 0.0, 1.0)
    """Share of the cluster in a refined label; the parts' predictions have the rest."""
    temperature: float = ranged(0.05, 1e-3, 10.0)
    """Of predictions, and of distances in the triplet loss; smaller is sharper."""
    learning_rate: float = ranged(3.5e-4, 0.0)
    """Of the classifiers, at its highest; warm-up and schedule are those of train."""
    parts_weight: float = ranged(1.0, 0.0)
    """Weight of the loss of the parts."""
    triplet_weight: float = ranged(1.0, 0.0)
    """Weight of the triplet loss."""


@dataclass(frozen=True)
class SupervisedConfig(MethodConfig):
    """The upper bound, with true classes (see gracl/methods/supervised.py)."""

    name: str = "supervised"
    """Which method; the settings of this section are its own."""
    temperature: float = ranged(0.05, 1e-3, 10.0)
    """Of the classifier; smaller is sharper."""
    learning_rate: float = ranged(3.5e-4, 0.0)
    """Of the classifier, at its highest; warm-up and schedule are those of train."""
    margin: float = ranged(0.3, 0.0, 2.0)
    """By which the nearest other class must be farther than the own, in distances of unit features."""
    softmax_weight: float = ranged(1.0, 0.0)
    """Weight of the classifier's loss."""
    triplet_weight: float = ranged(1.0, 0.0)
    """Weight of the triplet loss."""


SETTINGS: dict[str, type[MethodConfig]] = {
    "gracl": GRACLConfig,
    "cluster-contrast": ClusterContrastConfig,
    "hhcl": HHCLConfig,
    "spcl": SpCLConfig,
    "dcmip": DCMIPConfig,
    "ice": ICEConfig,
    "cap": CAPConfig,
    "pplr": PPLRConfig,
    "supervised": SupervisedConfig,
}
"""By the method's name; a method that is not here has the settings that all share."""


def settings_of(name: Any) -> type[MethodConfig]:
    """The kind of settings that a method has.

    Raises:
        ConfigError: no method has this name.
    """
    if not isinstance(name, str):
        raise ConfigError(f"method.name is {shown(name)}; expected the name of a method, as gracl")
    if name in SETTINGS:
        return SETTINGS[name]
    from gracl.methods import METHODS  # heavy, and only asked for a method of the user's own

    if name not in METHODS:
        raise ConfigError(f"no method '{name}'; {did_you_mean(name, METHODS)}")
    return MethodConfig


def _takes(kind: type[MethodConfig], name: str, setting: Mapping[str, Any]) -> bool:
    """Whether a method's setting may have this value."""
    try:
        kind(name=name, **setting)
    except ConfigError:
        return False
    return True
