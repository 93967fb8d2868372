"""`gracl associate`: from a tracker's files and frames, or images with sequences, to identities."""

import csv
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from conftest import save_image
from gracl import association
from gracl.cli import main
from gracl.commands.associate import Associate
from gracl.config import ModelConfig
from gracl.data.synthetic import draw_person
from gracl.data.tracks import read_tracks
from gracl.errors import DataError
from gracl.files import save_model
from gracl.tracking import embed_tracks, evenly, index_frames, read_travel
from gracl.training import build_model

CAMERAS = ("north", "south")
PAGE = (Path(__file__).parents[1] / "docs" / "associate.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model that was never trained, and two cameras that see three people, two of them at a time."""
    top = tmp_path_factory.mktemp("place")
    settings = ModelConfig(backbone="test_resnet", weights="none", size=(32, 16))
    save_model(top / "model.safetensors", build_model(settings), settings)
    (top / "tracks").mkdir()
    for camera in CAMERAS:
        lines = []
        for frame in range(1, 7):
            picture = np.full((40, 70, 3), 128, np.uint8)
            for slot, person in enumerate((0, 1) if frame < 4 else (2,)):
                crop = draw_person(person, camera=0, shot=frame, size=(32, 16), nuisance=0)
                picture[4:36, 5 + 30 * slot : 21 + 30 * slot] = crop
                lines.append(f"{frame},{person + 10},{5.0 + 30 * slot:.2f},4.0,16,32,0.50,-1,-1,-1")
            (top / "frames" / camera).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(top / "frames" / camera / f"{frame:06}.png")
        (top / "tracks" / f"{camera}.txt").write_text("\n".join(lines) + "\n")
    return top


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


def command(place, out, *more):
    pairs = [[f"{camera}={place / kind / camera}{end}" for camera in CAMERAS] for kind, end in KINDS]
    return run(
        "associate", place / "model.safetensors", *pairs[0], "--frames", *pairs[1], "--out", out, *more
    )


KINDS = (("tracks", ".txt"), ("frames", ""))


def table(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_tracks_become_identities(place, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(place, out, "--threshold", 0.99, "--threads", 1) == 0
    said = capsys.readouterr().out
    assert "6 tracklets of 2 cameras are" in said
    rows = table(out / "tracklets.csv")
    assert [row["camera"] for row in rows] == ["north"] * 3 + ["south"] * 3
    assert [(row["first"], row["last"], row["images"]) for row in rows[:3]] == [
        ("1", "3", "3"),
        ("1", "3", "3"),
        ("4", "6", "3"),
    ]
    # The same pictures at both cameras: each person is found again, and those side by side are two.
    identities = [int(row["identity"]) for row in rows]
    assert identities[:3] == identities[3:]
    assert identities[0] != identities[1]
    for camera in CAMERAS:
        was = (place / "tracks" / f"{camera}.txt").read_text()
        text = was
        for track, identity in zip((10, 11, 12), identities[:3], strict=True):
            text = re.sub(rf"(?m)^(\d+),{track},", rf"\g<1>,{identity},", text)
        assert (out / f"{camera}.txt").read_text() == text
    assert command(place, out, "--threshold", 0.99) == 0  # over its own


def test_links_travel_times_and_seconds(place, tmp_path, capsys):
    links, travel = tmp_path / "links.csv", tmp_path / "travel.csv"
    links.write_text("first,second,link\nnorth/10,south/10,cannot\nnorth/11,south/11,must\n")
    assert command(place, tmp_path / "a", "--threshold", 0.99, "--links", links) == 0
    north10, north11, _, south10, south11, _ = (
        r["identity"] for r in table(tmp_path / "a/tracklets.csv")
    )
    assert north10 != south10
    assert north11 == south11
    travel.write_text("from,to,least\nnorth,south,3600\n")
    words = ("--threshold", 0.99, "--travel", travel)
    assert command(place, tmp_path / "b", *words) == 2
    assert "--travel needs times in seconds: give --fps" in capsys.readouterr().err
    assert command(place, tmp_path / "b", *words, "--fps", 2) == 0
    rows = table(tmp_path / "b/tracklets.csv")
    assert {r["identity"] for r in rows[:3]} & {r["identity"] for r in rows[3:]} == set()
    assert rows[0]["last"] == "1.5"
    links.write_text("first,second,link\nnorth/10,south/99,cannot\n")
    assert command(place, tmp_path / "c", "--links", links) == 2
    assert "'south/99' is none of the 6 tracklets" in capsys.readouterr().err


def test_images_with_sequences_and_features_of_them(place, tmp_path, capsys):
    rows = ["path,identity,camera,sequence"]
    for person in range(2):
        for camera in range(2):
            for shot in range(4):
                name = f"{person}-{camera}-{shot}.png"
                crop = draw_person(person, camera=camera, shot=shot, size=(32, 16), nuisance=0)
                Image.fromarray(crop).save(tmp_path / name)
                rows.append(f"{name},{person},{camera},{person}-{camera}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    out, model = tmp_path / "out", place / "model.safetensors"
    words = ("--images-per-tracklet", 2, "--threshold", 0.9)
    assert run("associate", model, tmp_path / "metadata.csv", "--out", out, *words) == 0
    said = capsys.readouterr().out
    assert "8 of 16 images are embedded, 2 of a tracklet at most" in said
    assert re.search(r"ARI .*pair F1 .*IDF1 .*\(2 of 4 tracklets\)", said)
    assert len(table(out / "tracklets.csv")) == 4
    assert len(table(out / "labels.csv")) == 8
    file = tmp_path / "features.npz"
    assert run("embed", model, tmp_path / "metadata.csv", "-o", file) == 0
    assert run("associate", "--features", file, "--out", tmp_path / "other") == 0
    assert len(table(tmp_path / "other" / "labels.csv")) == 16


def test_what_cannot_work_is_refused_before_it_starts(place, tmp_path, capsys):
    model, tracks = place / "model.safetensors", place / "tracks" / "north.txt"
    frames = place / "frames" / "north"
    strange = tmp_path / "strange"
    save_image(strange / "mine.png")
    cases = {
        "give RUN and DATA": (),
        "stands in place of RUN": (model, "--features", "x.npz"),
        "give --frames CAMERA=FOLDER": (model, f"a={tracks}"),
        "several files are tracks": (model, tracks, tracks),
        "--fps and --travel belong to tracks": (model, tmp_path, "--fps", 3),
        "two tracks are of one camera": (model, tracks, tracks, "--frames", f"north={frames}"),
        "there are no frames of camera north": (model, tracks, "--frames", f"west={frames}"),
        "holds files and no tracklets.csv": (model, tmp_path, "--out", strange),
        "is no name for a file": (model, f"a/b={tracks}", "--frames", f"a/b={frames}"),
    }
    for message, words in cases.items():
        out = () if "--out" in words else ("--out", tmp_path / "new")
        assert run("associate", *words, *out) == 2, message
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "new").exists()
    assert [path.name for path in strange.iterdir()] == ["mine.png"]


def test_a_forgotten_camera_is_noticed(place, tmp_path, capsys):
    words = ["associate", place / "model.safetensors", f"north={place / 'tracks' / 'north.txt'}"]
    frames = [f"{camera}={place / 'frames' / camera}" for camera in CAMERAS]
    assert run(*words, "--frames", *frames, "--out", tmp_path / "out") == 2
    assert "cameras without tracks: south" in capsys.readouterr().err


def test_tracks_of_an_earlier_call_do_not_stay_beside_new_ones(place, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(place, out) == 0
    assert command(place, out) == 0
    north = [f"north={place / kind / 'north'}{end}" for kind, end in KINDS]
    words = ["associate", place / "model.safetensors", north[0], "--frames", north[1], "--out", out]
    assert run(*words) == 2
    assert "holds tracks of south too" in capsys.readouterr().err
    assert (out / "south.txt").is_file()


def test_a_threshold_and_an_eps_are_one_too_many(place, tmp_path, capsys):
    assert command(place, tmp_path / "out", "--threshold", 0.5, "--eps", 0.3) == 2
    assert "give one or the other" in capsys.readouterr().err


def test_the_tracks_that_were_read_are_never_written_over(place, tmp_path, capsys):
    shutil.copy(place / "tracks" / "north.txt", tmp_path / "north.txt")
    (tmp_path / "tracklets.csv").write_text("camera,track,identity\n")
    words = (f"north={tmp_path / 'north.txt'}", "--frames", f"north={place / 'frames' / 'north'}")
    assert run("associate", place / "model.safetensors", *words, "--out", tmp_path) == 2
    assert "would be overwritten by itself" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"\xc0,1,1\n", b"x" * 200_000], ids=["no UTF-8", "endless field"])
def test_a_damaged_table_of_an_earlier_call_is_named(place, tmp_path, capsys, damage):
    content = b"camera,track,identity\n" + damage
    (tmp_path / "tracklets.csv").write_bytes(content)
    words = (
        f"north={place / 'tracks' / 'north.txt'}",
        "--frames",
        f"north={place / 'frames' / 'north'}",
    )
    assert run("associate", place / "model.safetensors", *words, "--out", tmp_path) == 2
    assert "of an earlier call, is damaged" in capsys.readouterr().err.replace("\n", " ")
    assert (tmp_path / "tracklets.csv").read_bytes() == content


def test_json_and_relative_boxes_come_out_as_they_went_in(place, tmp_path):
    entry = {"frame": 1, "track": 3, "box": [5, 4, 16, 32], "confidence": 0.5, "mine": "x"}
    (tmp_path / "north.json").write_text(json.dumps([entry]))
    labels = tmp_path / "south"
    labels.mkdir()
    (labels / "clip_1.txt").write_text("0 0.2 0.5 0.2 0.8 0.9 4\n")
    frames = [f"{camera}={place / 'frames' / camera}" for camera in CAMERAS]
    words = (tmp_path / "north.json", labels, "--frames", *frames, "--out", tmp_path / "out")
    assert run("associate", place / "model.safetensors", *words) == 0
    (written,) = json.loads((tmp_path / "out" / "north.json").read_text())
    assert written == {**entry, "identity": 1}
    text = (tmp_path / "out" / "south" / "clip_1.txt").read_text()
    assert re.fullmatch(r"0 0\.2 0\.5 0\.2 0\.8 0\.9 [12]\n", text)


def test_bad_boxes_are_refused_or_left_out(place, tmp_path):
    from gracl.files import load_model

    path = tmp_path / "north.txt"
    path.write_text("1,1,-500,0,20,20,1\n1,2,60,30,40,40,1\n2,3,5,5,0,9,1\n")
    model, frames = (
        load_model(place / "model.safetensors"),
        {"north": index_frames(place / "frames/north")},
    )
    tracks = read_tracks(path)
    with pytest.raises(DataError, match=r"track 1 of north: the crop box .* lies outside"):
        embed_tracks(model, tracks, frames)
    found, problems = embed_tracks(model, tracks, frames, on_bad="skip")
    assert [problem.reason[:17] for problem in problems] == ["track 1 of north:", "track 3 of north:"]
    assert found.features.norm(dim=1).tolist() == pytest.approx([0, 1, 0])
    path.write_text("9,1,0,0,20,20,1\n")
    with pytest.raises(
        DataError, match="boxes in frame 9 and no image of it; its frames go from 1 to 6"
    ):
        embed_tracks(model, read_tracks(path), frames)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "9.png").write_text("no picture")
    with pytest.raises(DataError, match="cannot be read"):
        embed_tracks(model, read_tracks(path), {"north": index_frames(tmp_path / "frames")})


def test_frames_are_found_by_the_last_number_of_their_names(tmp_path):
    for name in ("cam2_000007.jpg", "cam2_000010.jpg"):
        save_image(tmp_path / name)
    assert sorted(index_frames(tmp_path)) == [7, 10]
    save_image(tmp_path / "other_7.jpg")
    with pytest.raises(DataError, match="are both of frame 7"):
        index_frames(tmp_path)
    save_image(tmp_path / "a" / "first.jpg")
    with pytest.raises(DataError, match="its name has no number"):
        index_frames(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        index_frames(tmp_path / "b")


def test_images_are_spread_evenly():
    assert evenly(100, 4) == [12, 37, 62, 87]
    for n, most in ((17, 16), (31, 16), (16, 16), (1, 5)):
        found = evenly(n, most)
        assert len(set(found)) == min(n, most)
        assert all(0 <= place < n for place in found)


def test_travel_times_are_checked(tmp_path):
    file = tmp_path / "travel.csv"
    file.write_text("from,to,least\na,b,3\nb,a,0\n")
    assert read_travel(file) == {("a", "b"): 3, ("b", "a"): 0}
    for text, message in {
        "from,to\na,b\n": "has the columns from, to; expected from, to, least",
        "from,to,least\na,b,x\n": "line 2: from a to b in x",
        "from,to,least\na,a,3\n": "expected two cameras",
        "from,to,least\na,b,-1\n": "0 or more",
    }.items():
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            read_travel(file)


# -- the page -------------------------------------------------------------------------------------


@pytest.fixture
def at_the_page(place, tmp_path, monkeypatch):
    """A working folder with what the page names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    shutil.copy(place / "model.safetensors", tmp_path / "runs" / "photos")
    shutil.copytree(place / "tracks", tmp_path / "tracks")
    shutil.copytree(place / "frames", tmp_path / "frames")
    rows = ["path,camera,sequence"]
    for number in range(8):
        save_image(tmp_path / "sightings" / f"{number}.jpg", number)
        rows.append(f"{number}.jpg,{'north' if number < 4 else 'south'},s{number // 2}")
    (tmp_path / "sightings" / "metadata.csv").write_text("\n".join(rows) + "\n")


def test_the_commands_of_the_page_run(at_the_page, capsys):
    (block,) = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [line.removeprefix("$ ").split("  #")[0] for line in block.splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert run(*shlex.split(line)[1:]) == 0, line
    assert (Path("associated") / "south.txt").is_file()
    assert table(Path("sightings-associated/tracklets.csv")) == table(Path("again/tracklets.csv"))


def test_the_python_of_the_page_runs(at_the_page, monkeypatch, capsys):
    class Video:
        def __init__(self, _):
            self.left = [np.full((40, 70, 3), 9 * n, np.uint8) for n in range(6)]

        def read(self):
            return (True, self.left.pop(0)) if self.left else (False, None)

    class Tracker:
        def update(self, *_):
            boxes = [[5.0, 4, 21, 36, 1, 0.9, 0, 0], [35.0, 4, 51, 36, 2, 0.8, 0, 1]]
            return np.array(boxes)

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Video))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {"Tracker": Tracker, "detect": lambda _: []}
    exec(block, names)
    assert names["tracklets"].images.tolist() == [3, 3, 3, 3]
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[:2] for words in printed] == [[c, t] for c in CAMERAS for t in "12"]
    # Each camera sees its two at once, and the cameras see all at once.
    assert len({words[2] for words in printed}) == 4


def test_the_json_of_the_page_can_be_read_and_its_defaults_are_the_programs(tmp_path):
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "north.json").write_text(block)
    (tracks,) = read_tracks(tmp_path / "north.json")
    assert tracks.detections[0].time == 0.04
    command = Associate()
    assert f"`--k1` {command.k1} neighbours" in PAGE
    assert f"`--eps` {command.eps}" in PAGE
    assert (command.k1, command.eps) == (association.K1, association.EPS)
    assert f"fewer than {association.FEW} tracklets" in PAGE
    assert f"Of each tracklet {command.images_per_tracklet} images" in PAGE
