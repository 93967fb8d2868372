from pathlib import Path

import pytest

from conftest import save_image
from gracl.data.pairs import links_of, read_links, read_pairs
from gracl.data.records import Box, Record, Records
from gracl.errors import DataError


@pytest.fixture
def records(tmp_path):
    names = "a.jpg", "b.jpg", "deep/ü c.jpg"
    crops = [Record(tmp_path / "frame.jpg", box=Box(i, 0, 9, 9), sequence="s1") for i in range(3)]
    return Records((*(Record(tmp_path / name) for name in names), *crops))


def written(folder, text):
    table = folder / "links.csv"
    table.write_text(text, encoding="utf-8")
    return table


def test_pairs_are_read_by_relative_and_absolute_paths(tmp_path, records):
    rows = f"first,second,link\na.jpg,deep/ü c.jpg,must\n{tmp_path / 'b.jpg'},a.jpg,cannot\n"
    links = read_links(written(tmp_path, rows), records, root=tmp_path)
    assert links.must.tolist() == [[0, 2]]
    assert links.cannot.tolist() == [[1, 0]]


def test_a_table_without_rows_has_no_links(tmp_path, records):
    links = read_links(written(tmp_path, "link,second,first\n"), records, root=tmp_path)
    assert (len(links.must), len(links.cannot)) == (0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first,second\na.jpg,b.jpg\n", "has the columns first, second; expected first, second, link"),
        ("", "has the columns none"),
        ("first,second,link\na.jpg,b.jpg,Must\n", "line 2: link is 'Must'; expected must or cannot"),
        ("first,second,link\na.jpg,x.jpg,must\n", "line 2: x.jpg is not among the 6 images"),
        ("first,second,link\na.jpg\n", "line 2: link is None"),
        ("first,second,link\nframe.jpg,a.jpg,must\n", "frame.jpg holds 3 crops"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, records, text, message):
    with pytest.raises(DataError, match=message):
        read_links(written(tmp_path, text), records, root=tmp_path)


def test_a_missing_file_is_named(records):
    with pytest.raises(DataError, match=r"cannot read the links in nowhere\.csv"):
        read_links(Path("nowhere.csv"), records)


def test_sequences_and_boxes_are_linked_only_where_asked(records):
    nothing = links_of(records)
    assert (len(nothing.must), len(nothing.cannot)) == (0, 0)
    assert links_of(records, sequences=True).must.tolist() == [[3, 4], [4, 5]]
    apart = {tuple(sorted(pair)) for pair in links_of(records, boxes=True).cannot.tolist()}
    assert apart == {(3, 4), (3, 5), (4, 5)}


def test_a_link_of_an_image_with_itself_is_refused_with_its_line(tmp_path):
    path = save_image(tmp_path / "a.png")
    table = tmp_path / "links.csv"
    table.write_text("first,second,link\na.png,a.png,must\n")
    with pytest.raises(DataError, match=r"line 2: a\.png is linked with itself"):
        read_links(table, Records((Record(path),)), root=tmp_path)


def test_a_file_is_the_same_file_by_another_way(tmp_path):
    records = Records(tuple(Record(save_image(tmp_path / "deep" / f"{n}.png")) for n in "ab"))
    (tmp_path / "way").symlink_to(tmp_path / "deep")
    table = tmp_path / "links.csv"
    table.write_text(f"first,second,link\n{tmp_path}/way/../deep/a.png,way/b.png,cannot\n")
    assert read_links(table, records, root=tmp_path).cannot.tolist() == [[0, 1]]


# -- judged pairs ---------------------------------------------------------------------------------


def test_judged_pairs_say_the_same_as_links(tmp_path, records):
    rows = "first,second,same\na.jpg,b.jpg,1\na.jpg,deep/ü c.jpg,0\n"
    judged = read_pairs(written(tmp_path, rows), records, root=tmp_path)
    as_links = rows.replace("same", "link").replace(",1\n", ",must\n").replace(",0\n", ",cannot\n")
    for found in (judged, read_pairs(written(tmp_path, as_links), records, root=tmp_path)):
        assert found.must.tolist() == [[0, 1]]
        assert found.cannot.tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first,second,same\na.jpg,b.jpg,yes\n", "line 2: same is 'yes'; expected 1 or 0"),
        ("first,second\na.jpg,b.jpg\n", "expected first, second, same or link"),
        ("first,second,same\na.jpg,a.jpg,1\n", "linked with itself"),
        ("first,second,same\na.jpg\n", "same is None"),
    ],
)
def test_a_wrong_judgement_is_named(tmp_path, records, text, message):
    with pytest.raises(DataError, match=message):
        read_pairs(written(tmp_path, text), records, root=tmp_path)


def test_links_do_not_take_judgements(tmp_path, records):
    with pytest.raises(DataError, match="expected first, second, link"):
        read_links(written(tmp_path, "first,second,same\na.jpg,b.jpg,1\n"), records, root=tmp_path)


def test_a_name_with_a_nul_is_of_no_image(tmp_path, records):
    with pytest.raises(DataError, match="not among the"):
        read_links(written(tmp_path, "first,second,link\na.jpg,b\0.jpg,must\n"), records, root=tmp_path)
