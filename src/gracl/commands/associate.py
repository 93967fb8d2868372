"""`gracl associate`: which tracklets, of whatever cameras, are the same individual."""

from __future__ import annotations

import csv
import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gracl.commands.options import LayoutName
from gracl.disk import told
from gracl.errors import ConfigError, RunError
from gracl.paths import is_file, is_folder, is_there
from gracl.terminal import Bars, console, print_left_out, print_notes

if TYPE_CHECKING:
    from gracl.association import Association, TrackletFeatures
    from gracl.data.records import Records
    from gracl.data.tracks import Tracks
    from gracl.features import Features
    from gracl.links import Links

HEAD = "camera,track,identity"
"""Of the table that a folder of ours holds."""


@dataclass(frozen=True)
class Associate:
    """Give the tracklets of several cameras global identities."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """A run's folder, or a model.safetensors; none with --features."""
    what: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[CAMERA=]TRACKS")
    ] = ()
    """With --frames: what trackers wrote, a file a camera (.txt of MOT Challenge, .json, .csv, or a
    folder of ultralytics' texts). Without: DATA whose records name sequences, as DATA of 'gracl
    train'."""
    frames: tuple[str, ...] = ()
    """[CAMERA=]FOLDER of each camera's frames, images whose last number is the frame's: 000001.jpg."""
    features: Path | None = None
    """Features that 'gracl embed' wrote, of images that name their sequence; in place of RUN and
    DATA."""
    out: Path = Path("associated")
    """A folder for tracklets.csv, and for the tracks of each camera with identities."""
    algorithm: Literal["auto", "jaccard", "cosine", "dbscan"] = "auto"
    """How tracklets are joined; auto is cosine with --threshold or fewer than 32 tracklets, else
    jaccard."""
    threshold: float | None = None
    """Mean cosine similarity from which tracklets are joined (cosine); chosen without labels if not
    given."""
    eps: float = 0.5
    """Jaccard distance up to which they are (jaccard, dbscan)."""
    k1: int = 8
    """Neighbours of the Jaccard distance, the tracklet itself included."""
    links: Path | None = None
    """A CSV (first, second, link) of tracklets that must, or cannot, be the same, named
    CAMERA/TRACK."""
    travel: Path | None = None
    """A CSV (from, to, least) of the least seconds between cameras; times must be known in seconds."""
    fps: float | None = None
    """Frames a second of all cameras, which began together; makes seconds of frames."""
    images_per_tracklet: int = 16
    """Images of a tracklet that are embedded, spread evenly over it; 0 is all."""
    batch_size: int = 256
    """Images that the model sees at a time; lower it if memory runs out."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """A frame or box that cannot be used: stop with its name, or leave it out and say so."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    layout: LayoutName = None


def associate(command: Associate) -> None:
    """Give tracklets global identities."""
    from gracl.training import use_threads

    _require_sound(command)
    use_threads(command.threads)
    if command.frames:
        _associate_tracks(command)
    else:
        _associate_images(command)


# -- what trackers wrote --------------------------------------------------------------------------


def _associate_tracks(command: Associate) -> None:
    from gracl.files import load_model
    from gracl.tracking import (
        embed_tracks,
        identities_by_track,
        in_seconds,
        index_frames,
        write_tracks,
    )

    frames = {}
    for word in command.frames:
        camera, folder = _named(word)
        frames[camera or folder.name] = index_frames(folder)
    tracks = [part for word in command.what for part in _read(word, frames)]
    for note in (note for part in tracks for note in part.notes):
        console.print(f"note: {note}", soft_wrap=True)
    _require_all_tracked(frames, tracks)
    files = _outputs(command, tracks)
    timed = tracks if command.fps is None else [in_seconds(part, command.fps) for part in tracks]
    _require_seconds(command, timed)
    model = load_model(command.run or Path())
    with Bars() as bars:
        tracklets, left_out = embed_tracks(
            model,
            timed,
            frames,
            images_per_tracklet=command.images_per_tracklet,
            batch_size=command.batch_size,
            device=command.device,
            on_bad=command.on_bad,
            progress=lambda done, total: bars("embed", done, total or done),
        )
    print_left_out(left_out)
    found = _joined(command, tracklets)
    identities = identities_by_track(tracklets, found)
    with told(command.out, RunError, "another --out"):
        command.out.mkdir(exist_ok=True)
    for part, file in zip(tracks, files, strict=True):
        write_tracks(file, part, identities.get(part.camera, {}))
    _write_table(command, tracklets, found)
    console.print(f"tracks with identities: {', '.join(map(str, files))}", soft_wrap=True)


