"""What guided.py builds word for word from an input's bytes: pictures, names, what a page is asked."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import atheris
import numpy as np
from PIL import Image

import fuzz_files
from fuzz_files import HOSTILE, WRONG, good
from fuzz_watch import Ending
from gracl.data.boxes import read_header
from gracl.data.check import check_dataset
from gracl.data.layouts import LAYOUTS
from gracl.data.readers import load_dataset
from gracl.data.records import Box, Record
from gracl.data.store import decode
from gracl.data.thumbnails import Thumbnails, thumbnail
from gracl.data.tracks import frame_number
from gracl.errors import ConfigError, DataError
from gracl.gallery.entries import Where
from gracl.review.review import Review
from gracl.web.review_app import review_application
from gracl.web.review_desk import Desk as ReviewDesk
from gracl.web.search_app import search_application
from gracl.web.search_desk import Desk
from gracl.web.serving import guarded
from gracl.web.uploads import BadPicture, read_picture
from guided_forms import Target

Provider = Any  # atheris.FuzzedDataProvider
TOKEN = "t"


def _built(build: Callable[[Provider], Ending | None], seeds: int = 40) -> Target:
    """A target whose inputs are what a case is built from."""
    rng = np.random.default_rng(0)

    def feed(given: bytes) -> Ending:
        return build(atheris.FuzzedDataProvider(given)) or "read"

    return Target(feed, [rng.bytes(int(rng.integers(8, 400))) for _ in range(seeds)])


def _word(data: Provider, known: Sequence[str]) -> str:
    """One of the known words, a hostile one, or any."""
    draw = data.ConsumeIntInRange(0, 9)
    if draw < 6:
        return str(data.PickValueInList([*known]))
    if draw < 8:
        return str(data.PickValueInList(HOSTILE))[:5000]
    return str(data.ConsumeUnicode(30))


def pictures(folder: Path) -> Target:
    """Pictures of all modes, sizes and orientations, with boxes; files, and what is sent."""
    kinds = {
        "JPEG": ("L", "RGB", "CMYK"),
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I", "I;16", "F"),
        "WEBP": ("RGB", "RGBA"),
        "GIF": ("L", "P", "RGB"),
        "BMP": ("1", "L", "RGB"),
    }

    def build(data: Provider) -> Ending:
        kind = str(data.PickValueInList([*kinds]))
        mode = str(data.PickValueInList([*kinds[kind]]))
        size = data.ConsumeIntInRange(1, 60), data.ConsumeIntInRange(1, 60)
        how: dict[str, Any] = {}
        if data.ConsumeBool() and kind in ("JPEG", "PNG", "TIFF", "WEBP"):
            how["exif"] = _exif(data)
        if data.ConsumeBool() and kind in ("PNG", "GIF") and mode == "P":
            how["transparency"] = data.ConsumeIntInRange(0, 255)
        sides = [data.ConsumeIntInRange(low, 60) for low in (-9, -9, 0, 0)]
        if data.ConsumeIntInRange(0, 9) == 0:
            sides = [data.ConsumeInt(9) for _ in range(4)]
        box = Box(*sides) if data.ConsumeBool() else None
        wanted = data.ConsumeIntInRange(1, 40), data.ConsumeIntInRange(1, 40)
        pixels = data.ConsumeBytes(400)
        file = io.BytesIO()
        try:
            picture = Image.new(mode, size)
            bytes_needed = len(picture.tobytes())
            if pixels:
                picture.frombytes((pixels * (bytes_needed // len(pixels) + 1))[:bytes_needed])
            picture.save(file, kind, **how)
        except Exception:  # what Pillow does not write is no input
            return "refused"
        content = bytearray(file.getvalue())
        for _ in range(data.ConsumeIntInRange(0, 4)):
            content[data.ConsumeIntInRange(0, len(content) - 1)] = data.ConsumeIntInRange(0, 255)
        return _see(bytes(content), folder / "x.png", wanted, box)

    return _built(build)


def _exif(data: Provider) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = data.PickValueInList([1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 65535, "6", b"\6"])
    try:
        made = exif.tobytes()
    except Exception:  # what Pillow does not write
        return b"Exif"
    cut = data.ConsumeIntInRange(0, len(made))
    return made if cut % 4 else made[:cut]


def _see(content: bytes, path: Path, size: tuple[int, int], box: Box | None) -> Ending:
    """All who look at a picture agree on whether it is one; none raises but what it says it does."""
    path.write_bytes(content)
    record, ending = Record(path, box=box), "read"
    read_header(path)
    try:
        found = decode(record, size)
        if found.shape != (3, *size) or found.dtype != np.uint8:
            raise AssertionError(f"decoded as {found.dtype} {found.shape}")
    except (OSError, ValueError):
        ending = "refused"
    try:
        thumbnail(record)
    except DataError:
        ending = "refused"
    try:
        sent = read_picture(content, size, box)
        if sent.pixels.shape != (3, *size) or min(sent.width, sent.height) < 1:
            raise AssertionError(f"read as {sent.pixels.shape} of {sent.width} x {sent.height}")
    except BadPicture:
        ending = "refused"
    return ending  # type: ignore[return-value]


_SHAPES = {
    "market": ("{a}_c{b}s1_{b}51_00.jpg", "{a}_c{b}_{b}.jpg", "-1_c{b}s1_000001_00.jpg"),
    "veri": ("{a}_c00{b}_0001_0.jpg", "{a}_c{b}.jpg"),
    "msmt": ("0000_000_0{b}_0303morning_0008_0.jpg", "{a}_{b}_{a}_.jpg"),
    "mars": ("{a}C{b}T0001F001.jpg", "00-1C{b}T{b}F{a}.jpg", "0000C1T{b}F1.jpg"),
    "any": ("{a}.png", "{a}_{b}.JPG", ".{a}.jpg", "{a}", "frame {a}.webp"),
}
_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt", "metadata.csv",
          "train_test_split/train_list.txt", "train_test_split/test_list_800.txt",
          "info/test_name.txt", "info/tracks_test_info.mat", "info/query_IDX.mat")  # fmt: skip


def names(folder: Path) -> Target:
    """Folders of images: what layouts, identities and cameras are read from their names."""
    source = sorted({source.folder for layout in LAYOUTS for source in layout.sources})
    tops = [
        *source,
        "train",
        "query",
        "gallery",
        "test",
        "a",
        "Ada",
        "detected",
        "labeled",
        "market1501",
    ]

    def build(data: Provider) -> Ending:
        with tempfile.TemporaryDirectory(dir=folder) as held:
            top = Path(held) / _safe(_word(data, ["data", "market", "msmt17", "personx", "detected"]))
            top.mkdir(exist_ok=True)
            shapes = _SHAPES[str(data.PickValueInList([*_SHAPES]))]
            chosen = [_safe(_word(data, tops)) for _ in range(data.ConsumeIntInRange(1, 4))]
            if data.ConsumeBool():  # all that one layout needs
                layout = LAYOUTS[data.ConsumeIntInRange(0, len(LAYOUTS) - 1)]
                chosen += [source.folder for source in layout.sources]
                for source in layout.sources:
                    if source.listing is not None:
                        _list(top / source.listing, data)
            for name in dict.fromkeys(chosen):
                for _ in range(data.ConsumeIntInRange(0, 4)):
                    a, b = _word(data, ["0001", "0002", "-1", "0000"]), _word(data, ["1", "2", "3"])
                    shape = str(data.PickValueInList([*shapes, *_SHAPES["any"]]))
                    path = top / name / _safe(shape.format(a=a, b=b))
                    frame_number(path)
                    _write(path, b"")
            if data.ConsumeIntInRange(0, 3) == 0:
                _list(top / str(data.PickValueInList([*_LISTS])), data)
            known = [None, *(layout.name for layout in LAYOUTS), "folder", "csv", "huggingface"]
            named = data.PickValueInList(known)
            dataset = load_dataset(top) if named is None else load_dataset(named, root=top)
            check_dataset(dataset)
        return "read"

    return _built(build)


def _list(path: Path, data: Provider) -> None:
    lines = [
        _word(data, ["0001/a.jpg 1", "a.jpg 2", "path,identity", "a.jpg", "0001_c1_a.jpg,3"])
        for _ in range(data.ConsumeIntInRange(0, 4))
    ]
    _write(path, "\n".join(lines).encode(errors="surrogatepass" if data.ConsumeBool() else "replace"))


def _safe(name: str) -> str:
    """A name that the file system takes."""
    name = name.replace("/", "_").replace("\0", "_")
    kept = name.encode(errors="replace")[:200].decode(errors="ignore")
    return kept if kept not in ("", ".", "..") else "_"


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError:
        return  # there is a folder, or a file, of this name already


_FIELDS: Mapping[str, Sequence[str]] = {
    "k": ("5", "1", "100", "0", "101"),
    "limit": ("5", "1000", "10000", "0"),
    "after": ("0", "3", str(2**63 - 1), str(2**63)),
    "since": ("2025", "2025-01", "2025-01-01", "2025-01-01T09:30", "2025-01-01T09:30:00.5+01:00"),
    "until": ("2025", "2024-12-31", "2025-02-30", "2025-01-01 09"),
    "identity": ("a", "b", "nobody"),
    "camera": ("c", "gate"),
    "site": ("s",),
    "contains": ("a", "ß", "%", "_"),
    "box": ("0,0,5,5", "1,1,999999,1", "0,0,0,0"),
    "token": (TOKEN,),
}
_PATHS = ("/api/search", "/api/entries", "/api/identities", "/api/about", "/api/entries/1/thumbnail",
          "/", "/docs", "/openapi.json", "/static/gracl.css", "/api/entries/99/thumbnail",
          "/static/../../x", "//x", "/api/entries/-1/thumbnail")  # fmt: skip
_HEADS: Mapping[str, Sequence[str]] = {
    "host": ("127.0.0.1:8000", "localhost", "[::1]:80", "evil.example", "localhost:99999"),
    "origin": ("http://127.0.0.1:8000", "null", "http://evil.example"),
    "cookie": (f"gracl-token-8000={TOKEN}", "a=b; gracl-token-80=", "=;=;"),
    "authorization": (f"Bearer {TOKEN}", f"bearer  {TOKEN}", "Basic x", "Bearer"),
    "content-length": ("3", "-1", "99999999999", "x"),
    "content-type": ("multipart/form-data; boundary=b", "multipart/form-data", "application/json", "x"),
    "expect": ("100-continue",),
    "sec-fetch-site": ("same-origin", "cross-site"),
    "sec-fetch-mode": ("navigate", "cors"),
    "accept": ("text/html", "*/*"),
}


def requests(folder: Path) -> Target:
    """What is asked of the search page, behind its guard: no answer is a 5xx, none without its head."""
    from starlette.testclient import TestClient

    place = folder / "x.gallery"
    place.write_bytes(good("x.gallery"))
    app = guarded(search_application(Desk(place, device="cpu")), TOKEN)
    client = TestClient(app, raise_server_exceptions=True, base_url="http://127.0.0.1:8000")
    client.follow_redirects = False
    file = io.BytesIO()
    Image.new("RGB", (8, 16), "red").save(file, "png")
    image = file.getvalue()

    def build(data: Provider) -> Ending:
        _where(data)
        sent = [(name, _word(data, _FIELDS[name])) for name in _names(data, _FIELDS)]
        heads = {name: _ascii(_word(data, _HEADS[name])) for name in _names(data, _HEADS)}
        if data.ConsumeIntInRange(0, 3):
            heads |= {"authorization": f"Bearer {TOKEN}", "host": "127.0.0.1:8000"}
        path = _word(data, _PATHS)
        how: dict[str, Any] = {"headers": heads}
        if path == "/api/search" or data.ConsumeIntInRange(0, 7) == 0:
            path = "/api/search"
            heads.pop("content-length", None)
            if data.ConsumeIntInRange(0, 3) == 0:
                heads.setdefault("content-type", "multipart/form-data; boundary=b")
                how["content"] = _body(data, sent)
            else:
                heads.pop("content-type", None)
                picture = data.ConsumeBytes(40) if data.ConsumeBool() else image
                how |= {"files": {"picture": ("x.png", picture)}, "data": _lists(sent)}
            method = "POST"
        else:
            how["params"] = sent
            method = str(data.PickValueInList(["GET", "GET", "GET", "HEAD", "POST", "DELETE"]))
        try:
            request = client.build_request(method, _url(path), **how)
        except Exception:  # what httpx does not send is no input
            return "refused"
        answer = client.send(request)
        if answer.status_code >= 500:
            raise AssertionError(f"{answer.status_code}: {answer.text[:200]}")
        if answer.headers.get("x-content-type-options") != "nosniff":
            raise AssertionError("an answer without the guard's headers")
        return "read" if answer.status_code < 400 else "refused"

    return _built(build)


def _where(data: Provider) -> None:
    """Filters as Python has them: those that are taken make SQL."""
    since, until = (_word(data, _FIELDS[name]) for name in ("since", "until"))
    try:
        text, parameters = Where(since=since, until=until).sql(lambda c, v: (c, v))
    except ConfigError:
        return
    if text.count("?") != len(parameters):
        raise AssertionError(f"{text} with {parameters}")


def _names(data: Provider, known: Mapping[str, object]) -> Iterator[str]:
    for _ in range(data.ConsumeIntInRange(0, 4)):
        yield str(data.PickValueInList([*known]))


def _lists(sent: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in sent:
        found.setdefault(name, []).append(value)
    return found


def _body(data: Provider, sent: Sequence[tuple[str, str]]) -> bytes:
    """A form, broken here and there."""
    parts = []
    for name, value in sent:
        head = _word(data, [f'form-data; name="{name}"', f'form-data; name="{name}"; filename="x"'])
        parts.append(f"--b\r\nContent-Disposition: {head}\r\n\r\n{value}\r\n")
    ending = str(data.PickValueInList(["--b--\r\n", "--b--", "", "--b\r\n", "\r\n--c--"]))
    form = "".join([*parts, ending]).encode(errors="replace")
    return form + bytes(data.ConsumeBytes(20))


def _ascii(value: str) -> str:
    return value.encode("latin-1", "replace").decode("latin-1")


def _url(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


_DECISIONS: Mapping[str, Sequence[str]] = {
    "merge": ("numbers",),
    "split": ("rows",),
    "eject": ("rows",),
    "move": ("rows", "number"),
    "name": ("number", "name"),
    "confirm": ("number",),
    "same": ("first", "second"),
    "different": ("first", "second"),
    "skip": ("first", "second"),
    "undo": (),
    "redo": (),
}
_LOOKS = ("clusters", "clusters/{}", "clusters/{}/near?k={}", "find?text={}", "history?limit={}",
          "question", "similar/{}?k={}", "version")  # fmt: skip


def decisions(folder: Path) -> Target:
    """A review's page, asked and told in any order: no answer is a 5xx, and decisions are kept."""
    from starlette.testclient import TestClient

    records = fuzz_files.draw_images(folder)
    study = fuzz_files.study_of(folder, records)
    pictures_of = Thumbnails(records, cache=folder)
    place = folder / "review.sqlite"
    with Review.open(study, by="Ann", at=place) as review:
        desk = ReviewDesk(review, study, thumbnails=pictures_of)
    client = TestClient(review_application(desk, title="x", by="Ann"))

    def build(data: Provider) -> Ending:
        for part in ("", "-wal", "-shm", "-journal"):
            place.with_name(place.name + part).unlink(missing_ok=True)
        ending: Ending = "refused"
        with Review.open(study, by="Ann", at=place) as review:
            desk.__init__(review, study, thumbnails=pictures_of)  # type: ignore[misc]
            for _ in range(data.ConsumeIntInRange(1, 8)):
                if _told(data, client, desk.version):
                    ending = "read"
            labels = review.labels.tolist()
        with Review.open(study, by="Bea", at=place) as again:
            if again.labels.tolist() != labels:
                raise AssertionError(f"{labels} became {again.labels.tolist()}")
        return ending

    return _built(build)


