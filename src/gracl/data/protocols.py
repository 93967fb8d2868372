"""Evaluation protocols by name: in what a match must differ from its query.

* `cross-camera`: an image of the same identity *and camera* is junk, the field's rule.
* `date`: an image of the same identity and date is junk, the rule for animals.
* `sequence`: an image of the same identity and sequence (tracklet, burst) is junk.
* `any`: only the query image itself is junk.

An image of the query's identity whose camera (date, sequence) is unknown might be from the same, so
it is junk too.
"""

from __future__ import annotations

import numpy as np

from gracl.data.records import Field, Records, codes
from gracl.errors import EvaluationError, did_you_mean
from gracl.metrics import Side, has_match

PROTOCOLS: dict[str, Field | None] = {
    "cross-camera": "camera",
    "date": "date",
    "sequence": "sequence",
    "any": None,
}
"""Each protocol and the fact that must differ, the usual choice first."""


def choose(query: Records, gallery: Records) -> str:
    """The strictest protocol that these images can be scored under: the first that fits.

    That is cross-camera where any query has a match by another camera, else date, else sequence,
    else any.
    """
    for name, scene in PROTOCOLS.items():
        known = scene is not None and query.has(scene) and gallery.has(scene)
        if known and has_match(*sides(query, gallery, name)).any():
            return name
    return "any"


def sides(query: Records, gallery: Records, protocol: str) -> tuple[Side, Side]:
    """Both sides as integer codes, ready for `gracl.metrics.rank`.

    Raises:
        EvaluationError: no such protocol, or the fact that it needs is known of no image.
    """
    if protocol not in PROTOCOLS:
        raise EvaluationError(f"no protocol '{protocol}': {did_you_mean(protocol, PROTOCOLS)}")
    scene = PROTOCOLS[protocol]
    if scene is not None and not (query.has(scene) and gallery.has(scene)):
        raise EvaluationError(
            f"protocol '{protocol}' needs the {scene} of queries and gallery, and none is known. "
            f"Use '{choose(query, gallery)}', or add a column '{scene}'"
        )
    pids = codes("identity", query, gallery)
    places = codes(scene, query, gallery) if scene is not None else (None, None)
    once = {(r.path, r.box): i for i, r in enumerate([*query, *gallery])}
    images = [np.array([once[r.path, r.box] for r in side]) for side in (query, gallery)]
    return Side(pids[0], images[0], places[0]), Side(pids[1], images[1], places[1])