def _require_all_tracked(frames: dict[str, dict[int, Path]], tracks: list[Tracks]) -> None:
    """Refuses frames that no tracks are for: more likely a file was forgotten than frames are idle."""
    tracked = {part.camera for part in tracks}
    idle = sorted(frames.keys() - tracked)
    if idle and tracked <= frames.keys():  # else it is told below that a camera has no frames
        raise ConfigError(
            f"--frames has cameras without tracks: {', '.join(idle)}. Give their tracks too, or leave "
            "their frames out"
        )


def _named(word: str) -> tuple[str | None, Path]:
    """CAMERA=FILE taken apart; a file that has such a name itself is a file."""
    camera, sign, file = word.partition("=")
    if not sign or is_there(Path(word)):
        return None, Path(word).expanduser()
    return camera, Path(file).expanduser()


def _read(word: str, frames: dict[str, dict[int, Path]]) -> tuple[Tracks, ...]:
    from gracl.data.store import upright
    from gracl.data.tracks import read_tracks

    camera, file = _named(word)
    size = None
    if is_folder(file):
        first = next(iter(frames.get(camera or file.stem, {}).values()), None)
        if first is None:
            raise ConfigError(
                f"{file} holds boxes relative to their frames, and --frames has none of camera "
                f"{camera or file.stem}"
            )
        size = upright(first).size[::-1]
    return read_tracks(file, camera, size=size)


def _outputs(command: Associate, tracks: list[Tracks]) -> list[Path]:
    """A file a camera, of the kind that its tracks were read from; never one of those read."""
    endings = {"mot": ".txt", "csv": ".csv", "json": ".json", "ultralytics": ""}
    files = []
    for part in tracks:
        name = f"{part.camera}{endings[part.format]}"
        if Path(name).name != name or name in ("", "tracklets.csv"):
            raise ConfigError(f"a camera is called '{part.camera}', which is no name for a file")
        files.append(command.out / name)
    if len(set(files)) < len(files):
        raise ConfigError(f"two tracks are of one camera: {', '.join(part.camera for part in tracks)}")
    read = {_named(word)[1].resolve() for word in command.what}
    if earlier := sorted(_cameras_in(command.out) - {part.camera for part in tracks}):
        raise ConfigError(
            f"{command.out} holds tracks of {', '.join(earlier)} too, from an earlier call, whose "
            "numbers are others. Give another --out, or remove that folder"
        )
    for file in files:
        if file.resolve() in read:
            raise ConfigError(
                f"{file} would be overwritten by itself with identities. Give another --out"
            )
    return files


def _cameras_in(out: Path) -> set[str]:
    """Cameras of an earlier call's table that also left tracks there."""
    table = out / "tracklets.csv"
    if not is_file(table):
        return set()
    try:
        with table.open(newline="", encoding="utf-8") as lines:
            cameras = {row["camera"] for row in csv.DictReader(lines)}
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"{table}, of an earlier call, is damaged: {error}. Give another --out, or take it away"
        ) from error
    return {camera for camera in cameras if camera and any(out.glob(f"{glob.escape(camera)}.*"))}


def _require_seconds(command: Associate, tracks: list[Tracks]) -> None:
    from gracl.tracking import has_seconds

    if command.travel is not None and not has_seconds(tracks):
        raise ConfigError(
            "--travel needs times in seconds: give --fps, or tracks with a time for each box"
        )


# -- images that name their sequence --------------------------------------------------------------


def _associate_images(command: Associate) -> None:
    from gracl.features import read_features
    from gracl.files import write_labels
    from gracl.tracking import tracklets_of

    found = _embedded(command) if command.features is None else read_features(command.features)
    tracklets, grouped, links = tracklets_of(found)
    joined = _joined(command, tracklets, links)
    with told(command.out, RunError, "another --out"):
        command.out.mkdir(exist_ok=True)
    _write_table(command, tracklets, joined)
    labels = joined.identities[grouped.members]
    write_labels(command.out / "labels.csv", found.records, labels)
    console.print(f"the identity of each image: {command.out / 'labels.csv'}", soft_wrap=True)
    _print_scores(grouped.records, joined, tracklets)


def _embedded(command: Associate) -> Features:
    from gracl.data.readers import load_dataset
    from gracl.data.records import Records
    from gracl.embedding import embed
    from gracl.files import load_model
    from gracl.tracking import spread_records

    data = Path(command.what[0])
    dataset = load_dataset(data) if command.layout is None else load_dataset(command.layout, root=data)
    print_notes(dataset)
    every = Records(tuple(dict.fromkeys((*dataset.train, *dataset.query, *dataset.gallery))))
    chosen = spread_records(every, command.images_per_tracklet)
    if len(chosen) < len(every):
        console.print(
            f"note: {len(chosen)} of {len(every)} images are embedded, {command.images_per_tracklet} "
            "of a tracklet at most; --images-per-tracklet 0 takes all",
            soft_wrap=True,
        )
    with Bars() as bars:
        found = embed(
            load_model(command.run or Path()),
            chosen,
            batch_size=command.batch_size,
            device=command.device,
            on_bad=command.on_bad,
            progress=lambda done, total: bars("embed", done, total or done),
        )
    print_left_out(found.left_out)
    return found


