"""The page of `gracl review`: which address answers what; the answers are `gracl.web.review_desk`'s."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from gracl.data.store import crop, upright
from gracl.errors import Contradiction, DataError, GraclError, ReviewError
from gracl.web.review_desk import Answer, Desk, StaleError
from gracl.web.serving import new_application, templates
from gracl.web.uploads import BadPicture, Turnstile, UploadRoute, read_picture

if TYPE_CHECKING:
    from gracl.review.ledger import Decision
    from gracl.review.review import Review

LARGE = 1600
"""Pixels a side at most of the picture that is looked at closely."""
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""For pictures: their address names the run's images, and those never change."""
AT_ONCE = 4
"""Searches by a picture; more are answered 503."""
NAME = 120
"""Letters of a cluster's name at most."""

Number = Annotated[int, Path(ge=-1)]
Row = Annotated[int, Path(ge=0)]
Count = Annotated[int, Query(ge=1, le=1000)]


class Decided(BaseModel):
    """A decision, by a page that shows this version."""

    version: str
    overrule: bool = False
    """Whether it holds even against what was said before."""


class OfRows(Decided):
    """Images that are split off, or ejected."""

    rows: list[int] = Field(min_length=1)


class Moved(OfRows):
    """Images and the cluster that they belong to."""

    number: int


class Merged(Decided):
    """Clusters that are one."""

    numbers: list[int] = Field(min_length=2)


class Named(Decided):
    """A cluster's name; None or nothing takes it away."""

    number: int
    name: str | None = Field(max_length=NAME)


class Confirmed(Decided):
    """A cluster that was looked through and is right."""

    number: int


class Pair(Decided):
    """Two images."""

    first: int
    second: int


def review_application(desk: Desk, *, title: str, by: str = "") -> FastAPI:
    """The application, not yet guarded; see `gracl.web.serving.serve`.

    Args:
        desk: the review at work.
        title: the run, as the page calls it.
        by: who decides.
    """

    async def notice() -> None:
        desk.notice()

    app = new_application("gracl review", lifespan=_preparing(desk), dependencies=[Depends(notice)])
    _add_page(app, desk, title, by)
    _add_pictures(app, desk)
    _add_looking(app, desk)
    _add_search(app, desk)
    _add_deciding(app, desk)
    _add_errors(app)
    return app


