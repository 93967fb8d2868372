"""Evaluation protocols by name: what counts as a match, and how queries and gallery are drawn.

A score can be compared with another only where both name the same protocol in the same version. The
rules are in two tables: `PROTOCOLS` for any data, `BENCHMARKS` for those that a benchmark fixed.

An image of the query's identity whose camera (date, sequence) is unknown might be from the same, so
it is junk too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from gracl.data.records import Field, Record, Records, codes
from gracl.errors import EvaluationError, did_you_mean
from gracl.metrics import Codes, Side, has_match

Part = tuple[Codes, Codes]
"""Rows of queries, and rows of the gallery images that these queries are ranked among."""

Draw = Callable[[Side, Side, np.random.Generator], list[Part]]
"""(queries, gallery, random) -> the parts of one draw. No query is in two of them."""


@dataclass(frozen=True)
class Protocol:
    """The rule that scores were taken under.

    >>> str(PROTOCOLS["cross-camera"])
    'cross-camera@1'
    """

    name: str
    version: int
    """Raised whenever the same features would score differently."""
    rule: str
    """All of it, in one sentence."""
    scene: Field | None = None
    """What a match must differ in from its query; None is nothing."""
    draw: Draw | None = None
    """How queries and gallery are drawn; None takes all as they are."""
    n_draws: int = 1
    """Draws that scores are averaged over; draw number n is always the same one."""
    one_gallery: bool = True
    """Whether all queries of a draw are ranked in one gallery, as one threshold for them needs."""
    distractors: bool = False
    """Whether identity 0 is nobody's, as in Market-1501's gallery."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def _one_each(pids: Codes, random: np.random.Generator) -> Codes:
    """One row of every known identity, drawn evenly among its rows."""
    # Ranks of plain random numbers: NumPy may change how it shuffles from one version to the next.
    order = np.argsort(random.random(len(pids)), kind="stable")
    order = order[pids[order] >= 0]
    return np.sort(order[np.unique(pids[order], return_index=True)[1]])


def _single_shot(queries: Side, gallery: Side, random: np.random.Generator) -> list[Part]:
    """For each camera: its queries, and one image an identity from the other cameras."""
    assert queries.scenes is not None
    assert gallery.scenes is not None
    parts = []
    for camera in np.unique(queries.scenes):  # the unknown one too: its queries are to be counted
        others = np.flatnonzero((gallery.scenes >= 0) & (gallery.scenes != camera))
        drawn = others[_one_each(gallery.pids[others], random)]
        parts.append((np.flatnonzero(queries.scenes == camera), drawn))
    return parts


def _gallery_of_one_each(queries: Side, gallery: Side, random: np.random.Generator) -> list[Part]:
    """One image an identity is the gallery; what was not drawn for it are the queries."""
    drawn = _one_each(gallery.pids, random)
    return [(np.flatnonzero(~np.isin(queries.images, gallery.images[drawn])), drawn)]


def _table(*protocols: Protocol) -> dict[str, Protocol]:
    return {protocol.name: protocol for protocol in protocols}


PROTOCOLS = _table(
    Protocol(
        "cross-camera",
        1,
        "An image of the query's identity and camera is junk; all queries search all of the gallery.",
        scene="camera",
    ),
    Protocol(
        "date",
        1,
        "An image of the query's identity and date is junk; all queries search all of the gallery.",
        scene="date",
    ),
    Protocol(
        "sequence",
        1,
        "An image of the query's identity and sequence (tracklet, burst) is junk; all queries search "
        "all of the gallery.",
        scene="sequence",
    ),
    Protocol("any", 1, "Only the query image itself is junk; all queries search all of the gallery."),
)
"""The rules for any data, the usual choice first."""

BENCHMARKS = _table(
    # Li et al., "DeepReID", CVPR 2014: CMC with one gallery image an identity.
    Protocol(
        "cuhk03-single-shot",
        1,
        "The queries of a camera search one image an identity, drawn from all other cameras; 10 draws, "
        "of which papers quote the CMC (with one match a query, mAP and mINP are the mean of 1/rank).",
        scene="camera",
        draw=_single_shot,
        n_draws=10,
        one_gallery=False,
    ),
    # Liu et al., "Deep Relative Distance Learning", CVPR 2016: VehicleID.
    Protocol(
        "vehicleid-10x",
        1,
        "One image an identity is drawn into the gallery and all other images are queries; 10 draws.",
        draw=_gallery_of_one_each,
        n_draws=10,
    ),
    # Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015.
    Protocol(
        "market1501+500k",
        1,
        "As cross-camera, with distractors in the gallery: images of unknown identity, or of identity "
        "0, match no query and are never junk.",
        scene="camera",
        distractors=True,
    ),
)
"""The rules of one benchmark each; only taken where they are named."""


