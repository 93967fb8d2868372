"""Every published layout in miniature, as it lies on people's disks, with the traps among it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from conftest import save_image
from gracl.data import protocols, readers
from gracl.data.check import check_dataset
from gracl.data.layouts import LAYOUTS, Layout, by_name
from gracl.data.parts import SPLITS, Tree, images_below
from gracl.data.readers import load_dataset
from gracl.data.records import Dataset, Problem, Records
from gracl.errors import DataError

THREE = ("bounding_box_train", "query", "bounding_box_test")

Tell = Callable[[Path], Path]
"""Writes a miniature of a layout into a folder, which it gives back."""


def images(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        save_image(root / name, seed)
    return root


def lines(root: Path, name: str, *text: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(text) + "\n", encoding="utf-8")
    return root


def facts(records: Records) -> list[tuple[str, str | None, str | None]]:
    return [(record.path.name, record.identity, record.camera) for record in records]


def note(dataset: Dataset, part: str) -> str:
    """The one note that has this in it."""
    (found,) = (text for text in dataset.notes if part in text)
    return found


# -- the layouts ----------------------------------------------------------------------------------


def three(root: Path, train: str, query: str, gallery: str) -> Path:
    return images(
        root, *(f"{folder}/{name}" for folder, name in zip(THREE, (train, query, gallery), strict=True))
    )


def market(root: Path) -> Path:
    three(root, "0002_c1s1_000451_03.jpg", "0007_c2s1_000100_00.jpg", "0007_c5s1_000200_00.jpg")
    return images(
        root, "bounding_box_test/0000_c1s1_000300_00.jpg", "bounding_box_test/-1_c1s1_000400_00.jpg"
    )


def market_500k(root: Path) -> Path:
    return images(market(root), "images/0000_c3s1_000001_00.jpg", "images/whatever.jpg")


def duke(root: Path) -> Path:
    return three(root, "0001_c2_f0046182.jpg", "0005_c8_f0000001.jpg", "0005_c1_f0000002.jpg")


def msmt(root: Path, train: str = "train", test: str = "test") -> Path:
    images(
        root / train,
        "0000/0000_000_01_0303morning_0008_0.jpg",
        "0000/0000_001_14_0303noon_0009_1_ex.jpg",
    )
    images(
        root / test, "0000/0000_002_03_0303morning_0016_2.jpg", "0000/0000_003_15_0303noon_0018_2.jpg"
    )
    lines(root, "list_train.txt", "0000/0000_000_01_0303morning_0008_0.jpg 0")
    lines(root, "list_val.txt", "0000/0000_001_14_0303noon_0009_1_ex.jpg 0")
    lines(root, "list_query.txt", "0000/0000_002_03_0303morning_0016_2.jpg 0")
    return lines(root, "list_gallery.txt", "0000/0000_003_15_0303noon_0018_2.jpg 0")


def msmt_v2(root: Path) -> Path:
    return msmt(root, "mask_train_v2", "mask_test_V2")  # as it is written in some copies


def msmt_repacked(root: Path) -> Path:
    three(root / "MSMT17_V1", "0000_c1_0000.jpg", "1041_c15_0001.jpg", "1041_c2_0002.jpg")
    return root


def personx(root: Path) -> Path:
    three(root / "PersonX/subset1", "0001_c3s1_01.jpg", "0002_c12s1_07.jpg", "0002_c10s1_09.jpg")
    return root


def veri(root: Path) -> Path:
    return images(
        root,
        "image_train/0001_c001_00016450_0.jpg",
        "image_query/0002_c002_00030600_0.jpg",
        "image_test/0002_c020_00030605_1.jpg",
    )


def vehicleid(root: Path) -> Path:
    images(root / "image", *(f"{number:07d}.jpg" for number in range(6)))
    split = root / "train_test_split"
    lines(split, "train_list.txt", "0000000 11", "0000001 11")
    lines(split, "test_list_800.txt", "0000002 12", "0000003 12")
    lines(split, "test_list_1600.txt", "0000002 12", "0000003 12", "0000004 13")
    lines(split, "test_list_2400.txt", *(f"000000{n} {12 + n // 4}" for n in range(2, 6)))
    return root


def cuhk03(root: Path, variant: str = "detected") -> Path:
    three(root / variant, "0001_c1_01.png", "0002_c1_02.jpg", "0002_c2_03.png")
    return root


def cuhk03_labeled(root: Path) -> Path:
    return cuhk03(root, "labelled")


def mars(root: Path) -> Path:
    return images(
        root,
        "bbox_train/0001/0001C1T0001F001.jpg",
        "bbox_train/0001/0001C1T0001F002.jpg",
        "bbox_train/0001/0001C2T0001F001.jpg",
        "bbox_test/0000/0000C4T0001F001.jpg",
        "bbox_test/0002/0002C1T0001F001.jpg",
        "bbox_test/0002/0002C1T0001F002.jpg",
        "bbox_test/0002/0002C6T0003F001.jpg",
        "bbox_test/00-1/00-1C1T0001F001.jpg",
    )


def market_style(root: Path) -> Path:
    return three(root, "7_c1_a.jpg", "8_c2_b.jpg", "8_c3_c.jpg")


MINIATURES: dict[str, Tell] = {
    "market1501": market,
    "market1501+500k": market_500k,
    "dukemtmc-reid": duke,
    "msmt17-v1": msmt,
    "msmt17-v1-train": msmt,
    "msmt17-v2": msmt_v2,
    "msmt17-v2-train": msmt_v2,
    "msmt17-repacked": msmt_repacked,
    "personx": personx,
    "veri776": veri,
    "vehicleid-800": vehicleid,
    "vehicleid-1600": vehicleid,
    "vehicleid-2400": vehicleid,
    "cuhk03-np-detected": cuhk03,
    "cuhk03-np-labeled": cuhk03_labeled,
    "mars": mars,
    "market-style": market_style,
}
ONLY_BY_NAME = {
    "market1501+500k",
    "msmt17-v1-train",
    "msmt17-v2-train",
    "vehicleid-1600",
    "vehicleid-2400",
}
OWN_WRAPPERS = {"msmt17-repacked": 1, "personx": 2, "cuhk03-np-detected": 1, "cuhk03-np-labeled": 1}
"""Folders that a miniature is wrapped in already, to be told by their names."""
RECOGNISED = [name for name in MINIATURES if name not in ONLY_BY_NAME]


def test_every_row_of_the_table_has_a_miniature() -> None:
    assert sorted(MINIATURES) == sorted(layout.name for layout in LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_row_of_the_table_is_sound(layout: Layout) -> None:
    assert {source.split for source in layout.sources} <= set(SPLITS)
    assert set(layout.counts) <= set(SPLITS)
    assert protocols.find(layout.protocol).name == layout.protocol
    assert re.fullmatch(r"[\w.+-]*", layout.title), "a title becomes the name of a run's folder"
    assert layout.counted in ("images", "tracklets")


@pytest.mark.parametrize("wrapper", ["", "inner", "outer/inner"])
@pytest.mark.parametrize("name", RECOGNISED)
def test_layout_is_recognised_in_whatever_it_is_wrapped(
    tmp_path: Path, name: str, wrapper: str
) -> None:
    own = OWN_WRAPPERS.get(name, 0)
    wrapper = "/".join(wrapper.split("/")[own:])
    MINIATURES[name](tmp_path / "my data" / wrapper)
    dataset = load_dataset(tmp_path / "my data")
    assert dataset.layout == name
    assert dataset.problems == ()
    assert len(dataset.train) > 0
    assert len(dataset.query) > 0
    assert len(dataset.gallery) > 0


@pytest.mark.parametrize("name", MINIATURES)
def test_layout_can_be_asked_for_by_name(tmp_path: Path, name: str) -> None:
    dataset = load_dataset(name, root=MINIATURES[name](tmp_path / "x"))
    assert (dataset.layout, dataset.problems) == (name, ())
    report = check_dataset(dataset)
    assert report.usable
    assert report.problems == ()


@pytest.mark.parametrize("name", RECOGNISED)
def test_layout_with_debris_among_it_reads_the_same(tmp_path: Path, name: str) -> None:
    root = MINIATURES[name](tmp_path / "x")
    expected = load_dataset(root)
    for folder in [root, *(p for p in root.rglob("*") if p.is_dir())]:
        for debris in ("Thumbs.db", ".DS_Store", "._0002_c1s1_000451_03.jpg", "readme.txt"):
            (folder / debris).touch()
        for debris in ("__MACOSX", "@eaDir", ".thumbnails"):
            images(folder / debris, "0003_c1s1_000001_00.jpg", "0003C1T0001F001.jpg")
    MINIATURES[name](root / "__MACOSX")
    assert load_dataset(root) == expected


@pytest.mark.parametrize("name", MINIATURES)
def test_layout_is_never_written_to(tmp_path: Path, name: str) -> None:
    root = MINIATURES[name](tmp_path / "x")
    before = [(p, p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))]
    load_dataset(name, root)
    assert [(p, p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))] == before


@pytest.mark.parametrize("name", MINIATURES)
def test_layout_that_is_not_there_names_what_is_missing(tmp_path: Path, name: str) -> None:
    images(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"no folder below .* holds .*Give the folder that holds them"):
        load_dataset(name, tmp_path)


# -- Market-1501 and those that share its folders -------------------------------------------------


def test_market_reads_as_the_published_rule_does(tmp_path: Path) -> None:
    dataset = load_dataset(market(tmp_path))
    for split, folder in zip(("train", "query", "gallery"), THREE, strict=True):
        expected = []
        for path in sorted((tmp_path / folder).iterdir()):
            identity, camera = re.search(r"([-\d]+)_c(\d)", path.name).groups()  # type: ignore[union-attr]
            if int(identity) != -1:
                expected.append((path.name, identity, camera))
        assert facts(getattr(dataset, split)) == expected
    assert ("0000_c1s1_000300_00.jpg", "0000", "1") in facts(dataset.gallery)


def test_distractors_are_read_only_if_asked_for(tmp_path: Path) -> None:
    market_500k(tmp_path)
    plain = load_dataset(tmp_path)
    assert plain.layout == "market1501"
    assert "can also be read as market1501+500k" in note(plain, "can also")
    more = load_dataset("market1501+500k", tmp_path)
    assert set(facts(more.gallery)) - set(facts(plain.gallery)) == {
        ("0000_c3s1_000001_00.jpg", "0000", "3"),
        ("whatever.jpg", "0000", None),
    }
    protocols.sides(more.query, more.gallery, by_name("market1501+500k").protocol)  # type: ignore[union-attr]


def test_duke_says_that_it_was_withdrawn(tmp_path: Path) -> None:
    dataset = load_dataset(duke(tmp_path))
    assert "withdrew" in note(dataset, "DukeMTMC")
    assert facts(dataset.query) == [("0005_c8_f0000001.jpg", "0005", "8")]


def test_personx_counts_its_six_cameras_from_one(tmp_path: Path) -> None:
    dataset = load_dataset(personx(tmp_path))
    cameras = [side[0].camera for side in (dataset.train, dataset.query, dataset.gallery)]
    assert cameras == ["1", "6", "4"]


def test_personx_lists_a_camera_that_it_does_not_have(tmp_path: Path) -> None:
    images(personx(tmp_path), "PersonX/subset1/query/0002_c5s1_07.jpg")
    (problem,) = load_dataset(tmp_path).problems
    assert problem.reason == "camera 5 is none of PersonX's: 3, 4, 8, 10, 11, 12"


def test_names_of_files_weigh_more_than_names_of_folders(tmp_path: Path) -> None:
    assert load_dataset(duke(tmp_path / "market1501")).layout == "dukemtmc-reid"
    assert load_dataset(market(tmp_path / "msmt17 or personx")).layout == "market1501"
    assert load_dataset(personx(tmp_path / "market") / "PersonX").layout == "personx"


def test_folder_names_that_speak_for_two_sets_are_refused(tmp_path: Path) -> None:
    root = market_style(tmp_path / "msmt17-to-personx")
    with pytest.raises(DataError, match=r'as msmt17-repacked or as personx.*load_dataset\("msmt17-rep'):
        load_dataset(root)
    assert load_dataset("msmt17-repacked", root).train[0].camera == "1"


def test_two_sets_side_by_side_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    market(tmp_path / "a")
    duke(tmp_path / "b")
    with pytest.raises(DataError, match=r"as market1501 or as dukemtmc-reid, which are never mixed"):
        load_dataset(tmp_path)
    assert load_dataset("market1501", tmp_path).root == tmp_path / "a"
    assert load_dataset("dukemtmc-reid", tmp_path).root == tmp_path / "b"
    with pytest.raises(DataError, match="as personx or as personx"):
        load_dataset("personx", tmp_path)


def test_link_to_a_set_beside_it_is_the_same_set(tmp_path: Path) -> None:
    market(tmp_path / "Market-1501-v15.09.15")
    (tmp_path / "latest").symlink_to(tmp_path / "Market-1501-v15.09.15")
    assert load_dataset(tmp_path).layout == "market1501"


def test_set_nearest_to_the_top_is_read(tmp_path: Path) -> None:
    duke(market(tmp_path) / "backup")
    assert load_dataset(tmp_path).layout == "market1501"


def test_table_goes_before_a_set_that_lies_deeper_and_not_before_one_beside_it(tmp_path: Path) -> None:
    market(tmp_path / "Market")
    image = "Market/query/0007_c2s1_000100_00.jpg"
    lines(tmp_path, "metadata.csv", "path", image)
    assert load_dataset(tmp_path).layout == "csv"
    lines(tmp_path / "Market", "metadata.csv", "path", "query/0007_c2s1_000100_00.jpg")
    beside = load_dataset(tmp_path / "Market")
    assert beside.layout == "market1501"
    assert "was not read: give it in place" in note(beside, "metadata.csv")


def test_own_images_in_markets_folders_are_not_called_market(tmp_path: Path) -> None:
    dataset = load_dataset(market_style(tmp_path / "herd"))
    assert (dataset.layout, dataset.name, dataset.notes) == ("market-style", "herd", ())


def test_own_images_with_a_few_names_like_those_of_a_set_are_not_that_set(tmp_path: Path) -> None:
    images(tmp_path / THREE[0], *(f"{n:04d}_c{1 + n % 6}s1_01.jpg" for n in range(12)))
    images(tmp_path / THREE[1], "0001_c1s1_01.jpg")
    images(tmp_path / THREE[2], "0001_c3s1_01.jpg")
    dataset = load_dataset(tmp_path)
    assert (dataset.layout, len(dataset.train), dataset.problems) == ("market-style", 12, ())


# -- CUHK03-NP ------------------------------------------------------------------------------------


def test_both_variants_of_cuhk03_are_never_mixed(tmp_path: Path) -> None:
    cuhk03(cuhk03(tmp_path / "cuhk03-np"), "labeled")
    with pytest.raises(
        DataError, match="as cuhk03-np-detected or as cuhk03-np-labeled, which are never"
    ):
        load_dataset(tmp_path)
    for variant in ("detected", "labeled"):
        dataset = load_dataset(f"cuhk03-np-{variant}", tmp_path)
        assert {r.path.parent.parent.name for r in dataset.gallery} == {variant}
        assert f"{variant} boxes: not comparable" in note(dataset, "CUHK03-NP")
        assert load_dataset(tmp_path / "cuhk03-np" / variant).layout == f"cuhk03-np-{variant}"


def test_one_variant_of_cuhk03_is_not_read_under_the_others_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="and is called labeled or labelled, as CUHK03-NP labeled does"):
        load_dataset("cuhk03-np-labeled", cuhk03(tmp_path))


# -- MSMT17 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "tree"), [("V1", msmt), ("V2", msmt_v2)])
def test_msmt_says_its_version_and_what_was_trained_on(
    tmp_path: Path, version: str, tree: Tell
) -> None:
    tree(tmp_path / "m")
    whole = load_dataset(tmp_path)
    assert whole.name.startswith(f"MSMT17-{version}-train+val")
    assert f"MSMT17 {version}, trained on train+val" in whole.notes
    assert f"msmt17-{version.lower()}-train" in note(whole, "can also be read as")
    alone = load_dataset(f"msmt17-{version.lower()}-train", tmp_path)
    assert alone.name.startswith(f"MSMT17-{version}-train-")
    assert f"MSMT17 {version}, trained on train" in alone.notes
    assert (len(whole.train), len(alone.train)) == (2, 1)


def test_msmt_takes_identities_from_lists_and_cameras_from_names(tmp_path: Path) -> None:
    dataset = load_dataset(msmt(tmp_path))
    assert [(r.identity, r.camera) for r in dataset.train] == [("0", "01"), ("0", "14")]
    assert [(r.identity, r.camera) for r in dataset.query] == [("test-0", "03")]
    assert [(r.identity, r.camera) for r in dataset.gallery] == [("test-0", "15")]


def test_msmt_without_its_list_of_val_is_train_alone(tmp_path: Path) -> None:
    (msmt(tmp_path) / "list_val.txt").unlink()
    assert load_dataset(tmp_path).layout == "msmt17-v1-train"


def test_msmt_nested_twice_with_a_mac_s_debris(tmp_path: Path) -> None:
    msmt_v2(tmp_path / "MSMT17_V2/MSMT17_V2")
    msmt_v2(tmp_path / "__MACOSX/MSMT17_V2")
    images(tmp_path / "MSMT17_V2/MSMT17_V2/mask_train_v2", "0000/._0000_000_01_0303morning_0008_0.jpg")
    dataset = load_dataset(tmp_path)
    assert (dataset.layout, len(dataset.train), dataset.problems) == ("msmt17-v2", 2, ())


def test_list_may_have_windows_ends_another_ending_spaces_and_gaps(tmp_path: Path) -> None:
    msmt(tmp_path)
    images(tmp_path / "train", "0001/0001_000_02_a b.jpeg", "0001/0001_001_03_é.JPG")
    rows = (
        "0001\\0001_000_02_a b.jpg 1",
        "",
        "0001/0001_001_03_é.JPG\t1",
        "gone/0001_1_1_x.jpg 1",
        "odd",
    )
    (tmp_path / "list_train.txt").write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    (tmp_path / "list_val.txt").unlink()
    dataset = load_dataset(tmp_path)
    assert facts(dataset.train) == [
        ("0001_000_02_a b.jpeg", "1", "02"),
        ("0001_001_03_é.JPG", "1", "03"),
    ]
    assert [(p.path.name, p.reason) for p in dataset.problems] == [
        ("0001_1_1_x.jpg", "list_train.txt, line 4 names a file that does not exist"),
        ("list_train.txt", "line 5 is not <image> <identity>: 'odd'"),
    ]


def test_list_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (msmt(tmp_path) / "list_query.txt").unlink()
    (tmp_path / "list_query.txt").mkdir()
    with pytest.raises(DataError, match=r"list_query.txt cannot be read: Is a directory. MSMT17-V1"):
        load_dataset(tmp_path)


# -- vehicles -------------------------------------------------------------------------------------


def test_veri_reads_three_digits_of_camera(tmp_path: Path) -> None:
    dataset = load_dataset(images(veri(tmp_path), "image_train/0001_c01_00016450_0.jpg"))
    assert facts(dataset.gallery) == [("0002_c020_00030605_1.jpg", "0002", "020")]
    assert [p.reason for p in dataset.problems] == ["name is not <identity>_c<camera>_..."]


@pytest.mark.parametrize(("size", "held"), [(800, 2), (1600, 3), (2400, 4)])
def test_vehicleid_has_no_cameras_and_one_list_to_be_tested_on(
    tmp_path: Path, size: int, held: int
) -> None:
    dataset = load_dataset(f"vehicleid-{size}", vehicleid(tmp_path))
    assert dataset.query == dataset.gallery
    assert (len(dataset.query), len(dataset.train)) == (held, 2)
    assert not dataset.query.has("camera")
    assert f"the list of {size} vehicles" in note(dataset, "vehicleid-10x")
    assert protocols.choose(dataset.query, dataset.gallery) == "any"


def test_vehicleid_is_the_smallest_list_that_is_there(tmp_path: Path) -> None:
    vehicleid(tmp_path)
    assert "vehicleid-1600, vehicleid-2400" in note(load_dataset(tmp_path), "can also be read as")
    (tmp_path / "train_test_split/test_list_800.txt").unlink()
    assert load_dataset(tmp_path).layout == "vehicleid-1600"


# -- MARS -----------------------------------------------------------------------------------------


def mars_info(root: Path, queries: list[int]) -> None:
    names = ["00-1C1T0001F001.jpg", "0000C4T0001F001.jpg", "0002C1T0001F001.jpg"]
    names += ["0002C1T0001F002.jpg", "0002C6T0003F001.jpg"]
    lines(root, "info/test_name.txt", *names)
    tracks = np.array([[1, 1, -1, 1], [2, 2, 0, 4], [3, 4, 2, 1], [5, 5, 2, 6]], dtype=np.int32)
    savemat(root / "info/tracks_test_info.mat", {"track_test_info": tracks})
    savemat(root / "info/query_IDX.mat", {"query_IDX": np.array([queries], dtype=np.uint16)})


def test_mars_names_tell_identity_camera_and_tracklet(tmp_path: Path) -> None:
    train = load_dataset(mars(tmp_path)).train
    assert facts(train)[0] == ("0001C1T0001F001.jpg", "0001", "1")
    assert train.values("sequence") == ["0001C1T0001", "0001C1T0001", "0001C2T0001"]


def test_mars_takes_its_queries_from_the_list_of_tracklets(tmp_path: Path) -> None:
    mars_info(mars(tmp_path), queries=[3])
    dataset = load_dataset(tmp_path)
    assert [r.path.name for r in dataset.query] == ["0002C1T0001F001.jpg", "0002C1T0001F002.jpg"]
    assert [r.path.name for r in dataset.gallery] == ["0000C4T0001F001.jpg", "0002C6T0003F001.jpg"]
    assert "query: 1 of 1,980 published tracklets" in dataset.notes


@pytest.mark.parametrize("damage", ["missing", "broken", "out of range", "other file"])
def test_mars_without_a_usable_list_says_so(tmp_path: Path, damage: str) -> None:
    mars(tmp_path)
    if damage != "missing":
        mars_info(tmp_path, queries=[9 if damage == "out of range" else 3])
    if damage == "broken":
        (tmp_path / "info/query_IDX.mat").write_bytes(b"not a matrix" * 20)
    if damage == "other file":
        savemat(tmp_path / "info/query_IDX.mat", {"other": [1]})
    dataset = load_dataset(tmp_path)
    assert "not comparable with published numbers" in note(dataset, "list of queries cannot be read")
    assert set(dataset.query.values("identity")) == {"0002"}  # a distractor is never a query
    assert set(dataset.gallery.values("identity")) == {"0000", "0002"}


def test_folders_called_like_those_of_mars_with_other_names_are_plain(tmp_path: Path) -> None:
    images(tmp_path, "bbox_train/1/a.jpg", "bbox_test/2/b.jpg")
    assert load_dataset(tmp_path).layout == "folder"


# -- published counts -----------------------------------------------------------------------------


def test_counts_that_differ_are_noted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market(tmp_path)

    def read(**counts: int) -> Dataset:
        monkeypatch.setattr(readers, "LAYOUTS", (replace(LAYOUTS[0], counts=counts),))
        return load_dataset(tmp_path)

    missing = read(train=1, query=3_368, gallery=2)
    assert missing.notes == ("query: 1 of 3,368 published images",)
    assert missing.name == "Market-1501-altered"
    surplus = read(train=1, query=1, gallery=1)
    assert surplus.notes == ("gallery: 2 images, and 1 were published",)
    whole = read(train=1, query=1, gallery=2)
    assert (whole.name, whole.notes) == ("Market-1501", ())


PUBLISHED = {
    "market1501": (12_936, 3_368, 15_913),
    "dukemtmc-reid": (16_522, 2_228, 17_661),
    "msmt17-v1": (32_621, 11_659, 82_161),
    "msmt17-v2": (32_621, 11_659, 82_161),
    "msmt17-v2-train": (30_248, 11_659, 82_161),
    "msmt17-repacked": (32_621, 11_659, 82_161),
    "personx": (9_840, 5_136, 30_816),
    "veri776": (37_778, 1_678, 11_579),
    "cuhk03-np-detected": (7_365, 1_400, 5_332),
    "cuhk03-np-labeled": (7_368, 1_400, 5_328),
}


@pytest.mark.parametrize(("name", "counts"), PUBLISHED.items())
def test_published_counts_are_as_published(name: str, counts: tuple[int, int, int]) -> None:
    layout = by_name(name)
    assert layout is not None
    assert tuple(layout.counts[split] for split in ("train", "query", "gallery")) == counts


# -- folders: links, and what cannot be opened ----------------------------------------------------


def below(folder: Path, problems: list[Problem] | None = None) -> list[str]:
    found = images_below(folder, [] if problems is None else problems)
    return [path.relative_to(folder).as_posix() for path in found]


def test_images_are_sorted_as_paths_are(tmp_path: Path) -> None:
    images(tmp_path, "a b/1.jpg", "a/2.jpg", "a/b/1.jpg", "a/10.jpg", "a.jpg", "Z.jpg", "é.jpg")
    assert below(tmp_path) == [
        path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.jpg"))
    ]


def test_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    images(tmp_path / "disk 2", "x/a.jpg")
    images(tmp_path / "photos", "b.jpg")
    (tmp_path / "photos/more").symlink_to(tmp_path / "disk 2")
    assert below(tmp_path / "photos") == ["b.jpg", "more/x/a.jpg"]


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    images(tmp_path, "x/a.jpg")
    (tmp_path / "x/up").symlink_to(tmp_path)
    (tmp_path / "x/self.jpg").symlink_to(tmp_path / "x/self.jpg")
    problems: list[Problem] = []
    assert below(tmp_path, problems) == ["x/a.jpg"]
    assert [problem.path.name for problem in problems] == ["self.jpg"]
    assert load_dataset(tmp_path).layout == "folder"


def test_folder_that_a_link_leads_to_as_well_is_read_once_in_its_own_place(tmp_path: Path) -> None:
    images(tmp_path, "z/a.jpg")
    (tmp_path / "alias").symlink_to(tmp_path / "z")
    assert below(tmp_path) == ["z/a.jpg"]


def test_links_to_images_are_images_and_broken_ones_are_problems(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "c.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "note.txt").symlink_to(tmp_path / "gone.txt")
    problems: list[Problem] = []
    assert below(tmp_path, problems) == ["a.jpg", "b.jpg"]
    assert problems == [Problem(tmp_path / "c.jpg", "a link that leads nowhere")]


def test_folder_of_a_set_may_be_a_link(tmp_path: Path) -> None:
    market(tmp_path / "disk")
    (tmp_path / "m").mkdir()
    for folder in THREE:
        (tmp_path / "m" / folder).symlink_to(tmp_path / "disk" / folder)
    dataset = load_dataset(tmp_path / "m")
    assert dataset.layout == "market1501"
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (1, 1, 2)


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of folders that cannot be opened, even by root."""
    names: set[str] = set()
    scan = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    yield names
    monkeypatch.undo()


