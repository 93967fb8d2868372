"""From what trackers found, and the frames it was found in, to features of tracklets; and files of it
all.

Letters: T tracklets, D feature dimensions.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from gracl.association import Association, Seen, TrackletFeatures, gather_tracklets
from gracl.data.pairs import links_of
from gracl.data.parts import existing, is_image
from gracl.data.records import Problem, Records
from gracl.data.store import OnBad, inside, upright
from gracl.data.tables import pixel_box
from gracl.data.tracks import Detection, Span, Tracks, frame_number, tracks_text
from gracl.disk import told
from gracl.embedding import Crop, embed
from gracl.errors import DataError, RunError, did_you_mean
from gracl.features import Features
from gracl.files import write
from gracl.links import Links
from gracl.models.embedder import Embedder
from gracl.presence import Travel
from gracl.tracklets import Tracklets, group

COLUMNS = ("camera", "track", "identity", "first", "last", "images", "similarity")
"""Of the table that `table_of` makes."""
TRAVEL = ("from", "to", "least")


def index_frames(folder: str | Path) -> dict[int, Path]:
    """The images in a folder by their frame's number, the last number in a file's name.

    Raises:
        DataError: no such folder, no image in it, one without a number, or two of one frame.
    """
    folder = existing(Path(folder).expanduser())
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; expected a folder of frames, such as 000001.jpg")
    found: dict[int, Path] = {}
    for path in sorted(path for path in folder.iterdir() if is_image(path.name)):
        number = frame_number(path)
        if number is None:
            raise DataError(f"{path}: its name has no number; expected that of its frame")
        if found.setdefault(number, path) is not path:
            raise DataError(f"{path} and {found[number].name} are both of frame {number}")
    if not found:
        raise DataError(f"{folder} holds no image; expected frames, such as 000001.jpg")
    return found


def embed_tracks(
    model: Embedder,
    tracks: Sequence[Tracks],
    frames: Mapping[str, Mapping[int, Path]],
    *,
    images_per_tracklet: int = 16,
    batch_size: int = 256,
    device: str | None = None,
    on_bad: OnBad = "refuse",
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[TrackletFeatures, tuple[Problem, ...]]:
    """Features of all tracklets, camera by camera, by the crops that their boxes cut from frames.

    Args:
        model: see `gracl.embed`.
        tracks: one a camera.
        frames: of each camera, the image of each frame; see `index_frames`.
        images_per_tracklet: boxes of a tracklet that are embedded, spread evenly over it; 0 is all.
        batch_size, device: see `gracl.embed`.
        on_bad: a frame that cannot be read, or a box without a pixel of its frame: "refuse" stops with
            its name, "skip" leaves it out. What reaches beyond the frame is cut off.
        progress: called with (done, total) boxes.

    Returns:
        The tracklets, those without a usable box as a row of zeros, and what was left out. Times are
        seconds where every box has one, else frames.

    Raises:
        DataError: a camera twice, a frame that is missing, or a bad one.
    """
    _require_frames(tracks, frames)
    wanted = {own.camera: _spread(own, images_per_tracklet) for own in tracks}
    total = sum(map(len, wanted.values()))
    seen: list[Seen] = []
    problems: list[Problem] = []

    def crops() -> Iterator[Crop]:
        for camera, detections in wanted.items():
            yield from _crops(camera, detections, frames[camera], on_bad, seen, problems)

    def report(done: int, _: int | None) -> None:
        if progress is not None:
            progress(done, total)

    found = embed(model, crops(), batch_size=batch_size, device=device, progress=report)
    return _of_spans(tracks, gather_tracklets(seen, found.features)), tuple(problems)


def _require_frames(tracks: Sequence[Tracks], frames: Mapping[str, Mapping[int, Path]]) -> None:
    names = [own.camera for own in tracks]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"there are two tracks of camera {twice[0]}; expected one a camera")
    for own in tracks:
        if own.detections and own.camera not in frames:
            raise DataError(
                f"there are no frames of camera {own.camera}; {did_you_mean(own.camera, frames)}"
            )


def _spread(tracks: Tracks, most: int) -> list[Detection]:
    """At most so many boxes of each track, evenly; by frame."""
    by_track: defaultdict[int, list[Detection]] = defaultdict(list)
    for seen in tracks.detections:
        by_track[seen.track].append(seen)
    chosen = []
    for boxes in by_track.values():
        boxes.sort(key=lambda box: box.frame)
        chosen += [boxes[place] for place in evenly(len(boxes), most)]
    return sorted(chosen, key=lambda box: box.frame)


def evenly(n: int, most: int) -> list[int]:
    """At most `most` of n places, each in the middle of its share; all of them if `most` is 0.

    >>> evenly(9, 3), evenly(2, 3), evenly(3, 0)
    ([1, 4, 7], [0, 1], [0, 1, 2])
    """
    if most == 0 or n <= most:
        return list(range(n))
    return [(2 * share + 1) * n // (2 * most) for share in range(most)]


def _crops(
    camera: str,
    detections: Sequence[Detection],
    frames: Mapping[int, Path],
    on_bad: OnBad,
    seen: list[Seen],
    problems: list[Problem],
) -> Iterator[Crop]:
    """The usable ones, each told to `seen`; a frame is opened once."""

    def bad(problem: Problem) -> None:
        if on_bad == "refuse":
            raise DataError(
                f"{problem.path}: {problem.reason}. Mend it, or leave it out by on_bad='skip' "
                "(--on-bad skip)"
            )
        problems.append(problem)

    for number, boxes in groupby(detections, key=lambda box: box.frame):
        if number not in frames:
            low, high = min(frames), max(frames)
            raise DataError(
                f"camera {camera} has boxes in frame {number} and no image of it; its frames go from "
                f"{low} to {high}, {len(frames)} of them. Trackers count from 1 as a rule; number the "
                "frames alike"
            )
        path = frames[number]
        try:
            picture = upright(path)
        except Exception as error:  # for broken headers, Pillow's readers raise what they like
            bad(Problem(path, f"cannot be read: {error}"))
            continue
        for box in boxes:
            try:
                inside(pixel_box(box.box), picture)
            except (ValueError, OverflowError) as error:
                bad(Problem(path, f"track {box.track} of {camera}: {error}"))
                continue
            seen.append(Seen(camera, box.track, number))
            yield Crop(picture, box.box, path)


def _of_spans(tracks: Sequence[Tracks], found: TrackletFeatures) -> TrackletFeatures:
    """All tracklets, with the times of all their boxes."""
    spans = {(own.camera, track): span for own in tracks for track, span in own.spans().items()}
    place = {name: row for row, name in enumerate(spans)}
    names = zip(found.cameras or (), found.tracks or (), strict=True)
    rows = torch.tensor([place[name] for name in names], dtype=torch.int64)  # type: ignore[index]
    assert found.halves is not None
    features = torch.zeros(len(spans), found.features.shape[1])
    halves = torch.zeros(len(spans), *found.halves.shape[1:])
    features[rows], halves[rows] = found.features, found.halves
    first, last = _times([*spans.values()])
    return TrackletFeatures(
        features,
        cameras=[camera for camera, _ in spans],
        first=first,
        last=last,
        tracks=[track for _, track in spans],
        images=np.array([span.boxes for span in spans.values()], dtype=np.int64),
        halves=halves,
    )


def _times(spans: Sequence[Span]) -> tuple[list[float], list[float]]:
    """Seconds where they are known of all, else frames."""
    timed = all(span.start is not None for span in spans)
    if timed:
        return [float(span.start or 0) for span in spans], [float(span.end or 0) for span in spans]
    return [float(span.first) for span in spans], [float(span.last) for span in spans]


def has_seconds(tracks: Sequence[Tracks]) -> bool:
    """Whether every box has a time."""
    return all(seen.time is not None for own in tracks for seen in own.detections)


def in_seconds(tracks: Tracks, frames_per_second: float) -> Tracks:
    """The same tracks with the times of their frames, frame 0 being time 0.

    >>> seen = Tracks("north", (Detection(50, 1, (0, 0, 9, 9)),))
    >>> in_seconds(seen, 25).detections[0].time
    2.0
    """
    timed = tuple(replace(own, time=own.frame / frames_per_second) for own in tracks.detections)
    return replace(tracks, detections=timed)


# -- images with sequences ------------------------------------------------------------------------


def tracklets_of(found: Features) -> tuple[TrackletFeatures, Tracklets, Links]:
    """The tracklets of images whose records name sequences; an image of no sequence is one of its own.

    Nothing is known of when they were seen; but two that have crops of one picture cannot be the same.

    Raises:
        DataError: no record names a sequence, or a sequence has two identities or cameras.
    """
    if not found.records.has("sequence"):
        raise DataError(
            f"none of {len(found)} images names its sequence, so there are no tracklets. Add a column "
            "'sequence', or give the texts of a tracker with --frames"
        )
    grouped = group(found.records)
    names = [own.sequence or str(own.path) for own in grouped.records]
    rows = [grouped.records[number] for number in grouped.members]
    seen = [
        Seen(own.camera, names[number], math.nan)
        for own, number in zip(rows, grouped.members.tolist(), strict=True)
    ]
    pairs = np.sort(grouped.members[links_of(found.records, boxes=True).cannot], axis=1)
    cannot = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    return gather_tracklets(seen, found.features), grouped, Links(cannot=cannot)


def spread_records(records: Records, most: int) -> Records:
    """At most so many images of each sequence, evenly, in the order given; 0 is all."""
    members = group(records).members
    order = np.argsort(members, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(members[order])) + 1)
    kept = [part[place] for part in parts for place in evenly(len(part), most)]
    return records.take(sorted(kept))


# -- files ----------------------------------------------------------------------------------------


def write_tracks(path: str | Path, tracks: Tracks, identities: Mapping[int, int] | None = None) -> None:
    """Writes tracks, their numbers replaced by identities, or beside them where there is room.

    The ending says the kind: .txt is MOT Challenge, where the identity takes the track's place; .json
    and .csv have a field `identity` beside the track. Where tracks are written as they were read, all
    else is unchanged, in texts to the digit, and boxes without a track are there too. Tracks that were
    read from a folder of ultralytics' texts can be written as such a folder, by a path without an
    ending.

    Args:
        path: the file, or the folder, in a folder that exists.
        tracks: of one camera.
        identities: by track; None writes the tracks as they are.

    Raises:
        ConfigError: another ending, or a kind that cannot hold them.
        RunError: it cannot be written.
    """
    path = Path(path).expanduser()
    texts = tracks_text(path, tracks, identities)
    if not path.suffix:
        with told(path, RunError, "another --out"):
            path.mkdir(exist_ok=True)
    for file, text in texts.items():
        write(file, text.encode())


def identities_by_track(tracklets: TrackletFeatures, found: Association) -> dict[str, dict[int, int]]:
    """For each camera the identity of each track."""
    result: defaultdict[str, dict[int, int]] = defaultdict(dict)
    names = zip(tracklets.cameras or (), tracklets.tracks or (), strict=True)
    for (camera, track), identity in zip(names, found.identities.tolist(), strict=True):
        result[str(camera)][int(track)] = identity
    return result


def table_of(tracklets: TrackletFeatures, found: Association) -> str:
    """camera, track, identity, first, last, images and similarity, as CSV, a line a tracklet.

    What is not known is empty, and so is the similarity of a tracklet that is its identity's only one.

    >>> seen = gather_tracklets([("north", 7, 1), ("south", 2, 9)], torch.eye(2)[[0, 0]])
    >>> found = Association(np.array([1, 1]), np.array([2, 2]), np.array([1.0, 1.0]), "cosine", 0.5, "")
    >>> print(table_of(seen, found), end="")
    camera,track,identity,first,last,images,similarity
    north,7,1,1,1,1,1.0000
    south,2,1,9,9,1,1.0000
    """
    n = len(tracklets)
    facts = (
        tracklets.cameras or [None] * n,
        tracklets.tracks or range(n),
        found.identities.tolist(),
        [
            _known(time, "g")
            for time in (tracklets.first if tracklets.first is not None else [math.nan] * n)
        ],
        [
            _known(time, "g")
            for time in (tracklets.last if tracklets.last is not None else [math.nan] * n)
        ],
        tracklets.images.tolist() if tracklets.images is not None else [""] * n,
        [_known(value, ".4f") for value in found.similarities],
    )
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(zip(*facts, strict=True))
    return table.getvalue()


def _known(value: float, form: str) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if form == "g" and value == int(value) else format(value, form)


def read_travel(table: str | Path) -> Travel:
    """Least seconds between cameras, from a CSV with the columns from, to and least.

    Raises:
        DataError: no such file, other columns, or a time that is no number of 0 or more; with its line.
    """
    table = existing(Path(table).expanduser())
    found: dict[tuple[str, str], float] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            if set(rows.fieldnames or ()) != set(TRAVEL):
                raise DataError(
                    f"{table} has the columns {', '.join(rows.fieldnames or ()) or 'none'}; expected "
                    f"{', '.join(TRAVEL)}"
                )
            for row in rows:
                pair = row["from"], row["to"]
                try:
                    found[pair] = float(row["least"])
                except (TypeError, ValueError):
                    found[pair] = math.nan
                if not (found[pair] >= 0 and math.isfinite(found[pair])) or pair[0] == pair[1]:
                    raise DataError(
                        f"{table}, line {rows.line_num}: from {pair[0]} to {pair[1]} in "
                        f"{row['least']}; expected two cameras and a number of seconds, 0 or more"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the travel times in {table}: {error}") from error
    return found
