"""Layouts as they lie on disk, with the debris that lies among them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import gracl
from conftest import save_image
from gracl.data.readers import load_dataset
from gracl.data.records import Box, Dataset, Records
from gracl.errors import DataError


def touch(root: Path, *names: str) -> Path:
    """Empty files; readers look at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def market(root: Path, *extra: str) -> Path:
    return touch(
        root,
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0002_c3s1_000551_01.jpg",
        "query/0007_c2s1_000100_00.jpg",
        "bounding_box_test/0007_c5s1_000200_00.jpg",
        "bounding_box_test/0000_c1s1_000300_00.jpg",
        "bounding_box_test/-1_c1s1_000400_00.jpg",
        *extra,
    )


def table(root: Path, *lines: str, name: str = "metadata.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def names(records: Records) -> list[str]:
    return [record.path.name for record in records]


def reasons(dataset: Dataset) -> list[str]:
    return [problem.reason for problem in dataset.problems]


def listing(root: Path) -> list[tuple[str, int, int]]:
    """All that a write into a folder would change."""
    found = [root, *sorted(root.rglob("*"))]
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in found]


# -- Market-1501 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["", "Market-1501-v15.09.15", "market1501/Market-1501-v15.09.15"])
def test_market_is_found_within_wrapper_folders(tmp_path: Path, wrapper: str) -> None:
    market(tmp_path / "data" / wrapper)
    dataset = load_dataset(tmp_path / "data")
    assert dataset.layout == "market1501"
    assert dataset.root == tmp_path / "data" / wrapper
    assert names(dataset.train) == ["0002_c1s1_000451_03.jpg", "0002_c3s1_000551_01.jpg"]
    assert names(dataset.query) == ["0007_c2s1_000100_00.jpg"]


def test_market_three_folders_deep_is_read_as_a_plain_tree(tmp_path: Path) -> None:
    market(tmp_path / "a/b/c")
    assert load_dataset(tmp_path).layout == "folder"
    with pytest.raises(DataError, match=r"bounding_box_train.*Give the folder that holds them"):
        load_dataset("market1501", tmp_path)


def test_market_identities_and_cameras_are_text_as_written(tmp_path: Path) -> None:
    train = load_dataset(market(tmp_path)).train
    assert train.values("identity") == ["0002", "0002"]
    assert train.values("camera") == ["1", "3"]


def test_market_drops_the_junk_identity_and_keeps_the_distractor(tmp_path: Path) -> None:
    dataset = load_dataset(market(tmp_path))
    assert dataset.gallery.values("identity") == ["0000", "0007"]
    assert dataset.problems == ()


def test_market_parent_folder_does_not_become_an_identity(tmp_path: Path) -> None:
    dataset = load_dataset(market(tmp_path / "run3_c2", "run3_c2.jpg"))
    assert dataset.train.values("identity") == ["0002", "0002"]
    assert dataset.train.values("camera") == ["1", "3"]


def test_market_names_that_do_not_fit_are_listed_and_left_out(tmp_path: Path) -> None:
    odd = ("bounding_box_train/run3_c2.jpg", "query/portrait.jpg")
    dataset = load_dataset(market(tmp_path, *odd))
    assert [p.path.name for p in dataset.problems] == ["run3_c2.jpg", "portrait.jpg"]
    assert all("<identity>_c<camera>" in reason for reason in reasons(dataset))
    assert (len(dataset.train), len(dataset.query)) == (2, 1)


@pytest.mark.parametrize(
    "debris",
    [
        "Thumbs.db",
        "readme.txt",
        "._0002_c1s1_000451_03.jpg",
        "__MACOSX/0003_c1s1_000001_00.jpg",
        ".thumbnails/0003_c1s1_000001_00.jpg",
    ],
)
def test_debris_is_passed_over_without_a_word(tmp_path: Path, debris: str) -> None:
    dataset = load_dataset(market(tmp_path, f"bounding_box_train/{debris}"))
    assert len(dataset.train) == 2
    assert dataset.problems == ()


