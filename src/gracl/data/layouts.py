"""The field's data sets as one table: where their images lie, how names are read, what was published.

A set is a `Layout`, a layout a few `Source`s, and `gracl.data.readers` knows how to read any of them;
to teach gracl one more, add a row to `LAYOUTS`. Where each set comes from, on which terms, and what
its numbers can be compared with is in `docs/datasets.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType


@dataclass(frozen=True)
class Name:
    """What the name of an image tells. Matched at the start of the file *name*: a parent folder such
    as run3_c2 must not become an identity.
    """

    pattern: re.Pattern[str]
    """May have the groups identity, camera and sequence."""
    shape: str
    """The same for people."""


@dataclass(frozen=True)
class Source:
    """Where images of one split lie, and what tells who is on them."""

    split: str
    """train, query, gallery, or test, which is query and gallery at once."""
    folder: str
    """Below the root; all images in it and below it are meant."""
    name: Name
    listing: str | None = None
    """A text file below the root, a line an image: its path below `folder`, with or without an
    ending, and its identity. Only images in it are read; None reads all that lie in the folder."""
    distractors: bool = False
    """Whether no image shows anyone that is asked for, whatever its name says."""
    prefix: str = ""
    """Goes before each identity, for sets that count them from 0 again in the test part."""


@dataclass(frozen=True)
class Layout:
    """A published set as it lies on disk."""

    name: str
    """What `gracl.load_dataset` calls it."""
    title: str
    """What results call it: with version and part, if there are several."""
    family: str
    """Layouts of one family are ways to read the same files. Unless asked by name, the first that
    fits is read."""
    sources: tuple[Source, ...]
    file_names: re.Pattern[str] | None = None
    """Names of files that only this family has; at least half of its first source must be such."""
    folder_names: re.Pattern[str] | None = None
    """A word in the names of the folders from the one given down to the root. For sets whose file
    names tell nothing."""
    root_names: tuple[str, ...] = ()
    """What the folder that holds it all must be called, in lower case; () is anything."""
    cameras: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Cameras as they are written -> as they are counted. Empty takes them as written."""
    dropped: frozenset[str] = frozenset({"-1"})
    """Identities that every protocol leaves out: junk of the detector."""
    distractor: str | None = None
    """The identity of images that are nobody's: never a query, always in the gallery."""
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Published sizes by split, after what is dropped."""
    counted: str = "images"
    """What `counts` counts: images or tracklets."""
    protocol: str = "cross-camera"
    """The rule that published numbers were taken under."""
    notices: tuple[str, ...] = ()
    """What stands beside every result."""
    queries: Callable[[Path], frozenset[str]] | None = None
    """File names of the queries among a test source, where a file of the set tells them."""


def mars_queries(root: Path) -> frozenset[str]:
    """File names of MARS's query tracklets, from its `info` folder.

    Raises:
        OSError: a file is not there; scipy raises much else for files that are damaged.
    """
    from scipy.io import loadmat

    info = root / "info"
    names = (info / "test_name.txt").read_text(encoding="utf-8").split()
    tracks = loadmat(info / "tracks_test_info.mat")["track_test_info"].astype(int)
    queries = loadmat(info / "query_IDX.mat")["query_IDX"].astype(int).ravel()
    spans = tracks[queries - 1, :2]  # MATLAB counts rows and names from 1, the last one included
    return frozenset(name for first, last in spans for name in names[first - 1 : last])


def by_name(name: str) -> Layout | None:
    """The layout of that name, or None.

    >>> by_name("vehicleid-800").protocol
    'vehicleid-10x'
    """
    return next((layout for layout in LAYOUTS if layout.name == name), None)


# -- the table ------------------------------------------------------------------------------------

_MARKET = Name(re.compile(r"(?P<identity>-?\d+)_c(?P<camera>\d+)"), "<identity>_c<camera>...")
_VERI = Name(re.compile(r"(?P<identity>\d+)_c(?P<camera>\d{3})"), "<identity>_c<camera>_...")
_MSMT = Name(re.compile(r"[^_]+_[^_]+_(?P<camera>\d+)_"), "<identity>_<number>_<camera>_...")
_MARS = Name(
    re.compile(r"(?P<sequence>(?P<identity>[-\d]+)C(?P<camera>\d+)T\d+)F\d+"),
    "<identity>C<camera>T<tracklet>F<frame>",
)
_ANY = Name(re.compile(r"(-?\d+_c(?P<camera>\d+))?"), "anything")

_MARKET_FILE = re.compile(r"-?\d+_c\ds\d_\d{6}_")

_THREE_FOLDERS = (
    Source("train", "bounding_box_train", _MARKET),
    Source("query", "query", _MARKET),
    Source("gallery", "bounding_box_test", _MARKET),
)


def _counts(**splits: int) -> Mapping[str, int]:
    return MappingProxyType(splits)


def _msmt17(version: str, folders: tuple[str, str], with_val: bool) -> Layout:
    train, test = folders
    lists = ("train", "val") if with_val else ("train",)
    part = "+".join(lists)
    return Layout(
        name=f"msmt17-{version.lower()}" + ("" if with_val else "-train"),
        title=f"MSMT17-{version}-{part}",
        family=f"MSMT17 {version}",
        sources=(
            *(Source("train", train, _MSMT, f"list_{name}.txt") for name in lists),
            Source("query", test, _MSMT, "list_query.txt", prefix="test-"),
            Source("gallery", test, _MSMT, "list_gallery.txt", prefix="test-"),
        ),
        counts=_counts(train=32_621 if with_val else 30_248, query=11_659, gallery=82_161),
        notices=(f"MSMT17 {version}, trained on {part}",),
    )


def _cuhk03(variant: str, root_names: tuple[str, ...], train: int, gallery: int) -> Layout:
    return Layout(
        name=f"cuhk03-np-{variant}",
        title=f"CUHK03-NP-{variant}",
        family=f"CUHK03-NP {variant}",
        sources=_THREE_FOLDERS,
        root_names=root_names,
        counts=_counts(train=train, query=1_400, gallery=gallery),
        notices=(f"CUHK03-NP, {variant} boxes: not comparable with the other variant",),
    )


def _vehicleid(test: int, images: int) -> Layout:
    lists = "train_test_split"
    return Layout(
        name=f"vehicleid-{test}",
        title=f"VehicleID-{test}",
        family="VehicleID",
        sources=(
            Source("train", "image", _ANY, f"{lists}/train_list.txt"),
            Source("test", "image", _ANY, f"{lists}/test_list_{test}.txt"),
        ),
        dropped=frozenset(),
        counts=_counts(train=113_346, test=images),
        protocol="vehicleid-10x",
        notices=(
            f"tested on the list of {test} vehicles; the protocol vehicleid-10x draws its gallery, one "
            "image of each vehicle, when it scores",
        ),
    )


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="market1501",
        title="Market-1501",
        family="Market-1501",
        sources=_THREE_FOLDERS,
        file_names=_MARKET_FILE,
        folder_names=re.compile(r"market"),
        distractor="0000",
        counts=_counts(train=12_936, query=3_368, gallery=15_913),
    ),
    Layout(
        name="market1501+500k",
        title="Market-1501+500k",
        family="Market-1501",
        sources=(*_THREE_FOLDERS, Source("gallery", "images", _ANY, distractors=True)),
        file_names=_MARKET_FILE,
        folder_names=re.compile(r"market"),
        distractor="0000",
        counts=_counts(train=12_936, query=3_368, gallery=515_913),
        protocol="market1501+500k",
        notices=("the gallery holds the distractors of Market-1501+500k",),
    ),
    Layout(
        name="dukemtmc-reid",
        title="DukeMTMC-reID",
        family="DukeMTMC-reID",
        sources=_THREE_FOLDERS,
        file_names=re.compile(r"\d+_c\d_f\d+"),
        folder_names=re.compile(r"duke"),
        counts=_counts(train=16_522, query=2_228, gallery=17_661),
        notices=(
            "its authors withdrew DukeMTMC in 2019: people were filmed without their knowledge. Do not "
            "pass it on, and think of another set for new work",
        ),
    ),
    _msmt17("V1", ("train", "test"), with_val=True),
    _msmt17("V1", ("train", "test"), with_val=False),
    _msmt17("V2", ("mask_train_v2", "mask_test_v2"), with_val=True),
    _msmt17("V2", ("mask_train_v2", "mask_test_v2"), with_val=False),
    Layout(
        name="msmt17-repacked",
        title="MSMT17-repacked",
        family="MSMT17, re-packed",
        sources=_THREE_FOLDERS,
        folder_names=re.compile(r"msmt"),
        counts=_counts(train=32_621, query=11_659, gallery=82_161),
        notices=(
            "MSMT17 re-packed in Market-1501's folders, which do not tell V1 (faces) from V2 (masked); "
            "32,621 images to train on are train+val, 30,248 are train alone",
        ),
    ),
    Layout(
        name="personx",
        title="PersonX",
        family="PersonX",
        sources=_THREE_FOLDERS,
        file_names=re.compile(r"\d{4}_c(3|4|8|10|11|12)s\d+_\d{1,3}\."),
        folder_names=re.compile(r"personx"),
        cameras=MappingProxyType({"3": "1", "4": "2", "8": "3", "10": "4", "11": "5", "12": "6"}),
        counts=_counts(train=9_840, query=5_136, gallery=30_816),
    ),
    Layout(
        name="veri776",
        title="VeRi-776",
        family="VeRi-776",
        sources=(
            Source("train", "image_train", _VERI),
            Source("query", "image_query", _VERI),
            Source("gallery", "image_test", _VERI),
        ),
        counts=_counts(train=37_778, query=1_678, gallery=11_579),
    ),
    _vehicleid(800, 6_493),
    _vehicleid(1600, 13_377),
    _vehicleid(2400, 19_777),
    _cuhk03("detected", ("detected",), train=7_365, gallery=5_332),
    _cuhk03("labeled", ("labeled", "labelled"), train=7_368, gallery=5_328),
    Layout(
        name="mars",
        title="MARS",
        family="MARS",
        sources=(Source("train", "bbox_train", _MARS), Source("test", "bbox_test", _MARS)),
        file_names=_MARS.pattern,
        dropped=frozenset({"-1", "00-1"}),
        distractor="0000",
        counts=_counts(train=8_298, query=1_980, gallery=9_330),
        counted="tracklets",
        queries=mars_queries,
    ),
    Layout(
        name="market-style",
        title="",
        family="three folders as in Market-1501",
        sources=_THREE_FOLDERS,
    ),
)
"""All that is recognised, in this order of preference."""
