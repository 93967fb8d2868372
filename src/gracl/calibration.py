"""The threshold that means "unknown": from which similarity on two images show one individual.

A threshold is a quantile of what strangers reach, at the rate of false matches that one can live with.
Two rates are told apart (ISO/IEC 19795-1), since the first is no promise about the second:

    per comparison   the false match rate: of pairs of images of two individuals, those that reach it
    per search       the false-positive identification rate: of strangers who search a gallery, those
                     whom any of its images answers. A search makes as many comparisons as there are
                     images, so 0.001 a comparison answers nearly every stranger in a gallery of 5,000.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import metadata
from typing import Literal, Protocol, get_args

from torch import Tensor

from gracl import evidence
from gracl.clustering import Labels
from gracl.data.records import Records
from gracl.error_rates import RULE_OF_THIRTY, Comparisons, Rate, rate_at, threshold_at
from gracl.errors import ConfigError, EvaluationError
from gracl.evidence import Evidence, Kind
from gracl.links import Links
from gracl.models.fingerprint import Fingerprinted

RatePer = Literal["comparison", "search"]


class Embedded(Fingerprinted, Protocol):
    """Features, what they are of, and whose they are: a `gracl.Features`."""

    @property
    def features(self) -> Tensor:
        """(N, D) unit rows."""

    @property
    def records(self) -> Records:
        """The image of each."""


@dataclass(frozen=True)
class Calibration:
    """A threshold of one model, the error rates at it, and what they rest on; rates are in [0, 1]."""

    threshold: float
    """Cosine similarity from which two images are taken for one individual; one that equals it is."""
    threshold_interval: tuple[float, float]
    """95 %: other individuals would have led to a threshold in here."""
    rate: float
    """What was asked for: the share of strangers that may reach the threshold."""
    rate_per: RatePer
    """Whether of comparisons or of searches."""
    false_matches: Rate | None
    """Of impostor comparisons, those that reach the threshold; None where it is so low that they were
    not listed."""
    true_matches: Rate | None
    """Of genuine comparisons, those that reach it; None where there were none."""
    false_answers: Rate | None
    """Of searches by strangers, those that are answered; None where the evidence is single pairs."""
    true_answers: Rate | None
    """Of searches for individuals in the gallery, those answered by the right one; None as above."""
    gallery: int
    """Images that were searched among; 0 where none were."""
    evidence: Kind
    """What shows who is who; see `gracl.evidence`."""
    unit: str
    """What is taken for independent in intervals: "individuals", "tracklets" or "clusters"."""
    n_units: int
    """How many of them there were."""
    protocol: str
    """What genuine pairs are valid, by its versioned name; "" where the evidence is single pairs."""
    notes: tuple[str, ...]
    """How far all this may be trusted."""
    fingerprint: str
    """Of the model: the threshold means nothing for another; see `gracl.require_same_model`."""
    backbone: str
    size: tuple[int, int]
    """(height, width) that images were resized to."""
    version: str
    """Of gracl."""

    def most_answers(self, gallery: int) -> float:
        """The most strangers that a gallery of so many images can answer, as a share of their searches.

        A search makes as many comparisons as there are images, and no more than one in so many false
        matches is an answer of its own; so this is their number times the upper end of the false match
        rate. Where it is above the rate you can live with, calibrate per search.
        """
        if self.false_matches is None:
            return 1.0
        return min(1.0, gallery * self.false_matches.high)

    def __str__(self) -> str:
        low, high = self.threshold_interval
        lines = [
            f"threshold {self.threshold:.4f} (95% interval {low:.4f} to {high:.4f}) for a rate of "
            f"{self.rate:g} per {self.rate_per}"
        ]
        rates = {
            "comparisons of two individuals that reach it": self.false_matches,
            "comparisons of one individual that reach it": self.true_matches,
            f"searches by strangers among {self.gallery} images that are answered": self.false_answers,
            "searches for known individuals that are answered rightly": self.true_answers,
        }
        lines += [f"  {rate}  {what}, of {rate.n}" for what, rate in rates.items() if rate is not None]
        protocol = self.protocol and f", genuine pairs under {self.protocol}"
        lines += [f"evidence: {self.evidence}, {self.n_units} {self.unit}{protocol}"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def calibrate(
    found: Embedded,
    *,
    rate: float = 0.001,
    rate_per: RatePer = "comparison",
    evidence: Kind | Literal["auto"] = "auto",
    pairs: Links | None = None,
    labels: Labels | None = None,
    protocol: str = "auto",
    seed: int = 0,
) -> Calibration:
    """The threshold that strangers reach at a stated rate.

    Choose it on individuals that the model was not trained on, where there are any: it has learnt to
    tell those of its training apart, so their threshold is too low for others.

    Args:
        found: features of images with what is known of them, from `gracl.embed`.
        rate: the share of strangers that may reach the threshold, in (0, 1).
        rate_per: of "comparison" or of "search"; see the top of `gracl.calibration`.
        evidence: "pairs", "identities", "tracklets" or "clusters", see `gracl.evidence`; "auto" takes
            the first of these that there is.
        pairs: judged pairs of rows, `must` for the same individual and `cannot` for two.
        labels: (N,) pseudo labels, for "clusters".
        protocol: what a genuine pair must differ in; for "identities".
        seed: of what is drawn where there is too much to look at all.

    Raises:
        EvaluationError: the evidence is not there, or too thin for the rate: the lowest rate that it
            can show is named.
        ConfigError: a rate outside (0, 1), or another word for `rate_per` or `evidence`.
        ShapeError: features that hold NaN.

    >>> import torch, numpy as np
    >>> from pathlib import Path
    >>> from gracl.data.records import Record
    >>> from gracl.features import Features
    >>> people = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 0)
    >>> rows = torch.nn.functional.normalize(people + torch.linspace(0, 0.1, 80)[:, None])
    >>> records = Records(tuple(Record(Path(f"{n}.jpg"), identity=f"{n // 2}") for n in range(80)))
    >>> found = Features(rows, records, fingerprint="ab", backbone="", size=(64, 32), version="")
    >>> calibration = calibrate(found, rate=0.05)
    >>> calibration.evidence, calibration.n_units, calibration.true_matches.value
    ('identities', 40, 1.0)
    """
    _require_words(rate, rate_per, evidence)
    kind = strongest(found.records, pairs) if evidence == "auto" else evidence
    shown = _gather(kind, found, rate, rate_per, pairs, labels, protocol, seed)
    impostors = shown.impostors
    if rate_per == "search":
        if shown.searches is None:
            raise EvaluationError(
                f"{kind} are single pairs, and a rate per search needs a gallery to be searched. Give "
                "images of known identity, or --rate-per comparison"
            )
        impostors = shown.searches.strangers
    threshold, achieved = threshold_at(impostors, rate, unit=shown.unit)
    searches = shown.searches
    calibration = Calibration(
        threshold=threshold.value,
        threshold_interval=(threshold.low, threshold.high),
        rate=rate,
        rate_per=rate_per,
        false_matches=_read(shown.impostors, threshold.value),
        true_matches=_read(shown.genuine, threshold.value),
        false_answers=_read(searches.strangers if searches else None, threshold.value),
        true_answers=_read(searches.known if searches else None, threshold.value),
        gallery=searches.gallery if searches else 0,
        evidence=kind,
        unit=shown.unit,
        n_units=impostors.n_units,
        protocol=shown.protocol,
        notes=shown.notes,
        fingerprint=found.fingerprint,
        backbone=found.backbone,
        size=found.size,
        version=metadata.version("gracl"),
    )
    return replace(calibration, notes=(*_warnings(calibration, achieved), *shown.notes))


def strongest(records: Records, pairs: Links | None = None) -> Kind:
    """The strongest evidence that there is; "clusters" where nothing shows who is who.

    >>> strongest(Records(), Links())
    'pairs'
    """
    if pairs is not None:
        return "pairs"
    if len({*records.values("identity")} - {None}) > 1:
        return "identities"
    return "tracklets" if evidence.has_tracklets(records) else "clusters"


def _require_words(rate: float, rate_per: str, evidence: str) -> None:
    if not 0 < rate < 1:
        raise ConfigError(f"rate is {rate:g}; expected a share in (0, 1), such as 0.01")
    for name, value, known in (
        ("rate_per", rate_per, get_args(RatePer)),
        ("evidence", evidence, ("auto", *get_args(Kind))),
    ):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(known)}")


def _gather(
    kind: Kind,
    found: Embedded,
    rate: float,
    rate_per: RatePer,
    pairs: Links | None,
    labels: Labels | None,
    protocol: str,
    seed: int,
) -> Evidence:
    features, records = found.features, found.records
    # A search makes about as many comparisons as there are images.
    rate = rate / max(1, len(records)) if rate_per == "search" else rate
    if kind == "pairs":
        if pairs is None:
            raise EvaluationError("evidence is 'pairs' and there are none; give them (--pairs FILE)")
        return evidence.from_pairs(features, records, pairs)
    if kind == "identities":
        return evidence.from_identities(features, records, protocol=protocol, rate=rate, seed=seed)
    if kind == "tracklets":
        return evidence.from_tracklets(features, records)
    if labels is None:
        raise EvaluationError(
            "nothing shows who is who: there are no judged pairs, no two identities, no picture with "
            "boxes of two sequences, no labels. Give one of these; labels=gracl.cluster(...) takes "
            "clusters for it, as --evidence clusters does"
        )
    return evidence.from_clusters(features, records, labels, rate=rate, seed=seed)


def _read(comparisons: Comparisons | None, threshold: float) -> Rate | None:
    """The rate at a threshold, where it can be read."""
    if comparisons is None or not comparisons.n:
        return None
    all_listed = len(comparisons.similarities) == comparisons.n
    if not all_listed and threshold <= comparisons.similarities[-1]:
        return None
    return rate_at(comparisons, threshold)


def _warnings(found: Calibration, achieved: Rate) -> tuple[str, ...]:
    """What a reader of the numbers could take them for, and should not."""
    said = []
    errors = achieved.effective * achieved.value
    if errors < RULE_OF_THIRTY:
        said.append(
            f"the false matches at the threshold tell as much as {errors:.0f} independent ones would; "
            "from 30 on an interval is narrow (rule of thirty). More individuals make it so"
        )
    if found.rate_per == "comparison":
        bound = (
            "" if found.false_answers is None else f" (among {found.gallery}, {found.false_answers})"
        )
        said.append(
            "the rate is per comparison: a stranger who searches a gallery is compared with each image "
            f"of it, and given a name far more often{bound}. --rate-per search sets that rate"
        )
    elif found.gallery:
        said.append(
            f"the rate is per search among {found.gallery} images; in a larger gallery strangers are "
            "answered more often"
        )
    if found.true_matches is None:
        said.append("no genuine pair is known, so what the threshold loses is not known either")
    elif found.true_matches.value < 0.5:
        said.append(
            f"at this rate {1 - found.true_matches.value:.0%} of genuine pairs are missed: the model "
            "cannot tell these images apart so strictly"
        )
    return tuple(said)
