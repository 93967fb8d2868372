"""Pictures that are sent: kept in memory alone, told by their content, decoded to what a model sees."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from gracl.data.records import Box
from gracl.data.store import MAX_PIXELS, MAX_SIDE, inside, is_too_large, resized, to_rgb
from gracl.web.serving import MAX_BODY

FORMATS = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "BMP": "BMP", "TIFF": "TIFF"}
"""What Pillow calls the types that are taken, and what people do."""
FRAMED = ("PNG", "WEBP")
"""Types that may move, and whose head says whether they do."""
ORIENTATION, SIDEWAYS = ExifTags.Base.Orientation, 5
"""EXIF's word for how the camera was held; from 5 on width and height change places."""
FIELDS = 64
"""Of a form at most."""
FIELD_BYTES = 4096


class BadPicture(Exception):  # noqa: N818 - it is what was found
    """What was sent cannot be searched for."""

    def __init__(self, status: int, words: str) -> None:
        """`status` is of HTTP."""
        super().__init__(words)
        self.status, self.words = status, words


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that was sent, as small as the model sees it; the whole is not kept."""

    pixels: NDArray[np.uint8]
    """(3, H, W) at the model's size."""
    width: int
    """Of the upright picture that was sent, in its pixels."""
    height: int
    box: Box | None
    """The part of it that is looked at, cut to what lies inside; None is all of it."""
    frames: int = 1
    """More than one in a moving picture, of which the first is looked at."""


def read_picture(content: bytes, size: tuple[int, int], box: Box | None = None) -> Picture:
    """Decodes what was sent exactly as `gracl.embed` decodes a file.

    Args:
        content: the file's bytes; its name and what it is said to be are not looked at.
        size: (height, width) of the model.
        box: the part to look at, in pixels of the upright picture.

    Raises:
        BadPicture: it is of another type (415), too large (413), damaged or outside its box (422).

    >>> file = io.BytesIO()
    >>> Image.new("CMYK", (300, 600)).save(file, "jpeg")
    >>> picture = read_picture(file.getvalue(), (64, 32), Box(200, 0, 500, 100))
    >>> picture.pixels.shape, picture.box
    ((3, 64, 32), Box(x=200, y=0, width=100, height=100))
    """
    try:
        with Image.open(io.BytesIO(content), formats=[*FORMATS]) as opened:
            if is_too_large(opened):
                raise _too_large(f"{opened.width:,} x {opened.height:,} pixels")
            frames = getattr(opened, "n_frames", 1) if opened.format in FRAMED else 1
            turned = opened.getexif().get(ORIENTATION, 1) >= SIDEWAYS
            width, height = opened.size[::-1] if turned else opened.size
            if box is None:
                opened.draft("RGB", (2 * max(size),) * 2)  # see gracl.data.store.decode
            upright = to_rgb(opened)
    except BadPicture:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("more pixels") from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS.values())
        words = f"this is no picture of a type that is read; expected one of {kinds}"
        raise BadPicture(415, words if content else "the file is empty") from error
    except Exception as error:  # for broken files, Pillow's readers raise what they like
        raise BadPicture(422, f"the picture is damaged: {_words(error)}") from error
    part = None
    if box is not None:
        try:
            left, top, right, bottom = inside(box, upright)
        except ValueError as error:
            raise BadPicture(422, str(error)) from error
        part = Box(left, top, right - left, bottom - top)
        upright = upright.crop((left, top, right, bottom))
    return Picture(resized(upright, size), width, height, part, frames)


def _too_large(found: str) -> BadPicture:
    return BadPicture(
        413,
        f"the picture has {found}; the largest that is decoded has {MAX_PIXELS:,}, and no side of more "
        f"than {MAX_SIDE:,}",
    )


def _words(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


# -- forms ----------------------------------------------------------------------------------------


class _InMemory(MultiPartParser):
    """What is sent never touches the disk: a file that is as large as a body may be stays in memory."""

    spool_max_size = 2 * MAX_BODY


class _MemoryRequest(Request):
    async def form(self, **_: Any) -> FormData:  # type: ignore[override]
        if self._form is None:
            how = {"max_files": 1, "max_fields": FIELDS, "max_part_size": FIELD_BYTES}
            try:
                self._form = await _InMemory(self.headers, self.stream(), **how).parse()
            except MultiPartException as error:
                raise HTTPException(400, f"the form cannot be read: {error.message}") from error
        return self._form


class Turnstile:
    """Lets so many in at a time: what they send lies in memory."""

    def __init__(self, most: int) -> None:
        """Their memory is bounded by this times `MAX_BODY`."""
        self.most, self.now = most, 0

    def __enter__(self) -> None:
        if self.now >= self.most:
            raise HTTPException(
                503, "too many searches at a time; try again in a second", {"Retry-After": "1"}
            )
        self.now += 1

    def __exit__(self, *_: object) -> None:
        self.now -= 1


class UploadRoute(APIRoute):
    """A route whose forms stay in memory, behind the application's `state.turnstile`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            _require_form(request)
            with request.app.state.turnstile:
                return await handle(_MemoryRequest(request.scope, request.receive))

        return bounded


def _require_form(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        found = kind or "no content type"
        raise HTTPException(415, f"found {found}; expected multipart/form-data with a picture")
