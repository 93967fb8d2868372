"""A gallery in a file: killed processes, what is left on disk, other people's files."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import random_image
from gracl.errors import GalleryError, NoGallery, OutOfMemory
from gracl.gallery import on_disk, shortcut, sqlite, vectors
from gracl.gallery.entries import Entry, Where
from gracl.gallery.gallery import Gallery
from gracl.gallery.on_disk import found_in, stretches
from gracl.gallery.shortcut import Shortcut
from gracl.gallery.sqlite import SqliteStore
from gracl.gallery.store import About
from gracl.gallery.vectors import Vectors
from gracl.models.embedder import build_embedder

DIM = 512
ABOUT = About("f" * 64, "net", (256, 128), DIM, "0", thumbnails=True)

ADDS_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from gracl.gallery.entries import Entry
from gracl.gallery.shortcut import Shortcut
from gracl.gallery.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
rng = np.random.default_rng(0)
while True:
    rows = rng.standard_normal((50, 512), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    held = store.add([Entry(0, f"image-{n}") for n in range(50)], rows)
    print(held[-1].id, flush=True)
"""


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    """Closes every store that a test opens."""
    opened, init = [], SqliteStore.__init__

    def remembered(self, *arguments):
        init(self, *arguments)
        opened.append(self)

    monkeypatch.setattr(SqliteStore, "__init__", remembered)
    yield
    for store in opened:
        store.close()


def rows_of(n, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(path, n=40):
    store = SqliteStore(path, ABOUT)
    entries = [
        Entry(0, f"/photos/{name}/{number:06d}.jpg", identity=name)
        for number in range(n // 2)
        for name in ("Bartholomew", "Cassandra")
    ]
    jpegs = [np.random.default_rng(at).bytes(3000) for at in range(len(entries))]
    store.add(entries, rows_of(len(entries)), jpegs)
    return store, jpegs


@pytest.mark.parametrize("confirmed", [1, 7, 20])
def test_sigkill_while_adding_loses_nothing_that_was_confirmed(tmp_path, confirmed):
    path = tmp_path / "a.gallery"
    SqliteStore(path, ABOUT).close()
    command = [sys.executable, "-c", ADDS_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as adding:
        seen = [int(adding.stdout.readline()) for _ in range(confirmed)]
        adding.send_signal(signal.SIGKILL)
        seen += [int(line) for line in adding.stdout]
    store = SqliteStore(path)
    n = store.count(Where())
    assert n >= seen[-1]
    assert n % 50 == 0  # batches are whole
    assert store._run("SELECT count(*) FROM vectors")[0][0] == n
    assert store._run("PRAGMA integrity_check") == [("ok",)]
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.standard_normal((50, DIM), dtype=np.float32) for _ in range(n // 50)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for at, (ids, similarities) in zip(
        (0, n - 1), store.nearest(rows[[0, -1]], 1, Where()), strict=True
    ):
        assert ids[0] == at + 1
        assert similarities[0] == pytest.approx(1, abs=1e-5)


def test_a_killed_forgetting_is_ended_by_the_next(tmp_path):
    store, _ = filled(tmp_path / "a.gallery")
    vector = store._traces(Where(identities=["Bartholomew"])).vectors[3]

    def stopped(_):
        raise KeyboardInterrupt

    store.purge = stopped
    with pytest.raises(KeyboardInterrupt):
        store.forget(Where(identities=["Bartholomew"]))
    store.close()
    store = SqliteStore(tmp_path / "a.gallery")
    assert store.must_purge()
    store.forget(Where(identities=["Bartholomew"]))
    assert not found_in(store._files(), stretches(vector))


def test_forgetting_leaves_nothing_on_disk(tmp_path):
    store, jpegs = filled(tmp_path / "a.gallery")
    gone = store._traces(Where(identities=["Bartholomew"]))
    assert len(found_in(store._files(), gone.vectors)) == 20  # the look for it does find what is there
    assert found_in(store._files(), [b"Bartholomew"])
    forgotten = store.forget(Where(identities=["Bartholomew"]))
    assert len(forgotten) == 20
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Bartholomew" not in everything
    for vector in gone.vectors:
        assert vector[:32] not in everything
        assert vector[1024:1056] not in everything
    for at, jpeg in enumerate(jpegs):
        assert (jpeg[:64] in everything) == bool(at % 2)
    assert b"Cassandra" in everything
    store.close()
    assert b"Bartholomew" not in (tmp_path / "a.gallery").read_bytes()


def test_what_is_left_on_disk_is_told(tmp_path, monkeypatch):
    store, _ = filled(tmp_path / "a.gallery")
    run = store._run
    monkeypatch.setattr(store, "_run", lambda text, *p: [] if text == "VACUUM" else run(text, *p))
    run("PRAGMA secure_delete = OFF")
    with pytest.raises(GalleryError, match="can still be found"):
        store.forget(Where(identities=["Bartholomew"]))
    monkeypatch.undo()
    store.forget(Where(identities=["Bartholomew"]))


def test_a_copy_under_another_name_does_not_stop_the_forgetting(tmp_path):
    store = SqliteStore(tmp_path / "a.gallery", ABOUT)
    row, jpeg = rows_of(1), np.random.default_rng(0).bytes(3000)
    for name in ("Bartholomew", "Cassandra"):
        store.add([Entry(0, "/photos/both/of/them.jpg", identity=name)], row, [jpeg])
    store.forget(Where(identities=["Bartholomew"]))
    assert [entry.identity for entry in store.find(Where())] == ["Cassandra"]


def test_a_reader_that_keeps_the_old_state_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "PATIENCE", 0.1)
    store, _ = filled(tmp_path / "a.gallery")
    reader = sqlite3.connect(tmp_path / "a.gallery")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchall()
    store._connection.execute("PRAGMA busy_timeout = 100")
    with pytest.raises(GalleryError, match=r"another process|locked"):
        store.forget(Where(identities=["Bartholomew"]))
    reader.close()
    store.forget(Where(identities=["Bartholomew"]))
    assert not found_in(store._files(), [b"Bartholomew"])


def test_rows_in_memory_are_let_go_of(tmp_path):
    store, _ = filled(tmp_path / "a.gallery")
    store.nearest(rows_of(1), 1, Where())
    assert len(store._held) == 40
    store.forget(Where(identities=["Bartholomew"]))
    assert len(store._held) == 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just a text, and a long one, so that it has a header's length" * 20, "cannot be opened"),
        (b"SQLite format 3\0 and then nothing of it" * 50, "cannot be opened"),
    ],
)
def test_another_file_is_no_gallery_and_stays_as_it_is(tmp_path, content, message):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(GalleryError, match=message):
        SqliteStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("left", ["nothing", "empty database"])
