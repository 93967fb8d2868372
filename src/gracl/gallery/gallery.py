"""A gallery: add images, enrol individuals, search, and forget.

>>> import gracl
>>> gallery = gracl.Gallery.create("people.gallery", "runs/photos")        # doctest: +SKIP
>>> gallery.add("photos/")                                                 # doctest: +SKIP
>>> gallery.enrol("Ada", ["ada/front.jpg", "ada/back.jpg"])                # doctest: +SKIP
>>> print(gallery.search("person.jpg", threshold=0.6).identity)            # doctest: +SKIP

Letters: N images, Q queries, D feature dimensions.
"""

from __future__ import annotations

import datetime
import io
import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from gracl.calibration import Calibration
from gracl.data.records import Box, Record
from gracl.data.store import OnBad
from gracl.disk import told
from gracl.embedding import Images, crops, each_item, embed, embed_with_pixels
from gracl.errors import ConfigError, DataError, FingerprintError, GalleryError, did_you_mean
from gracl.features import Features, no_features, require_same_model
from gracl.files import load_model, locate_model
from gracl.gallery.entries import FACTS, Entry, Where, checked_identity, checked_time
from gracl.gallery.intake import Intake
from gracl.gallery.postgres import PostgresStore, is_url
from gracl.gallery.results import Added, Found, Threshold
from gracl.gallery.search import search
from gracl.gallery.sqlite import SqliteStore
from gracl.gallery.store import About, Store
from gracl.models.embedder import Embedder
from gracl.paths import is_folder
from gracl.training import choose_device

AT_ONCE = 10_000
"""Features that one transaction writes."""
EVERYTHING = Where()


