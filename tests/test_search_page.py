"""The search page in a real browser: by upload, paste, drop and keys; what it says; how it lies."""

from __future__ import annotations

import pytest

from browser import NARROW, WIDE, overflow, running
from conftest import random_image, save_image
from gracl.files import load_model
from gracl.gallery.gallery import Gallery
from gracl.web.search_app import search_application
from gracl.web.search_desk import Desk
from test_serve import calibration_of

PASTE = """async ([bytes, kind]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def home(small_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with Gallery.create(folder / "herd.gallery", small_run, device="cpu") as made:
        for at, name in enumerate(("Ada", "Ben", "<b>Cleo</b>")):
            paths = [save_image(folder / f"{at}-{n}.png", 10 * at + n, (120, 60)) for n in range(3)]
            camera = "gate" if at < 2 else "barn"
            made.add(paths, identity=name, camera=camera, site="north", time=f"2025-0{at + 1}-01")
        made.add(random_image(98, (60, 30)), identity="Dot")  # never was a file
    Gallery.create(folder / "empty.gallery", small_run, device="cpu").close()
    return folder


@pytest.fixture(scope="module")
def address(home, small_run):
    strict = calibration_of(load_model(small_run), 0.999999)
    with (
        Desk(home / "herd.gallery", calibration=strict, device="cpu") as desk,
        running(search_application(desk)) as found,
    ):
        yield found


@pytest.fixture
def opened(page, address):
    page.goto(f"{address}/?token=secret")
    page.wait_for_selector("#about:not(:empty)")
    return page


def choose(page, path):
    page.set_input_files("#file", path)
    page.wait_for_selector('#found[aria-busy="false"] #answer:visible')


def settled(page):
    page.wait_for_timeout(500)  # a filter waits for the next one
    page.wait_for_selector('#found[aria-busy="false"]')


def names(page):
    return page.locator(".match .who").all_inner_texts()


def test_a_picture_that_is_chosen_is_answered(opened, home):
    assert opened.title() == "herd.gallery - gracl search"
    assert opened.inner_text("#about") == "10 images, 4 individuals by name"
    choose(opened, home / "0-1.png")
    assert opened.inner_text("#answer") == "Ada"
    assert "reaches 1.000" in opened.inner_text("#why")
    assert names(opened)[0] == "Ada"
    assert opened.locator(".match").first.inner_text().startswith("1.000")
    assert opened.get_attribute(".match img >> nth=0", "alt") == "Image 2, of Ada"
    assert opened.inner_text("#status") == "Ada. 10 matches."
    assert "Below 1.000" in opened.inner_text(".below-line")
    opened.wait_for_selector("text=No picture of it is here")  # of Dot


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_can_be_pasted_or_dropped(opened, home, kind):
    opened.evaluate(PASTE, [[*(home / "1-2.png").read_bytes()], kind])
    opened.wait_for_selector("#answer:visible")
    assert opened.inner_text("#answer") == "Ben"


def test_a_stranger_is_unknown(opened, tmp_path):
    choose(opened, save_image(tmp_path / "who.png", 500))
    assert opened.inner_text("#answer") == "Unknown"
    assert opened.get_attribute("#answer-card", "data-kind") == "unknown"


def test_names_are_never_markup(opened, home):
    choose(opened, home / "2-0.png")
    assert opened.inner_text("#answer") == "<b>Cleo</b>"
    assert opened.locator("#found b").count() == 0


def test_filters_search_again(opened, home):
    choose(opened, home / "0-0.png")
    opened.get_by_label("barn").check()
    settled(opened)
    assert set(names(opened)) == {"<b>Cleo</b>"}
    opened.click("#clear")
    opened.fill("#since", "2025-02")
    opened.fill("#until", "2025-02")
    opened.keyboard.press("Tab")
    settled(opened)
    assert set(names(opened)) == {"Ben"}
    opened.fill("#until", "2024")
    opened.keyboard.press("Tab")
    settled(opened)
    assert opened.inner_text("#hello") == "No image of the gallery meets these filters."
    opened.click("#clear")
    settled(opened)
    assert len(names(opened)) == 10
    opened.click(".match button.who >> nth=0")
    settled(opened)
    assert set(names(opened)) == {"Ada"}
    opened.click("#chosen button")
    settled(opened)
    assert len(names(opened)) == 10


def test_a_part_is_drawn_or_typed(opened, home):
    choose(opened, home / "0-0.png")
    with opened.expect_request("**/api/search") as asked:
        box = opened.locator("#frame").bounding_box()
        opened.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
        opened.mouse.down()
        opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.75, steps=4)
        opened.mouse.up()
    assert asked.value.method == "POST"
    drawn = [int(opened.input_value(f"#box input >> nth={n}")) for n in range(4)]
    assert drawn == pytest.approx([15, 30, 15, 60], abs=1)
    settled(opened)
    assert opened.is_visible("#part")
    opened.fill("#box input[name=width]", "99999")
    opened.keyboard.press("Tab")
    settled(opened)
    opened.keyboard.press("Escape")
    opened.click("#whole")
    settled(opened)
    assert opened.input_value("#box input[name=x]") == ""
    assert opened.inner_text("#answer") == "Ada"


def test_what_is_no_picture_is_said_in_words(opened, complaints, home, tmp_path):
    bad = tmp_path / "notes.jpg"
    bad.write_text("no picture")
    opened.set_input_files("#file", bad)
    opened.wait_for_selector("#error:visible")
    assert opened.inner_text("#error").startswith("This is no picture of a type that is read; expected")
    assert opened.is_visible("#unshown")
    assert all("415" in line for line in complaints)
    complaints.clear()
    large = tmp_path / "large.png"
    large.write_bytes(bytes(17 * 2**20))
    opened.set_input_files("#file", large)
    assert "17.0 MB; up to 16 MB" in opened.inner_text("#error")
    choose(opened, home / "0-0.png")
    assert opened.is_hidden("#error")


def test_everything_can_be_done_with_keys(opened, home):
    choosers = []
    opened.on("filechooser", lambda chooser: choosers.append(chooser))
    opened.wait_for_timeout(200)  # until the browser has heard of that
    opened.keyboard.press("o")
    opened.wait_for_timeout(500)
    choosers[0].set_files(home / "1-0.png")
    opened.wait_for_selector("#answer:visible")
    opened.keyboard.press("/")
    opened.keyboard.type("ada")
    opened.keyboard.press("Enter")
    opened.wait_for_selector("#chosen button")
    settled(opened)
    assert set(names(opened)) == {"Ada"}
    opened.keyboard.press("Escape")
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.matches('#chosen button')")
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    opened.keyboard.press("Enter")
    settled(opened)
    assert len(names(opened)) == 10


def test_the_first_key_leads_to_the_content_and_the_next_to_the_picture(opened):
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    opened.keyboard.press("Tab")
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.id") == "file"


def test_an_empty_gallery_says_so(page, home):
    with Desk(home / "empty.gallery", device="cpu") as desk, running(search_application(desk)) as found:
        page.goto(f"{found}/?token=secret")
        page.wait_for_selector("text=This gallery is empty")
        page.set_input_files("#file", home / "0-0.png")
        page.wait_for_selector('#found[aria-busy="false"]')
        assert "This gallery is empty" in page.inner_text("#hello")
        page.close()


def test_without_a_calibration_the_page_warns(page, home):
    with Desk(home / "herd.gallery", device="cpu") as desk, running(search_application(desk)) as found:
        page.goto(f"{found}/?token=secret")
        choose(page, home / "0-0.png")
        assert "Without a calibration strangers are given a name too." in page.inner_text("#why")
        page.close()


def test_a_server_that_was_stopped_is_said_so(page, home, complaints):
    with Desk(home / "herd.gallery", device="cpu") as desk:
        with running(search_application(desk)) as found:
            page.goto(f"{found}/?token=secret")
            choose(page, home / "0-0.png")
        page.keyboard.press("s")
        page.wait_for_selector("text=The server does not answer")
    assert complaints  # the browser says so too
    complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_sticks_out(opened, address, home, size, scheme):
    opened.set_viewport_size(size)
    opened.emulate_media(color_scheme=scheme)
    opened.reload()
    opened.wait_for_selector("#about:not(:empty)")
    assert overflow(opened) == []
    choose(opened, home / "2-0.png")
    opened.evaluate("document.querySelector('#filters').open = true")
    assert overflow(opened) == []
    opened.goto(f"{address}/docs")
    assert overflow(opened) == []
