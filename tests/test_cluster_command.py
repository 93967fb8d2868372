"""`gracl cluster`, and links on their way from a file to the clusters of a run."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from conftest import save_image
from gracl import cli
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.data.synthetic import draw_people
from gracl.errors import LinkConflict, RunError
from gracl.labelling import cluster_images
from gracl.runs import Run, train

SMALL = Config.load("demo").replace(
    {
        "model": {"backbone": "test_resnet"},
        "sampler": {"clusters_per_batch": 4, "images_per_cluster": 4},
        "method": {"k1": 8, "k2": 3, "eps": 0.7, "min_samples": 2},
        "train": {"epochs": 1, "steps": 2, "batchnorm_group": 8, "threads": 1},
    }
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "drawn"
    draw_people(folder, identities=10, test_identities=5, cameras=2, images_per_camera=4)
    return folder


@pytest.fixture(scope="module")
def finished(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train(SMALL, load_dataset(people), tmp_path_factory.mktemp("run") / "r").folder


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def read(path: Path) -> dict[str, int]:
    with path.open(newline="", encoding="utf-8") as lines:
        return {row["path"]: int(row["cluster"]) for row in csv.DictReader(lines)}


def test_clusters_are_those_that_the_run_ended_with(
    people: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clusters.csv"
    assert run("cluster", finished, people, "--out", out, "--threads", 1) == 0
    assert read(out) == dict(Run(finished).labels)
    said = capsys.readouterr().out
    assert re.search(r"80 images: \d+ clusters, [\d.]+% in none", said)
    assert "against the known identities: ARI" in said
    assert str(out) in said.replace("\n", "")


def test_settings_of_the_command_line_stand_over_those_of_the_run(
    people: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []
    for words in (("--eps", 0.2), ("--eps", 0.9), ("--clustering", "hdbscan"), ("--k1", 3)):
        assert run("cluster", finished, people, *words, "--out", tmp_path / "c.csv") == 0
        sizes.append(tuple(read(tmp_path / "c.csv").values()))
    assert len(set(sizes)) == 4
    assert run("cluster", finished, people, "--eps", 7, "--out", tmp_path / "c.csv") == 2
    assert "eps is 7.0; it must be in [0.0, 1.0]" in capsys.readouterr().err


def test_a_sweep_prints_its_table_and_writes_what_it_suggests(
    people: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "clusters.csv", tmp_path / "sweep.png"
    code = run("cluster", finished, people, "--sweep", "--plot", plot, "--out", out, "--k1", 6)
    said = capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "0.775" in said
    if code == 0:
        suggested = re.search(r"--method.eps ([\d.]+)", said)
        assert suggested
        assert "<- suggested" in said
        swept = read(out)
        eps = ("--eps", suggested[1], "--k1", 6)
        assert run("cluster", finished, people, *eps, "--out", out) == 0
        assert read(out) == swept
    else:
        assert code == 1
        assert "no eps gives sound clusters" in said
        assert not out.exists()


def test_a_plot_without_a_sweep_is_refused(
    people: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cluster", finished, people, "--plot", "x.png") == 2
    assert "give --sweep too" in capsys.readouterr().err


def links_file(folder: Path, people: Path, rows: list[tuple[int, int, str]]) -> Path:
    records = load_dataset(people).train
    table = folder / "links.csv"
    lines = [f"{records[a].path},{records[b].path},{link}" for a, b, link in rows]
    table.write_text("\n".join(["first,second,link", *lines]), encoding="utf-8")
    return table


def test_links_change_the_clusters_of_the_command(people: Path, finished: Path, tmp_path: Path) -> None:
    labels = [label for _, label in Run(finished).labels]
    together = next((a, b) for a in range(80) for b in range(a) if labels[a] == labels[b] >= 0)
    apart = next((a, b) for a in range(80) for b in range(a) if labels[a] != labels[b])
    table = links_file(tmp_path, people, [(*together, "cannot"), (*apart, "must")])
    out = tmp_path / "c.csv"
    assert run("cluster", finished, people, "--links", table, "--out", out) == 0
    found = [*read(out).values()]
    assert found[apart[0]] == found[apart[1]] >= 0
    assert found[together[0]] != found[together[1]] or found[together[0]] == -1


def test_a_run_honours_links_in_every_epoch_and_continues_only_with_the_same(
    people: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(people)
    table = links_file(tmp_path, people, [(0, 79, "must"), (1, 2, "cannot")])
    seen = []
    train(SMALL, dataset, tmp_path / "r", links=table, on_epoch=lambda epoch: seen.append(epoch.labels))
    labels = [label for _, label in Run(tmp_path / "r").labels]
    for found in (*seen, labels):
        assert found[0] == found[79] >= 0
        assert found[1] != found[2] or found[1] == -1
    longer = SMALL.replace({"train": {"epochs": 2}})
    with pytest.raises(RunError, match="was begun with other links"):
        train(longer, dataset, tmp_path / "r")
    train(longer, dataset, tmp_path / "r", links=table)
    about = json.loads((tmp_path / "r" / "data.json").read_text(encoding="utf-8"))
    assert len(about["links"]) == 64


def test_contradicting_links_stop_a_run_and_name_the_files(people: Path, tmp_path: Path) -> None:
    dataset = load_dataset(people)
    table = links_file(tmp_path, people, [(0, 1, "must"), (1, 2, "must"), (2, 0, "cannot")])
    names = [dataset.train[i].path.name for i in (0, 1, 2)]
    with pytest.raises(LinkConflict, match=" = ".join(f"[^=]*{re.escape(name)}" for name in names)):
        train(SMALL, dataset, tmp_path / "r", links=table)


def test_sequences_hold_together_where_the_settings_say_so(people: Path, finished: Path) -> None:
    from dataclasses import replace

    from gracl.data.records import Records

    dataset = load_dataset(people)
    marked = [replace(r, sequence=f"{i // 40}") for i, r in enumerate(dataset.train)]
    dataset = replace(dataset, train=Records(tuple(marked)))
    config = SMALL.replace({"data": {"link_sequences": True}})
    found = cluster_images(Run(finished).model, dataset, config)
    assert len(set(found.labels[:40])) == len(set(found.labels[40:])) == 1
    free = cluster_images(Run(finished).model, dataset, SMALL)
    assert len(set(free.labels[:40])) > 1


def test_nothing_but_a_table_of_clusters_is_overwritten(
    people: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("path,identity\na.jpg,7\n")
    assert run("cluster", finished, people, "--out", mine) == 2
    assert "exists and is no table with the columns path,cluster" in capsys.readouterr().err
    assert mine.read_text() == "path,identity\na.jpg,7\n"
    assert run("cluster", finished, people, "--out", tmp_path / "c.csv") == 0
    assert run("cluster", finished, people, "--out", tmp_path / "c.csv") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "."), "expected a file in a folder that exists"),
        (("--out", "nowhere/c.csv"), "expected a file in a folder that exists"),
        (("--sweep", "--eps", 0.5), "leave --eps out"),
        (("--sweep", "--clustering", "hdbscan"), "no eps to sweep"),
        (("--clustering", "agglomerative", "--eps", 1.0), "needs one below 1"),
        (("--sweep", "--plot", "x.foo"), "a plot is .png"),
        (("--threads", -3), "threads is -3"),
    ],
)
def test_what_could_only_fail_is_refused_before_any_image_is_read(
    finished: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], said: str
) -> None:
    assert run("cluster", finished, "no/such/images", *words) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_what_was_left_out_is_said(
    people: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    shutil.copytree(people / "images", folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    assert run("cluster", finished, folder, "--out", tmp_path / "c.csv") == 0
    assert re.search(r"left out: \S*broken.jpg: \w*Error", capsys.readouterr().out)
    assert run("cluster", finished, people, "--k1", 60, "--out", tmp_path / "c.csv") in (0, 2)
    said = capsys.readouterr().out
    assert "k1 is 60 and there are 80 images" in said
    assert "only the training images are clustered" in said


def test_clusters_can_be_written_as_animalclef_takes_them(
    people: Path, finished: Path, tmp_path: Path
) -> None:
    words = ("--out", tmp_path / "c.csv", "--animalclef", tmp_path / "a.csv")
    assert run("cluster", finished, people, *words) == 0
    with (tmp_path / "a.csv").open(newline="") as lines:
        given = {row["image_id"]: row["cluster"] for row in csv.DictReader(lines)}
    clusters = {Path(path).stem: number for path, number in read(tmp_path / "c.csv").items()}
    assert given.keys() == clusters.keys()
    outliers = [name for name, number in clusters.items() if number == -1]
    assert len({given[name] for name in outliers}) == len(outliers)
    together = {}
    for name, number in clusters.items():
        if number >= 0:
            together.setdefault(number, set()).add(given[name])
    assert all(len(names) == 1 for names in together.values())


def test_open_set_scores_and_answers_come_from_the_command_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of four individuals stand in the gallery."""
    for split, identities in (("gallery", "ab"), ("query", "abcd")):
        for n, identity in enumerate(identities):
            for copy in range(2):
                seed = 100 * ord(identity) + copy + 10 * (split == "query")
                save_image(tmp_path / "herd" / split / identity / f"{split}{n}{copy}.png", seed)
    words = ("evaluate", finished, tmp_path / "herd", "--open-set", "--threads", 1)
    assert run(*words, "--answers", tmp_path / "answers.csv") == 0
    said = capsys.readouterr().out
    assert re.search(r"herd: BAKS [\d.]+%  BAUS [\d.]+%", said)
    assert "4 queries of known individuals, 4 of new ones" in said
    with (tmp_path / "answers.csv").open(newline="") as lines:
        given = {row["image_id"]: row["identity"] for row in csv.DictReader(lines)}
    assert len(given) == 8
    assert set(given.values()) <= {"a", "b", "new_individual"}
    assert run(*words, "--threshold", -1.0, "--json") == 0
    assert json.loads(capsys.readouterr().out)["baus"] == 0
    assert run("evaluate", finished, tmp_path / "herd", "--threshold", 0.5) == 2
    assert "give that too" in capsys.readouterr().err


def test_an_open_set_reads_all_its_settings_or_refuses_them(
    finished: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text("mine\n")
    for words, said in (
        (("--rerank",), "leave --tracklets, --rerank"),
        (("--answers", tmp_path / "mine.csv"), "so it is not overwritten"),
        (("--answers", tmp_path / "no" / "a.csv"), "a file in a folder that exists"),
        (("--protocol", "vehicleid-10x", "--threshold", 0.5), "open-set scores draw nothing"),
    ):
        assert run("evaluate", finished, people, "--open-set", "--threads", 1, *words) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")
    assert (tmp_path / "mine.csv").read_text() == "mine\n"
