"""Splits keep every image once and apart what belongs apart; their CSV reads back as written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import gracl
from conftest import save_image
from gracl.data import protocols, splits
from gracl.data.records import Box, Dataset, Record, Records
from gracl.data.splits import (
    IDENTITIES_SHARED,
    bursts,
    draw_queries,
    split_by_burst,
    split_by_date,
    split_by_identity,
    write_split,
)
from gracl.errors import ConfigError, DataError
from gracl.metrics import has_match


def dataset_of(*records: Record) -> Dataset:
    return Dataset(name="drawn", root=Path(), layout="csv", train=Records(records))


def crops(split: Records) -> list[tuple[Path, Box | None]]:
    return sorted(((r.path, r.box) for r in split), key=str)


def known(split: Records, name: str) -> set[str]:
    return {getattr(r, name) for r in split if getattr(r, name) is not None}


def check_kept_once(before: Dataset, after: Dataset) -> None:
    assert after.query == after.gallery
    assert after.train
    assert after.query
    assert crops(Records((*after.train, *after.query))) == crops(before.train)


def few(letters: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from([*letters, None])


DAYS = ("2025-01-01", "20250102", "2025-02-01 09:30", "2024/12/31", None)
MADE = st.lists(st.tuples(few("abcd"), few("xy"), st.sampled_from(DAYS), few("stuv")), max_size=14).map(
    lambda rows: dataset_of(*(Record(Path(f"{n}.jpg"), *row) for n, row in enumerate(rows)))
)
SHARES, SEEDS = st.floats(0.05, 0.95), st.integers(0, 99)


def attempt(split: Callable[[], Dataset]) -> Dataset | None:
    """None where the data cannot be split so."""
    try:
        return split()
    except DataError:
        return None


# -- properties of all ----------------------------------------------------------------------------


@given(MADE, SHARES, SEEDS)
def test_identity_split_keeps_identities_apart(dataset: Dataset, share: float, seed: int) -> None:
    def split() -> Dataset:
        return split_by_identity(dataset, test_share=share, seed=seed)

    found = attempt(split)
    if found is not None:
        check_kept_once(dataset, found)
        assert not known(found.train, "identity") & known(found.query, "identity")
        assert found == split()


@given(MADE, SHARES, st.booleans())
def test_date_split_never_learns_from_the_future(
    dataset: Dataset, share: float, per_identity: bool
) -> None:
    found = attempt(lambda: split_by_date(dataset, test_share=share, per_identity=per_identity))
    if found is None:
        return
    check_kept_once(dataset, found)
    assert IDENTITIES_SHARED in found.notes
    for whose in known(found.query, "identity") if per_identity else [None]:
        sides = [
            [DAYS_IN_ORDER[r.date] for r in side if r.date and whose in (None, r.identity)]
            for side in (found.train, found.query)
        ]
        assert max(sides[0]) < min(sides[1])


DAYS_IN_ORDER = {"2024/12/31": 0, "2025-01-01": 1, "20250102": 2, "2025-02-01 09:30": 3}


@given(MADE, SHARES, SEEDS, st.booleans())
def test_burst_split_keeps_sequences_apart(
    dataset: Dataset, share: float, seed: int, by_identity: bool
) -> None:
    def split(dataset: Dataset) -> Dataset:
        return split_by_burst(dataset, test_share=share, seed=seed, near=None, by_identity=by_identity)

    found = attempt(lambda: split(dataset))
    if found is None:
        return
    check_kept_once(dataset, found)
    assert not known(found.train, "sequence") & known(found.query, "sequence")
    if by_identity:
        assert not known(found.train, "identity") & known(found.query, "identity")
    assert (IDENTITIES_SHARED in found.notes) is not by_identity
    assert found == split(dataset)
    turned = replace(dataset, train=dataset.train[::-1])
    assert crops(split(turned).query) == crops(found.query)


@given(MADE, st.none() | SHARES, SEEDS)
def test_each_query_has_a_match_in_the_gallery(made: Dataset, share: float | None, seed: int) -> None:
    dataset = replace(made, train=Records(), query=made.train, gallery=made.train)
    found = attempt(lambda: draw_queries(dataset, share=share, seed=seed))
    if found is None:
        return
    assert crops(Records((*found.query, *found.gallery))) == crops(made.train)
    protocol = protocols.choose(made.train, made.train)
    assert has_match(*protocols.sides(found.query, found.gallery, protocol)).all()
    scene = protocols.find(protocol).scene
    drawn = Counter((r.identity, scene and getattr(r, scene)) for r in found.query)
    if share is None:
        assert set(drawn.values()) == {1}
    assert found == draw_queries(dataset, share=share, seed=seed)


@given(MADE)
def test_draws_fail_only_where_no_identity_is_seen_twice(made: Dataset) -> None:
    dataset = replace(made, query=made.train, gallery=made.train)
    twice = [n for n in Counter(i for i in made.train.values("identity") if i).values() if n > 1]
    assert (attempt(lambda: draw_queries(dataset)) is not None) is bool(twice)


# -- by identity ----------------------------------------------------------------------------------


def ten_people() -> Dataset:
    records = (Record(Path(f"{n}.jpg"), identity=str(n % 10)) for n in range(30))
    return dataset_of(*records, Record(Path("30.jpg")))


def test_split_takes_the_share_and_loses_no_image() -> None:
    split = split_by_identity(ten_people(), test_share=0.3, seed=1)
    assert len(known(split.query, "identity")) == 3
    assert {*split.train, *split.query} == set(ten_people().train)
    assert not split.tests_on_training_images


def test_split_leaves_unknown_identities_in_training() -> None:
    split = split_by_identity(ten_people(), test_share=0.9)
    assert None in split.train.values("identity")
    assert None not in split.query.values("identity")


def test_split_follows_its_seed_and_says_so() -> None:
    dataset = ten_people()
    drawn = [split_by_identity(dataset, seed=seed).query for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert split_by_identity(dataset, seed=7).notes == ("5 of 10 identities drawn for test, seed=7",)


def test_split_does_not_depend_on_the_order_of_the_images() -> None:
    dataset = ten_people()
    turned = replace(dataset, train=dataset.train[::-1])
    assert set(split_by_identity(dataset).query) == set(split_by_identity(turned).query)


def test_test_part_that_was_there_is_left_out_and_that_is_said() -> None:
    dataset = ten_people()
    with_test = replace(dataset, query=dataset.train[:2], gallery=dataset.train[:3], notes=("kept",))
    split = split_by_identity(with_test)
    assert split.notes[0] == "kept"
    assert split.notes[-1] == "3 images that were the test part before are left out"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99, 1.0, 2.0, -1.0])
def test_split_refuses_to_leave_a_side_empty(share: float) -> None:
    with pytest.raises(DataError, match="At least one must stand on either side"):
        split_by_identity(ten_people(), test_share=share)


def test_split_of_unlabelled_images_is_refused() -> None:
    with pytest.raises(DataError, match="has 0 identities"):
        split_by_identity(dataset_of(Record(Path("a")), Record(Path("b"))))


def test_split_of_one_identity_is_refused() -> None:
    with pytest.raises(DataError, match="has 1 identities"):
        split_by_identity(dataset_of(*(Record(Path(f"{n}"), "a") for n in range(9))))


# -- by date --------------------------------------------------------------------------------------


def dated(*dates: str | None, identity: str | None = None) -> Dataset:
    return dataset_of(*(Record(Path(f"{n}"), identity, date=date) for n, date in enumerate(dates)))


def test_cutoff_is_the_first_day_of_the_test() -> None:
    split = split_by_date(dated("2025-01-02", "2025-01-01", "2025-01-03", None), cutoff="2025-01-02")
    assert split.query.values("date") == ["2025-01-02", "2025-01-03"]
    assert split.train.values("date") == ["2025-01-01", None]
    assert split.notes[0] == "test: days from 2025-01-02 on; 1 images without a date stay in train"


@pytest.mark.parametrize("cutoff", ["2025", "2025-01", "20250101", "2024-12-31", "2025/01/01 23:00"])
def test_cutoff_may_be_written_in_many_ways(cutoff: str) -> None:
    split = split_by_date(dated("2024-12-30", "2025-01-01 08:00", "2025:02:01 09:00:00"), cutoff=cutoff)
    assert len(split.query) == 2


@pytest.mark.parametrize(("share", "n_test"), [(0.1, 1), (0.3, 1), (0.5, 4), (0.7, 4), (0.9, 5)])
def test_last_days_come_nearest_to_the_share(share: float, n_test: int) -> None:
    dates = ["2025-01-01", *["2025-01-02"], *["2025-01-03"] * 3, "2025-01-04"]
    split = split_by_date(dated(*dates), test_share=share)
    assert len(split.query) == n_test


def test_each_identity_has_its_own_last_days() -> None:
    old = dated("2020-01-01", "2020-01-02", identity="old").train
    new = dated("2025-01-01", "2025-01-02", identity="new").train
    once = dated("2025-01-02", "2025-01-02", identity="once").train
    unknown = dated("2025-01-02").train
    split = split_by_date(dataset_of(*old, *new, *once, *unknown), per_identity=True)
    assert [(r.identity, r.date) for r in split.query] == [("old", "2020-01-02"), ("new", "2025-01-02")]
    assert "of each identity that is seen on several days, 2 of them" in split.notes[0]


def test_times_of_one_day_are_not_parted() -> None:
    with pytest.raises(DataError, match="leave 2 for training and 0 for the test"):
        split_by_date(dated("2025-01-01 08:00", "2025-01-01T17:00"))


def test_data_without_dates_is_refused() -> None:
    with pytest.raises(DataError, match=r"none of the 2 training images .* Add a column 'date'"):
        split_by_date(dated(None, None))


@pytest.mark.parametrize(
    "date", ["01/04/2025", "1 May", "25-04-01", "2025-4-1", "summer", "2025-04-01x"]
)
def test_dates_that_cannot_be_put_in_order_are_refused(date: str) -> None:
    with pytest.raises(DataError, match=f"the date '{date}' does not begin with its year"):
        split_by_date(dated("2025-01-01", date))
    with pytest.raises(DataError, match=f"the date '{date}' does not begin with its year"):
        split_by_date(dated("2025-01-01", "2025-01-02"), cutoff=date)


@pytest.mark.parametrize("cutoff", ["1999", "2050"])
def test_cutoff_outside_of_all_dates_is_refused(cutoff: str) -> None:
    with pytest.raises(DataError, match="Choose another cutoff or share"):
        split_by_date(dated("2025-01-01", "2025-01-02"), cutoff=cutoff)


def test_cutoff_and_per_identity_are_one_too_many() -> None:
    with pytest.raises(DataError, match="Give one of the two"):
        split_by_date(dated("2025-01-01"), cutoff="2025", per_identity=True)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_share_out_of_range_is_refused(share: float) -> None:
    test = dated("2025-01-01", "2025-01-02")
    with pytest.raises(DataError, match="expected between 0 and 1"):
        split_by_date(test, test_share=share)
    with pytest.raises(DataError, match="expected between 0 and 1"):
        split_by_burst(test, test_share=share)
    with pytest.raises(DataError, match="expected between 0 and 1"):
        draw_queries(test, share=share)


# -- by burst -------------------------------------------------------------------------------------


def smooth(seed: int, shift: int = 0) -> Image.Image:
    """A picture that barely changes when it is shifted by a pixel, as between two video frames."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((80, 80), Image.Resampling.BICUBIC)
    return large.crop((shift, 0, 64 + shift, 64))


