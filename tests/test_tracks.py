"""Files of trackers: read, written again to the digit, and broken ones named by line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gracl.data.tracks import Detection, Tracks, read_tracks, tracks_text
from gracl.errors import ConfigError, DataError
from gracl.tracking import in_seconds, write_tracks

NUMBERS = st.floats(-1e4, 1e4, allow_nan=False).map(lambda value: round(value, 3))
EXACT = st.floats(-1e12, 1e12, allow_nan=False)


def tracks_of(fields):
    """Tracks with what a kind of file can hold."""
    detections = st.builds(
        Detection,
        frame=st.integers(0, 9999),
        track=st.integers(0, 99),
        box=st.tuples(EXACT, EXACT, EXACT, EXACT),
        **fields,
    )
    unique = st.lists(detections, max_size=8, unique_by=lambda seen: (seen.frame, seen.track))
    return unique.map(lambda found: Tracks("north", tuple(found)))


KNOWN = {
    "confidence": st.none() | st.floats(0, 1),
    "kind": st.none() | st.sampled_from(["0", "7"]),
    "time": st.none() | st.floats(0, 1e6),
}
MOT = {**KNOWN, "time": st.none()}


def read_back(folder, name, tracks, identities=None):
    write_tracks(folder / name, tracks, identities)
    return read_tracks(folder / name)[0]


@pytest.mark.parametrize("name", ["north.json", "north.csv"])
@given(tracks=tracks_of(KNOWN))
def test_tables_give_back_what_was_written(tmp_path_factory, name, tracks):
    assert read_back(tmp_path_factory.mktemp("t"), name, tracks).detections == tracks.detections


@given(tracks=tracks_of(MOT))
def test_mot_text_gives_back_what_was_written(tmp_path_factory, tracks):
    found = read_back(tmp_path_factory.mktemp("t"), "north.txt", tracks)
    assert found.detections == tracks.detections


@given(tracks=tracks_of(MOT), name=st.sampled_from(["a.txt", "a.csv", "a.json"]))
def test_what_is_written_as_it_was_read_is_the_same_text(tmp_path_factory, tracks, name):
    path = tmp_path_factory.mktemp("t") / name
    write_tracks(path, tracks)
    again = tracks_text(path, read_tracks(path)[0])
    assert again == {path: path.read_text()}


COMMAS = (
    "1,7, 10.50,5.0,24,60,0.90,-1,-1,-1\n2,7,12.25,5,24,60,0.8,-1,-1,-1\n2,-1,0,0,5,5,0.3,-1,-1,-1\n"
)
SPACES = "1 7 10 5 24 60 1 0 -1\n1.000e+00 8 12 5 24 60 1 0 -1\n"


def test_only_the_track_changes_in_a_text(tmp_path):
    path = tmp_path / "cam1.txt"
    path.write_text(COMMAS)
    (tracks,) = read_tracks(path)
    assert tracks_text(path, tracks, {7: 31})[path] == COMMAS.replace(",7,", ",31,")
    assert len(tracks.detections) == 2
    assert "1 boxes without a track (-1)" in tracks.notes[0]


def test_texts_with_spaces_have_nine_columns_with_the_class(tmp_path):
    path = tmp_path / "cam1.txt"
    path.write_text(SPACES)
    (tracks,) = read_tracks(path, "north")
    assert tracks.camera == "north"
    assert tracks.detections[0] == Detection(1, 7, (10, 5, 24, 60), 1.0, "0")
    assert tracks.detections[1].frame == 1
    written = tracks_text(path, tracks, {7: 1, 8: 2})[path]
    assert written == SPACES.replace(" 7 ", " 1 ").replace(" 8 ", " 2 ")


def test_ultralytics_boxes_are_centres_relative_to_the_frame(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "street_2.txt").write_text("0 0.5 0.5 0.1 0.5 0.875 12\n2 0.25 0.5 0.1 0.5 0.5 9\n")
    (folder / "street_10.txt").write_text("0 0.5 0.5 0.1 0.5 12\n")
    (tracks,) = read_tracks(folder, "east", size=(100, 200))
    assert [seen.frame for seen in tracks.detections] == [2, 2, 10]
    assert tracks.detections[0] == Detection(2, 12, (90, 25, 20, 50), 0.875, "0")
    assert tracks.detections[2].confidence is None
    files = tracks_text(tmp_path / "out", tracks, {12: 3, 9: 1})
    assert files[tmp_path / "out" / "street_2.txt"] == (
        "0 0.5 0.5 0.1 0.5 0.875 3\n2 0.25 0.5 0.1 0.5 0.5 1\n"
    )
    assert files[tmp_path / "out" / "street_10.txt"] == "0 0.5 0.5 0.1 0.5 3\n"
    with pytest.raises(ConfigError, match="give size="):
        read_tracks(folder)


def test_a_table_of_several_cameras_is_taken_apart(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text(
        'frame,track,x,y,w,h,camera,note\n1,1,0.50,0,5,9,south,a\n1,1,2,0,5,9,north,"b,c"\n'
    )
    south, north = read_tracks(path)
    assert (south.camera, north.camera) == ("south", "north")
    assert read_tracks(path, "north")[0].detections == north.detections
    assert tracks_text(path, north, {1: 4})[path] == (
        'frame,track,x,y,w,h,camera,note,identity\n1,1,2,0,5,9,north,"b,c",4\n'
    )
    with pytest.raises(DataError, match="holds the cameras north, south; expected west"):
        read_tracks(path, "west")


def test_identities_written_beside_tracks_can_be_read_and_replaced(tmp_path):
    tracks = Tracks("north", (Detection(1, 7, (1, 2, 3, 4), time=2.5),))
    for name in ("a.json", "a.csv"):
        first = read_back(tmp_path, name, tracks, {7: 3})
        write_tracks(tmp_path / name, first, {7: 5})
        text = (tmp_path / name).read_text()
        assert "5" in text
        assert text.count("identity") == 1
        assert read_tracks(tmp_path / name)[0].detections == tracks.detections
    (entry,) = json.loads((tmp_path / "a.json").read_text())
    assert entry["identity"] == 5
    assert entry["track"] == 7


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json"])
def test_an_empty_file_is_a_camera_without_boxes(tmp_path, name):
    (tmp_path / name).write_text("")
    (tracks,) = read_tracks(tmp_path / name)
    assert (tracks.camera, tracks.detections) == ("a", ())
    assert "holds no box" in tracks.notes[0]
    assert tracks_text(tmp_path / name, tracks, {})[tmp_path / name] in ("", "[]\n") or name == "a.csv"


BROKEN = {
    "1,7,10,5,24\n": "line 1: found 5 numbers",
    "1,7,10,5,24,60,0.9\n\n1,x,10,5,24,60,0.9\n": "line 3: track is 'x'; expected a number",
    "1.5,7,10,5,24,60,0.9\n": "line 1: frame is '1.5'; expected a whole number",
    "-1,7,10,5,24,60,0.9\n": "line 1: frame is '-1'; expected a whole number, 0 or above",
    "1,7,nan,5,24,60,0.9\n": "line 1: left is 'nan'; expected a finite number",
    "1,-7,1,5,24,60,0.9\n": "line 1: track is '-7'; expected a whole number, -1 or above",
    "1,7,1,5,24,60,1\n1,7,2,5,24,60,1\n": (
        "line 2: track 7 is in frame 1 of a a second time, first in line 1"
    ),
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_line_is_named(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        read_tracks(tmp_path / "a.txt")
    assert BROKEN[text] in str(caught.value)
    assert "a.txt" in str(caught.value)


BAD = {
    "a.csv": ("frame,track,x,y,w\n1,2,3,4,5\n", "expected frame, track, x, y, w, h"),
    "b.csv": ("frame,track,x,y,w,h\n1,2,3,4,5,6\n1,2,3\n", "line 3: 3 cells; expected 6"),
    "c.csv": ("frame,track,x,y,w,h\n1,2,3,4,,6\n", "line 2: width is ''"),
    "a.json": ('{"a": 1}', "holds a dict; expected a list"),
    "b.json": ('[{"frame": 1, "track": 2}]', "object 1: found"),
    "c.json": ("[3]", "object 1: found 3"),
    "d.json": ('[{"frame": true, "track": 2, "box": [1,2,3,4]}]', "frame is True"),
    "e.json": ("[\n{,}]", "line 2: no JSON"),
    "f.json": ('[{"frame": 1, "track": 2, "box": [1,2,3]}]', "the box has 3 numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_table_is_named(tmp_path, name):
    text, message = BAD[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_tracks(tmp_path / name)
    assert message in str(caught.value)


def test_boxes_of_predict_have_no_tracks(tmp_path):
    (tmp_path / "x_1.txt").write_text("0 0.5 0.5 0.1 0.5\n")
    with pytest.raises(DataError, match=r"use model\.track"):
        read_tracks(tmp_path, size=(10, 10))
    (tmp_path / "x_1.txt").write_text("0 0.5 0.5 0.1 0.5 0.8\n")
    with pytest.raises(DataError, match=r"track is '0\.8'; expected a whole number"):
        read_tracks(tmp_path, size=(10, 10))
    (tmp_path / "y_1.txt").write_text("")
    with pytest.raises(DataError, match="are both of frame 1"):
        read_tracks(tmp_path, size=(10, 10))


def test_other_endings_and_what_a_text_cannot_hold_are_refused(tmp_path):
    (tmp_path / "a.xml").touch()
    with pytest.raises(ConfigError, match=r"ends in '\.xml'"):
        read_tracks(tmp_path / "a.xml")
    with pytest.raises(DataError, match="does not exist"):
        read_tracks(tmp_path / "b.txt")
    named = Tracks("n", (Detection(1, 1, (0, 0, 1, 1), kind="car"),))
    with pytest.raises(ConfigError, match="numbers for classes, not 'car'"):
        tracks_text(Path("a.txt"), named)
    with pytest.raises(ConfigError, match="no place for times"):
        tracks_text(Path("a.txt"), in_seconds(Tracks("n", (Detection(1, 1, (0, 0, 1, 1)),)), 25))
    with pytest.raises(ConfigError, match=r"expected \.txt, \.json or \.csv"):
        tracks_text(Path("folder"), named)


def test_spans_hold_all_boxes_and_times_only_where_all_are_known():
    seen = [Detection(5, 1, (0, 0, 1, 1), time=2), Detection(3, 1, (0, 0, 1, 1), time=1)]
    span = Tracks("n", tuple(seen)).spans()[1]
    assert span == (3, 5, 1, 2, 2)
    lost = Tracks("n", (*seen, Detection(9, 1, (0, 0, 1, 1)))).spans()[1]
    assert lost == (3, 9, None, None, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "cannot be read as JSON"),
        ('[{"frame": ' + "9" * 5000 + "}]", "cannot be read as JSON"),
        ('[{"frame": 1, "track": 2, "box": [1, 2, 3, ' + "9" * 400 + "]}]", "expected a number"),
    ],
)
def test_json_that_python_cannot_hold_is_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=words):
        read_tracks(tmp_path / "a.json")
