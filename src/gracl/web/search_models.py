"""What the search API takes and answers, as its documentation shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from gracl.calibration import Calibration
from gracl.data.records import Box
from gracl.gallery.entries import DAY, MONTH, Entry
from gracl.gallery.results import Hit

Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
"""A value of a filter."""
_CLOCK = r"[T ][0-9]{2}(:[0-9]{2}(:[0-9]{2}[0-9.:+Z-]*)?)?"
Moment = Annotated[
    str,
    StringConstraints(max_length=40, pattern=rf"^[0-9]{{4}}(-{MONTH}(-{DAY}({_CLOCK})?)?)?$"),
]
BoxText = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{1,6},[0-9]{1,6},[1-9][0-9]{0,5},[1-9][0-9]{0,5}$")
]
MOST_HITS = 100


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Problem(_Model):
    """What went wrong, for people to read."""

    error: str
    """What was found and what was expected."""


class Part(_Model):
    """A part of a picture, in its pixels."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def of(cls, box: Box | None) -> Part | None:
        """Of a box, where there is one."""
        return None if box is None else cls(x=box.x, y=box.y, width=box.width, height=box.height)


class Image(_Model):
    """What is said of an image of the gallery; null is not known."""

    id: int
    """Its number in the gallery, never given again."""
    name: str
    """Its file's name. Where the file lies is not told."""
    identity: str | None
    camera: str | None
    site: str | None
    time: str | None
    sequence: str | None
    box: Part | None
    """The part of the file that was looked at; null is all of it."""
    thumbnail: str | None
    """Where a small picture of it can be had, as a JPEG; null where there is none. Its file may have
    been taken away since: then that answers 404."""


class Match(Image):
    """An image of the gallery that is near to the picture."""

    rank: int
    """From 1, the nearest."""
    similarity: float
    """Cosine, in [-1, 1]."""


class Answer(_Model):
    """What a search found."""

    answer: Literal["identity", "unknown", "nobody"]
    """`identity`: the individual below. `unknown`: no image reaches the threshold. `nobody`: no image
    near enough has a name."""
    identity: str | None
    """Who it is, where the answer is `identity`."""
    threshold: float | None
    """The similarity that means the same individual; null where the server was given no calibration:
    then nobody is ever unknown, and strangers are answered by whoever is nearest."""
    matches: list[Match]
    """The k nearest, nearest first; one more where none of them has a name and somebody farther
    answers."""
    width: int
    """Of the upright picture that was sent, in pixels."""
    height: int
    box: Part | None
    """The part of it that was looked at, cut to what lies inside."""
    notes: list[str]
    """What to know of this answer, in words."""


class Named(_Model):
    """How many images an individual, a camera or a site has."""

    name: str
    images: int


class Identities(_Model):
    """Individuals of the gallery, by name."""

    total: int
    """Of those that were asked for, before `limit`."""
    identities: list[Named]


class Images(_Model):
    """A page of the gallery's images."""

    total: int
    """Images that meet the filters."""
    entries: list[Image]
    """By rising number."""
    after: int | None
    """To be given as `after` for the next page; null at the end."""


class Model(_Model):
    """The network that a gallery's features are of."""

    backbone: str
    fingerprint: str
    """Of its weights."""
    height: int
    """Pixels that pictures are resized to."""
    width: int


class Threshold(_Model):
    """What means unknown; see `gracl calibrate`."""

    threshold: float
    rate: float
    """The share of strangers that may reach it, as was asked for."""
    rate_per: Literal["comparison", "search"]
    most_answers: float
    """Of strangers who search this gallery, the share that may be given a name at most."""


class Limits(_Model):
    """What is refused."""

    bytes: int
    """Of a request at most."""
    pixels: int
    """Of a picture at most."""
    types: list[str]
    """Of pictures, told by their content."""
    matches: int
    """The largest k."""


class About(_Model):
    """What is searched, and how."""

    name: str
    """The gallery's."""
    images: int
    identities: int
    """Individuals with a name."""
    named: int
    """Images with one."""
    cameras: list[Named]
    sites: list[Named]
    model: Model
    calibration: Threshold | None
    limits: Limits
    version: str
    """Of gracl."""


def facts_of(entry: Entry, keeps_pictures: bool) -> dict[str, object]:
    """An entry as the fields of `Image`."""
    is_shown = keeps_pictures or entry.stamp is not None
    return {
        "id": entry.id,
        "name": entry.record.path.name,
        **{name: getattr(entry, name) for name in ("identity", "camera", "site", "time", "sequence")},
        "box": Part.of(entry.box),
        "thumbnail": f"/api/entries/{entry.id}/thumbnail" if is_shown else None,
    }


def image_of(entry: Entry, keeps_pictures: bool) -> Image:
    """An entry, as it is told; a gallery that keeps pictures has one of each."""
    return Image.model_validate(facts_of(entry, keeps_pictures))


def match_of(rank: int, hit: Hit, keeps_pictures: bool) -> Match:
    """A hit, as it is told."""
    facts = facts_of(hit.entry, keeps_pictures)
    return Match.model_validate({**facts, "rank": rank, "similarity": hit.similarity})


def threshold_of(found: Calibration, images: int) -> Threshold:
    """A calibration, as it is told to those who search so many images."""
    return Threshold(
        threshold=found.threshold,
        rate=found.rate,
        rate_per=found.rate_per,
        most_answers=found.most_answers(images),
    )


def names_of(counts: dict[str, int]) -> list[Named]:
    """Counts by name, as they are told."""
    return [Named(name=name, images=images) for name, images in counts.items()]