def photos(root: Path, bursts: int = 6, frames: int = 4) -> Dataset:
    for burst in range(bursts):
        for frame in range(frames):
            smooth(burst, frame).save(root / f"{burst}-{frame}.png")
    return gracl.load_dataset(root)


def test_near_frames_are_never_on_both_sides(tmp_path: Path) -> None:
    dataset = photos(tmp_path)
    for seed in range(5):
        split = split_by_burst(dataset, seed=seed)
        check_kept_once(dataset, split)
        sides = [{r.path.name[0] for r in side} for side in (split.train, split.query)]
        assert not sides[0] & sides[1]
        assert (len(split.train), len(split.query)) == (12, 12)
        assert split.notes[0] == (
            f"3 of 6 bursts drawn for test, seed={seed}, near=0.95; 6 of them hold more than one "
            "image, the largest 4"
        )


def test_sequences_and_near_frames_chain(tmp_path: Path) -> None:
    dataset = photos(tmp_path, bursts=3, frames=2)
    # the last frame of burst 0 and the first of burst 1 belong to one sequence
    linked = tuple(
        replace(r, sequence="walk") if r.path.name in ("0-1.png", "1-0.png") else r
        for r in dataset.train
    )
    assert bursts(Records(linked)).tolist() == [0, 0, 0, 0, 1, 1]


