"""Pictures of results: queries with the images that a model puts first."""

from __future__ import annotations

from PIL import Image, ImageDraw

from gracl.config import EvaluateConfig
from gracl.data.records import Dataset, Record
from gracl.data.store import decode
from gracl.models.embedder import Embedder
from gracl.rank_lists import search

RIGHT, WRONG, QUERY = (46, 160, 67), (207, 34, 46), (140, 149, 159)
"""Frames: same identity, another identity, the query itself. Right and wrong differ in width too, so
that colour is not needed to tell them apart."""
GAP = 8


def draw_rank_list(
    model: Embedder,
    dataset: Dataset,
    *,
    queries: int = 6,
    matches: int = 10,
    height: int = 128,
    seed: int = 0,
    settings: EvaluateConfig | None = None,
) -> Image.Image:
    """A row a query: the query, then its nearest gallery images, framed by whether they are right.

    What the protocol counts as junk is left out, as in the scores. Queries are drawn at random from
    those that have a match.

    Args:
        model: whose ranking is shown.
        dataset: its query and gallery.
        queries, matches: rows and columns at most.
        height: of a picture, in pixels.
        seed: of the draw.
        settings: names the protocol.

    Raises:
        EvaluationError: no query has a match.
    """
    found = search(model, dataset, settings)
    lists = found.lists(found.random(queries, seed=seed), matches=matches)
    width = round(height * model.size[1] / model.size[0])
    cell_h, cell_w = height + GAP, width + GAP
    columns = 1 + max(len(row.matches) for row in lists)
    sheet = Image.new("RGB", (cell_w * columns + 2 * GAP, cell_h * len(lists)), "white")
    for y, row in enumerate(lists):
        top = y * cell_h
        _paste(sheet, row.query, (0, top), (height, width), QUERY, 2)
        for x, match in enumerate(row.matches, 1):
            place = (x * cell_w + 2 * GAP, top)
            frame = (RIGHT, 4) if match.right else (WRONG, 2)
            _paste(sheet, match.record, place, (height, width), *frame)
    return sheet


def _paste(
    sheet: Image.Image,
    record: Record,
    place: tuple[int, int],
    size: tuple[int, int],
    colour: tuple[int, int, int],
    line: int,
) -> None:
    picture = Image.fromarray(decode(record, size).transpose(1, 2, 0))
    left, top = place[0] + GAP // 2, place[1] + GAP // 2
    sheet.paste(picture, (left, top))
    frame = (left - line, top - line, left + size[1] + line - 1, top + size[0] + line - 1)
    ImageDraw.Draw(sheet).rectangle(frame, outline=colour, width=line)
