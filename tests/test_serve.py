"""The search page's API: what it answers, what it refuses, and what it never does."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import gracl
from browser import running
from conftest import random_image, save_image
from gracl import cli
from gracl.calibration import Calibration
from gracl.data.records import Box
from gracl.errors import ConfigError, FingerprintError, GalleryError
from gracl.features import no_features
from gracl.files import load_model, write_calibration
from gracl.gallery.entries import Where
from gracl.gallery.gallery import Gallery
from gracl.web import handover, uploads
from gracl.web.search_app import search_application
from gracl.web.search_desk import Desk, Search
from gracl.web.serving import MAX_BODY, guarded
from gracl.web.uploads import BadPicture, read_picture

TOKEN = "secret"
OWN = {"Authorization": f"Bearer {TOKEN}"}


def file_of(picture, kind="png", **how):
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


@pytest.fixture(scope="module")
def home(small_run, tmp_path_factory):
    """A folder with images of three and a gallery of them, in which one has no name."""
    folder = tmp_path_factory.mktemp("herd")
    with Gallery.create(folder / "herd.gallery", small_run, device="cpu") as made:
        for at, name in enumerate(("Ada", "Ben", "Cleo Ωmega")):
            paths = [save_image(folder / f"{name}-{n}.png", 10 * at + n, (60, 30)) for n in range(3)]
            camera, site, month = ("gate", "north", 3) if at < 2 else ("barn", "south", 5)
            made.add(paths, identity=name, camera=camera, site=site, time=f"2025-0{month}-0{at + 1}")
        made.add([save_image(folder / "stray.png", 99, (60, 30))], unnamed=True)
        made.add(random_image(98, (60, 30)), identity="Dot")  # never was a file
    return folder


@pytest.fixture(scope="module")
def desk(home):
    with Desk(home / "herd.gallery", device="cpu") as opened:
        yield opened


@pytest.fixture
def client(desk):
    return client_of(desk)


def client_of(desk):
    app = guarded(search_application(desk), TOKEN)
    return TestClient(app, base_url="http://127.0.0.1:8765", headers=OWN)


def calibration_of(model, threshold):
    whose = no_features(model)
    return Calibration(
        threshold, (threshold, threshold), 0.1, "search", None, None, None, None, 10, "identities",
        "individuals", 3, "", (), whose.fingerprint, whose.backbone, whose.size, "0",
    )  # fmt: skip


@pytest.fixture(scope="module")
def strict(home, small_run):
    """A client of a desk for which nobody but the image itself is known."""
    calibration = calibration_of(load_model(small_run), 0.999999)
    with Desk(home / "herd.gallery", calibration=calibration, device="cpu") as opened:
        yield client_of(opened)


def search(client, content, **fields):
    return client.post("/api/search", files={"picture": ("a.png", content)}, data=fields)


def answered(client, content, **fields):
    answer = search(client, content, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def photo(home, name):
    return (home / f"{name}.png").read_bytes()


# -- what it answers ------------------------------------------------------------------------------


def test_an_image_of_the_gallery_finds_itself(client, home):
    answer = answered(client, photo(home, "Ben-1"), k="3")
    assert (answer["answer"], answer["identity"], answer["threshold"]) == ("identity", "Ben", None)
    assert (answer["width"], answer["height"], answer["box"], answer["notes"]) == (30, 60, None, [])
    assert [match["rank"] for match in answer["matches"]] == [1, 2, 3]
    first = answer["matches"][0]
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    facts = {key: first[key] for key in ("name", "identity", "camera", "site", "time", "sequence")}
    assert facts == {
        "name": "Ben-1.png",
        "identity": "Ben",
        "camera": "gate",
        "site": "north",
        "time": "2025-03-02",
        "sequence": None,
    }


@pytest.mark.parametrize("box", [None, Box(5, 7, 20, 40)])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "tiff"])
def test_the_answer_is_that_of_the_gallery_in_python(client, home, tmp_path, kind, box):
    path = tmp_path / f"query.{kind}"
    path.write_bytes(file_of(random_image(7, (300, 200)), kind))
    fields = {} if box is None else {"box": ",".join(map(str, box))}
    answer = answered(client, path.read_bytes(), k="5", **fields)
    with Gallery.open(home / "herd.gallery", device="cpu") as opened:
        found = opened.search(path, k=5, box=box)
    assert [match["id"] for match in answer["matches"]] == [hit.entry.id for hit in found]
    assert [match["similarity"] for match in answer["matches"]] == pytest.approx(
        [hit.similarity for hit in found], abs=1e-5
    )
    assert answer["identity"] == found.identity


def test_nobody_near_enough_is_unknown(strict, home):
    assert answered(strict, file_of(random_image(1000)))["answer"] == "unknown"
    found = answered(strict, photo(home, "Ada-0"))
    assert (found["answer"], found["identity"]) == ("identity", "Ada")
    assert answered(strict, photo(home, "stray"))["answer"] == "nobody"


def test_filters_narrow_what_is_searched(client, home):
    def names(**fields):
        matches = answered(client, photo(home, "Ada-0"), k="100", **fields)["matches"]
        return {match["identity"] for match in matches}

    assert names() == {"Ada", "Ben", "Cleo Ωmega", "Dot", None}
    assert names(camera="gate") == {"Ada", "Ben"}
    assert names(camera=["gate", "barn"]) == {"Ada", "Ben", "Cleo Ωmega"}
    assert names(site="south") == {"Cleo Ωmega"}
    assert names(identity=["Cleo Ωmega", "Dot"]) == {"Cleo Ωmega", "Dot"}
    assert names(since="2025-03-02", until="2025-04") == {"Ben"}
    assert names(identity="nobody of this name") == set()
    assert names(since="", until="") == names()  # as a browser sends empty fields


def test_an_answer_without_matches_is_nobody_and_says_so(client, strict, home):
    nothing = {"camera": "none such"}
    assert answered(client, photo(home, "Ada-0"), **nothing)["answer"] == "nobody"
    assert answered(strict, photo(home, "Ada-0"), **nothing)["answer"] == "nobody"
    assert "compared with nobody" in answered(strict, photo(home, "Ada-0"), **nothing)["notes"][0]


def test_an_empty_gallery_answers(small_run, tmp_path):
    Gallery.create(tmp_path / "a.gallery", small_run, device="cpu").close()
    with Desk(tmp_path / "a.gallery", device="cpu") as empty:
        client = client_of(empty)
        assert client.get("/api/about").json()["images"] == 0
        assert answered(client, file_of(random_image()))["matches"] == []
        assert client.get("/api/entries").json() == {"total": 0, "entries": [], "after": None}
        assert client.get("/api/identities").json() == {"total": 0, "identities": []}


def test_about_says_what_is_searched(client, home):
    about = client.get("/api/about").json()
    assert (about["name"], about["images"], about["identities"], about["named"]) == (
        ("herd.gallery", 11, 4, 10)
    )
    assert about["cameras"] == [{"name": "barn", "images": 3}, {"name": "gate", "images": 6}]
    assert about["limits"]["bytes"] == MAX_BODY
    assert about["limits"]["types"] == ["JPEG", "PNG", "WebP", "BMP", "TIFF"]
    assert about["calibration"] is None


def test_about_says_what_unknown_means(strict):
    found = strict.get("/api/about").json()["calibration"]
    assert found == {
        "threshold": 0.999999,
        "rate": 0.1,
        "rate_per": "search",
        "most_answers": 1.0,
    }


def test_identities_can_be_looked_for(client):
    def names(**query):
        return [one["name"] for one in client.get("/api/identities", params=query).json()["identities"]]

    assert names() == ["Ada", "Ben", "Cleo Ωmega", "Dot"]
    assert names(contains="ωMEGA") == ["Cleo Ωmega"]
    assert names(limit=2) == ["Ada", "Ben"]
    assert client.get("/api/identities", params={"limit": 2}).json()["total"] == 4


def test_entries_come_in_pages(client):
    seen, after = [], 0
    while after is not None:
        page = client.get("/api/entries", params={"after": after, "limit": 4}).json()
        seen += [entry["id"] for entry in page["entries"]]
        assert page["total"] == 11
        after = page["after"]
    assert seen == sorted(set(seen))
    assert len(seen) == 11
    found = client.get("/api/entries", params={"camera": "barn", "since": "2025-05"}).json()
    assert {entry["identity"] for entry in found["entries"]} == {"Cleo Ωmega"}


# -- what it shows --------------------------------------------------------------------------------


def test_no_answer_says_where_a_file_lies(client, home):
    said = [
        search(client, photo(home, "Ada-0")).text,
        *(client.get(f"/api/{path}").text for path in ("about", "entries", "identities")),
        client.get("/").text,
    ]
    assert not any(str(home) in text or home.name in text for text in said)


def test_a_thumbnail_is_made_from_the_entrys_own_file(client, home):
    (entry,) = client.get("/api/entries", params={"limit": 1}).json()["entries"]
    answer = client.get(entry["thumbnail"])
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert Image.open(io.BytesIO(answer.content)).size == (80, 160)


def test_a_thumbnail_that_the_gallery_keeps_is_shown_as_it_is(small_run, tmp_path):
    with Gallery.create(tmp_path / "a.gallery", small_run, thumbnails=True, device="cpu") as made:
        made.add(random_image())
    with Desk(tmp_path / "a.gallery", device="cpu") as opened:
        content = client_of(opened).get("/api/entries/1/thumbnail").content
    assert Image.open(io.BytesIO(content)).size == (32, 64)


def test_a_file_that_was_changed_or_taken_away_is_not_shown(small_run, tmp_path):
    changed, gone = (save_image(tmp_path / f"{n}.png", n) for n in range(2))
    with Gallery.create(tmp_path / "a.gallery", small_run, device="cpu") as made:
        made.add([changed, gone, random_image(3)])
    save_image(changed, 5, (40, 40))
    gone.unlink()
    with Desk(tmp_path / "a.gallery", device="cpu") as opened:
        for number in (1, 2, 3):
            answer = client_of(opened).get(f"/api/entries/{number}/thumbnail")
            assert answer.status_code == 404
            assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    "id", ["0", "-1", "1.5", "x", "9223372036854775808", "..%2f..%2fetc%2fpasswd", "١"]
)
def test_a_thumbnail_is_asked_for_by_number_alone(client, id):
    assert client.get(f"/api/entries/{id}/thumbnail").status_code in (404, 422)


# -- what it refuses ------------------------------------------------------------------------------


def bomb(width, height):
    """A PNG that claims to be large, in a few bytes."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


