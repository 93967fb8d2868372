"""What the page of `gracl review` asks its server, and what it is answered."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from starlette.testclient import TestClient

from conftest import random_image
from gracl.embedding import embed
from gracl.review.review import Review
from gracl.study import open_study
from gracl.web.review_app import review_application
from gracl.web.review_desk import Desk
from gracl.web.serving import guarded
from reviewing import write_run

HOME = "http://127.0.0.1:8766"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return write_run(tmp_path_factory.mktemp("review"), people=12, images=6)


@pytest.fixture
def desk(run, tmp_path):
    study = open_study(run)
    with Review.open(study, by="Ann", at=tmp_path / "review.sqlite") as review:
        yield Desk(review, study)


@pytest.fixture
def client(desk):
    app = review_application(desk, title="cows", by="Ann")
    headers = {"Authorization": "Bearer secret"}
    # Without its lifespan: nothing is prepared behind the tests' back.
    return TestClient(guarded(app, "secret"), base_url=HOME, headers=headers)


def version(client):
    return client.get("/api/version").json()["version"]


def decide(client, kind, **body):
    return client.post(f"/api/{kind}", json={"version": version(client), **body})


def clusters(client):
    found = client.get("/api/clusters").json()["clusters"]
    return {number: (size, *rest) for number, size, *rest in found}


def rows(client, number):
    return client.get(f"/api/clusters/{number}").json()["rows"]


# -- looking --------------------------------------------------------------------------------------


def test_the_list_tells_of_each_cluster_and_of_those_in_none(client, desk):
    found = client.get("/api/clusters").json()
    labels = desk.review.labels
    assert {n: size for n, size, *_ in found["clusters"]} == {
        n: int((labels == n).sum()) for n in set(labels.tolist()) - {-1}
    }
    doubts = [doubt for _, _, doubt, *_ in found["clusters"]]
    assert doubts == sorted(doubts, reverse=True)
    assert found["outliers"] == (labels == -1).sum() > 0
    assert found["progress"] == {
        "images": 72,
        "clusters": len(found["clusters"]),
        "confirmed": 0,
        "decisions": 0,
    }


def test_a_cluster_tells_of_each_image_and_minus_one_is_those_in_none(client, desk):
    found = client.get("/api/clusters/0").json()
    assert found["rows"] == list(desk.review.cluster(0).rows)
    assert found["doubts"] == [round(desk.review.doubt(row), 3) for row in found["rows"]]
    first = desk.study.records[found["rows"][0]]
    assert (found["files"][0], found["cameras"][0]) == (f"images/{first.path.name}", first.camera)
    assert found["dates"][0] == first.date
    assert rows(client, -1) == desk.review.outliers()


def test_clusters_that_are_not_there_are_named(client):
    answer = client.get("/api/clusters/99")
    assert answer.status_code == 409
    assert "no cluster 99" in answer.json()["error"]
    assert client.get("/api/clusters/99/near").status_code == 409


def test_images_are_found_by_file_camera_and_date(client, desk):
    labels = desk.review.labels
    files = [record.path.name for record in desk.study.records]
    row = next(row for row in range(72) if labels[row] >= 0)
    assert client.get(f"/api/find?text={files[row].upper()}").json()["numbers"] == [labels[row]]
    of_camera = {int(n) for n, r in zip(labels, desk.study.records, strict=True) if r.camera == "c1"}
    assert client.get("/api/find?text=C1").json()["numbers"] == sorted(of_camera)
    assert client.get("/api/find?text=nowhere").json()["numbers"] == []


def test_pictures_may_be_kept_and_their_address_is_this_runs_alone(client, desk):
    for kind, height in (("thumbnails", 160), ("images", 64)):
        answer = client.get(f"/{kind}/{desk.key}/3.jpg")
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert Image.open(io.BytesIO(answer.content)).height == height
    assert client.get(f"/thumbnails/{desk.key}/72.jpg").status_code == 422
    assert client.get("/thumbnails/another/3.jpg").status_code == 422
    assert client.get("/api/clusters").headers["cache-control"] == "no-store"


def test_an_image_that_is_gone_is_named(client, desk, monkeypatch):
    monkeypatch.setattr("gracl.web.review_app.upright", _fail)
    monkeypatch.setattr("gracl.data.thumbnails.upright", _fail)
    for kind in ("thumbnails", "images"):
        answer = client.get(f"/{kind}/{desk.key}/5.jpg")
        assert answer.status_code == 422
        assert desk.study.records[5].path.name in answer.json()["error"]


def _fail(*_, **__):
    raise OSError("the disk is gone")


def test_similar_images_are_the_models_nearest(client, desk):
    found = client.get("/api/similar/7?k=5").json()
    similarity = desk.study.features @ desk.study.features[7]
    similarity[7] = -1
    assert found["rows"] == similarity.topk(5).indices.tolist()
    assert found["similarities"] == sorted(found["similarities"], reverse=True)


def test_a_picture_is_searched_by_the_runs_model(client, desk):
    path = desk.study.records[4].path
    answer = client.post("/api/search?k=3", files={"image": (path.name, path.read_bytes())})
    assert answer.status_code == 200
    assert len(answer.json()["rows"]) == len(answer.json()["similarities"]) == 3


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 415, "empty"),
        (b"no picture", 415, "JPEG, PNG"),
        (b"\xff\xd8\xff\xe0 broken", 422, "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_name(client, content, status, words):
    answer = client.post("/api/search", files={"image": ("note.jpg", content)})
    assert answer.status_code == status
    assert answer.json()["error"].startswith("note.jpg cannot be searched for")
    assert words in answer.json()["error"]


def test_what_is_no_form_and_what_is_nowhere_are_answered_in_words(client):
    answer = client.post("/api/search", content=b"picture")
    assert (answer.status_code, "multipart" in answer.json()["error"]) == (415, True)
    assert client.get("/api/nowhere").json() == {"error": "Not Found"}


def test_the_model_sees_an_upload_as_it_saw_the_file(client, desk):
    path = desk.study.records[4].path
    expected = desk.study.features @ embed(desk.study.run.model, path).features[0]
    found = client.post("/api/search?k=5", files={"image": (path.name, path.read_bytes())}).json()
    assert found["similarities"] == pytest.approx(expected.topk(5).values.tolist(), abs=2e-3)


def test_a_picture_that_is_too_large_is_refused(client):
    content = b"x" * (17 * 1024 * 1024)
    assert client.post("/api/search", files={"image": ("huge.jpg", content)}).status_code == 413


# -- deciding -------------------------------------------------------------------------------------


def test_a_decision_tells_what_changed_and_what_is_gone(client):
    before = clusters(client)
    answer = decide(client, "merge", numbers=[2, 3]).json()
    assert answer["gone"] == [3]
    assert [n for n, *_ in answer["clusters"]] == [2]
    assert answer["clusters"][0][1] == before[2][0] + before[3][0]
    assert answer["version"] == version(client)
    assert "merged" in answer["decision"]["text"]
    assert clusters(client)[2][0] == before[2][0] + before[3][0]


def test_each_way_of_deciding_does_what_it_says(client):
    (a, b), c = rows(client, 1)[:2], rows(client, 2)[0]
    split = decide(client, "split", rows=[a, b]).json()
    new = next(n for n, *_ in split["clusters"] if n != 1)
    assert sorted(rows(client, new)) == sorted([a, b])
    decide(client, "eject", rows=[c])
    assert c in rows(client, -1)
    decide(client, "move", rows=[c], number=new)
    assert sorted(rows(client, new)) == sorted([a, b, c])
    decide(client, "name", number=new, name="  Ada ")
    assert clusters(client)[new][2] == "Ada"
    decide(client, "name", number=new, name="")
    assert clusters(client)[new][2] is None
    told = client.get("/api/history").json()["decisions"]
    assert [one["kind"] for one in told] == ["name", "name", "move", "eject", "split"]
    assert {one["by"] for one in told} == {"Ann"}


def test_clusters_that_are_confirmed_or_no_more_are_told_though_no_image_moved(client):
    answer = decide(client, "confirm", number=5).json()
    assert [(n, confirmed) for n, _, _, _, confirmed, *_ in answer["clusters"]] == [(5, 1)]
    assert answer["progress"]["confirmed"] == answer["clusters"][0][1]
    answer = decide(client, "undo").json()
    assert [(n, confirmed) for n, _, _, _, confirmed, *_ in answer["clusters"]] == [(5, 0)]


def test_undo_and_redo_tell_what_they_did_and_when_there_is_nothing(client):
    assert decide(client, "undo").json()["decision"] is None
    before = clusters(client)
    text = decide(client, "merge", numbers=[0, 1]).json()["decision"]["text"]
    after = clusters(client)
    undone = decide(client, "undo").json()
    assert undone["decision"]["text"] == text
    assert clusters(client) == before
    assert decide(client, "redo").json()["gone"] == [1]
    assert clusters(client) == after
    assert decide(client, "redo").json()["decision"] is None


def test_an_older_version_decides_nothing(client):
    old = version(client)
    decide(client, "merge", numbers=[0, 1])
    before = clusters(client)
    answer = client.post("/api/merge", json={"version": old, "numbers": [2, 3]})
    assert answer.status_code == 412
    assert "nothing was done" in answer.json()["error"]
    assert clusters(client) == before


def test_a_server_that_was_started_anew_has_another_version(run, tmp_path):
    found = []
    for _ in range(2):
        study = open_study(run)
        with Review.open(study, by="Ann", at=tmp_path / "r.sqlite") as review:
            found.append(Desk(review, study).version)
    assert found[0] != found[1]


def test_of_many_at_once_that_saw_the_same_one_decides(client):
    old, start = version(client), threading.Barrier(6)

    def attempt(number):
        start.wait()
        return client.post("/api/confirm", json={"version": old, "number": number}).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(attempt, range(6))) == [200] + [412] * 5
    assert len(client.get("/api/history").json()["decisions"]) == 1


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("split", {"rows": [0, 72]}, 409, "72 images"),
        ("split", {"rows": [-1]}, 409, "row -1"),
        ("eject", {"rows": []}, 422, "rows"),
        ("merge", {"numbers": [3]}, 422, "numbers"),
        ("merge", {"numbers": [3, 99]}, 409, "no cluster 99"),
        ("move", {"rows": [0], "number": 99}, 409, "no cluster 99"),
        ("same", {"first": 1, "second": 1}, 409, "itself"),
        ("name", {"number": 0, "name": "x" * 121}, 422, "name"),
        ("confirm", {"number": "one"}, 422, "number"),
    ],
)
def test_what_cannot_be_is_refused_in_words(client, kind, body, status, words):
    before = clusters(client)
    answer = decide(client, kind, **body)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert clusters(client) == before


def test_a_contradiction_names_what_was_said_and_can_be_overruled(client, desk):
    first, second = rows(client, 0)[0], rows(client, 1)[0]
    assert decide(client, "different", first=first, second=second).status_code == 200
    refused = decide(client, "merge", numbers=[0, 1])
    assert refused.status_code == 409
    assert refused.json()["overrule"] is True
    said = refused.json()["error"]
    for row in (first, second):
        assert desk.study.records[row].path.name in said
    assert "different by Ann" in said
    assert decide(client, "merge", numbers=[0, 1], overrule=True).status_code == 200
    assert 1 not in clusters(client)


# -- questions ------------------------------------------------------------------------------------


def test_a_question_shows_both_images_with_others_of_their_groups(client, desk):
    asked = client.get("/api/question").json()["question"]
    first, second = (side["rows"][0] for side in asked["sides"])
    assert first != second
    for side in asked["sides"]:
        assert side["number"] == desk.review.labels[side["rows"][0]]
        assert 1 <= len(side["rows"]) == len(side["files"]) <= 7
    assert 0 <= asked["likely"] <= 1


@pytest.mark.parametrize(("kind", "together"), [("same", True), ("different", False)])
def test_an_answer_is_a_decision_that_questions_learn_from(client, desk, kind, together):
    asked = client.get("/api/question").json()["question"]
    first, second = (side["rows"][0] for side in asked["sides"])
    answer = decide(client, kind, first=first, second=second)
    assert answer.json()["decision"]["kind"] == kind
    labels = desk.review.labels
    assert (labels[first] == labels[second]) == together
    assert desk.review.history(1)[0].similarity is not None


def test_a_skipped_pair_is_not_asked_again(client):
    def pair(found):
        return frozenset(side["rows"][0] for side in found["question"]["sides"])

    first = client.get("/api/question").json()
    a, b = (side["rows"][0] for side in first["question"]["sides"])
    second = client.post("/api/skip", json={"version": "", "first": a, "second": b}).json()
    assert pair(second) != pair(first)
    assert pair(client.get("/api/question").json()) == pair(second)


# -- who is let in --------------------------------------------------------------------------------


def test_other_sites_and_those_without_the_token_decide_nothing(client):
    body = {"version": version(client), "numbers": [0, 1]}
    before = clusters(client)
    for headers in (
        {"Origin": "https://elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "elsewhere.example"},
        {"Authorization": "Bearer wrong"},
    ):
        assert client.post("/api/merge", json=body, headers=headers).status_code in (401, 403, 421)
    assert clusters(client) == before


def test_the_page_holds_no_script_or_style_of_its_own(client):
    answer = client.get("/", headers={"Accept": "text/html"})
    assert "Review of" in answer.text
    assert "cows" in answer.text
    assert " style=" not in answer.text
    assert "<script>" not in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_missing_thumbnails_are_made_behind_the_page(desk):
    stop = threading.Event()
    stop.set()
    desk.prepare_thumbnails(stop)
    assert desk.thumbnails._database.execute("SELECT count(*) FROM thumbnails").fetchone() == (0,)
    desk.prepare_thumbnails(threading.Event(), at_once=50)
    assert desk.thumbnails._database.execute("SELECT count(*) FROM thumbnails").fetchone() == (72,)


def test_pasted_pictures_of_any_kind_are_read(client):
    for kind in ("PNG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        random_image(1, (40, 20)).save(buffer, kind)
        answer = client.post("/api/search", files={"image": ("pasted", buffer.getvalue())})
        assert answer.status_code == 200


def test_the_review_of_a_run_that_continues_another_says_what_changed_since(run, tmp_path):
    import json
    import shutil

    first, then = (shutil.copytree(run, tmp_path / name) for name in ("people", "people-2"))
    study = open_study(first)
    with Review.open(study, by="Ann") as review:
        numbers = [cluster.number for cluster in review.clusters()]
        review.merge(numbers[:2])
        client = TestClient(
            guarded(review_application(Desk(review, study), title="a", by="Ann"), "secret"),
            base_url=HOME,
            headers={"Authorization": "Bearer secret"},
        )
        found = client.get("/api/history?limit=9").json()
        assert found["since"] is None
        assert [one["carried"] for one in found["decisions"]] == [False]
    about = json.loads((then / "data.json").read_text())
    (then / "data.json").write_text(json.dumps({**about, "continues": str(first)}))
    study = open_study(then)
    with Review.open(study, by="Bea") as review:
        client = TestClient(
            guarded(review_application(Desk(review, study), title="a", by="Bea"), "secret"),
            base_url=HOME,
            headers={"Authorization": "Bearer secret"},
        )
        found = client.get("/api/history?limit=9").json()
        assert f"{len(numbers) - 1} clusters became {len(numbers) - 1}" in found["since"]
        assert [one["carried"] for one in found["decisions"]] == [True]