def test_images_listed_twice_and_copies_of_flat_images_are_one_burst(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (9, 9), "grey").save(tmp_path / f"{name}.png")
    first, second = gracl.load_dataset(tmp_path).train
    assert bursts(Records((first, second, first))).tolist() == [0, 0, 0]
    assert bursts(Records((first, second, first)), near=None).tolist() == [0, 1, 0]


def test_unreadable_images_are_kept_and_like_no_other(tmp_path: Path) -> None:
    photos(tmp_path, bursts=2)
    for n in range(3):
        (tmp_path / f"bad{n}.png").write_bytes(b"")
    dataset = gracl.load_dataset(tmp_path)
    assert sorted(Counter(bursts(dataset.train).tolist()).values()) == [1, 1, 1, 4, 4]
    check_kept_once(dataset, split_by_burst(dataset))


def test_no_readable_image_at_all_still_splits(tmp_path: Path) -> None:
    dataset = dataset_of(Record(tmp_path / "a"), Record(tmp_path / "b"))
    check_kept_once(dataset, split_by_burst(dataset))


def test_all_duplicates_cannot_be_split(tmp_path: Path) -> None:
    for n in range(4):
        save_image(tmp_path / f"{n}.png", seed=1)
    dataset = gracl.load_dataset(tmp_path)
    with pytest.raises(DataError, match=r"the 4 training images .* in one burst.* a larger near"):
        split_by_burst(dataset)
    check_kept_once(dataset, split_by_burst(dataset, near=None))


