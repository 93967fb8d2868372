"""The picture of queries and matches shows what the scores count."""

from __future__ import annotations

import numpy as np
import pytest

from gracl.config import EvaluateConfig
from gracl.data.readers import load_dataset
from gracl.data.synthetic import draw_people
from gracl.errors import EvaluationError
from gracl.models.embedder import build_embedder
from gracl.pictures import GAP, QUERY, RIGHT, WRONG, draw_rank_list


@pytest.fixture
def drawn(tmp_path):
    return load_dataset(
        draw_people(tmp_path / "drawn", identities=2, test_identities=3, cameras=2, images_per_camera=2)
    )


def frames(sheet, size, rows, columns):
    """The colour at the frame's left edge, cell by cell, the query first."""
    pixels = np.asarray(sheet)
    height, width = size
    found = []
    for y in range(rows):
        tops = y * (height + GAP) + GAP // 2 + height // 2
        lefts = [GAP // 2 - 1]
        lefts += [x * (width + GAP) + 2 * GAP + GAP // 2 - 1 for x in range(1, columns + 1)]
        found.append([tuple(pixels[tops, left]) for left in lefts])
    return found


def test_a_row_is_a_query_and_its_matches_framed_by_whether_they_are_right(drawn):
    model = build_embedder("test_resnet", size=(32, 16))
    sheet = draw_rank_list(model, drawn, queries=2, matches=2, height=64)
    assert sheet.height == 2 * (64 + GAP)
    for query, *matches in frames(sheet, (64, 32), 2, 2):
        assert query == QUERY
        assert set(matches) <= {RIGHT, WRONG}


def test_junk_is_not_shown(drawn):
    """Three people, two cameras: of 6 gallery images, 1 of the query's own camera is junk."""
    model = build_embedder("test_resnet", size=(32, 16))
    sheet = draw_rank_list(model, drawn, queries=1, matches=5, height=64)
    (row,) = frames(sheet, (64, 32), 1, 5)
    assert row.count(RIGHT) == 1


def test_nothing_to_show_is_an_error(drawn):
    model = build_embedder("test_resnet", size=(32, 16))
    one_camera = load_dataset(drawn.root)
    query = one_camera.query[:1]
    gallery = type(query)(tuple(r for r in one_camera.gallery if r.camera == query[0].camera))
    from dataclasses import replace

    lonely = replace(one_camera, query=query, gallery=gallery)
    with pytest.raises(EvaluationError, match="no query has a match"):
        draw_rank_list(model, lonely, settings=EvaluateConfig(protocol="cross-camera"))