def _preparing(desk: Desk) -> Any:
    """Small pictures are made while the page is in use already."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        threading.Thread(target=desk.prepare_thumbnails, args=(stop,), daemon=True).start()
        yield
        stop.set()

    return lifespan


def _add_page(app: FastAPI, desk: Desk, title: str, by: str) -> None:
    height, width = desk.study.images.size

    @app.get("/", response_class=HTMLResponse)
    def page(request: Request) -> Response:
        about = {"title": title, "by": by, "key": desk.key, "ratio": round(height / width, 4)}
        return templates.TemplateResponse(request, "review.html", about)


def _add_pictures(app: FastAPI, desk: Desk) -> None:
    @app.get("/thumbnails/{key}/{row}.jpg")
    def thumbnail(key: str, row: Row) -> Response:
        _require_image(desk, key, row)
        return Response(desk.thumbnails.jpeg(row), media_type="image/jpeg", headers=FOREVER)

    @app.get("/images/{key}/{row}.jpg")
    def image(key: str, row: Row) -> Response:
        _require_image(desk, key, row)
        return Response(_large(desk, row), media_type="image/jpeg", headers=FOREVER)


def _add_looking(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/clusters")
    def clusters() -> Response:
        return _json(desk.everything())

    @app.get("/api/version")
    def version() -> Response:
        return _json({"version": desk.version})

    @app.get("/api/clusters/{number}")
    def cluster(number: Number) -> Response:
        return _json(desk.cluster(number))

    @app.get("/api/clusters/{number}/near")
    def near(number: Number, k: Count = 12) -> Response:
        return _json(desk.near(number, k))

    @app.get("/api/find")
    def find(text: Annotated[str, Query(min_length=1, max_length=200)]) -> Response:
        return _json(desk.find(text))

    @app.get("/api/history")
    def history(limit: Count = 100) -> Response:
        return _json(desk.history(limit))

    @app.get("/api/question")
    def question() -> Response:
        return _json(desk.question())

    @app.get("/api/similar/{row}")
    def similar(row: Row, k: Count = 60) -> Response:
        return _json(desk.similar(row, k))


def _add_search(app: FastAPI, desk: Desk) -> None:
    """Pictures that are sent stay in memory, a few at a time."""
    uploads = APIRouter(route_class=UploadRoute)
    app.state.turnstile = Turnstile(AT_ONCE)

    @uploads.post("/api/search")
    def search(image: UploadFile, k: Count = 60) -> Response:
        try:
            picture = read_picture(image.file.read(), desk.study.images.size)
        except BadPicture as error:
            what = image.filename or "what was sent"
            words = f"{what} cannot be searched for: {error.words}"
            return JSONResponse({"error": words}, status_code=error.status)
        return _json(desk.similar_to_picture(picture.pixels.transpose(1, 2, 0), k))

    app.include_router(uploads)


def _add_deciding(app: FastAPI, desk: Desk) -> None:
    def decided(told: Decided, how: Callable[[Review], Decision | None]) -> Response:
        return _json(desk.decide(told.version, how))

    @app.post("/api/merge")
    def merge(told: Merged) -> Response:
        return decided(told, lambda review: review.merge(told.numbers, overrule=told.overrule))

    @app.post("/api/split")
    def split(told: OfRows) -> Response:
        return decided(told, lambda review: review.split(told.rows, overrule=told.overrule))

    @app.post("/api/eject")
    def eject(told: OfRows) -> Response:
        return decided(told, lambda review: review.eject(told.rows, overrule=told.overrule))

    @app.post("/api/move")
    def move(told: Moved) -> Response:
        return decided(told, lambda review: review.move(told.rows, told.number, overrule=told.overrule))

    @app.post("/api/name")
    def name(told: Named) -> Response:
        return decided(told, lambda review: review.name(told.number, told.name, overrule=told.overrule))

    @app.post("/api/confirm")
    def confirm(told: Confirmed) -> Response:
        return decided(told, lambda review: review.confirm(told.number, overrule=told.overrule))

    @app.post("/api/same")
    def same(told: Pair) -> Response:
        return _json(desk.answer(told.version, told.first, told.second, True, overrule=told.overrule))

    @app.post("/api/different")
    def different(told: Pair) -> Response:
        return _json(desk.answer(told.version, told.first, told.second, False, overrule=told.overrule))

    @app.post("/api/skip")
    def skip(told: Pair) -> Response:
        return _json(desk.skip(told.first, told.second))

    @app.post("/api/undo")
    def undo(told: Decided) -> Response:
        return decided(told, lambda review: review.undo())

    @app.post("/api/redo")
    def redo(told: Decided) -> Response:
        return decided(told, lambda review: review.redo())


def _add_errors(app: FastAPI) -> None:
    """Words for the person, and a status that tells the page what to do."""

    @app.exception_handler(GraclError)
    def refused(_: Request, error: GraclError) -> JSONResponse:
        kinds = {StaleError: 412, ReviewError: 409}
        status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 422)
        may_overrule = isinstance(error, Contradiction)
        return JSONResponse({"error": str(error), "overrule": may_overrule}, status_code=status)

    @app.exception_handler(HTTPException)
    def impossible(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{where or 'the request'}: {first['msg']}"}, status_code=422)


def _require_image(desk: Desk, key: str, row: int) -> None:
    if key != desk.key or row >= len(desk.study.records):
        raise DataError("there is no such image in this run; reload the page")


def _large(desk: Desk, row: int) -> bytes:
    record = desk.study.records[row]
    try:
        picture = crop(record, upright(record.path))
    except Exception as error:  # as above
        raise DataError(f"{record.path} cannot be shown: {error or type(error).__name__}") from error
    picture.thumbnail((LARGE, LARGE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _json(content: Answer) -> Response:
    """Compact, and not gone through once more by the framework: lists of a cluster can be long."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Response(text, media_type="application/json")
