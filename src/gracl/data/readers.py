"""From what lies on disk to a `Dataset`: a published set, a CSV, or any folder of images.

Nothing is ever written into a user's folder, and identities are always text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gracl.data.boxes import read_boxes, read_coco, read_megadetector
from gracl.data.huggingface import from_huggingface
from gracl.data.layouts import LAYOUTS, Layout, Source, by_name
from gracl.data.parts import SPLITS, Parts, Tree, existing, is_image, told_of
from gracl.data.records import Dataset, Problem, Record
from gracl.data.tables import TABLE, Tally, as_identity, read_csv
from gracl.errors import DataError, did_you_mean
from gracl.paths import is_file, is_folder, is_there

WRAPPERS = 2
"""How many folders a published set may be wrapped in, below the folder that was given."""


def load_dataset(name: str | Path, root: str | Path | None = None) -> Dataset:
    """Reads a data set.

    Args:
        name: a folder or a file, told by what it holds, or the name of a layout: one of
            `gracl.data.layouts.LAYOUTS` such as "market1501" or "msmt17-v2", or one of `READERS`.
        root: where a named layout lies; up to two wrapper folders around it are looked through.

    What a folder holds is told in this order:

    * **a published set** by its folders and lists: Market-1501, DukeMTMC-reID, MSMT17 (V1, V2,
      re-packed), PersonX, VeRi-776, VehicleID, CUHK03-NP, MARS, or one's own images in Market-1501's
      three folders ("market-style"). Those that share their folders are told apart by names of files,
      then by names of folders. `Dataset.notes` says what was chosen, and how its size differs from
      the published one. Identities are text as written; junk (-1) is left out.
    * **csv**: a file (or a folder with `metadata.csv`) with the column `path`, relative to the
      file, and optionally identity, camera, split (train, query, gallery or test), date, sequence,
      and a crop box x, y, w, h in pixels. Further columns are left alone. It goes before a published
      set that lies deeper.
    * **coco**, **megadetector**: a .json file of boxes, see `gracl.read_coco`; **huggingface**: a
      .parquet file, or a folder of such or with `metadata.jsonl`, see `gracl.from_huggingface`.
    * **folder**: any tree of images. Folders named train, query, gallery or test at its top are
      splits; within, images that lie in folders take the nearest folder's name as identity.

    Images of the split `test` are query and gallery at once: each searches all others.

    Raises:
        DataError: nothing there, no image, several sets, an unknown layout, column or split.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as top:
    ...     for split in ("bounding_box_train", "query", "bounding_box_test"):
    ...         (Path(top) / "mine" / split).mkdir(parents=True)
    ...         (Path(top) / "mine" / split / "0007_c2_a.jpg").touch()
    ...     dataset = load_dataset(top)
    >>> dataset.layout, dataset.name, dataset.train[0].identity, dataset.train[0].camera
    ('market-style', 'mine', '0007', '2')
    """
    if root is None and (str(name) not in _known() or is_there(Path(name))):
        place = existing(Path(name).expanduser())
        return replace(_recognise(place), given=(str(place.absolute()),))
    if str(name) not in _known():
        raise DataError(f"no layout is called '{name}': {did_you_mean(str(name), _known())}")
    if root is None:
        raise DataError(f"layout '{name}' needs to know where it lies: give root=FOLDER")
    place = existing(Path(root).expanduser())
    layout = by_name(str(name))
    dataset = READERS[str(name)](place) if layout is None else _read_named(layout, place)
    return replace(dataset, given=(str(name), str(place.absolute())))


def read_folder(root: Path, tree: Tree | None = None) -> Dataset:
    """Any tree of images; see `load_dataset` for what its folders mean."""
    if not is_folder(root):
        raise DataError(f"{root} is a file; expected a folder of images")
    tree = tree or Tree()
    root = _unwrapped(root, tree)
    splits = _splits(root, tree)
    parts, tally, others = Parts(), Tally(), Counter[str]()
    for split, top in splits or [("train", root)]:
        images = tree.images(top)
        parts.problems += images.problems
        others += images.others
        for inner, path in images.found:
            identity = as_identity(path.parent.name, tally) if "/" in inner else None
            parts.add(split, Record(path, identity=identity))
    parts.notes += told_of(others) + tally.notes()
    if splits:
        parts.notes += _passed_over(root, [top for _, top in splits], tree)
    lists = [name for name in tree.listing(root).files if _LIST.fullmatch(name)]
    if lists:
        parts.notes.append(
            f"{', '.join(lists)} lie there and were not read; MSMT17 needs list_train.txt, "
            "list_query.txt and list_gallery.txt"
        )
    if parts.train and any(r.identity is not None for r in parts.train):
        parts.notes.append("identities are the names of the folders that images lie in")
    return parts.dataset(root.name, root, "folder")


_LIST = re.compile(r"list_\w+\.txt", re.IGNORECASE)


def _splits(root: Path, tree: Tree) -> list[tuple[str, Path]]:
    return [(top.name.lower(), top) for top in tree.folders(root) if top.name.lower() in SPLITS]


def _unwrapped(root: Path, tree: Tree) -> Path:
    """The folder that holds splits, where nothing but a wrapper or two lies around it."""
    inner = root
    for _ in range(WRAPPERS):
        if _splits(inner, tree):
            return inner
        folders = tree.folders(inner)
        if len(folders) != 1 or any(map(is_image, tree.listing(inner).files)):
            return root
        inner = folders[0]
    return inner if _splits(inner, tree) else root


def _passed_over(root: Path, splits: list[Path], tree: Tree) -> list[str]:
    """Says what lies beside folders called train, query, gallery or test, and is in no split.

    Raises:
        DataError: there is no folder train among them, so all that could be learnt from is beside.
    """
    others = [f"{top.name}/" for top in tree.folders(root) if top not in splits]
    others = [name for name in others if tree.images(root / name).found]
    others += [name for name in tree.listing(root).files if is_image(name)]
    if not others:
        return []
    named = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    given = ", ".join(f"{top.name}/" for top in splits)
    if "train" not in {top.name.lower() for top in splits}:
        raise DataError(
            f"{root} holds {named} beside {given}: either identities, one of which is called as a "
            "split is, or a test part without its training part. Put what to learn from into train/, "
            "or give the folders other names"
        )
    return [f"not read, for they lie beside {given}: {named}"]


READERS: dict[str, Callable[[Path], Dataset]] = {
    "coco": read_coco,
    "csv": read_csv,
    "folder": read_folder,
    "huggingface": from_huggingface,
    "megadetector": read_megadetector,
}
"""What is read by other means than the table of layouts."""


def _known() -> list[str]:
    return [*(layout.name for layout in LAYOUTS), *READERS]


# -- which set is it? -----------------------------------------------------------------------------


class Fit(NamedTuple):
    """A layout, and a folder that holds all that it needs."""

    layout: Layout
    root: Path


def _recognise(path: Path) -> Dataset:
    if is_file(path):
        if path.suffix.lower() == ".csv":
            return read_csv(path)
        if path.suffix.lower() == ".json":
            return read_boxes(path)
        if path.suffix.lower() == ".parquet":
            return from_huggingface(path)
        raise DataError(
            f"{path} is a file; expected a folder of images, or a .csv, .json or .parquet file"
        )
    tree = Tree()
    fits = _nearest(path, tree, lambda root: _likely(root, path, tree))
    if tree.find(path, TABLE) is not None and not any(fit.root == path for fit in fits):
        return read_csv(path)
    if not fits and _is_huggingface(path):
        return from_huggingface(path)
    return _read(_one(fits, path), tree) if fits else read_folder(path, tree)


def _is_huggingface(path: Path) -> bool:
    folders = (path, path / "data")
    return (path / "metadata.jsonl").is_file() or any(next(f.glob("*.parquet"), None) for f in folders)


def _read_named(layout: Layout, path: Path) -> Dataset:
    tree = Tree()
    fits = _nearest(path, tree, lambda root: [Fit(layout, root)] if _fits(layout, root, tree) else [])
    if not fits:
        needed = ", ".join(dict.fromkeys(_needed(layout)))
        name = f" and is called {' or '.join(layout.root_names)}" if layout.root_names else ""
        raise DataError(
            f"no folder below {path} holds {needed}{name}, as {layout.family} does. Give the folder "
            "that holds them, or use the layout 'folder'"
        )
    if len(fits) > 1:  # of several that it fits, those that speak for it
        fits = [fit for fit in fits if fit in _likely(fit.root, path, tree)] or fits
    return _read(_one(fits, path), tree)


def _nearest(top: Path, tree: Tree, fits: Callable[[Path], list[Fit]]) -> list[Fit]:
    """All fits as near to the top as there is any."""
    level = [top]
    for _ in range(WRAPPERS + 1):
        if found := [fit for root in level for fit in fits(root)]:
            return found
        level = [inner for folder in level for inner in tree.folders(folder)]
    return []


def _needed(layout: Layout) -> list[str]:
    sources = layout.sources
    return [s.folder for s in sources] + [s.listing for s in sources if s.listing is not None]


def _fits(layout: Layout, root: Path, tree: Tree) -> bool:
    return all(tree.find(root, inner) is not None for inner in _needed(layout)) and (
        not layout.root_names or root.absolute().name.lower() in layout.root_names
    )


def _likely(root: Path, top: Path, tree: Tree) -> list[Fit]:
    """Of layouts that fit here those that file names speak for, or else names of folders, or else
    those that need no such word.
    """
    fits = [Fit(layout, root) for layout in LAYOUTS if _fits(layout, root, tree)]
    folders = "/".join((top.absolute().name, *root.relative_to(top).parts)).lower()
    by_files = [fit for fit in fits if _files_speak(fit, tree)]
    by_folders = [
        fit
        for fit in fits
        if fit.layout.root_names
        or (fit.layout.folder_names is not None and fit.layout.folder_names.search(folders))
    ]
    mute = [fit for fit in fits if not (fit.layout.file_names or fit.layout.folder_names)]
    return by_files or by_folders or mute


def _files_speak(fit: Fit, tree: Tree) -> bool:
    pattern = fit.layout.file_names
    folder = tree.find(fit.root, fit.layout.sources[0].folder)
    if pattern is None or folder is None:
        return False
    found = tree.images(folder).found
    sample = found[:: len(found) // 1000 + 1]
    speaking = sum(pattern.match(path.name) is not None for _, path in sample)
    return bool(found) and 2 * speaking >= len(sample)


def _one(fits: list[Fit], top: Path) -> Fit:
    """The first, or a `DataError` that names all if they are not the same files."""
    if len({(fit.root.resolve(), fit.layout.family) for fit in fits}) > 1:
        choices = "; ".join(f'load_dataset("{fit.layout.name}", root="{fit.root}")' for fit in fits)
        raise DataError(
            f"{top} may be read as {' or as '.join(fit.layout.name for fit in fits)}, which are never "
            f"mixed. Give the folder of one, or say which: {choices}"
        )
    return fits[0]


# -- reading it -----------------------------------------------------------------------------------


def _read(fit: Fit, tree: Tree) -> Dataset:
    """Reads a published set as its row in the table says."""
    layout, root = fit
    parts = Parts(notes=[*layout.notices, *_beside(fit, tree)])
    queries = _queries(fit, parts)
    folders = {source.folder: tree.find(root, source.folder) or root for source in layout.sources}
    for folder in folders.values():
        parts.problems += tree.images(folder).problems
    for source in layout.sources:
        images = tree.images(folders[source.folder])
        rows = images.found if source.listing is None else _listed(source, fit, tree, parts.problems)
        for told, path in rows:
            record = _record(path, None if source.listing is None else told, source, layout)
            if isinstance(record, Problem):
                parts.problems.append(record)
            elif record.identity not in layout.dropped:
                parts.add(_split(record, source, layout, queries), record)
    differences = _differences(parts, layout)
    parts.notes += differences
    title = f"{layout.title}-altered" if differences else layout.title
    return parts.dataset(title or root.name, root, layout.name, protocol=layout.protocol)


def _record(path: Path, identity: str | None, source: Source, layout: Layout) -> Record | Problem:
    match = source.name.pattern.match(path.name)
    if match is None:
        return Problem(path, f"name is not {source.name.shape}")
    told = match.groupdict()
    camera = told.get("camera")
    if layout.cameras and camera is not None:
        if camera not in layout.cameras:
            known = ", ".join(layout.cameras)
            return Problem(path, f"camera {camera} is none of {layout.title}'s: {known}")
        camera = layout.cameras[camera]
    who = layout.distractor if source.distractors else identity or told["identity"]
    return Record(path, f"{source.prefix}{who}", camera, sequence=told.get("sequence"))


def _split(record: Record, source: Source, layout: Layout, queries: frozenset[str] | None) -> str:
    if source.split != "test":
        return source.split
    if queries is not None:
        return "query" if record.path.name in queries else "gallery"
    return "gallery" if record.identity == layout.distractor else "test"


def _listed(
    source: Source, fit: Fit, tree: Tree, problems: list[Problem]
) -> Iterator[tuple[str, Path]]:
    """Identity and path of each image in a list; what the list names in vain is a problem."""
    folder = tree.find(fit.root, source.folder) or fit.root
    table = tree.find(fit.root, source.listing or "") or fit.root
    found = tree.images(folder).found
    paths = {inner.rpartition(".")[0]: path for inner, path in found} | dict(found)
    try:
        lines = table.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DataError(
            f"{table} cannot be read: {error.strerror}. {fit.layout.title} needs it"
        ) from error
    for number, line in enumerate(lines, 1):
        fields = line.replace("\\", "/").rsplit(maxsplit=1)  # a name may have spaces
        if len(fields) == 1:
            problems.append(Problem(table, f"line {number} is not <image> <identity>: {line!r}"))
        if len(fields) < 2:
            continue
        name, identity = fields[0].strip(), fields[1]
        path = paths.get(name) or paths.get(name.rpartition(".")[0])  # unpacked as another format
        if path is not None:
            yield identity, path
        else:
            reason = f"{table.name}, line {number} names a file that does not exist"
            problems.append(Problem(folder / name, reason))


def _queries(fit: Fit, parts: Parts) -> frozenset[str] | None:
    if fit.layout.queries is None:
        return None
    try:
        return fit.layout.queries(fit.root)
    except Exception as error:  # scipy raises what it likes for a damaged file
        parts.notes.append(
            f"the list of queries cannot be read ({error}), so each test image is query and gallery at "
            "once: not comparable with published numbers"
        )
        return None


def _differences(parts: Parts, layout: Layout) -> list[str]:
    """In what the data set is not of the published size."""
    splits = {"train": parts.train, "query": parts.query, "gallery": parts.gallery, "test": parts.query}
    notes = []
    for split, published in layout.counts.items():
        records = splits[split]
        images = layout.counted == "images"
        held = len(records) if images else len({record.sequence for record in records})
        if held < published:
            notes.append(f"{split}: {held:,} of {published:,} published {layout.counted}")
        if held > published:
            notes.append(f"{split}: {held:,} {layout.counted}, and {published:,} were published")
    return notes


def _beside(fit: Fit, tree: Tree) -> list[str]:
    """What lies there too and was not read."""
    others = [
        layout.name
        for layout in LAYOUTS
        if layout.family == fit.layout.family
        and layout.name != fit.layout.name
        and _fits(layout, fit.root, tree)
    ]
    notes = []
    if others:
        notes.append(f"can also be read as {', '.join(others)}: load_dataset(NAME, root=FOLDER)")
    if tree.find(fit.root, TABLE) is not None:
        notes.append(
            f"{TABLE} lies there too and was not read: give it in place of the folder if it is meant"
        )
    return notes