def test_folder_that_cannot_be_opened_is_listed_and_the_rest_is_read(
    tmp_path: Path, locked: set[str]
) -> None:
    images(tmp_path, "a/1.jpg", "b/2.jpg")
    locked.add("b")
    dataset = load_dataset(tmp_path)
    assert dataset.train.values("identity") == ["a"]
    (problem,) = dataset.problems
    assert problem == Problem(tmp_path / "b", "a folder that cannot be opened: Permission denied")


def test_query_folder_that_cannot_be_opened_is_listed_and_counted(
    tmp_path: Path, locked: set[str]
) -> None:
    market(tmp_path)
    locked.add("query")
    dataset = load_dataset(tmp_path)
    assert [problem.path.name for problem in dataset.problems] == ["query"]
    assert "query: 0 of 3,368 published images" in dataset.notes


def test_top_folder_that_cannot_be_opened_says_why(tmp_path: Path, locked: set[str]) -> None:
    images(tmp_path / "x", "a.jpg")
    locked.add("x")
    with pytest.raises(DataError, match="First problem: a folder that cannot be opened: Permission"):
        load_dataset(tmp_path / "x")


def test_unreadable_images_are_read_by_name_and_found_by_check(tmp_path: Path) -> None:
    (
        images(market(tmp_path), "query/0009_c1s1_000000_00.jpg") / "query/0009_c1s1_000000_00.jpg"
    ).write_text("x")
    dataset = load_dataset(tmp_path)
    assert len(dataset.query) == 2
    assert [p.path.name for p in check_dataset(dataset).problems] == ["0009_c1s1_000000_00.jpg"]


def test_each_folder_is_opened_once_and_no_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market(tmp_path / "wrapped")
    opened: list[str] = []
    scan = os.scandir

    def scandir(path: Path) -> object:
        opened.append(Path(path).name)
        return scan(path)

    looked: list[str] = []
    stat = os.stat

    def watched(path: object, **options: object) -> os.stat_result:
        looked.append(str(path))
        return stat(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "stat", watched)
    load_dataset(tmp_path)
    monkeypatch.undo()
    assert sorted(opened) == sorted([tmp_path.name, "wrapped", *THREE])
    assert not [path for path in looked if path.endswith(".jpg")]


def test_tree_finds_in_any_case_and_prefers_the_very_name(tmp_path: Path) -> None:
    (tmp_path / "Query/Inner").mkdir(parents=True)
    tree = Tree()
    assert tree.find(tmp_path, "query/inner") == tmp_path / "Query/Inner"
    assert tree.find(tmp_path, "QUERY/INNER") == tmp_path / "Query/Inner"
    assert tree.find(tmp_path, "query/outer") is None
    if not (tmp_path / "query").exists():
        (tmp_path / "query").mkdir()
        assert Tree().find(tmp_path, "query") == tmp_path / "query"