class Gallery:
    """Images of individuals to search, on disk and in memory; a context manager.

    It is of one model, and takes no features of another. It holds features, paths and what is known of
    images, and no picture unless it was made with `thumbnails`. What `add` returned from, or reported
    progress of, is on disk. Use one object a thread; several processes may open one place.
    """

    def __init__(self, store: Store, model: Embedder | None) -> None:
        """Use `create`, `open` or `build`."""
        self._store = store
        self._model = model

    # -- made and opened ----------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        at: str | Path | None,
        model: Embedder | str | Path,
        *,
        thumbnails: bool = False,
        device: str = "auto",
    ) -> Gallery:
        """Makes an empty gallery.

        Args:
            at: a file that is not there yet; `postgresql://server/database#name` (extra postgres; see
                `gracl.gallery.postgres`); None keeps it in memory, until the program ends.
            model: what `gracl.load_model` takes, such as a run's folder: the gallery keeps a copy, so
                that it can be opened by itself. Or a model, which `open` then must be given each time.
            thumbnails: also keep of each image what the model saw of it, as a small JPEG.
            device: where images are embedded.

        Raises:
            GalleryError: something is there already, or the place cannot be written or reached.
            WeightsError: there is no such model.
        """
        loaded = model if isinstance(model, Embedder) else load_model(model)
        loaded.to(choose_device(device))
        whose = no_features(loaded)
        about = About(
            whose.fingerprint,
            whose.backbone,
            whose.size,
            loaded.dim,
            whose.version,
            thumbnails=thumbnails,
        )
        kept = None if isinstance(model, Embedder) else locate_model(model).read_bytes()
        return cls(_store(at, about, kept), loaded)

    @classmethod
    def open(
        cls, at: str | Path, model: Embedder | str | Path | None = None, *, device: str = "auto"
    ) -> Gallery:
        """Opens a gallery that was made before.

        Args:
            at: see `create`.
            model: the model, where the gallery keeps no copy. It is not needed for anything but adding
                and searching images.
            device: where images are embedded.

        Raises:
            GalleryError: there is none, or it cannot be read.
            FingerprintError: it is of another model.
        """
        store = _store(at, None)
        try:
            if model is None:
                content = store.model()
                found = None if content is None else _model_of(content)
            else:
                found = model if isinstance(model, Embedder) else load_model(model)
            if found is not None:
                _require_own_model(found, store.about, at)
                found.to(choose_device(device))
        except BaseException:
            store.close()
            raise
        return cls(store, found)

    @classmethod
    def build(
        cls,
        model: Embedder | str | Path,
        images: Images,
        at: str | Path | None = None,
        *,
        thumbnails: bool = False,
        device: str = "auto",
        **how: Any,
    ) -> Gallery:
        """`create`, then `add` with all that it takes.

        >>> from gracl.models.embedder import build_embedder
        >>> model = build_embedder("test_resnet", size=(64, 32))
        >>> images = [Image.new("RGB", (20, 40), color) for color in ("red", "blue")]
        >>> with Gallery.build(model, images) as gallery:
        ...     gallery.search(Image.new("RGB", (20, 40), "blue"))[0].path
        'image-1'
        """
        gallery = cls.create(at, model, thumbnails=thumbnails, device=device)
        try:
            gallery.add(images, **how)
        except BaseException:
            gallery.close()
            raise
        return gallery

    def close(self) -> None:
        """Lets go of the file or the server."""
        self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def about(self) -> About:
        """Whose features it holds."""
        return self._store.about

    @property
    def model(self) -> Embedder:
        """The model of its features.

        Raises:
            GalleryError: the gallery keeps no copy, and none was given.
        """
        if self._model is None:
            raise GalleryError(
                f"this gallery keeps no copy of its model {self.about.fingerprint[:12]}. Give the run "
                "that it is of: Gallery.open(place, model=RUN), --model RUN"
            )
        return self._model

    def __len__(self) -> int:
        """Images."""
        return self.count()

    # -- adding -------------------------------------------------------------------------------------

    def add(
        self,
        images: Images,
        *,
        identity: str | None = None,
        camera: str | None = None,
        site: str | None = None,
        time: str | datetime.date | None = None,
        sequence: str | None = None,
        unnamed: bool = False,
        batch_size: int = 256,
        on_bad: OnBad = "refuse",
        progress: Callable[[int], None] | None = None,
    ) -> Added:
        """Adds images in whatever form, see `gracl.embed`; each batch is on disk before the next.

        A file that is there already, with the same box, size and time of writing, is not read again,
        so a long addition that was stopped goes on by the same call. It is given the identity of this
        call where it had none.

        Args:
            images: see `gracl.embed`. Of folders the nearest folder's name is the identity.
            identity: of all of them, whatever else is known.
            camera: of all of them.
            site: of all of them.
            time: a day or a moment in ISO 8601, of all of them; else the images' dates.
            sequence: of all of them.
            unnamed: take no identity from the data, where folders are no individuals.
            batch_size: images at a time.
            on_bad: an image that cannot be read: "refuse" stops with its name (what was added before
                stays), "skip" leaves it out and lists it.
            progress: called with the images done so far.

        Raises:
            DataError: an image cannot be read, or has another name in the gallery.
        """
        if identity is not None:
            identity = checked_identity(identity)
        moment = checked_time(time)
        given: dict[str, Any] = {
            name: value
            for name, value in (
                ("identity", identity),
                ("camera", camera),
                ("site", site),
                ("time", moment),
                ("sequence", sequence),
            )
            if value is not None
        }
        if unnamed and identity is None:
            given["identity"] = None
        intake = Intake(self._store, given)
        fresh = intake.fresh(each_item(images))
        batches = embed_with_pixels(self.model, fresh, batch_size=batch_size, on_bad=on_bad)
        for found, pixels in batches:
            intake.keep(found, pixels if self.about.thumbnails else None)
            if progress is not None:
                progress(intake.done.seen)
        return intake.done

    def enrol(self, identity: str, images: Images, **how: Any) -> Added:
        """Adds images of one individual, or names those that are there; see `add`.

        Several images, from several sides and days, make it easier to recognise.

        Raises:
            DataError: there is no image, one cannot be read, or one is somebody else's.
        """
        done = self.add(images, identity=identity, **how)
        if not (len(done) or done.already):
            raise DataError(f"there is no image to enrol '{identity}' by")
        return done

    def add_features(self, found: Features, *, site: str | None = None) -> Added:
        """Adds features that were made before, as `gracl.embed` gives or `gracl.read_features` reads.

        Raises:
            FingerprintError: they are of another model.
            GalleryError: the gallery keeps thumbnails, and features have no pixels.
        """
        require_same_model(found, self.about)
        if self.about.thumbnails:
            raise GalleryError("this gallery keeps thumbnails, and features have no pixels; add images")
        intake = Intake(self._store, {} if site is None else {"site": site})
        rows = [row for row, record in enumerate(found.records) if intake.is_fresh(record)]
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            intake.keep(
                replace(found, features=found.features[part], records=found.records.take(part)), None
            )
        return intake.done

    # -- looking ------------------------------------------------------------------------------------

    def search(
        self,
        image: Images,
        *,
        k: int = 5,
        threshold: Threshold | None = None,
        where: Where = EVERYTHING,
        box: Box | None = None,
    ) -> Found:
        """The k nearest images of the gallery to one image, and whose it is.

        Args:
            image: one, in whatever form `gracl.embed` takes.
            k: hits at most.
            threshold: similarity from which images are taken for one individual's, or what
                `gracl calibrate` found; without one nobody is ever unknown.
            where: the part of the gallery to search.
            box: the part of the image to look at, in pixels.

        Raises:
            DataError: it cannot be read, or there are several.
            FingerprintError: the threshold is of another model.
        """
        if box is not None:
            image = _part(image, Box(*box))
        found = self.search_all(image, k=k, threshold=threshold, where=where)
        if len(found) != 1:
            raise DataError(f"there are {len(found)} images; expected one. Use search_all")
        return found[0]

    def search_all(
        self,
        images: Images,
        *,
        k: int = 5,
        threshold: Threshold | None = None,
        where: Where = EVERYTHING,
        batch_size: int = 256,
        on_bad: OnBad = "refuse",
        progress: Callable[[int, int | None], None] | None = None,
    ) -> list[Found]:
        """As `search`, for each of several images, in their order; see there."""
        limit = self._limit(threshold)
        found = embed(self.model, images, batch_size=batch_size, on_bad=on_bad, progress=progress)
        return search(self._store, found, k=k, limit=limit, where=where)

    def search_features(
        self,
        found: Features,
        *,
        k: int = 5,
        threshold: Threshold | None = None,
        where: Where = EVERYTHING,
    ) -> list[Found]:
        """As `search_all`, of features that were made before.

        Raises:
            FingerprintError: they are of another model.
        """
        require_same_model(found, self.about)
        return search(self._store, found, k=k, limit=self._limit(threshold), where=where)

    def _limit(self, threshold: Threshold | None) -> float | None:
        if threshold is None:
            return None
        if isinstance(threshold, Calibration):
            require_same_model(threshold, self.about)
            threshold = threshold.threshold
        try:
            limit = float(threshold)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"threshold is {threshold!r}; expected a number or a calibration"
            ) from error
        if not -1 <= limit <= 1:
            raise ConfigError(f"threshold is {limit:g}; a similarity lies in [-1, 1]")
        return limit

    def entries(
        self, where: Where = EVERYTHING, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """What is held of images, in the order they were added.

        Args:
            where: which of them.
            after: only those with higher numbers; the last one's, to go on from there.
            limit: so many at most.
        """
        return self._store.find(where, after=after, limit=limit)

    def count(self, where: Where = EVERYTHING) -> int:
        """Images that are meant."""
        return self._store.count(where)

    def counts(self, fact: Literal["identity", "camera", "site", "sequence"]) -> dict[str, int]:
        """Images by identity, camera, site or sequence, these in order; those without are left out."""
        if fact not in FACTS:
            raise ConfigError(f"fact is '{fact}'; {did_you_mean(str(fact), FACTS)}")
        return self._store.counts(fact)

    def identities(self) -> dict[str, int]:
        """Images by name, names in order."""
        return self.counts("identity")

    def thumbnail(self, id: int) -> Image.Image | None:
        """What the model saw of an entry, if the gallery keeps that."""
        jpeg = self.thumbnail_jpeg(id)
        return None if jpeg is None else Image.open(io.BytesIO(jpeg))

    def thumbnail_jpeg(self, id: int) -> bytes | None:
        """`thumbnail`, as the file that it is."""
        return self._store.thumbnail(id)

    def size_on_disk(self) -> int:
        """What it takes on disk."""
        return self._store.size_on_disk()

    # -- changing -----------------------------------------------------------------------------------

    def name(self, ids: Collection[int], identity: str | None) -> None:
        """Says whose entries are, also where something else was said before; None: nobody knows.

        Args:
            ids: numbers of entries.
            identity: their name.

        Raises:
            GalleryError: there are no such entries.
        """
        self._require(ids)
        self._store.name(ids, None if identity is None else checked_identity(identity))

    def remove(self, where: Where) -> list[Entry]:
        """Takes entries out; gives what they were. Image files are not touched.

        Raises:
            GalleryError: there are no such entries, or no condition was given.
        """
        if where.is_all:
            raise GalleryError(
                "no condition was given, and this would remove every image; delete the gallery"
            )
        if where.ids is not None:
            self._require(where.ids)
        removed = self._store.remove(where)
        if not removed:
            raise GalleryError("no image of the gallery meets these conditions; nothing was removed")
        return removed

    def forget(self, identity: str) -> list[Entry]:
        """Removes all of one individual for good: features, thumbnails, and what was known of images.

        In a gallery of one file, the file is then rewritten, and it is looked whether anything of it is
        left there. On a server the tables are rewritten; its log of writes and its backups are for its
        administrator to deal with. Image files, features in other files, and a model that was trained
        on the images are not touched.

        Raises:
            GalleryError: nobody is called so; or another process keeps the old state open, or something
                is left. Then call it again, with the same name: the file is rewritten, though what to
                look for in it is no longer known, and no entries are given.
        """
        where = Where(identities=[identity])
        if not (self._store.count(where) or self._store.must_purge()):
            known = did_you_mean(identity, self.identities())
            raise GalleryError(f"nobody is called '{identity}' here; {known}")
        return self._store.forget(where)

    def _require(self, ids: Collection[int]) -> None:
        if not len(ids):
            raise GalleryError("no number was given; 'gracl gallery list --images' shows them")
        held = {entry.id for entry in self._store.find(Where(ids=ids))}
        if missing := sorted({*ids} - held):
            raise GalleryError(f"no entry has the number {', '.join(map(str, missing[:5]))}")


def _store(at: str | Path | None, about: About | None, model: bytes | None = None) -> Store:
    if at is not None and is_url(at):
        return PostgresStore(str(at), about, model)
    return SqliteStore(None if at is None else Path(at).expanduser().absolute(), about, model)


def _require_own_model(model: Embedder, about: About, at: str | Path) -> None:
    try:
        require_same_model(model, about)
    except FingerprintError as error:
        raise FingerprintError(
            f"the gallery {at} is of {about.backbone or 'a model'} {about.fingerprint[:12]}, and what "
            f"was given is {model.backbone_name or 'a model'} {no_features(model).fingerprint[:12]}, "
            "another model. Give the run that the gallery was built with, or build another gallery"
        ) from error


def _part(image: Any, box: Box) -> Any:
    """A part of one image, as something to embed."""
    if not isinstance(image, str | os.PathLike):
        (part,) = crops([image], [[box]])
        return part
    if is_folder(Path(image)):
        raise DataError(f"{image} is a folder; a box is a part of one image")
    return Record(Path(image), box=box)


def _model_of(content: bytes) -> Embedder:
    where = Path(tempfile.gettempdir())
    with told(where, GalleryError, "TMPDIR=FOLDER"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        return load_model(path)
