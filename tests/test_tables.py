"""DataFrames, lists of dicts and other people's column names; CSV itself is in test_readers.py."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gracl.data.records import Box, Dataset
from gracl.data.tables import Tally, as_day, as_identity, as_text, from_dataframe, pixel_box, read_csv
from gracl.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def read(root: Path, **columns: Any) -> Dataset:
    """One row, or a row for each value of a list."""
    n = len(columns["path"]) if isinstance(columns.get("path"), list) else 1
    rows = [{name: v[i] if n > 1 else v for name, v in columns.items()} for i in range(n)]
    return from_dataframe(rows, root=root)


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (3, "3"),
        (3.5, "3.5"),
        (np.float32(3), "3"),
        (np.int64(-1), "-1"),
        ("007", "007"),
        ("3.0", "3.0"),
        ("  ", None),
        (None, None),
        (float("nan"), None),
        (np.float64("nan"), None),
        (np.datetime64("NaT", "s"), None),
        (np.datetime64("2024-05-01"), "2024-05-01"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, 10, 15), "2024-05-01 10:15:00"),
        (True, "True"),
        (float("inf"), "inf"),
    ],
)
def test_value_as_text(value: object, text: str | None) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize("name", ["NAType", "NaTType"])
def test_signs_of_nothing_are_known_by_the_name_of_their_type(name: str) -> None:
    def refuse(*_: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")  # what pandas.NA does

    assert as_text(type(name, (), {"__eq__": refuse, "__bool__": refuse})()) is None


@pytest.mark.parametrize(
    ("given", "day"),
    [
        ("2024-05-01 10:15:00", "2024-05-01"),
        ("2024-05-01T23:30:00Z", "2024-05-01"),
        ("2024-05-01T23:30:00.123456+02:00", "2024-05-01"),
        ("2024:05:01 10:15:00", "2024-05-01"),
        ("2024/5/1 9:05", "2024-05-01"),
        ("5/1/2024 3:15:00 PM", "5/1/2024"),
        ("01 May 2024, 10:15", "01 May 2024"),
        (datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.UTC), "2024-05-01"),
    ],
)
def test_time_of_day_is_left_out_of_a_date_and_a_note_says_so(given: object, day: str) -> None:
    tally = Tally()
    assert as_day(given, tally) == day
    (note,) = tally.notes()
    assert note.startswith("the time of day is left out of the date: once")


@pytest.mark.parametrize("day", ["2024-05-01", "2024-05-01 00:00:00", datetime.datetime(2024, 5, 1)])
def test_midnight_is_a_day_without_a_time(day: object) -> None:
    tally = Tally()
    assert as_day(day, tally) == "2024-05-01"
    assert tally.notes() == []


@pytest.mark.parametrize("text", ["spring", "2024", "week 12", "1/5/2024"])
def test_date_without_a_time_stays_as_it_is_written(text: str) -> None:
    tally = Tally()
    assert as_day(text, tally) == text
    assert tally.notes() == []


@pytest.mark.parametrize("text", ["Wed May 1 10:00:00 2024", "10:15 on 2024-05-01", "99999999101500"])
def test_time_that_cannot_be_told_from_its_day_is_kept_and_said(text: str) -> None:
    tally = Tally()
    assert as_day(text, tally) == text
    assert "kept whole" in tally.notes()[0]


@pytest.mark.parametrize("text", ["unknown", "Unknown"])
def test_unknown_is_no_identity(text: str) -> None:
    tally = Tally()
    assert as_identity(text, tally) is None
    assert tally.notes() == [f"an identity that is called so is read as none: once, '{text}'"]


# -- boxes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bbox",
    [
        [1, 2.4, 30, 40.6],
        (1.0, 2.4, 30.0, 40.6),
        np.array([1, 2.4, 30, 40.6]),
        "[1, 2.4, 30, 40.6]",
        "(1, 2.4, 30, 40.6)",
        "[ 1.   2.4 30.  40.6]",
        "1 2.4 30 40.6",
    ],
)
def test_bbox_in_one_column(root: Path, bbox: object) -> None:
    (record,) = read(root, path="a.jpg", bbox=bbox).train
    assert record.box == Box(1, 2, 30, 41)


@pytest.mark.parametrize("bbox", [None, float("nan"), "", [], "[]"])
def test_bbox_that_is_empty_is_the_whole_image(root: Path, bbox: object) -> None:
    (record,) = read(root, path="a.jpg", bbox=bbox).train
    assert record.box is None


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([1, 2, 3], "row 0: a bbox is four numbers x, y, w, h; found [1, 2, 3]"),
        ([1, 2, 3, None], "row 0: float() argument must be"),
        (["a", 2, 3, 4], "row 0: could not convert string to float: 'a'"),
        (5.0, "row 0: a bbox is four numbers"),
        ([1, 2, 0, 4], "row 0: a crop box of 0 x 4 pixels is empty"),
        ([0.1, 0.2, 0.3, 0.4], "its numbers look relative to the size of the image"),
        ([float("nan")] * 4, "row 0: cannot convert float NaN"),
    ],
)
def test_bbox_that_is_none_is_a_problem(root: Path, bbox: object, reason: str) -> None:
    dataset = read(root, path=["a.jpg", "b.jpg"], bbox=[bbox, None])
    assert [r.path.name for r in dataset.train] == ["b.jpg"]
    (problem,) = dataset.problems
    assert reason in problem.reason


def test_four_columns_go_before_bbox_and_a_lone_pair_beside_it_is_left_alone(root: Path) -> None:
    both = read(root, path="a.jpg", x=1, y=2, w=3, h=4, bbox=[5, 6, 7, 8])
    assert both.train[0].box == Box(1, 2, 3, 4)
    assert both.notes == ("columns left alone: bbox",)
    place = read(root, path="a.jpg", x=17.2, y=49.1, bbox=[5, 6, 7, 8])
    assert place.train[0].box == Box(5, 6, 7, 8)
    assert place.notes == ("columns left alone: x, y",)


def test_csv_takes_a_bbox_column_too(root: Path) -> None:
    (root / "t.csv").write_text('path,bbox\na.jpg,"[1, 2, 3, 4]"\nb.jpg,\n', encoding="utf-8")
    assert [r.box for r in read_csv(root / "t.csv").train] == [Box(1, 2, 3, 4), None]


def test_half_a_pixel_is_not_called_relative() -> None:
    with pytest.raises(ValueError, match=r"is empty$"):
        pixel_box([10, 20, 0.3, 4])


# -- columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "column"),
    [
        ("path", "image_path"),
        ("path", "file"),
        ("path", "filename"),
        ("path", "file_name"),
        ("identity", "label"),
        ("identity", "individual_id"),
        ("identity", "name"),
        ("camera", "camera_id"),
        ("camera", "cam"),
        ("camera", "location"),
        ("date", "timestamp"),
        ("sequence", "seq_id"),
    ],
)
def test_other_names_are_read_and_said(root: Path, fact: str, column: str) -> None:
    row = {"path": "a.jpg"} if fact != "path" else {}
    dataset = from_dataframe([row | {column: "a.jpg"}], root=root)
    (record,) = dataset.train
    assert str(getattr(record, fact)).endswith("a.jpg")
    assert dataset.notes == (f"the column '{column}' is read as the {fact}",)


def test_own_name_goes_before_others(root: Path) -> None:
    dataset = read(root, path="a.jpg", identity="Tara", label="lynx")
    assert dataset.train[0].identity == "Tara"
    assert dataset.notes == ("columns left alone: label",)


def test_two_that_might_be_meant_are_both_left_alone(root: Path) -> None:
    dataset = read(root, path="a.jpg", label="lynx", name="Tara", camera_id=3, location="ridge")
    (record,) = dataset.train
    assert (record.identity, record.camera) == (None, None)
    assert "each of the columns label, name might be the identity; none is read" in dataset.notes[0]
    assert "Rename the one that is to 'camera'" in dataset.notes[1]


def test_two_that_might_be_the_path_are_an_error(root: Path) -> None:
    with pytest.raises(DataError, match=r"filename, file might be the path. Rename the one"):
        read(root, filename="a.jpg", file="a.jpg")


def test_column_that_is_there_twice_is_an_error(root: Path) -> None:
    (root / "t.csv").write_text("path,identity,identity\na.jpg,1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="has the column 'identity' twice"):
        read_csv(root / "t.csv")


def test_metadata_of_wildlife_datasets(root: Path) -> None:
    (root / "metadata.csv").write_text(
        "image_id,identity,path,date,orientation,species,bbox,split\n"
        '0,Tara,a.jpg,2019-07-02 11:05:13,left,lynx,"[1.0, 2.0, 30.0, 40.0]",train\n'
        "1,unknown,b.jpg,,right,lynx,,train\n"
        "2,Tara,c.jpg,2019-08-02,right,lynx,,test\n",
        encoding="utf-8",
    )
    dataset = read_csv(root)
    assert dataset.train.values("identity") == ["Tara", None]
    assert dataset.train.values("date") == ["2019-07-02", None]
    assert dataset.train[0].box == Box(1, 2, 30, 40)
    assert dataset.query.values("date") == ["2019-08-02"]
    assert dataset.notes == (
        "columns left alone: image_id, orientation, species",
        "the time of day is left out of the date: once, '2019-07-02 11:05:13'",
        "an identity that is called so is read as none: once, 'unknown'",
    )


# -- tables ---------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_root_or_the_working_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert from_dataframe([{"path": "a.jpg"}], root=str(root)).train[0].path == root / "a.jpg"
    monkeypatch.chdir(root)
    dataset = from_dataframe([{"path": "a.jpg"}], name="lynxes")
    assert (dataset.train[0].path, dataset.name, dataset.layout) == (
        Path("a.jpg"),
        "lynxes",
        "dataframe",
    )
    with pytest.raises(DataError, match="nowhere does not exist"):
        from_dataframe([{"path": "a.jpg"}], root=root / "nowhere")


def test_rows_that_cannot_be_used_are_listed(root: Path) -> None:
    paths = (None, "gone.jpg", "a.jpg", 300 * "x")
    dataset = from_dataframe([{"path": path} for path in paths], root=root)
    assert [(p.path.name, p.reason) for p in dataset.problems] == [
        ("dataframe", "row 0 has no path"),
        ("gone.jpg", "row 1 names a file that does not exist"),
        (300 * "x", "row 3 names a file that does not exist"),
    ]


def test_unknown_split_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match=r"row 0: split 'database'; .*Known: gallery, query, test"):
        read(root, path="a.jpg", split="database")


def test_missing_path_names_what_is_there(root: Path) -> None:
    with pytest.raises(DataError, match=r"'path' is missing. Did you mean 'Path'"):
        read(root, Path="a.jpg")


class Lazy:
    """Stands in for a LazyFrame."""

    def collect(self) -> None: ...


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Lazy(), r"found a Lazy;.* A LazyFrame becomes one by \.collect\(\)"),
        ("rows.csv", "found a str; expected a DataFrame of pandas or polars, or a list of dicts$"),
        ([1, 2], "found a list; expected a DataFrame"),
        ({"path": ["a.jpg"]}, "found a dict; expected a DataFrame"),
    ],
)
def test_what_is_no_table_is_refused(table: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_dataframe(table)


class Frame:
    """Stands in for a DataFrame of pandas, or of polars, by the methods that are asked of each."""

    def __init__(self, kind: str, rows: list[dict[str, object]]) -> None:
        self.rows, self.columns = rows, list(rows[0])
        setattr(self, {"pandas": "itertuples", "polars": "iter_rows"}[kind], getattr(self, f"_{kind}"))

    def _pandas(self, index: bool, name: None) -> Any:
        assert (index, name) == (False, None)
        return (tuple(row.values()) for row in self.rows)

    def _polars(self, named: bool) -> Any:
        assert named
        return iter(self.rows)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_are_known_by_their_methods(root: Path, kind: str) -> None:
    frame = Frame(kind, [{"path": "a.jpg", "identity": 3.0}, {"path": "b.jpg", "identity": None}])
    assert from_dataframe(frame, root=root).train.values("identity") == ["3", None]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_frames_of_the_packages_themselves(root: Path, package: str) -> None:
    module = pytest.importorskip(package)
    moment = datetime.datetime(2024, 5, 1, 10, 15)
    frame = module.DataFrame(
        {
            "path": ["a.jpg", "b.jpg", "c.jpg"],
            "identity": [3, None, 12],
            "date": [moment, None, datetime.datetime(2024, 5, 2)],
            "bbox": [[1.0, 2.0, 3.0, 4.0], None, [5.2, 6.0, 7.0, 8.0]],
            "camera": ["east", None, "west"],
        }
    )
    dataset = from_dataframe(frame, root=root)
    assert dataset.train.values("identity") == ["3", None, "12"]
    assert dataset.train.values("date") == ["2024-05-01", None, "2024-05-02"]
    assert dataset.train.values("camera") == ["east", None, "west"]
    assert [r.box for r in dataset.train] == [Box(1, 2, 3, 4), None, Box(5, 6, 7, 8)]
    assert dataset.notes == ("the time of day is left out of the date: once, '2024-05-01 10:15:00'",)


def test_nullable_and_categorical_columns_of_pandas(root: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "path": pandas.array(["a.jpg", "b.jpg", None], dtype="string"),
            "identity": pandas.array([3, None, 4], dtype="Int64"),
            "camera": pandas.Categorical(["east", None, "west"]),
            "date": pandas.to_datetime(["2024-05-01", None, None]),
            7: ["a column", "named by", "a number"],
        },
        index=[10, 20, 30],
    )
    dataset = from_dataframe(frame, root=root)
    assert dataset.train.values("identity") == ["3", None]
    assert dataset.train.values("camera") == ["east", None]
    assert dataset.train.values("date") == ["2024-05-01", None]
    assert [p.reason for p in dataset.problems] == ["row 2 has no path"]
    assert dataset.notes == ("columns left alone: 7",)