def test_market_is_not_looked_for_among_debris(tmp_path: Path) -> None:
    market(tmp_path / "__MACOSX" / "Market")
    market(tmp_path / "market" / "Market")
    assert load_dataset(tmp_path).root == tmp_path / "market" / "Market"


def test_market_takes_upper_case_endings_spaces_and_other_alphabets(tmp_path: Path) -> None:
    train = ("bounding_box_train/0002_c1 copy.JPG", "bounding_box_train/0011_c4_行人é.PNG")
    dataset = load_dataset(market(tmp_path / "mes données", *train))
    assert set(dataset.train.values("identity")) == {"0002", "0011"}
    assert len(dataset.train) == 4


def test_dangling_links_are_listed(tmp_path: Path) -> None:
    market(tmp_path)
    (tmp_path / "query/0009_c1_a.jpg").symlink_to(tmp_path / "gone.jpg")
    dataset = load_dataset(tmp_path)
    assert reasons(dataset) == ["a link that leads nowhere"]
    assert len(dataset.query) == 1


# -- CSV ------------------------------------------------------------------------------------------


def test_csv_reads_every_column(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg")
    table(
        tmp_path,
        "path,identity,camera,split,date,sequence,x,y,w,h,species",
        "images/a.jpg,007,east,train,2024-05-01,walk 3,1,2.4,30,40.6,zebra",
    )
    dataset = load_dataset(tmp_path)
    assert dataset.layout == "csv"
    (record,) = dataset.train
    assert record.path == tmp_path / "images/a.jpg"
    assert (record.identity, record.camera) == ("007", "east")
    assert (record.date, record.sequence) == ("2024-05-01", "walk 3")
    assert record.box == Box(1, 2, 30, 41)


def test_csv_with_a_path_alone_is_unlabelled_and_for_training(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (record,) = load_dataset(table(tmp_path, "path", "a.jpg")).train
    assert (record.identity, record.camera, record.box) == (None, None, None)


def test_csv_paths_are_relative_to_the_table_not_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "set", "a.jpg")
    absolute = touch(tmp_path / "elsewhere", "b.jpg") / "b.jpg"
    path = table(tmp_path / "set", "path", "a.jpg", str(absolute))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [r.path for r in load_dataset(path).train] == [tmp_path / "set" / "a.jpg", absolute]


def test_csv_splits_and_a_test_split_is_query_and_gallery_at_once(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in "abcde"))
    rows = ("a.jpg,train", "b.jpg,query", "c.jpg,Gallery", "d.jpg,test", "e.jpg,")
    dataset = load_dataset(table(tmp_path, "path,split", *rows))
    assert names(dataset.train) == ["a.jpg", "e.jpg"]
    assert names(dataset.query) == ["b.jpg", "d.jpg"]
    assert names(dataset.gallery) == ["c.jpg", "d.jpg"]


def test_csv_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "t.csv").write_bytes("path,identity\na.jpg,é\n".encode("utf-8-sig"))
    assert load_dataset(tmp_path / "t.csv").train.values("identity") == ["é"]


@pytest.mark.parametrize("column", ["paths", "Path", "file_path", "img_path"])
def test_csv_without_a_path_column_names_the_nearest(tmp_path: Path, column: str) -> None:
    path = table(tmp_path, f"identity,{column}", "1,a.jpg")
    with pytest.raises(DataError, match=f"'path' is missing. Did you mean '{column}'"):
        load_dataset(path)


@pytest.mark.parametrize("header", ["", "path;identity", "species"])
def test_csv_without_any_such_column_lists_what_is_known(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"separated by commas\. Known: path, identity, camera"):
        load_dataset(table(tmp_path, header))


