"""Hugging Face's forms of a data set, offline. Those of the packages themselves run where they are."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import random_image, save_image
from gracl.data.huggingface import from_huggingface
from gracl.data.records import Box, Dataset, Records
from gracl.data.store import decode
from gracl.errors import ConfigError, DataError

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": ["Tara", "Ivo"]},
    "bbox": {"_type": "List", "length": 4},
}


def encoded(seed: int = 0, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    random_image(seed).save(content, kind)
    return content.getvalue()


def row(seed: int = 0, **values: Any) -> dict[str, Any]:
    return {"image": {"bytes": encoded(seed), "path": None}, "label": 0} | values


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def names(records: Records) -> list[str]:
    return [record.path.name for record in records]


def reasons(dataset: Dataset) -> list[str]:
    return [problem.reason for problem in dataset.problems]


class Features(dict[str, Any]):
    """Stands in for `datasets.Features`."""

    def to_dict(self) -> dict[str, Any]:
        return dict(self)


class Batch(list[dict[str, Any]]):
    """Stands in for a table of arrow."""

    to_pylist = list.copy


class Stand:
    """Stands in for `datasets.Dataset`: the methods that are asked of it, and no more."""

    def __init__(
        self, rows: list[dict[str, Any]], features: dict[str, Any] = FEATURES, split: object = None
    ) -> None:
        columns = dict.fromkeys(name for row in rows for name in row)
        self.features = Features({name: features.get(name, {"_type": "Value"}) for name in columns})
        self.rows, self.num_rows, self.split, self.format = rows, len(rows), split, "python"

    def with_format(self, kind: str) -> Stand:
        other = Stand(self.rows, self.features)
        other.format = kind
        return other

    def iter(self, batch_size: int) -> Iterator[Batch]:
        assert self.format == "arrow", "images would be decoded"
        for start in range(0, self.num_rows, batch_size):
            yield Batch(dict(row) for row in self.rows[start : start + batch_size])


# -- image folders --------------------------------------------------------------------------------


def test_folders_are_labels_and_splits(tmp_path: Path) -> None:
    root = touch(tmp_path / "cats", "train/Tara/1.jpg", "train/2.jpg", "validation/Ivo/test 3.jpg")
    dataset = from_huggingface(root)
    assert (dataset.name, dataset.layout) == ("cats", "huggingface")
    assert (names(dataset.train), dataset.train.values("identity")) == (
        ["2.jpg", "1.jpg"],
        [None, "Tara"],
    )
    assert (names(dataset.query), dataset.query.values("identity")) == (["test 3.jpg"], ["Ivo"])
    assert dataset.notes == (
        "identities are the names of the folders that images lie in",
        "the split validation is the test part",
    )


def test_validation_is_left_out_beside_a_test_part(tmp_path: Path) -> None:
    dataset = from_huggingface(touch(tmp_path, "train/a/1.jpg", "val/a/2.jpg", "test/b/3.jpg"))
    assert (names(dataset.train), names(dataset.query)) == (["1.jpg"], ["3.jpg"])
    assert "the split validation is left out: there is a test part beside it" in dataset.notes


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_at_the_top_names_images_of_all_splits(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, "train/1.jpg", "test/2.jpg", "train/unnamed.jpg")
    rows = [
        {"file_name": "train/1.jpg", "label": "Tara", "location": "ridge"},
        {"file_name": "test/2.jpg", "label": "Ivo", "location": "ford"},
        {"file_name": "test/gone.jpg", "label": "Ivo", "location": "ford"},
        {"file_name": "", "label": "Ivo", "location": "ford"},
    ]
    lines = [",".join(rows[0]), *(",".join(r.values()) for r in rows)]
    if kind == "jsonl":
        lines = [json.dumps(r) for r in rows] + [""]
    write(tmp_path / f"metadata.{kind}", "\n".join(lines))
    dataset = from_huggingface(tmp_path)
    assert [(r.path.name, r.identity, r.camera) for r in dataset.train] == [("1.jpg", "Tara", "ridge")]
    assert [(r.path.name, r.identity, r.camera) for r in dataset.gallery] == [("2.jpg", "Ivo", "ford")]
    assert any("a row without a file_name" in reason for reason in reasons(dataset))
    assert any("does not exist" in reason for reason in reasons(dataset))
    assert dataset.notes == (
        "1 images are named in no metadata file and left out",
        "the column 'label' is read as the identity",
        "the column 'location' is read as the camera",
    )


def test_metadata_in_each_split_names_images_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "train/1.jpg", "test/1.jpg")
    write(tmp_path / "train/metadata.csv", "file_name,who\n1.jpg,Tara\n")
    write(tmp_path / "test/metadata.csv", "file_name,who\n1.jpg,Ivo\n")
    monkeypatch.chdir(tmp_path)
    dataset = from_huggingface(".", identity="who")
    assert dataset.train[0].path == tmp_path / "train/1.jpg"
    assert dataset.query[0].path == tmp_path / "test/1.jpg"
    assert (dataset.train[0].identity, dataset.query[0].identity) == ("Tara", "Ivo")
    with pytest.raises(DataError, match="no column 'whom'; did you mean 'who'"):
        from_huggingface(".", identity="whom")


def test_column_split_counts_where_folders_tell_none(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    write(tmp_path / "metadata.csv", "file_name,split\n1.jpg,train\n2.jpg,test\n")
    dataset = from_huggingface(tmp_path)
    assert (names(dataset.train), names(dataset.query)) == (["1.jpg"], ["2.jpg"])


def test_column_split_is_not_read_where_folders_tell(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "test/2.jpg")
    rows = "train/1.jpg,fold 1\ntest/2.jpg,fold 2\n"
    write(tmp_path / "metadata.csv", f"file_name,split\n{rows}")
    dataset = from_huggingface(tmp_path)
    assert (names(dataset.train), names(dataset.query)) == (["1.jpg"], ["2.jpg"])
    assert dataset.notes == ("the column 'split' is not read: files and folders tell the splits",)


@pytest.mark.parametrize(
    "content", ['{"file_name": ', "[1, 2]", "7", '[["file_name", "a.jpg"]]', "[" * 100_000]
)
def test_metadata_that_is_broken_is_refused(tmp_path: Path, content: str) -> None:
    write(tmp_path / "metadata.jsonl", content)
    with pytest.raises(DataError, match=r"metadata\.jsonl cannot be read in UTF-8"):
        from_huggingface(tmp_path)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        from_huggingface(tmp_path)


# -- objects --------------------------------------------------------------------------------------


def test_bytes_become_files_in_the_cache_named_by_their_content(cache: Path) -> None:
    dataset = from_huggingface(Stand([row(1), row(2, label=1), row(1)]))
    paths = [record.path for record in dataset.train]
    assert paths[0] == paths[2] != paths[1]
    assert all(path.is_relative_to(cache / "huggingface") and path.suffix == ".png" for path in paths)
    assert paths[0].read_bytes() == encoded(1)
    assert decode(dataset.train[0], (12, 8)).transpose(1, 2, 0).tolist() == [
        [list(random_image(1).getpixel((x, y))) for x in range(8)]  # type: ignore[arg-type]
        for y in range(12)
    ]
    assert len([p for p in cache.rglob("*") if p.is_file()]) == 2
    assert dataset.train.values("identity") == ["Tara", "Ivo", "Tara"]


def test_file_that_is_there_is_not_written_again_and_half_a_one_is() -> None:
    path = from_huggingface(Stand([row()])).train[0].path
    os.utime(path, (1, 1))
    from_huggingface(Stand([row()]))
    assert path.stat().st_mtime == 1
    path.write_bytes(b"half")
    from_huggingface(Stand([row()]))
    assert path.read_bytes() == encoded()


def test_cache_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRACL_CACHE", str(touch(tmp_path, "file") / "file"))
    with pytest.raises(DataError, match=r"cannot write .*GRACL_CACHE=FOLDER"):
        from_huggingface(Stand([row()]))


def test_ending_is_that_of_the_content() -> None:
    cell = {"bytes": encoded(0, "JPEG"), "path": "photo.png"}
    assert from_huggingface(Stand([{"image": cell}])).train[0].path.suffix == ".jpeg"


def test_images_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    path = str(save_image(tmp_path / "a.png"))
    cells = [
        {"bytes": b"no image", "path": "x"},
        None,
        {"bytes": None, "path": "gone.png"},
        {"path": path},
    ]
    dataset = from_huggingface(Stand([{"image": cell} for cell in cells]))
    assert [str(record.path) for record in dataset.train] == [path]
    assert reasons(dataset) == [
        "dataset, row 0: bytes that are no image: UnidentifiedImageError",
        "dataset, row 1: no image",
        "dataset, row 2 names a file that does not exist",
    ]


@pytest.mark.parametrize(("label", "identity"), [(1, "Ivo"), (-1, None), (None, None), (5, "5")])
def test_class_label_becomes_its_name(label: int | None, identity: str | None) -> None:
    assert from_huggingface(Stand([row(label=label)])).train.values("identity") == [identity]


def test_other_columns_mean_what_they_mean_in_a_table() -> None:
    values = {
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "camera": "east",
        "path": "old.jpg",
        "date": "2024-05-01 9:00",
    }
    (record,) = (dataset := from_huggingface(Stand([row(**values)]))).train
    assert (record.box, record.camera, record.date) == (Box(1, 2, 3, 4), "east", "2024-05-01")
    assert record.path.suffix == ".png"
    assert "the column 'label' is read as the identity" in dataset.notes


def test_dictionary_of_splits() -> None:
    parts = {"train": [row(0)], "validation": [row(1)], "test": [row(2), row(3)]}
    dataset = from_huggingface({split: Stand(rows) for split, rows in parts.items()}, name="lynxes")
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (1, 2, 2)
    assert dataset.name == "lynxes"
    assert "the split validation is left out" in dataset.notes[0]


def test_object_knows_its_own_split() -> None:
    dataset = from_huggingface(Stand([row()], split="test"))
    assert (len(dataset.train), len(dataset.query)) == (0, 1)


def test_two_columns_of_images_need_a_word() -> None:
    features = FEATURES | {"mask": {"_type": "Image"}}
    stand = Stand([row(mask={"bytes": encoded(9), "path": None})], features)
    with pytest.raises(DataError, match=r"columns image, mask looks like the images; say image="):
        from_huggingface(stand)
    assert from_huggingface(stand, image="mask").train[0].path.read_bytes() == encoded(9)
    with pytest.raises(DataError, match="no column 'masks'; did you mean 'mask'"):
        from_huggingface(stand, image="masks")
    with pytest.raises(DataError, match="no column looks like the images"):
        from_huggingface(Stand([{"text": "a"}]))


class Streaming:
    """Stands in for `datasets.IterableDataset`."""

    def with_format(self) -> None: ...


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Streaming(), r"found a Streaming; .*load without streaming=True"),
        (7, r"found a int; expected a folder, a parquet file, or a Dataset"),
        ("user/lynxes", r"nothing is downloaded.*hf download user/lynxes --repo-type dataset"),
        ("nowhere", r"nowhere does not exist"),
        (__file__, r"is a file; expected a folder or a \.parquet file"),
    ],
)
def test_what_cannot_be_read_is_refused(source: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_huggingface(source)


# -- parquet --------------------------------------------------------------------------------------


def test_parquet_without_pyarrow_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'gracl\[parquet\]'"):
        from_huggingface(touch(tmp_path, "data/train-00000-of-00001.parquet"))


def parquet(path: Path, rows: list[dict[str, Any]], features: object = FEATURES) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(rows)
    if features:
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(about)
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("pyarrow.parquet").write_table(table, path)
    return path


def test_parquet_files_are_splits_by_their_names(tmp_path: Path) -> None:
    parquet(tmp_path / "data/train-00000-of-00002.parquet", [row(0), row(1, label=1)])
    parquet(tmp_path / "data/train-00001-of-00002.parquet", [row(2, label=-1)])
    parquet(tmp_path / "data/test-00000-of-00001.parquet", [row(3)])
    before = sorted(tmp_path.rglob("*"))
    dataset = from_huggingface(tmp_path)
    assert dataset.train.values("identity") == ["Tara", "Ivo", None]
    assert dataset.query.values("identity") == ["Tara"]
    assert dataset.query[0].path.read_bytes() == encoded(3)
    assert sorted(tmp_path.rglob("*")) == before


def test_parquet_without_a_word_of_datasets(tmp_path: Path) -> None:
    rows = [{"picture": encoded(1), "identity": 3.0, "split": "test"}]
    dataset = from_huggingface(parquet(tmp_path / "part.parquet", rows, features=None))
    assert dataset.query.values("identity") == ["3"]
    save_image(tmp_path / "images/a.png")
    file = parquet(tmp_path / "b.parquet", [{"path": "images/a.png", "identity": "7"}], features=None)
    assert from_huggingface(file).train[0].path == tmp_path / "images/a.png"


def test_parquet_by_the_hub_lies_in_folders_of_splits(tmp_path: Path) -> None:
    parquet(tmp_path / "default/train/0000.parquet", [row(0)])
    parquet(tmp_path / "default/validation/0000.parquet", [row(1)])
    dataset = from_huggingface(tmp_path)
    assert (len(dataset.train), len(dataset.query)) == (1, 1)


def test_more_rows_than_a_batch(tmp_path: Path) -> None:
    rows = [row(i % 5, label=i % 2) for i in range(600)]
    dataset = from_huggingface(parquet(tmp_path / "train.parquet", rows))
    assert dataset.train.values("identity") == ["Tara", "Ivo"] * 300


def test_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as parquet"):
        from_huggingface(tmp_path)


def test_damage_behind_the_first_rows_is_named(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", [row(at) for at in range(9)])
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)  # of the first page; the schema stands at the end
    file.write_bytes(content)
    with pytest.raises(
        DataError, match=r"a\.parquet cannot be read as parquet: .+ Write or fetch it anew"
    ):
        from_huggingface(file)


@pytest.mark.parametrize(
    "note",
    [
        "[",
        "[]",
        "3",
        '{"info": []}',
        '{"info": {"features": "label"}}',
        '{"info": {"features": {"x": 1}}}',
    ],
)
def test_a_note_that_datasets_did_not_write_is_passed_over(tmp_path: Path, note: str) -> None:
    file = parquet(tmp_path / "a.parquet", [{"picture": encoded(1), "identity": "Tara"}], features=None)
    parquets = pytest.importorskip("pyarrow.parquet")
    table = parquets.read_table(file)
    parquets.write_table(table.replace_schema_metadata({"huggingface": note}), file)
    assert from_huggingface(file).train.values("identity") == ["Tara"]


@pytest.mark.parametrize("names", [3, None, {}, "Tara"])
def test_a_label_without_a_list_of_names_is_kept(tmp_path: Path, names: object) -> None:
    features = {"picture": {"_type": "Image"}, "identity": {"_type": "ClassLabel", "names": names}}
    rows = [{"picture": encoded(1), "identity": 1}]
    dataset = from_huggingface(parquet(tmp_path / "a.parquet", rows, features=features))
    assert dataset.train.values("identity") == ["1"]


def test_an_image_column_that_only_the_note_has_is_none(tmp_path: Path) -> None:
    features = {"gone": {"_type": "Image"}}
    file = parquet(tmp_path / "a.parquet", [{"picture": encoded(1)}], features=features)
    assert len(from_huggingface(file).train) == 1


def test_an_empty_path_beside_a_file_name_does_not_hide_it(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    write(tmp_path / "metadata.jsonl", '{"path": "", "file_name": "a.jpg"}')
    assert names(from_huggingface(tmp_path).train) == ["a.jpg"]


def test_objects_of_datasets_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["Tara", "Ivo"])}
    )
    path = str(save_image(tmp_path / "a.png", 7))
    rows = {
        "image": [row(0)["image"], {"bytes": None, "path": path}, row(2)["image"]],
        "label": [0, 1, -1],
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    dataset = from_huggingface(whole)
    assert dataset.train.values("identity") == ["Tara", "Ivo", None]
    assert str(dataset.train[1].path) == path
    assert dataset.train[2].path.read_bytes() == encoded(2)
    split = datasets.DatasetDict(train=whole.select([2]), test=whole.select([1, 0]))
    dataset = from_huggingface(split)
    assert dataset.query.values("identity") == ["Ivo", "Tara"]
    whole.to_parquet(tmp_path / "test.parquet")  # embeds what was a path
    dataset = from_huggingface(tmp_path / "test.parquet")
    assert dataset.query.values("identity") == ["Tara", "Ivo", None]
    assert dataset.query[1].path.read_bytes() == Path(path).read_bytes()
    with pytest.raises(DataError, match="load without streaming=True"):
        from_huggingface(whole.to_iterable_dataset())