WHOLE = file_of(random_image(1, (60, 40)), "jpeg")
GIF = file_of(random_image(), "gif")
BAD = {
    "empty": (b"", 415, "the file is empty"),
    "text": (b"this is no picture" * 10, 415, "expected one of JPEG, PNG, WebP, BMP, TIFF"),
    "html": (b"<html><script>alert(1)</script>", 415, "no picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no picture"),
    "gif": (GIF, 415, "no picture"),
    "truncated": (WHOLE[: len(WHOLE) // 2], 422, "damaged"),
    "only a head": (WHOLE[:30], 422, "damaged"),
    "truncated png": (file_of(random_image())[:80], 422, "damaged"),
    "bomb": (bomb(30_000, 30_000), 413, "100,000,000"),
    "just too large": (bomb(10_001, 10_000), 413, "100,000,000"),
    "wide bomb": (bomb(2**31 - 1, 1), 413, "100,000,000"),
    "too long to resize": (bomb(100_001, 1), 413, "no side of more than 100,000"),
    "no size": (bomb(0, 0), 415, "no picture"),
    "zip": (b"PK\x03\x04" + bytes(100), 415, "no picture"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_in_words(client, name):
    content, status, words = BAD[name]
    answer = search(client, content)
    assert (answer.status_code, [*answer.json()]) == (status, ["error"])
    assert words in answer.json()["error"]


def animated(kind):
    frames = [random_image(n, (60, 30)) for n in range(3)]
    return file_of(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)


ODD = {
    "CMYK": file_of(random_image().convert("CMYK"), "jpeg"),
    "16 bit": file_of(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(30, 20) * 100)),
    "float": file_of(Image.fromarray(np.linspace(0, 1, 600, dtype=np.float32).reshape(30, 20)), "tiff"),
    "one pixel": file_of(Image.new("RGB", (1, 1))),
    "30,000 wide": file_of(Image.new("RGB", (30_000, 2))),
    "palette with transparency": file_of(random_image().convert("P"), transparency=0),
    "one bit": file_of(Image.new("1", (9, 9))),
    "alpha": file_of(Image.new("RGBA", (9, 9))),
    "two pictures": file_of(random_image(), "mpo", save_all=True, append_images=[random_image(1)]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_are_searched_for(client, name):
    answer = search(client, ODD[name])
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["matches"]) == 10
    assert answer.json()["notes"] == []


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_of_a_moving_picture_the_first_frame_is_searched_for(client, kind):
    answer = answered(client, animated(kind))
    assert answer["notes"] == ["the picture has 3 frames; the first was searched for"]
    alone = search(client, file_of(random_image(0, (60, 30)))).json()
    assert answer["matches"][0]["id"] == alone["matches"][0]["id"]


def test_a_picture_is_turned_as_its_camera_was_held(client):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = file_of(Image.new("RGB", (400, 200)), "jpeg", exif=exif)
    answer = answered(client, content, box="150,300,500,500")
    assert (answer["width"], answer["height"]) == (200, 400)
    assert answer["box"] == {"x": 150, "y": 300, "width": 50, "height": 100}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": "0"}, "k: "),
        ({"k": "101"}, "k: "),
        ({"k": "1" + "0" * 30}, "k: "),
        ({"k": "1.5"}, "k: "),
        ({"k": "NaN"}, "k: "),
        ({"box": "nan,0,5,5"}, "box: "),
        ({"box": "1,2,3"}, "box: "),
        ({"box": "-1,0,5,5"}, "box: "),
        ({"box": "0,0,0,5"}, "box: "),
        ({"box": "1e3,0,5,5"}, "box: "),
        ({"box": "0,0,99999999,5"}, "box: "),
        ({"box": "500,500,5,5"}, "lies outside the image of 8 x 12 pixels"),
        ({"since": "yesterday"}, "since: "),
        ({"since": "2025-13"}, "since: "),
        ({"until": "2025-04-01T"}, "until: "),
        ({"identity": "x" * 201}, "identity.0: "),
        ({"camera": "a\0b"}, "camera.0: "),
        ({"cameras": "gate"}, "did you mean 'camera'?"),
        ({"Σ": "x"}, "'Σ' is not known here"),
        ({"picture ": "x"}, "did you mean 'picture'?"),
    ],
)
def test_wrong_fields_are_refused_in_words(client, fields, words):
    answer = search(client, file_of(random_image()), **fields)
    assert (answer.status_code, [*answer.json()]) == (422, ["error"])
    assert words in answer.json()["error"]


def test_a_form_without_a_picture_is_refused(client):
    for files in ({"image": ("a.png", WHOLE)}, {"k": (None, "5")}, {"picture": (None, "text")}):
        answer = client.post("/api/search", files=files)
        assert answer.status_code == 422
        assert "picture" in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("application/json", b"{}", 415),
        ("application/x-www-form-urlencoded", b"k=1", 415),
        ("image/png", WHOLE, 415),
        ("", b"", 415),
        ("multipart/form-data", b"--x", 400),
        ("multipart/form-data; boundary=x", b"garbage", 400),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n5',
            422,
        ),
    ],
)
def test_what_is_no_form_is_refused(client, kind, content, status):
    answer = client.post("/api/search", content=content, headers={"content-type": kind})
    assert (answer.status_code, [*answer.json()]) == (status, ["error"])