def test_csv_refuses_an_unknown_split(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"line 2: split 'galery'; did you mean 'gallery'\?"):
        load_dataset(table(tmp_path, "path,split", "a.jpg,galery"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("gone.jpg,,,,", "line 3 names a file that does not exist"),
        pytest.param("x" * 300 + ",,,,", "line 3 names a file that does not exist", id="too long"),
        pytest.param("\\" + "x" * 300 + ",,,,", "line 3 names a file that does not", id="of Windows"),
        (",1,1,1,1", "line 3 has no path"),
        ("a.jpg,1,1,,", "a crop box needs x, y, w and h"),
        ("a.jpg,1,1,0,5", "a crop box of 0 x 5 pixels is empty"),
        ("a.jpg,left,1,5,5", "could not convert string to float: 'left'"),
        ("a.jpg,nan,1,5,5", "a crop box needs x, y, w and h"),
        ("a.jpg,1,1,inf,5", "cannot convert float infinity"),
    ],
)
def test_csv_lists_a_bad_row_and_goes_on(tmp_path: Path, row: str, reason: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    dataset = load_dataset(table(tmp_path, "path,x,y,w,h", "a.jpg,,,,", row, "b.jpg,0,0,1,1"))
    assert names(dataset.train) == ["a.jpg", "b.jpg"]
    (problem,) = dataset.problems
    assert reason in problem.reason


def test_csv_rows_may_be_longer_or_shorter_than_the_header(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    dataset = load_dataset(table(tmp_path, "path,identity", "a.jpg,1,surplus", "b.jpg"))
    assert dataset.train.values("identity") == ["1", None]


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe",
        "path\na.jpg\n".encode("utf-16"),
        b'path\n"never closed' + b"x" * 200_000,
    ],
    ids=["picture", "utf-16", "endless field"],
)
def test_file_that_is_no_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    # For Python 3.14 a name that is too long is no error, but one of no file.
    said = r"t.csv cannot be read as a CSV in UTF-8|line 2 names a file that does not exist"
    with pytest.raises(DataError, match=said):
        load_dataset(tmp_path / "t.csv")


def test_csv_where_nothing_is_left_says_what_was_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image; 1 files.*line 2 names a file"):
        load_dataset(table(tmp_path, "path", "gone.jpg"))
    with pytest.raises(DataError, match=r"holds no image; 1 files.*line 2 names a file"):
        load_dataset(table(tmp_path, "path", '"never closed' + "x" * 5000))


# -- folders --------------------------------------------------------------------------------------


def test_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    dataset = load_dataset(touch(tmp_path, "b.jpg", "a.png", "notes.txt"))
    assert (dataset.layout, dataset.name) == ("folder", tmp_path.name)
    assert names(dataset.train) == ["a.png", "b.jpg"]
    assert not dataset.train.has("identity")
    assert dataset.notes == ("passed over, not images: 1 .txt",)


def test_pictures_in_formats_that_are_not_read_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "in/1.HEIC", "in/2.heic", "in/b.mp4", *(f"x.e{n}" for n in range(7)))
    assert load_dataset(tmp_path).notes == (
        "not read; save them, or frames of films, as .jpg or .png: 2 .heic, 1 .mp4",
        "passed over, not images: 1 .e0, 1 .e1, 1 .e2, 1 .e3, 1 .e4 and files of 2 more endings",
    )
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"holds no image.*as \.jpg or \.png: 2 \.heic"):
        load_dataset(tmp_path)


def test_folder_names_are_identities_and_a_note_says_so(tmp_path: Path) -> None:
    dataset = load_dataset(touch(tmp_path, "0002/a.jpg", "0002/b.jpg", "Zoë/c.jpg", "stray.jpg"))
    assert dataset.train.values("identity") == ["0002", "0002", "Zoë", None]
    assert "identities are the names of the folders" in dataset.notes[0]


def test_nearest_folder_is_the_identity(tmp_path: Path) -> None:
    dataset = load_dataset(touch(tmp_path, "herd 1/cow 7/a.jpg", "herd 2/cow 9/day 1/b.jpg"))
    assert dataset.train.values("identity") == ["cow 7", "day 1"]


