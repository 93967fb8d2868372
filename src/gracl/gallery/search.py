"""From features to hits: what is near in a store, and whose it is.

Letters: Q queries, k hits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gracl.errors import ConfigError
from gracl.features import Features
from gracl.gallery.entries import UNKNOWN, Entry, Where
from gracl.gallery.results import Found, Hit, answer
from gracl.gallery.store import Near, Store
from gracl.neighbors import check_features


def search(store: Store, found: Features, *, k: int, limit: float | None, where: Where) -> list[Found]:
    """The k nearest entries of each query, and whose it is; see `gracl.Gallery.search`.

    Args:
        store: of the same model's features.
        found: of the Q queries.
        k: hits at most.
        limit: similarity from which images are taken for one individual's; None for no limit.
        where: the entries to search.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; expected 1 or more")
    queries = check_features(found.features).numpy()
    near = store.nearest(queries, k, where)
    entries = _entries(store, near)
    answers = [answer(entries, ids, values, limit) for ids, values in near]
    # Where none of the k has a name, somebody farther may have one, and be near enough.
    nameless = [row for row, given in enumerate(answers) if given is None and len(near[row][0]) == k]
    if nameless:
        further = store.nearest(queries[nameless], 1, replace(where, named=True))
        entries |= _entries(store, further)
        for row, (ids, values) in zip(nameless, further, strict=True):
            given = answer(entries, ids, values, limit)
            if given not in (None, UNKNOWN):
                answers[row] = given
                near[row] = (np.append(near[row][0], ids), np.append(near[row][1], values))
    return [
        Found(record, _hits(entries, one), given)
        for record, one, given in zip(found.records, near, answers, strict=True)
    ]


def _entries(store: Store, near: Sequence[Near]) -> dict[int, Entry]:
    ids = {int(id) for found, _ in near for id in found}
    return {entry.id: entry for entry in store.find(Where(ids=ids))}


def _hits(entries: dict[int, Entry], near: Near) -> tuple[Hit, ...]:
    pairs = zip(*near, strict=True)
    # What another process removed meanwhile is no hit.
    found = ((max(-1.0, min(1.0, float(value))), entries.get(int(id))) for id, value in pairs)
    return tuple(Hit(value, entry) for value, entry in found if entry is not None)
