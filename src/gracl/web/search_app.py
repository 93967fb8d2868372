"""The page that searches a gallery, and the same for programs: a JSON API that changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import anyio
import anyio.to_thread
from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    File,
    Form,
    HTTPException,
    Path,
    Query,
    Request,
    UploadFile,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException

from gracl.data.records import Box
from gracl.data.store import MAX_PIXELS
from gracl.errors import ConfigError, DataError, GalleryError, did_you_mean
from gracl.gallery.entries import Entry, Where
from gracl.gallery.gallery import Gallery
from gracl.gallery.results import Found
from gracl.web import api_page
from gracl.web import search_models as models
from gracl.web.search_desk import Desk, Search, small_picture
from gracl.web.search_models import MOST_HITS, BoxText, Moment, Problem, Word
from gracl.web.serving import MAX_BODY, new_application, templates
from gracl.web.uploads import FORMATS, BadPicture, Picture, Turnstile, UploadRoute, read_picture

MOST_AT_ONCE = 64
"""Searches at a time, those that wait included; more are answered 503."""
DECODERS = 2
"""Pictures that are decoded at a time: each may take 4 bytes times `MAX_PIXELS` on the way."""
PAGE = 1000
"""Images of a listing at most."""
DESCRIPTION = """Search a gallery of images by a picture. Nothing here changes the gallery, and pictures
that are sent are kept nowhere. Send the token that was printed when the server began as
`Authorization: Bearer TOKEN`. Errors are JSON with one field, `error`, for people to read."""
Result = TypeVar("Result")
LARGEST_ID = 2**63 - 1
SEARCH_FIELDS = {"picture", "k", "box", "identity", "camera", "site", "since", "until"}
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The token is missing or wrong."},
    403: {"model": Problem, "description": "The request comes from another site's page."},
    421: {"model": Problem, "description": "The Host is not 127.0.0.1 or localhost."},
    422: {"model": Problem, "description": "A value is out of range, or unknown."},
    503: {"model": Problem, "description": "The gallery cannot be read now, or too many search."},
}
UPLOAD_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The form is broken."},
    408: {"model": Problem, "description": "The request took more than a minute to arrive."},
    413: {"model": Problem, "description": "The request or the picture is too large."},
    415: {"model": Problem, "description": "It is no picture of a type that is read."},
}

_token = Depends(HTTPBearer(auto_error=False, scheme_name="token"))  # the guard looks at it; told here
api = APIRouter(prefix="/api", dependencies=[_token], responses=ERRORS)
uploads = APIRouter(
    prefix="/api", dependencies=[_token], responses=ERRORS | UPLOAD_ERRORS, route_class=UploadRoute
)


def search_application(desk: Desk) -> FastAPI:
    """The page and its API over a gallery; the caller closes the desk.

    Args:
        desk: of the gallery.
    """
    app = new_application("gracl serve", version=desk.about.version, description=DESCRIPTION)
    app.state.desk = desk
    app.state.turnstile = Turnstile(MOST_AT_ONCE)
    app.state.decoders = anyio.CapacityLimiter(DECODERS)
    app.include_router(uploads)
    app.include_router(api)
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return app


# -- what is asked --------------------------------------------------------------------------------


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _query_filters(
    identity: Annotated[list[Word] | None, Query(description="Of these individuals.")] = None,
    camera: Annotated[list[Word] | None, Query(description="Taken by these cameras.")] = None,
    site: Annotated[list[Word] | None, Query(description="Taken at these sites.")] = None,
    since: Annotated[Moment | None, Query(description="From this day or moment on.")] = None,
    until: Annotated[Moment | None, Query(description="To the end of this day, month, year.")] = None,
) -> Where:
    return Where(identities=identity, cameras=camera, sites=site, since=since, until=until)


def _form_filters(
    identity: Annotated[list[Word] | None, Form(description="Among these individuals.")] = None,
    camera: Annotated[list[Word] | None, Form(description="Among images of these cameras.")] = None,
    site: Annotated[list[Word] | None, Form(description="Among images of these sites.")] = None,
    since: Annotated[Moment | None, Form(description="From this day or moment on.")] = None,
    until: Annotated[Moment | None, Form(description="To the end of this day, month, year.")] = None,
) -> Where:
    return Where(identities=identity, cameras=camera, sites=site, since=since, until=until)


def _box(
    box: Annotated[
        BoxText | None,
        Form(description="x,y,width,height: the part to look at, in pixels of the upright picture."),
    ] = None,
) -> Box | None:
    return None if box is None else Box(*map(int, box.split(",")))


async def _only_known_fields(request: Request) -> None:
    """A misspelt filter would search everything, unseen."""
    _require_known({*await request.form()}, SEARCH_FIELDS)


def _only_known_words(request: Request) -> None:
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for dependency in request.scope["route"].dependant.dependencies:
        known |= {field.alias for field in dependency.query_params}
    _require_known({*request.query_params}, known)


def _require_known(given: set[str], known: set[str]) -> None:
    if strange := sorted(given - known):
        raise ConfigError(f"'{strange[0][:100]}' is not known here; {did_you_mean(strange[0], known)}")


Asked = Annotated[Desk, Depends(_desk)]
Filtered = Annotated[Where, Depends(_query_filters)]
known_words = [Depends(_only_known_words)]


# -- what is answered -----------------------------------------------------------------------------


@uploads.post("/search", dependencies=[Depends(_only_known_fields)])
async def search(
    request: Request,
    desk: Asked,
    where: Annotated[Where, Depends(_form_filters)],
    box: Annotated[Box | None, Depends(_box)],
    picture: Annotated[UploadFile, File(description="JPEG, PNG, WebP, BMP or TIFF.")],
    k: Annotated[int, Form(ge=1, le=MOST_HITS, description="Matches at most.")] = 10,
) -> models.Answer:
    """Whose picture is this, and which images of the gallery are nearest to it?

    The picture stays in memory, is kept nowhere, and is forgotten with the answer.
    """
    content = await picture.read()
    seen = await anyio.to_thread.run_sync(
        read_picture, content, desk.size, box, limiter=request.app.state.decoders
    )
    found = await asyncio.wrap_future(desk.search(Search(seen, k, where)))
    return _answer(found, seen, desk)


@api.get("/about", dependencies=known_words)
async def about(desk: Asked) -> models.About:
    """What is searched: its size, cameras, sites, model, threshold and limits."""
    return await _looked(desk, lambda gallery: _about(gallery, desk))


@api.get("/identities", dependencies=known_words)
async def identities(
    desk: Asked,
    contains: Annotated[
        Word | None, Query(description="Only names with this in them, large or small letters.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Names at most.")] = 1000,
) -> models.Identities:
    """Who is in the gallery, by name."""
    counts = await _looked(desk, Gallery.identities)
    if contains is not None:
        wanted = contains.casefold()
        counts = {name: n for name, n in counts.items() if wanted in name.casefold()}
    return models.Identities(total=len(counts), identities=models.names_of(counts)[:limit])


@api.get("/entries", dependencies=known_words)
async def entries(
    desk: Asked,
    where: Filtered,
    after: Annotated[int, Query(ge=0, le=LARGEST_ID, description="Go on behind this number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE, description="Images at most.")] = 100,
) -> models.Images:
    """The images of the gallery, a page at a time."""

    def listed(gallery: Gallery) -> tuple[int, list[Entry]]:
        return gallery.count(where), gallery.entries(where, after=after, limit=limit + 1)

    total, found = await _looked(desk, listed)
    page = [models.image_of(entry, desk.about.thumbnails) for entry in found[:limit]]
    return models.Images(total=total, entries=page, after=page[-1].id if len(found) > limit else None)


@api.get(
    "/entries/{id}/thumbnail",
    dependencies=known_words,
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {}}, "description": "A small JPEG."},
        404: {"model": Problem, "description": "There is no such image, or no picture of it."},
    },
)
async def thumbnail(
    request: Request, desk: Asked, id: Annotated[int, Path(ge=1, le=LARGEST_ID)]
) -> Response:
    """A small picture of an image: the gallery's own, else made from the file if it is unchanged."""

    def held(gallery: Gallery) -> tuple[list[Entry], bytes | None]:
        return gallery.entries(Where(ids=[id])), gallery.thumbnail_jpeg(id)

    found, jpeg = await _looked(desk, held)
    if not found:
        raise HTTPException(404, f"no image has the number {id}")
    if jpeg is None:
        try:
            jpeg = await anyio.to_thread.run_sync(
                small_picture, found[0], limiter=request.app.state.decoders
            )
        except DataError as error:  # its words name the whole path
            raise HTTPException(404, f"there is no picture of image {id}") from error
    return Response(jpeg, media_type="image/jpeg")