def test_one_sequence_cannot_be_split() -> None:
    dataset = dataset_of(*(Record(Path(f"{n}"), sequence="s") for n in range(3)))
    with pytest.raises(DataError, match="Give finer sequences"):
        split_by_burst(dataset, near=None)


def test_large_bursts_still_leave_a_test_part() -> None:
    records = [Record(Path(f"{n}"), sequence=str(n // 10)) for n in range(25)]
    split = split_by_burst(dataset_of(*records), near=None, test_share=0.05)
    assert split.query.values("sequence") == ["2"] * 5


def test_splits_without_near_read_no_file() -> None:
    records = (Record(Path(f"gone/{n}.jpg")) for n in range(4))
    assert len(split_by_burst(dataset_of(*records), near=None).query) == 2


def test_near_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="near is 2"):
        split_by_burst(ten_people(), near=2)


def test_progress_of_reading_is_passed_on(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    split_by_burst(photos(tmp_path, 2, 1), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


# -- queries --------------------------------------------------------------------------------------


def searched(*facts: str) -> Dataset:
    """Test images of identity, camera each."""
    both = Records(tuple(Record(Path(f"{n}"), *fact.split()) for n, fact in enumerate(facts)))
    return Dataset("x", Path(), "csv", Records(), both, both)


def test_single_image_of_the_only_other_camera_stays_in_the_gallery() -> None:
    found = draw_queries(searched("1 a", "1 a", "1 a", "1 b"))
    assert found.query.values("camera") == ["a"]
    assert sorted(found.gallery.values("camera")) == ["a", "a", "b"]  # type: ignore[type-var]


def test_identity_of_one_camera_is_a_distractor() -> None:
    found = draw_queries(searched("1 a", "1 b", "2 a", "2 a"))
    assert found.query.values("identity") == ["1"]
    assert found.gallery.values("identity").count("2") == 2


def test_one_query_an_identity_where_nothing_else_is_known() -> None:
    found = draw_queries(searched("1", "1", "1", "2", "2", "3"))
    assert sorted(found.query.values("identity")) == ["1", "2"]  # type: ignore[type-var]
    assert found.notes == ("2 of 6 test images are queries, one for each identity, seed=0",)


def test_share_of_each_identity() -> None:
    found = draw_queries(searched(*["1"] * 10, *["2"] * 4), share=0.3)
    assert Counter(found.query.values("identity")) == {"1": 3, "2": 1}
    assert found.notes == ("4 of 14 test images are queries, a share of 0.3 of each identity, seed=0",)


def test_queries_of_a_parted_test_are_refused() -> None:
    dataset = searched("1", "1", "1")
    with pytest.raises(DataError, match="1 queries and 2 gallery images"):
        draw_queries(replace(dataset, query=dataset.query[:1], gallery=dataset.query[1:]))
    with pytest.raises(DataError, match="Split the data set first"):
        draw_queries(ten_people())


def test_test_where_no_identity_is_seen_twice_is_refused() -> None:
    with pytest.raises(DataError, match="no identity among the 2 test images"):
        draw_queries(searched("1", "2"))


# -- the CSV --------------------------------------------------------------------------------------

TEXTS = st.none() | st.text("aé東 ,;\"'\n\r\t7", min_size=1, max_size=6).filter(
    lambda text: text == text.strip()
)


def same(first: Dataset, second: Dataset) -> bool:
    return (first.train, first.query, first.gallery) == (second.train, second.query, second.gallery)


@given(st.data())
def test_any_split_reads_back_as_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("split")
    names = ("a.jpg", " b, c.jpg", "höhle/東 1.jpg", "#.jpg")
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    boxes = st.none() | st.builds(Box, *[st.integers(-9, 9)] * 2, *[st.integers(1, 9)] * 2)
    paths = st.sampled_from(names).map(lambda name: root / name)
    sides = st.lists(st.builds(Record, paths, *[TEXTS] * 4, boxes), max_size=4)
    drawn = [Records(tuple(data.draw(sides))) for _ in range(3)]
    drawn[2] = data.draw(st.sampled_from([drawn[1], drawn[2]]))
    if any(drawn):
        dataset = Dataset("any", root, "folder", *drawn)
        assert same(gracl.load_dataset(write_split(dataset, root / "split.csv")), dataset)


def test_images_elsewhere_are_named_by_their_whole_path(tmp_path: Path) -> None:
    save_image(tmp_path / "photos/a.png")
    dataset = gracl.load_dataset(tmp_path / "photos")
    file = write_split(dataset, tmp_path / "tables/deep/split.csv")
    assert str(tmp_path / "photos/a.png") in file.read_text(encoding="utf-8")
    assert same(gracl.load_dataset(file), dataset)


def test_images_below_move_with_their_table(tmp_path: Path) -> None:
    save_image(tmp_path / "one/photos/a.png")
    write_split(gracl.load_dataset(tmp_path / "one/photos"), tmp_path / "one/split.csv")
    (tmp_path / "one").rename(tmp_path / "two")
    assert gracl.load_dataset(tmp_path / "two/split.csv").train[0].path.is_file()


def test_relative_paths_are_below_the_table_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image(Path("photos/a.png"))
    dataset = gracl.load_dataset("photos")
    write_split(dataset, "photos/split.csv")
    assert ",train," in Path("photos/split.csv").read_text(encoding="utf-8")
    assert same(gracl.load_dataset("photos/split.csv"), dataset)


def test_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "metadata.csv"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="exists, and a split overwrites nothing"):
        write_split(ten_people(), file)
    assert file.read_text(encoding="utf-8") == "mine"


def test_name_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give a name that ends in \.csv"):
        write_split(ten_people(), tmp_path / "split.txt")


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*split\.csv"):
        write_split(ten_people(), tmp_path / "file/split.csv")


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(splits.csv.DictWriter, "writerows", stop)
    with pytest.raises(KeyboardInterrupt):
        write_split(ten_people(), tmp_path / "split.csv")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize(
    ("column", "text"),
    [("identity", "Unknown"), ("date", "2025-01-01 09:30"), ("date", "2025-1-1T10:00")],
)
def test_facts_that_the_reader_would_change_are_refused(tmp_path: Path, column: str, text: str) -> None:
    record = replace(Record(Path("a.jpg")), **{column: text})
    with pytest.raises(DataError, match=f"a.jpg: the {column} '{text}' would not be read back"):
        write_split(dataset_of(record), tmp_path / "split.csv")


@pytest.mark.parametrize("text", ["", " a", "a ", "\udcff"])
@pytest.mark.parametrize("column", ["identity", "camera", "date", "sequence"])
def test_facts_that_would_change_are_refused(tmp_path: Path, column: str, text: str) -> None:
    record = replace(Record(Path("a.jpg")), **{column: text})
    with pytest.raises(DataError, match=f"a.jpg: the {column} .* would not be read back"):
        write_split(dataset_of(record), tmp_path / "split.csv")
    assert list(tmp_path.iterdir()) == []


def test_path_that_would_change_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="would not be read back"):
        write_split(dataset_of(Record(tmp_path / "a.jpg ")), tmp_path / "split.csv")


def test_split_that_was_written_splits_again(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    first = split_by_burst(photos(tmp_path / "photos"))
    file = write_split(first, tmp_path / "split.csv")
    check_kept_once(first, split_by_burst(gracl.load_dataset(file)))