def find(name: str) -> Protocol:
    """The protocol of this name; `EvaluationError` with the nearest one if there is none."""
    known = {**PROTOCOLS, **BENCHMARKS}
    if name not in known:
        raise EvaluationError(f"no protocol '{name}': {did_you_mean(name, known)}")
    return known[name]


def choose(query: Records, gallery: Records) -> str:
    """The strictest protocol that these images can be scored under: the first that fits.

    That is cross-camera where any query has a match by another camera, else date, else sequence,
    else any.
    """
    for name, protocol in PROTOCOLS.items():
        if _is_known(protocol, query, gallery) and has_match(*sides(query, gallery, name)).any():
            return name
    return "any"


def why_not_stricter(query: Records, gallery: Records, chosen: str) -> str:
    """What kept `choose` from the protocols before the chosen one; nothing where it is the first.

    >>> from pathlib import Path
    >>> photos = Records((Record(Path("a"), "x", date="1 May"), Record(Path("b"), "x", date="2 May")))
    >>> why_not_stricter(photos, photos, choose(photos, photos))
    'fell to date: no camera known'
    """
    names = list(PROTOCOLS)
    reasons = [
        f"no match by another {protocol.scene}"
        if _is_known(protocol, query, gallery)
        else f"no {protocol.scene} known"
        for protocol in map(find, names[: names.index(chosen)])
    ]
    return f"fell to {chosen}: {', '.join(reasons)}" if reasons else ""


def sides(query: Records, gallery: Records, protocol: str) -> tuple[Side, Side]:
    """Both sides as integer codes, ready for `gracl.metrics.rank` or for `draws`.

    Raises:
        EvaluationError: no such protocol, or what it needs is not there.
    """
    rule = find(protocol)
    if not _is_known(rule, query, gallery):
        raise EvaluationError(
            f"protocol '{protocol}' needs the {rule.scene} of queries and gallery, and none is known. "
            f"Use '{choose(query, gallery)}', or add a column '{rule.scene}'"
        )
    if rule.distractors:
        query, gallery = _nobody(query), _nobody(gallery)
    pids = codes("identity", query, gallery)
    if rule.distractors and not (pids[1] < 0).any():
        raise EvaluationError(
            f"protocol '{protocol}' needs distractors, and each of {len(gallery)} gallery images has "
            "an identity other than 0. Add the distractors to the gallery, or use 'cross-camera'"
        )
    places = codes(rule.scene, query, gallery) if rule.scene is not None else (None, None)
    once = {(r.path, r.box): i for i, r in enumerate([*query, *gallery])}
    images = [np.array([once[r.path, r.box] for r in side]) for side in (query, gallery)]
    return Side(pids[0], images[0], places[0]), Side(pids[1], images[1], places[1])


def draws(queries: Side, gallery: Side, protocol: Protocol, *, seed: int = 0) -> Iterator[list[Part]]:
    """The parts of each draw of a protocol that has a `draw`.

    Which image is drawn depends on the order of the records, which the readers keep sorted.

    Args:
        queries, gallery: from `sides`.
        protocol: whose draws.
        seed: 0 is the protocol's own; under another, scores cannot be compared with anyone's.

    >>> both = Side(pids=np.array([5, 5, 6]), images=np.arange(3))
    >>> first, *_ = draws(both, both, BENCHMARKS["vehicleid-10x"])
    >>> [(rows.tolist(), columns.tolist()) for rows, columns in first]
    [([0], [1, 2])]
    """
    assert protocol.draw is not None
    for number in range(protocol.n_draws):
        yield protocol.draw(queries, gallery, np.random.default_rng([seed, number]))


def _is_known(protocol: Protocol, query: Records, gallery: Records) -> bool:
    scene = protocol.scene
    return scene is None or (query.has(scene) and gallery.has(scene))


def _nobody(records: Records) -> Records:
    """The records with identity 0, however many digits it has, made unknown."""

    def clear(record: Record) -> Record:
        is_zero = record.identity is not None and set(record.identity) == {"0"}
        return replace(record, identity=None) if is_zero else record

    return Records(tuple(map(clear, records)))