async def _looked(desk: Desk, action: Callable[[Gallery], Result]) -> Result:
    return await asyncio.wrap_future(desk.look(action))


def _answer(found: Found, seen: Picture, desk: Desk) -> models.Answer:
    limit = None if desk.calibration is None else desk.calibration.threshold
    is_known = limit is None or (len(found) > 0 and found[0].similarity >= limit)
    kind: Literal["identity", "unknown", "nobody"] = "identity" if found.identity else "nobody"
    if not len(found):  # where it was compared with nobody, it is not unknown either
        kind, is_known = "nobody", False
    elif not is_known:
        kind = "unknown"
    notes = []
    if seen.frames > 1:
        notes.append(f"the picture has {seen.frames} frames; the first was searched for")
    if not len(found):
        notes.append("no image of the gallery meets these filters, so it was compared with nobody")
    return models.Answer(
        answer=kind,
        identity=found.identity if is_known else None,
        threshold=limit,
        matches=[
            models.match_of(rank, hit, desk.about.thumbnails) for rank, hit in enumerate(found, start=1)
        ],
        width=seen.width,
        height=seen.height,
        box=models.Part.of(seen.box),
        notes=notes,
    )


def _about(gallery: Gallery, desk: Desk) -> models.About:
    names, images = gallery.identities(), len(gallery)
    about, found = gallery.about, desk.calibration
    height, width = about.size
    return models.About(
        name=desk.name,
        images=images,
        identities=len(names),
        named=sum(names.values()),
        cameras=models.names_of(gallery.counts("camera")),
        sites=models.names_of(gallery.counts("site")),
        model=models.Model(
            backbone=about.backbone, fingerprint=about.fingerprint, height=height, width=width
        ),
        calibration=None if found is None else models.threshold_of(found, images),
        limits=models.Limits(
            bytes=MAX_BODY,
            pixels=MAX_PIXELS,
            types=[*FORMATS.values()],
            matches=MOST_HITS,
        ),
        version=about.version,
    )


# -- pages ----------------------------------------------------------------------------------------


async def _page(request: Request) -> Response:
    name = request.app.state.desk.name
    return templates.TemplateResponse(request, "search.html", {"name": name})


async def _docs(request: Request) -> Response:
    return templates.TemplateResponse(request, "api.html", api_page.context(request.app.openapi()))


# -- what goes wrong ------------------------------------------------------------------------------


def _problem(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": words}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return _problem(error.status_code, str(error.detail), error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """Says which value is wrong and what is expected; never what was sent, which may be a picture."""
    assert isinstance(error, RequestValidationError)
    said = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return _problem(422, "; ".join(said[:5]))


async def _bad_picture(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadPicture)
    return _problem(error.status, error.words)


async def _bad_value(_: Request, error: Exception) -> Response:
    return _problem(422, str(error))


async def _out_of_order(_: Request, error: Exception) -> Response:
    return _problem(503, str(error), {"Retry-After": "5"})


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    StarletteHTTPException: _refused,
    RequestValidationError: _invalid,
    BadPicture: _bad_picture,
    ConfigError: _bad_value,
    GalleryError: _out_of_order,
}