def test_two_pictures_or_too_many_fields_are_refused(client):
    twice = [("picture", ("a.png", WHOLE)), ("picture", ("b.png", WHOLE))]
    assert client.post("/api/search", files=twice).status_code == 400
    assert search(client, WHOLE, camera=["gate"] * 100).status_code == 400
    assert search(client, WHOLE, camera="x" * 5000).status_code == 400


def test_a_request_above_the_limit_is_refused(client):
    answer = search(client, bytes(MAX_BODY))
    assert answer.status_code == 413
    assert "16,777,216 bytes" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/about?x=1", "/api/entries?limit=0", "/api/entries?limit=1001"])
def test_wrong_words_in_an_address_are_refused(client, path):
    answer = client.get(path)
    assert (answer.status_code, [*answer.json()]) == (422, ["error"])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/api/about", "/api/identities", "/api/entries", "/api/entries/1"])
def test_nothing_can_be_changed(client, method, path):
    assert client.request(method, path).status_code in (404, 405)


def test_too_many_searches_at_a_time_are_sent_away(desk):
    app = search_application(desk)
    app.state.turnstile.most = 0
    client = TestClient(guarded(app, TOKEN), base_url="http://127.0.0.1", headers=OWN)
    answer = search(client, WHOLE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "too many searches" in answer.json()["error"]
    app.state.turnstile.most = 1
    assert search(client, WHOLE).status_code == 200
    assert search(client, b"bad").status_code == 415
    assert app.state.turnstile.now == 0


def test_a_gallery_that_cannot_be_read_is_said_so(client, desk, monkeypatch):
    def broken(*_, **__):
        raise GalleryError("the disk is gone")

    monkeypatch.setattr(Gallery, "entries", broken)
    answer = client.get("/api/entries")
    assert (answer.status_code, answer.json()) == (503, {"error": "the disk is gone"})
    monkeypatch.setattr(Gallery, "search_features", broken)
    assert search(client, WHOLE).status_code == 503
    monkeypatch.undo()
    assert search(client, WHOLE).status_code == 200


# -- what it never does ---------------------------------------------------------------------------


def test_a_picture_never_touches_the_disk(client, monkeypatch):
    def rolled(*_):
        raise AssertionError("a picture was written to disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled)
    monkeypatch.setattr(tempfile, "TemporaryFile", rolled)
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    content = file_of(Image.fromarray(noise), "bmp")
    assert len(content) > 11_000_000
    assert search(client, content).status_code == 200


def test_a_file_that_is_sent_is_called_what_it_likes(client):
    for name in ("../../etc/passwd", "C:\\a.png", "ä\n.png", "", "a" * 3000, "<script>"):
        files = {"picture": (name or "x", WHOLE, "text/html")}
        answer = client.post("/api/search", files=files)
        assert answer.status_code == 200
        assert "script" not in answer.text


def test_the_very_next_search_does_not_show_who_was_forgotten(home, small_run, tmp_path):
    """By another process, while the server has everything in memory."""
    place = tmp_path / "a.gallery"
    with Gallery.create(place, small_run, device="cpu") as made:
        made.enrol("Ada", [home / "Ada-0.png", home / "Ada-1.png"])
        made.enrol("Ben", [home / "Ben-0.png"])
    with Desk(place, device="cpu") as opened:
        client = client_of(opened)
        before = answered(client, photo(home, "Ada-0"))
        assert before["identity"] == "Ada"
        seen = before["matches"][0]["thumbnail"]
        assert client.get(seen).status_code == 200
        done = subprocess.run(
            [sys.executable, "-m", "gracl", "gallery", "forget", place, "Ada"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        after = answered(client, photo(home, "Ada-0"))
        assert after["identity"] == "Ben"
        assert [match["identity"] for match in after["matches"]] == ["Ben"]
        assert client.get(seen).status_code == 404
        assert client.get("/api/identities").json()["identities"] == [{"name": "Ben", "images": 1}]
        assert "Ada" not in client.get("/api/entries").text


def test_what_another_process_adds_is_found(home, small_run, tmp_path):
    place = tmp_path / "a.gallery"
    with Gallery.create(place, small_run, device="cpu") as made:
        made.enrol("Ben", [home / "Ben-0.png"])
        with Desk(place, device="cpu") as opened:
            made.enrol("Ada", [home / "Ada-0.png"])
            assert answered(client_of(opened), photo(home, "Ada-0"))["identity"] == "Ada"


def test_many_may_search_at_once_and_each_gets_its_own_answer(desk, home):
    names = [f"{name}-{n}" for name in ("Ada", "Ben", "Cleo Ωmega") for n in range(3)] * 4

    def ask(name):
        k = 1 + len(name) % 3
        answer = answered(client, photo(home, name), k=str(k), identity=name.partition("-")[0])
        return answer["matches"][0]["name"], len(answer["matches"]) == k

    with (
        running(search_application(desk), token=TOKEN) as address,
        httpx.Client(base_url=address, headers=OWN) as client,
        ThreadPoolExecutor(12) as pool,
    ):
        assert [*pool.map(ask, names)] == [(f"{name}.png", True) for name in names]


def test_searches_that_wait_are_taken_together_and_answered_alike(home, monkeypatch):
    sizes = []
    with Desk(home / "herd.gallery", device="cpu", together=4) as opened:
        answer = opened._answer

        def noted(gallery, whose, batch):
            sizes.append(len(batch))
            time.sleep(0.1)  # so that others come to wait
            answer(gallery, whose, batch)

        monkeypatch.setattr(opened, "_answer", noted)
        pictures = [read_picture(photo(home, f"Ada-{n % 3}"), opened.size) for n in range(9)]
        waiting = [opened.search(Search(one, 1 + n % 2, Where())) for n, one in enumerate(pictures)]
        waiting[5].cancel()
        found = [one.result(20) for n, one in enumerate(waiting) if n != 5]
    assert max(sizes) == 4
    assert sum(sizes) == 8
    assert [len(one) for one in found] == [1, 2, 1, 2, 1, 1, 2, 1]
    expected = [f"Ada-{n % 3}.png" for n in range(9) if n != 5]
    assert [Path(one[0].path).name for one in found] == expected


def test_one_failed_search_leaves_the_others_alone(home):
    with Desk(home / "herd.gallery", device="cpu") as opened:
        one = read_picture(photo(home, "Ada-0"), opened.size)
        bad, good = opened.search(Search(one, 0, Where())), opened.search(Search(one, 1, Where()))
        with pytest.raises(ConfigError, match="k is 0"):
            bad.result(20)
        assert good.result(20).identity == "Ada"


def test_a_desk_says_at_once_what_is_wrong(home, tmp_path):
    with pytest.raises(GalleryError, match="there is no gallery"):
        Desk(tmp_path / "none.gallery")
    other = gracl.models.embedder.build_embedder("test_resnet", size=(64, 32))
    with pytest.raises(FingerprintError, match="different models"):
        Desk(home / "herd.gallery", calibration=calibration_of(other, 0.5), device="cpu")


# -- pictures -------------------------------------------------------------------------------------


def test_a_picture_is_decoded_as_a_file_is(tmp_path):
    from gracl.data.records import Record
    from gracl.data.store import decode

    path = tmp_path / "a.jpg"
    path.write_bytes(file_of(random_image(1, (900, 700)), "jpeg", quality=90))
    for box in (None, Box(10, 20, 300, 400)):
        seen = read_picture(path.read_bytes(), (64, 32), box)
        assert np.array_equal(seen.pixels, decode(Record(path, box=box), (64, 32)))


def test_a_bomb_is_never_decoded(monkeypatch):
    monkeypatch.setattr(uploads, "to_rgb", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(BadPicture, match="the largest that is decoded has 100,000,000"):
        read_picture(bomb(10_001, 10_000), (8, 8))


# -- its description ------------------------------------------------------------------------------


def test_its_schema_names_every_answer_and_error(client):
    schema = client.get("/openapi.json").json()
    assert [*schema["paths"]] == [
        "/api/search", "/api/about", "/api/identities", "/api/entries", "/api/entries/{id}/thumbnail",
    ]  # fmt: skip
    for path, methods in schema["paths"].items():
        for what in methods.values():
            assert what["description"]
            assert {"401", "403", "421", "422", "503"} <= what["responses"].keys()
            assert what["security"] == [{"token": []}]
            for status, answer in what["responses"].items():
                if int(status) >= 400:
                    model = answer["content"]["application/json"]["schema"]["$ref"]
                    assert model.endswith("/Problem"), path
    assert {"400", "408", "413", "415"} <= schema["paths"]["/api/search"]["post"]["responses"].keys()


def test_its_page_of_documentation_loads_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    for word in ("/api/search", "/api/entries/{id}/thumbnail", "whole number, 1 to 100", "Problem"):
        assert word in page
    assert client.get("/redoc").status_code == 404


def test_the_pages_have_no_script_or_style_of_their_own(client):
    for path in ("/", "/docs"):
        page = client.get(path).text
        assert not re.search(r"<style|style=|<script(?![^>]* src=)|\son[a-z]+=", page)


# -- the command ----------------------------------------------------------------------------------


@contextmanager
def served(*words):
    """The command in a process of its own; gives it with the address that it prints."""
    command = [sys.executable, "-u", "-m", "gracl", "serve", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while "token=" not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        yield process, re.search(r"http://\S+", said)[0]
    finally:
        process.kill()
        process.communicate()


def test_the_command_serves_until_it_is_stopped(home, small_run, tmp_path):
    token_file, calibration = tmp_path / "token", tmp_path / "calibration.json"
    write_calibration(calibration, calibration_of(load_model(small_run), 0.999999))
    words = ["--port", "0", "--token-file", token_file, "--calibration", calibration, "--device", "cpu"]
    with served(home / "herd.gallery", *words, "--threads", "1") as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", address)
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        token = token_file.read_text().strip()
        assert address.endswith(token)
        place = address.partition("?")[0]
        with httpx.Client(base_url=place) as client:
            assert client.get("api/about").status_code == 401
            client.headers["Authorization"] = f"Bearer {token}"
            files = {"picture": photo(home, "Ben-2")}
            assert client.post("api/search", files=files).json()["identity"] == "Ben"
            large = {"picture": bytes(MAX_BODY + 5_000_000)}
            assert client.post("api/search", files=large).status_code == 413
            bad = client.post("api/search", files={"picture": b"none"})
            assert bad.status_code == 415
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""
    assert token not in out
    assert not token_file.exists()


def test_the_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", "a.gallery"])
    assert ended.value.code == 2
    assert "pip install 'gracl[serve]'" in " ".join(capsys.readouterr().err.split())


def test_the_command_refuses_a_gallery_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", str(tmp_path / "a.gallery")])
    assert ended.value.code == 2
    assert "there is no gallery" in " ".join(capsys.readouterr().err.split())


def test_a_token_is_not_written_over_something_else(tmp_path):
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"), handover.token_file(path, "a"):
        pass
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is there already"), handover.token_file(link, "a"):
        pass
    with (
        pytest.raises(ConfigError, match="cannot be written"),
        handover.token_file(tmp_path / "no" / "where", "a"),
    ):
        pass
    assert path.read_text() == "mine"


def test_what_a_killed_server_left_is_replaced(tmp_path):
    path = tmp_path / "token"
    path.write_text("a" * 43 + "\n")
    with handover.token_file(path, "b" * 43):
        assert path.read_text() == "b" * 43 + "\n"
        path.write_text("another server's")
    assert path.read_text() == "another server's"


def test_the_browser_is_given_a_file_that_only_its_owner_reads(monkeypatch):
    opened = []
    monkeypatch.setattr(handover.webbrowser, "open", opened.append)
    with handover.opened_in_browser("http://127.0.0.1:1/?token=secret"):
        assert "secret" not in opened[0]
        page = Path(opened[0].removeprefix("file://"))
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        assert "url=http://127.0.0.1:1/?token=secret" in page.read_text()
    assert not page.exists()


def test_the_page_of_documentation_runs_as_it_stands(home, tmp_path, monkeypatch, capsys):
    """Its command, its curl and its Python; the port and the threads alone are the test's."""
    monkeypatch.chdir(tmp_path)
    Path("visitor.jpg").write_bytes(file_of(random_image(3, (60, 30)), "jpeg"))
    commands = [line[2:] for block in blocks("console") for line in block.splitlines()]
    assert [line.split()[:3] for line in commands[:2]] == [["gracl", "serve", "herd.gallery"]] * 2
    (curl,) = (line for line in commands if line.startswith("curl"))
    with served(home / "herd.gallery", "--port", "0", "--token-file", "token") as (_, address):
        place, _, token = address.partition("?token=")
        (block,) = blocks("python")
        exec(block, {"address": place, "token": token})
        assert capsys.readouterr().out.startswith("identity ")
        if shutil.which("curl"):
            asked = ["sh", "-c", curl.replace("http://127.0.0.1:8765/", f"-s {place}")]
            done = subprocess.run(asked, capture_output=True, text=True, check=True)
            matches = json.loads(done.stdout)["matches"]
            assert [match["rank"] for match in matches] == [1, 2, 3, 4, 5]


def blocks(language):
    page = (Path(__file__).parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_the_load_that_the_page_tells_is_what_was_measured():
    root = Path(__file__).parents[1]
    found = json.loads((root / "benchmarks" / "results" / "serve.json").read_text())
    page = (root / "docs" / "serve.md").read_text(encoding="utf-8")
    for name in ("drawn_people", "random_vectors"):
        for users in ("one_user", "many_users"):
            values = found[name][users]
            assert values["errors"] == {}
            for value in (values["searches_a_second"], *values["latency_ms"].values()):
                assert f" {value:,} " in page