def test_what_a_process_leaves_that_was_killed_at_the_start_is_no_obstacle(tmp_path, left):
    path = tmp_path / "a.gallery"
    path.touch()
    if left == "empty database":
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA user_version = 7")
            other.commit()
    with pytest.raises(NoGallery):
        SqliteStore(path)
    store = SqliteStore(path, ABOUT)
    assert store.about == ABOUT


def test_a_closed_gallery_and_another_thread_are_told(tmp_path):
    store, _ = filled(tmp_path / "a.gallery")
    with ThreadPoolExecutor(1) as pool, pytest.raises(GalleryError, match="one of its own"):
        pool.submit(store.find, Where()).result()
    store.close()
    for action in (lambda: store.find(Where()), lambda: store.nearest(rows_of(1), 1, Where())):
        with pytest.raises(GalleryError, match="Open it anew"):
            action()


def test_another_database_is_not_touched(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE about (content TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(GalleryError, match="no gallery of gracl's"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(GalleryError, match="is no folder"):
        SqliteStore(tmp_path / "gone" / "a.gallery", ABOUT)


def test_more_than_memory_holds_is_refused(tmp_path, monkeypatch):
    store, _ = filled(tmp_path / "a.gallery")
    monkeypatch.setattr("gracl.forecast.available_memory", lambda: 1000)
    with pytest.raises(OutOfMemory, match=r"searching 40 images .*PostgreSQL"):
        store.nearest(rows_of(1), 1, Where())


def test_the_gallery_object_forgets_on_disk_too(tmp_path):
    torch.manual_seed(0)
    model = build_embedder("test_resnet", size=(32, 16)).eval()
    path = tmp_path / "a.gallery"
    with Gallery.create(path, model, thumbnails=True) as gallery:
        gallery.enrol("Bartholomew", [random_image(0), random_image(1)])
        gallery.enrol("Cassandra", random_image(2))
        gallery.forget("Bartholomew")
    assert b"Bartholomew" not in path.read_bytes()
    assert b"Cassandra" in path.read_bytes()


# -- rows in memory -------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "drop"]), st.integers(1, 30), st.integers(0, 99)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 12),
    st.none() | st.integers(0, 99),
    st.sampled_from([1, 400, 2**20]),
)
def test_vectors_are_searched_as_a_plain_product_would(changes, k, chosen, memory):
    held, naive, last = Vectors(8), {}, 0
    for what, n, seed in changes:
        rng = np.random.default_rng(seed)
        if what == "append":
            ids = last + 1 + np.sort(rng.choice(3 * n, n, replace=False))
            last = int(ids[-1])
            rows = rng.standard_normal((n, 8), dtype=np.float32)
            held.append(ids, rows)
            naive |= dict(zip(ids.tolist(), rows, strict=True))
        elif naive:
            gone = rng.choice([*naive], min(n, len(naive)), replace=False)
            held.drop(gone)
            naive = {id: row for id, row in naive.items() if id not in gone}
    assert len(held) == len(naive)
    among = None
    if chosen is not None:
        rng = np.random.default_rng(chosen)
        among = np.flatnonzero(rng.random(last + 5) < 0.5)
        naive = {id: row for id, row in naive.items() if id in among}
    queries = np.random.default_rng(7).standard_normal((3, 8), dtype=np.float32)
    for query, (ids, values) in zip(
        queries, held.nearest(queries, k, among=among, memory=memory), strict=True
    ):
        near = sorted(((float(row @ query), id) for id, row in naive.items()), reverse=True)[:k]
        assert values.tolist() == pytest.approx([value for value, _ in near], abs=1e-4)
        assert len(set(ids.tolist())) == len(near)
        assert [float(naive[id] @ query) for id in ids] == pytest.approx(values.tolist(), abs=1e-4)


def falling(n, dim=24, seed=0):
    """Unit rows whose spectrum falls, as that of images' features does."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim), dtype=np.float32) / (1 + np.arange(dim, dtype=np.float32))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(
    st.integers(2, 200),
    st.integers(1, 12),
    st.integers(1, 24),
    st.none() | st.floats(0.1, 1),
    st.integers(0, 99),
)
def test_the_shortcut_finds_what_the_product_finds(n, k, m, share, seed):
    rng = np.random.default_rng(seed)
    rows, query = falling(n, seed=seed), falling(1, seed=seed + 1)[0]
    directions = torch.linalg.qr(torch.from_numpy(rng.standard_normal((24, m), dtype=np.float32)))[0]
    found = Shortcut(directions, rows)
    mask = None if share is None else rng.random(n) < share
    allowed = np.arange(n) if mask is None else np.flatnonzero(mask)
    k = min(k, len(allowed))
    if not k:
        return
    places = found.nearest(query, k, rows, mask)
    if places is None:  # too many rows might be near
        return
    assert set(places.tolist()) <= set(allowed.tolist())
    best = np.sort(rows[allowed] @ query)[::-1][:k]
    assert np.sort(rows[places] @ query)[::-1] == pytest.approx(best, abs=1e-6)


def test_the_shortcut_is_taken_and_follows_changes(monkeypatch):
    monkeypatch.setattr(shortcut, "TOO_MANY", 1.0)
    monkeypatch.setattr(
        vectors,
        "find_shortcut",
        lambda rows: Shortcut(torch.linalg.svd(torch.from_numpy(rows))[2].T[:, :8].contiguous(), rows),
    )
    rows = falling(600)
    held = Vectors(24)
    held.append(np.arange(400), rows[:400])
    for query in falling(shortcut.AFTER, seed=5):
        held.nearest(query[None], 3)
    assert held._shortcut is not None
    held.append(np.arange(400, 600), rows[400:])
    held.drop(np.arange(0, 600, 3))
    calls = []
    nearest = Shortcut.nearest
    monkeypatch.setattr(Shortcut, "nearest", lambda self, *a: calls.append(1) or nearest(self, *a))
    left = np.setdiff1d(np.arange(600), np.arange(0, 600, 3))
    for among in (None, left[50:]):
        ids, values = held.nearest(falling(1, seed=9), 5, among=among)[0]
        searched = left if among is None else among
        similarities = rows[searched] @ falling(1, seed=9)[0]
        assert values == pytest.approx(np.sort(similarities)[::-1][:5], abs=1e-6)
        assert ids.tolist() == searched[np.argsort(-similarities)[:5]].tolist()
    assert len(calls) == 2
    few = held.nearest(falling(1, seed=9), 5, among=left[:20])  # quicker without
    assert len(few[0][0]) == 5
    assert len(calls) == 2


def test_equals_stand_by_their_number():
    held = Vectors(2)
    held.append(np.array([3, 5, 9]), np.float32([[1, 0], [0, 1], [1, 0]]))
    ids, similarities = held.nearest(np.float32([[1, 0]]), 3)[0]
    assert ids.tolist() == [3, 9, 5]
    assert similarities.tolist() == [1, 1, 0]


def test_rows_let_go_of_are_overwritten_in_memory():
    held = Vectors(4)
    held.append(np.arange(3), np.ones((3, 4), np.float32))
    before = held._rows
    held.drop(np.array([1]))
    assert not before[:3].any()
    assert held.ids.tolist() == [0, 2]


@given(st.binary(max_size=300), st.lists(st.binary(min_size=1, max_size=60), max_size=6), st.data())
def test_found_in_finds_what_is_there(tmp_path_factory, content, others, data):
    cut = st.integers(0, len(content))
    pieces = [content[slice(*sorted((data.draw(cut), data.draw(cut))))] for _ in range(4)]
    pieces = [piece for piece in [*pieces, *others] if len(piece) >= 3]
    path = tmp_path_factory.mktemp("disk") / "a"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_disk, "PIECE", 40)
        found = found_in([path], pieces)
    assert {piece[-24:] for piece in found} == {p[-24:] for p in pieces if p[-24:] in content}


def test_found_in_looks_at_every_file(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 5000 + b"needle")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "c").write_bytes(b"hay")
    files = sorted(Path(tmp_path).iterdir())
    assert found_in(files, [b"needle", b"hay", b"pin"]) == [b"needle", b"hay"]


def test_another_process_forgets_while_two_objects_of_one_process_have_it_open(tmp_path):
    """Reading the file beside SQLite once let go of its locks: the log was deleted under the others."""
    place, model = tmp_path / "a.gallery", build_embedder("test_resnet", size=(32, 16))
    images = [random_image(n) for n in range(3)]
    with Gallery.create(place, model) as made:
        made.add(images[:2], identity="Bartholomew")
        made.add(images[2], identity="Cassandra")
        made.add(random_image(3), identity="Desdemona")
    with Gallery.open(place, model) as one, Gallery.open(place, model) as other:
        one.forget("Desdemona")
        assert {hit.identity for hit in one.search(images[0])} == {"Bartholomew", "Cassandra"}
        words = "import sys; from gracl.gallery.sqlite import SqliteStore; from pathlib import Path; "
        words += "from gracl.gallery.entries import Where; store = SqliteStore(Path(sys.argv[1])); "
        words += "store.forget(Where(identities=['Bartholomew'])); store.close()"
        subprocess.run([sys.executable, "-c", words, place], check=True)
        for opened in (one, other):
            assert opened.identities() == {"Cassandra": 1}
            assert [hit.identity for hit in opened.search(images[0])] == ["Cassandra"]
        one.add(random_image(5), identity="Emil")
        assert other.identities() == {"Cassandra": 1, "Emil": 1}


@pytest.mark.parametrize("spoilt", ["'x'", "x'00'", "3", "1e300"])
def test_damaged_features_and_pictures_are_told(tmp_path, spoilt):
    filled(tmp_path / "a.gallery")[0].close()
    with closing(sqlite3.connect(tmp_path / "a.gallery")) as database:
        database.execute(f"UPDATE vectors SET vector = {spoilt} WHERE id = 7")
        database.execute(f"INSERT OR REPLACE INTO thumbnails VALUES (7, {spoilt})")
        database.commit()
    store = SqliteStore(tmp_path / "a.gallery")
    with pytest.raises(GalleryError, match="is damaged"):
        store.nearest(rows_of(1), 3, Where())
    if not spoilt.startswith("x"):
        with pytest.raises(GalleryError, match="is damaged"):
            store.thumbnail(7)


def test_a_gallery_that_says_too_much_of_itself_is_refused(tmp_path):
    filled(tmp_path / "a.gallery")[0].close()
    with closing(sqlite3.connect(tmp_path / "a.gallery")) as database:
        database.execute("UPDATE about SET content = ?", ["[" * 100_000])
        database.commit()
    with pytest.raises(GalleryError, match="cannot be opened as a gallery"):
        SqliteStore(tmp_path / "a.gallery")