def _told(data: Provider, client: Any, version: str) -> bool:
    """One question or decision; whether it was taken."""
    if data.ConsumeIntInRange(0, 2) == 0:
        values = [_word(data, ["0", "1", "5", "a", "-1"]) for _ in range(2)]
        path = str(data.PickValueInList([*_LOOKS])).format(
            *(quote(one, safe="", errors="replace") for one in values)
        )
        answer = client.get(f"/api/{path}")
    else:
        kind = str(data.PickValueInList([*_DECISIONS]))
        told: dict[str, Any] = {name: _said(data, name) for name in _DECISIONS[kind]}
        told["version"] = version if data.ConsumeIntInRange(0, 9) else _word(data, ["", "x"])
        if data.ConsumeBool():
            told["overrule"] = _said(data, "overrule")
        content = json.dumps(told).encode()
        answer = client.post(
            f"/api/{kind}", content=content, headers={"content-type": "application/json"}
        )
    if answer.status_code >= 500:
        raise AssertionError(f"{answer.status_code}: {answer.text[:200]}")
    return bool(answer.status_code < 400)


def _said(data: Provider, name: str) -> Any:
    """A value of a decision, mostly of its kind."""
    if data.ConsumeIntInRange(0, 19) == 0:
        return data.PickValueInList(WRONG)
    if name in ("rows", "numbers"):
        return [data.ConsumeIntInRange(-2, 9) for _ in range(data.ConsumeIntInRange(0, 5))]
    if name == "name":
        return _word(data, ["Ada", "Ben", "", " Ada "])[:150]
    return data.ConsumeBool() if name == "overrule" else data.ConsumeIntInRange(-2, 9)


BUILT: dict[str, Callable[[Path], Target]] = {
    "pictures": pictures,
    "names": names,
    "requests": requests,
    "decisions": decisions,
}
"""By name: each is made in an empty folder of its own."""