def _print_scores(records: Records, found: Association, tracklets: TrackletFeatures) -> None:
    """Against the identities, where any are known."""
    from gracl.agreement import compare_labels, score_identification
    from gracl.data.records import codes

    (pids,) = codes("identity", records)
    if (pids < 0).all():
        return
    agreed = compare_labels(found.identities, pids)
    tracked = score_identification(found.identities, pids, tracklets.images)
    console.print(
        f"against the known identities: ARI {agreed.ari:.1%}  pair F1 {agreed.pair_f1:.1%}  "
        f"IDF1 {tracked.idf1:.1%}  ({agreed.n_identities} of {int((pids >= 0).sum())} tracklets)",
        soft_wrap=True,
    )


# -- both -----------------------------------------------------------------------------------------


def _joined(command: Associate, tracklets: TrackletFeatures, known: Links | None = None) -> Association:
    """The identities, and a sentence on them."""
    import numpy as np

    from gracl.association import associate
    from gracl.data.pairs import read_tracklet_links
    from gracl.links import Links
    from gracl.tracking import read_travel

    links = known or Links()
    if command.links is not None:
        names = list(zip(tracklets.cameras or (), tracklets.tracks or (), strict=True))
        said = read_tracklet_links(command.links, names)
        links = Links(said.must, np.concatenate([links.cannot, said.cannot]))
    found = associate(
        tracklets,
        threshold=command.threshold,
        travel=None if command.travel is None else read_travel(command.travel),
        links=links,
        algorithm=command.algorithm,
        eps=command.eps,
        k1=command.k1,
    )
    n_cameras = len(set(tracklets.cameras or ()))
    cameras = f"{n_cameras} camera{'s' * (n_cameras != 1)}"
    console.print(
        f"{len(found)} tracklets of {cameras} are {found.n_identities} individuals, "
        f"{int((found.sizes == 1).sum())} of them with one tracklet ({found.note})",
        soft_wrap=True,
    )
    return found


def _write_table(command: Associate, tracklets: TrackletFeatures, found: Association) -> None:
    from gracl.files import write
    from gracl.tracking import table_of

    table = command.out / "tracklets.csv"
    write(table, table_of(tracklets, found).encode())
    console.print(f"the identity of each tracklet: {table}", soft_wrap=True)


def _require_sound(command: Associate) -> None:
    """Refuses what could only fail, or overwrite something, after all the work."""
    if command.features is not None and (command.run is not None or command.frames):
        raise ConfigError("--features stands in place of RUN, DATA and --frames; give one or the other")
    if command.features is None and (command.run is None or not command.what):
        raise ConfigError("give RUN and DATA, or RUN, CAMERA=TRACKS and --frames, or --features FILE")
    if command.features is None and not command.frames and len(command.what) != 1:
        raise ConfigError("several files are tracks, whose images are cut from --frames CAMERA=FOLDER")
    if command.features is None and not command.frames and _named(command.what[0])[0] is not None:
        raise ConfigError(
            f"{command.what[0]} names tracks; give --frames CAMERA=FOLDER for their images"
        )
    if not command.frames and (command.fps, command.travel) != (None, None):
        raise ConfigError("--fps and --travel belong to tracks; give these, with --frames")
    if command.threshold is not None and (command.eps, command.k1) != (Associate.eps, Associate.k1):
        raise ConfigError(
            "--threshold is for cosine, --eps and --k1 for jaccard; give one or the other"
        )
    if command.images_per_tracklet < 0 or (command.fps is not None and not command.fps > 0):
        raise ConfigError("--images-per-tracklet is 0 or more, and --fps above 0")
    _require_own_folder(command.out)


def _require_own_folder(out: Path) -> None:
    """A new folder, an empty one, or one that this command has written before."""
    if not is_folder(out):
        if is_there(out) or not is_folder(out.absolute().parent):
            raise ConfigError(f"--out is {out}; expected a folder in a folder that exists")
        return
    table = out / "tracklets.csv"
    own = False
    if is_file(table):
        with table.open(encoding="utf-8", errors="replace") as lines:
            own = lines.readline().startswith(HEAD)
    if not own and any(out.iterdir()):
        raise ConfigError(
            f"{out} holds files and no tracklets.csv that gracl wrote, so nothing is written into "
            "it. Give another --out"
        )