def test_folders_at_the_top_are_splits(tmp_path: Path) -> None:
    root = touch(tmp_path, "Train/1/a.jpg", "query/2/b.jpg", "gallery/2/c.jpg", "other/d.jpg")
    dataset = load_dataset(root)
    assert names(dataset.train) == ["a.jpg"]
    assert dataset.test[0].values("identity") == dataset.test[1].values("identity") == ["2"]
    assert (names(dataset.query), names(dataset.gallery)) == (["b.jpg"], ["c.jpg"])


def test_test_folder_is_query_and_gallery_at_once(tmp_path: Path) -> None:
    dataset = load_dataset(touch(tmp_path, "train/a.jpg", "test/2/b.jpg", "test/2/c.jpg"))
    assert dataset.train.values("identity") == [None]
    assert names(dataset.query) == names(dataset.gallery) == ["b.jpg", "c.jpg"]


def test_splits_without_a_train_folder_can_be_scored_but_not_trained_on(tmp_path: Path) -> None:
    dataset = load_dataset(touch(tmp_path, "query/a.jpg", "gallery/b.jpg"))
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (0, 1, 1)
    with pytest.raises(DataError, match="has no training images, only query and gallery"):
        gracl.train(gracl.Config(), dataset, tmp_path / "run")


@pytest.mark.parametrize("content", [(), ("notes.txt",), ("train/readme.md",)])
def test_folder_without_images_is_refused(tmp_path: Path, content: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"holds no image;.*Images end in .bmp"):
        load_dataset(touch(tmp_path, *content))


# -- how a data set is asked for ------------------------------------------------------------------


def test_missing_path_names_the_nearest_beside_it(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"photo does not exist. did you mean 'photos'\?"):
        load_dataset(tmp_path / "photo")


def test_missing_path_with_nothing_like_it_says_no_more(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"zzz does not exist\.$"):
        load_dataset(tmp_path / "nowhere" / "zzz")


def test_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg is a file; expected a folder of images, or a \.csv"):
        load_dataset(tmp_path / "a.jpg")


def test_named_layout_overrules_what_would_be_recognised(tmp_path: Path) -> None:
    root = touch(market(tmp_path), "train/7/a.jpg")
    table(root, "path", "train/7/a.jpg")
    assert load_dataset(root).layout == "market1501"
    assert load_dataset("csv", root).train.values("identity") == [None]
    assert load_dataset("folder", root).train.values("identity") == ["7"]


@pytest.mark.parametrize("layout", ["market1501", "folder"])
def test_named_layout_of_folders_refuses_a_file(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataError, match=r"a.jpg"):
        load_dataset(layout, touch(tmp_path, "a.jpg") / "a.jpg")


def test_named_layout_needs_a_place_and_a_known_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give root=FOLDER"):
        load_dataset("market1501")
    with pytest.raises(DataError, match="did you mean 'market1501'"):
        load_dataset("market", tmp_path)


def test_folder_named_like_a_layout_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market(tmp_path / "market1501")
    monkeypatch.chdir(tmp_path)
    assert load_dataset(Path("market1501")).root == Path("market1501")


def test_working_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "herd", "a.jpg")
    monkeypatch.chdir(tmp_path / "herd")
    assert load_dataset(".").name == "herd"


