"""Pictures of results: queries with the images that a model puts first."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from gracl import metrics
from gracl.config import EvaluateConfig
from gracl.data import protocols
from gracl.data.records import Dataset, Record
from gracl.data.store import decode
from gracl.errors import EvaluationError
from gracl.evaluation import readable
from gracl.extraction import extract
from gracl.models.embedder import Embedder

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
    """
    query, gallery = readable(dataset, model.size)
    protocol = (settings or EvaluateConfig()).protocol
    if protocol == "auto":
        protocol = protocols.choose(query.records, gallery.records)  # type: ignore[assignment]
    sides = protocols.sides(query.records, gallery.records, protocol)
    able = np.flatnonzero(metrics.has_match(*sides))
    if not len(able):
        raise EvaluationError(f"no query has a match under the protocol '{protocol}'; nothing to show")
    rows = np.random.default_rng(seed).permutation(able)[:queries]
    similarities = extract(model, query)[rows] @ extract(model, gallery).T
    similarities[torch.from_numpy(metrics.junk(*sides, rows))] = -torch.inf
    best = similarities.argsort(dim=1, descending=True)[:, :matches].cpu().numpy()

    width = round(height * model.size[1] / model.size[0])
    cell_h, cell_w = height + GAP, width + GAP
    sheet = Image.new("RGB", (cell_w * (best.shape[1] + 1) + 2 * GAP, cell_h * len(rows)), "white")
    for y, (row, found) in enumerate(zip(rows, best, strict=True)):
        top = y * cell_h
        _paste(sheet, query.records[int(row)], (0, top), (height, width), QUERY, 2)
        for x, image in enumerate(found.tolist(), 1):
            right = sides[0].pids[row] == sides[1].pids[image]
            place = (x * cell_w + 2 * GAP, top)
            frame = (RIGHT, 4) if right else (WRONG, 2)
            _paste(sheet, gallery.records[image], place, (height, width), *frame)
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
