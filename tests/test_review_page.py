"""The page of `gracl review` in a real browser, before a real server, on hundreds of clusters."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import expect

from browser import NARROW, WIDE, overflow, watch
from gracl.review.review import Review
from gracl.study import open_study
from reviewing import write_run

pytestmark = pytest.mark.slow
PEOPLE, IMAGES = 460, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 506 clusters, and the cache it was made with."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(cache))
        run = write_run(tmp_path_factory.mktemp("review"), people=PEOPLE, images=IMAGES, size=(48, 24))
    return run, cache


@contextmanager
def served(run, cache):
    """`gracl review RUN` in a process of its own; gives the process and the printed address."""
    command = [sys.executable, "-m", "gracl", "review", str(run), "--port", "0", "--by", "Ann"]
    environment = {**os.environ, "GRACL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        for line in process.stdout:
            found = re.search(r"http://\S+", line)
            if found:
                yield process, found[0]
                break
        else:
            pytest.fail("the server told no address")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def address(made, tmp_path_factory):
    """Of a server that all tests share; each decides about clusters of its own."""
    run, cache = made
    copy = shutil.copytree(run, tmp_path_factory.mktemp("shared") / "run")
    with served(copy, cache) as (_, address):
        yield address


@pytest.fixture
def server(address):
    """The same server, asked past the page."""
    base, token = address.split("/?token=")
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


def ready(page, address, number=None):
    page.goto(address if number is None else f"{address}#{number}")
    page.wait_for_selector("#app[data-ready=yes]")
    return page


def rows(server, number):
    return server.get(f"/api/clusters/{number}").raise_for_status().json()["rows"]


def numbers(server):
    return [one[0] for one in server.get("/api/clusters").json()["clusters"]]


def decide(server, kind, **body):
    version = server.get("/api/version").json()["version"]
    return server.post(f"/api/{kind}", json={"version": version, **body}).raise_for_status().json()


def said(page, words):
    expect(page.locator("#said")).to_contain_text(words)


def has_focus(page, selector):
    expect(page.locator(selector)).to_be_focused()


def nearest(server, number):
    return server.get(f"/api/clusters/{number}/near").json()["near"][0][0]


# -- looking --------------------------------------------------------------------------------------


def test_a_long_list_has_few_elements_and_scrolls_to_its_end(page, address, server):
    ready(page, address)
    total = len(numbers(server))
    assert total >= 500
    expect(page.locator("#listed")).to_have_text(f"{total} of {total} clusters")
    assert page.locator("#clusters [role=option]").count() < 40
    page.locator("#clusters").focus()
    page.keyboard.press("End")
    last = page.locator("#clusters .active")
    expect(last).to_have_attribute("aria-posinset", str(total))
    expect(last).to_be_in_viewport()
    expect(last).to_have_attribute("aria-selected", "true")
    assert page.locator("#clusters [role=option]").count() < 40


def test_the_list_is_ordered_and_filtered(page, address, server):
    ready(page, address)
    page.select_option("#sort", "size")
    sizes = page.locator("#clusters small").all_inner_texts()
    found = [int(text.split()[0]) for text in sizes]
    assert found == sorted(found, reverse=True)
    page.fill("#filter", "cluster 12")
    expect(page.locator("#listed")).to_contain_text("11 of")  # 12, 120 to 129
    file = server.get("/api/clusters/33").json()["files"][0]
    page.fill("#filter", file)
    expect(page.locator("#listed")).to_contain_text("1 of")
    expect(page.locator("#clusters strong")).to_have_text("Cluster 33")
    page.fill("#filter", "12")  # in names of files too; the one of this number stands first
    expect(page.locator("#clusters .cluster strong").first).to_have_text("Cluster 12")
    page.fill("#filter", "no such thing")
    expect(page.locator("#listed")).to_contain_text("No cluster matches")
    page.locator("#filter").press("Escape")
    page.select_option("#show", "named")


def test_pictures_are_there_with_names_on_demand(page, address, server):
    ready(page, address, 20)
    images = page.locator("#images img")
    assert images.count() == len(rows(server, 20))
    assert images.evaluate_all("all => Promise.all(all.map(one => one.decode())).then(() => true)")
    assert not page.locator("#images .caption span").count()
    page.keyboard.press("i")
    file = server.get("/api/clusters/20").json()["files"][0]
    expect(page.locator("#images .caption").first).to_contain_text(file.split("/")[-1])
    expect(page.locator("#images .caption").first).to_contain_text("2026-05")


# -- deciding -------------------------------------------------------------------------------------


def test_merge_after_a_look_at_both(page, address, server):
    number = numbers(server)[0]
    other, before = nearest(server, number), rows(server, number)
    both = sorted([*before, *rows(server, other)])
    ready(page, address, number)
    page.keyboard.press("m")
    expect(page.locator("#compare")).to_be_visible()
    expect(page.locator("#compare h3").nth(1)).to_contain_text(f"Cluster {other}")
    page.keyboard.press("m")
    expect(page.locator("#compare")).to_be_hidden()
    said(page, f"Merged clusters {number} and {other}")
    expect(page.locator("#images-facts")).to_contain_text(f"{len(both)} images")
    assert sorted(rows(server, number)) == both
    assert other not in numbers(server)
    has_focus(page, "#images")


def test_split_then_undo_and_redo_in_words(page, address, server):
    number = next(n for n in (40, 41, 42) if len(rows(server, n)) >= 4)
    before = rows(server, number)
    ready(page, address, number)
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#selection strong")).to_have_text("2 selected")
    page.keyboard.press("s")
    said(page, f"Split 2 images from cluster {number}")
    assert sorted(rows(server, number)) == sorted(before[2:])
    expect(page.locator("#selection")).to_be_hidden()
    has_focus(page, "#images")
    page.keyboard.press("u")
    said(page, f"Undone: split 2 images from cluster {number}")
    assert sorted(rows(server, number)) == sorted(before)
    page.keyboard.press("Shift+U")
    said(page, "Done again: split 2 images")
    assert sorted(rows(server, number)) == sorted(before[2:])
    expect(page.locator("#history li").first).to_contain_text("split 2 images")


def test_space_selects_an_image_of_the_cluster_that_was_clicked(page, address, server):
    ready(page, address, 40)
    page.locator("#clusters [role=option]").nth(3).click()
    has_focus(page, "#clusters")
    page.keyboard.press("Space")
    expect(page.locator("#selection strong")).to_have_text("1 selected")
    has_focus(page, "#images")


def test_eject_by_mouse_and_find_it_among_those_of_no_cluster(page, address, server):
    before, outliers = rows(server, 60), rows(server, -1)
    ready(page, address, 60)
    page.locator("#images .cell").last.click()
    page.click("[data-do=eject]")
    said(page, "Ejected 1 image from cluster 60")
    has_focus(page, "#images")
    page.keyboard.press("o")
    expect(page.locator("#images-title")).to_have_text("Images of no cluster")
    assert sorted(rows(server, -1)) == sorted([*outliers, before[-1]])
    expect(page.locator("#images-facts")).to_have_text(f"{len(outliers) + 1} images")


def test_move_to_a_cluster_that_is_typed(page, address, server):
    moved = rows(server, 70)[-1]
    ready(page, address, 70)
    page.keyboard.press("End")
    page.keyboard.press("Space")
    page.keyboard.press("v")
    page.keyboard.type("cluster 71")
    expect(page.locator("#move-list .active")).to_contain_text("Cluster 71")
    page.keyboard.press("Enter")
    said(page, "Moved 1 image from cluster 70 to cluster 71")
    assert moved in rows(server, 71)
    has_focus(page, "#images")


def test_a_name_confirms_and_is_found(page, address, server):
    ready(page, address, 80)
    page.keyboard.press("n")
    page.keyboard.type("Ada")
    page.keyboard.press("Enter")
    expect(page.locator("#images-title")).to_have_text("Ada")
    expect(page.locator("#images-facts")).to_contain_text("confirmed")
    has_focus(page, "#images")
    page.keyboard.press("/")
    page.keyboard.type("ada")
    expect(page.locator("#clusters strong")).to_have_text("Ada")
    page.keyboard.press("Enter")
    has_focus(page, "#clusters")
    expect(page.locator("#images-title")).to_have_text("Ada")


def test_confirming_goes_on_to_the_next_in_the_list(page, address, server):
    ready(page, address, 90)
    index = page.locator("#clusters .chosen").get_attribute("aria-posinset")
    page.keyboard.press("c")
    said(page, "Confirmed cluster 90")
    expect(page.locator("#clusters .chosen")).to_have_attribute("aria-posinset", str(int(index) + 1))
    assert server.get("/api/clusters").json()["progress"]["confirmed"] >= len(rows(server, 90))
    page.keyboard.press("k")
    expect(page.locator("#images-facts")).to_contain_text("confirmed")


def test_a_closer_look_says_whether_the_image_is_selected(page, address):
    ready(page, address, 200)
    page.locator("#images").focus()
    page.keyboard.press("Enter")
    button = page.locator('#large [value="select"]')
    expect(button).not_to_contain_text("✓")
    page.keyboard.press("Space")
    expect(button).to_contain_text("Selected ✓")
    page.keyboard.press("Escape")
    expect(page.locator("#selection strong")).to_have_text("1 selected")


def test_confirming_passes_over_what_the_filter_shows_no_more(page, address):
    ready(page, address)
    page.select_option("#show", "open")
    page.locator("#clusters .cluster").nth(1).click()
    shown = [page.locator(f'#clusters [aria-posinset="{place}"]') for place in (1, 2, 3)]
    first, second, third = (int(one.get_attribute("id").split("-")[-1]) for one in shown)
    page.keyboard.press("n")
    page.keyboard.type("Seen")
    page.keyboard.press("Enter")
    said(page, f"Named cluster {second} Seen")
    page.keyboard.press("k")
    page.keyboard.press("c")
    said(page, f"Confirmed cluster {first}")
    expect(page.locator("#images-title")).to_have_text(f"Cluster {third}")


def test_several_marked_clusters_become_one(page, address, server):
    ready(page, address, 100)
    page.keyboard.press("x")
    for _ in range(2):
        page.keyboard.press("j")
        page.keyboard.press("x")
    expect(page.locator("#marks strong")).to_have_text("3 marked")
    before = len(numbers(server))
    page.click("#marks [data-do=merge]")
    said(page, "Merged clusters 100, ")
    assert len(numbers(server)) == before - 2
    expect(page.locator("#marks")).to_be_hidden()
    has_focus(page, "#images")


def test_a_contradiction_is_told_and_keeps_the_selection(page, address, server, complaints):
    first, second = rows(server, 110), rows(server, 111)
    decide(server, "different", first=first[0], second=second[0])
    ready(page, address, 110)
    for _ in first:
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
    page.keyboard.press("v")
    page.keyboard.type("cluster 111")
    page.keyboard.press("Enter")
    error = page.locator("#move .error")
    expect(error).to_contain_text("were said to be different by Ann")
    page.keyboard.press("Escape")
    expect(page.locator("#selection strong")).to_have_text(f"{len(first)} selected")
    page.keyboard.press("v")
    page.keyboard.type("cluster 111")
    page.keyboard.press("Enter")
    error.get_by_role("button", name="Overrule").click()
    said(page, f"Moved {len(first)} images from cluster 110 to cluster 111")
    assert sorted(rows(server, 111)) == sorted([*first, *second])
    assert [text for text in complaints if "409" not in text] == []
    complaints.clear()


# -- questions ------------------------------------------------------------------------------------


def test_questions_are_answered_by_keys(page, address, server):
    ready(page, address)

    def asked():
        page.wait_for_selector("#question-first img")
        pictures = page.locator(".question .picture img").all()
        return [picture.get_attribute("src") for picture in pictures]

    page.keyboard.press("q")
    expect(page.locator("#question-title")).to_have_text("Are these the same?")
    first = asked()
    page.keyboard.press("n")
    said(page, "are different")
    expect(page.locator("#question-facts")).to_contain_text("1 answer so far")
    second = asked()
    assert second != first
    page.keyboard.press("Space")
    expect(page.locator(".question .picture img").first).not_to_have_attribute("src", second[0])
    page.keyboard.press("y")
    said(page, "are the same")
    has_focus(page, ".pane.question")
    page.keyboard.press("u")
    said(page, "Undone: said that")
    page.keyboard.press("Escape")
    expect(page.locator("#images")).to_be_visible()
    has_focus(page, "#images")
    kinds = [one["kind"] for one in server.get("/api/history?limit=2").json()["decisions"]]
    assert kinds == ["same", "different"]


# -- searching ------------------------------------------------------------------------------------


def test_search_by_an_image_of_the_run_and_go_to_a_cluster_found(page, address, server):
    ready(page, address, 120)
    page.keyboard.press("w")
    expect(page.locator("#images-title")).to_contain_text("Similar to p")
    found = server.get(f"/api/similar/{rows(server, 120)[0]}").json()
    assert page.locator("#images .cell").first.get_attribute("id") == f"images-{found['rows'][0]}"
    expect(page.locator("#images .caption").first).to_contain_text(f"{found['similarities'][0]:.2f}")
    page.keyboard.press("g")
    words = f"Cluster {found['clusters'][0]}" if found["clusters"][0] >= 0 else "Images of no cluster"
    expect(page.locator("#images-title")).to_have_text(words)


def test_search_by_an_upload_and_by_what_is_no_picture(page, address, made, tmp_path, complaints):
    ready(page, address)
    page.keyboard.press("f")
    bad = tmp_path / "note.png"
    bad.write_text("no picture")
    page.set_input_files("#search input", bad)
    expect(page.locator("#search .error")).to_contain_text("note.png cannot be searched for")
    assert [text for text in complaints if "415" not in text] == []
    complaints.clear()
    good = next((made[0].parent / "photos" / "images").glob("*.jpg"))
    page.set_input_files("#search input", good)
    expect(page.locator("#images-title")).to_have_text(f"Similar to {good.name}")
    expect(page.locator("#images-facts")).to_contain_text("60 images")
    has_focus(page, "#images")


# -- what must not go wrong -----------------------------------------------------------------------


def test_a_tab_that_is_out_of_date_is_told_and_keeps_its_selection(page, address, server, complaints):
    before = rows(server, 130)
    ready(page, address, 130)
    page.keyboard.press("Space")
    decide(server, "confirm", number=131)  # by somebody else
    page.keyboard.press("s")
    expect(page.locator("#trouble")).to_contain_text("nothing was done")
    assert rows(server, 130) == before
    expect(page.locator("#selection strong")).to_have_text("1 selected")
    page.keyboard.press("s")
    said(page, "Split 1 image from cluster 130")
    expect(page.locator("#trouble")).to_be_hidden()
    assert [text for text in complaints if "412" not in text] == []
    complaints.clear()


def test_another_tab_follows_at_once(page, address, server, complaints):
    ready(page, address, 140)
    other = page.context.new_page()
    watch(other, complaints)
    ready(other, address, 140)
    page.bring_to_front()
    page.keyboard.press("n")
    page.keyboard.type("Grace")
    page.keyboard.press("Enter")
    expect(other.locator("#images-title")).to_have_text("Grace")
    other.bring_to_front()
    other.keyboard.press("u")
    expect(page.locator("#images-title")).to_have_text("Cluster 140")


def test_a_decision_is_there_after_sigkill(page, made, tmp_path, complaints):
    run, cache = made
    copy = shutil.copytree(run, tmp_path / "run")
    with served(copy, cache) as (process, address):
        ready(page, address, 7)
        page.keyboard.press("n")
        page.keyboard.type("Mary")
        page.keyboard.press("Enter")
        expect(page.locator("#images-title")).to_have_text("Mary")
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.keyboard.press("u")
        expect(page.locator("#trouble")).to_contain_text("the server does not answer", ignore_case=True)
    with served(copy, cache) as (_, address):
        ready(page, address, 7)
        expect(page.locator("#images-title")).to_have_text("Mary")
        page.goto("about:blank")  # before this server, too, is stopped under its hands
    assert [text for text in complaints if "net::ERR_" not in text] == []
    complaints.clear()
    with Review.open(open_study(copy), by="Ann") as review:
        assert review.cluster(7).name == "Mary"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_sticks_out_in_any_view(page, address, size, scheme):
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    ready(page, address, 150)
    assert overflow(page) == []
    page.evaluate("document.querySelector('.tabs [data-do=pane-images]').click()")
    page.locator("#images .cell").first.click()
    page.keyboard.press("i")
    assert overflow(page) == []
    for key in ("v", "n", "f", "?", "Enter", "m"):
        page.locator("#images").focus()
        page.keyboard.press(key)
        expect(page.locator("dialog[open]")).to_be_visible()
        assert overflow(page) == [], key
        page.keyboard.press("Escape")
        expect(page.locator("dialog[open]")).to_be_hidden()
    page.keyboard.press("q")
    expect(page.locator("#question-first img").first).to_be_visible()
    assert overflow(page) == []


def test_a_phone_shows_one_pane_at_a_time_and_images_are_tapped(browser, address, server, complaints):
    context = browser.new_context(viewport=NARROW, has_touch=True, is_mobile=True)
    page = context.new_page()
    watch(page, complaints)
    ready(page, address)
    expect(page.locator(".pane.images")).to_be_hidden()
    page.locator("#clusters .cluster").nth(2).tap()
    expect(page.locator(".pane.images")).to_be_visible()
    expect(page.locator(".pane.list")).to_be_hidden()
    page.locator("#images .cell").nth(1).tap()
    expect(page.locator("#selection strong")).to_have_text("1 selected")
    for button in page.locator("#selection button, .tabs button, #cluster-actions button").all():
        box = button.bounding_box()
        assert box is None or box["height"] >= 44
    number = int(page.url.split("#")[1])
    page.keyboard.press("m")
    expect(page.locator("#compare")).to_be_visible()
    page.keyboard.press("m")  # while the list is hidden
    said(page, f"Merged clusters {number} and ")
    expect(page.locator("#selection")).to_be_hidden()
    size = len(rows(server, number))
    page.locator(".back").tap()
    expect(page.locator("#clusters")).to_be_visible()
    expect(page.locator("#clusters .chosen small")).to_contain_text(f"{size} images")
    context.close()
    assert complaints == []