def test_order_does_not_depend_on_when_files_were_made(tmp_path: Path) -> None:
    first = load_dataset(touch(tmp_path / "one", "b/2.jpg", "a/1.jpg", "b/1.jpg"))
    second = load_dataset(touch(tmp_path / "two", "b/1.jpg", "b/2.jpg", "a/1.jpg"))
    assert names(first.train) == names(second.train) == ["1.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("layout", ["market1501", "csv", "folder"])
def test_data_folder_is_never_written_to(tmp_path: Path, layout: str) -> None:
    from gracl.data.check import check_dataset
    from gracl.data.store import open_store

    if layout == "market1501":
        market(tmp_path)
    for path in ("0002/a.jpg", "0002/b.jpg", "bounding_box_train/0004_c1_a.jpg"):
        save_image(tmp_path / path)
    if layout == "csv":
        table(tmp_path, "path,identity", "0002/a.jpg,2", "0002/b.jpg,2")
    os.utime(tmp_path, (1, 1))
    before = listing(tmp_path)
    dataset = load_dataset(tmp_path)
    assert dataset.layout == layout
    assert check_dataset(dataset).usable
    assert len(open_store(dataset.train, size=(8, 8)))
    assert listing(tmp_path) == before


def test_a_folder_called_unknown_names_nobody(tmp_path):
    for name in ("ada", "Unknown"):
        save_image(tmp_path / name / "a.png")
    dataset = load_dataset(tmp_path)
    assert sorted(dataset.train.values("identity"), key=str) == [None, "ada"]
    assert any("called so is read as none: once, 'Unknown'" in note for note in dataset.notes)


def test_what_lies_beside_splits_is_said(tmp_path):
    for inner in ("train/a/1.png", "val/a/1.png", "loose.png"):
        save_image(tmp_path / inner)
    dataset = load_dataset(tmp_path)
    assert len(dataset.train) == 1
    assert "not read, for they lie beside train/: val/, loose.png" in dataset.notes


def test_an_identity_that_is_called_as_a_split_is_no_reason_to_lose_the_others(tmp_path):
    for inner in ("anna/1.png", "bob/1.png", "test/1.png"):
        save_image(tmp_path / inner)
    with pytest.raises(DataError, match=r"anna/, bob/ beside test/.*into train/"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("wrappers", ["", "one", "one/two"])
def test_splits_are_found_in_wrappers(tmp_path, wrappers):
    for split in ("train", "query", "gallery"):
        save_image(tmp_path / wrappers / split / "a" / "1.png")
    dataset = load_dataset(tmp_path)
    assert [len(part) for part in (dataset.train, dataset.query, dataset.gallery)] == [1, 1, 1]


def test_lists_that_were_not_read_are_said(tmp_path):
    for split in ("train", "test"):
        save_image(tmp_path / "MSMT17_V1" / split / "0000" / "0000_000_01_0303morning_0015_0.jpg")
    (tmp_path / "MSMT17_V1" / "list_train.txt").write_text("")
    dataset = load_dataset(tmp_path)
    assert any("list_train.txt lie there and were not read" in note for note in dataset.notes)


@pytest.mark.parametrize("nothing", ["NA", "nan", "None", "null"])
def test_what_programs_write_of_nothing_is_nothing(tmp_path, nothing):
    save_image(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(
        f"path,identity,camera,x,y,w,h\na.png,{nothing},{nothing}" + 4 * f",{nothing}"
    )
    dataset = load_dataset(tmp_path / "t.csv")
    record = dataset.train[0]
    assert (record.identity, record.camera, record.box) == (None, None, None)
    assert any("that says so is read as none" in note for note in dataset.notes)


def test_a_day_is_one_day_however_it_is_written(tmp_path):
    days = [
        "2024-5-1",
        "2024-5-1 10:15",
        "20240501",
        "2024-05-01",
        "20240501T101010",
        "2024:05:01 03:00",
    ]
    save_image(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,date\n" + "".join(f"a.png,{day}\n" for day in days))
    assert set(load_dataset(tmp_path / "t.csv").train.values("date")) == {"2024-05-01"}


def test_accents_and_backslashes_of_other_systems_are_understood(tmp_path):
    save_image(tmp_path / "sub" / "a.png")
    rows = ["path,identity", "sub\\a.png,\u00c4", "sub/a.png,A\u0308"]
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    dataset = load_dataset(tmp_path / "t.csv")
    assert dataset.train.values("identity") == ["\u00c4", "\u00c4"]
