"""Each example runs as it stands, on drawn people: first the one that trains, then the others."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gracl.data.synthetic import draw_people

EXAMPLES = Path(__file__).parents[1] / "examples"
SETTINGS = """
recipe: demo
model: {size: [32, 16]}
method: {k1: 8, min_samples: 3}
train: {epochs: 2, steps: 8, threads: 1}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Drawn people, the settings of a short training, and tracklets of the people trained on."""
    top = tmp_path_factory.mktemp("examples")
    draw_people(top / "people", identities=12, test_identities=20, cameras=2, images_per_camera=4)
    (top / "quick.yaml").write_text(SETTINGS)
    with (top / "people" / "metadata.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    (top / "tracklets").mkdir()
    with (top / "tracklets" / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["path", "identity", "camera", "sequence"])
        table.writeheader()
        for row in rows:
            path = top / "people" / row["path"]
            sequence = f"{row['identity']}-{row['camera']}"
            facts = {"identity": row["identity"], "camera": row["camera"], "sequence": sequence}
            table.writerow({"path": path, **facts})
    return top


def run(place, name, *words):
    """What an example prints."""
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(EXAMPLES / name), *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(place):
    return run(place, "train_on_a_folder.py", "people", "run", "--settings", "quick.yaml")


slow = pytest.mark.slow


@slow
def test_training_on_a_folder_says_what_came_of_it(place, trained):
    assert trained.startswith("96 images to learn from")
    assert re.search(r"epoch 2: \d+ clusters", trained)
    assert re.search(r"before [\d.]+% after [\d.]+%", trained)
    assert (place / "run" / "model.safetensors").is_file()


@slow
def test_a_loop_of_ones_own_keeps_its_weights_and_scores_them(place):
    said = run(place, "your_own_loop.py", "people", "loop.safetensors", "--settings", "quick.yaml")
    assert re.search(r"epoch 2: \d+ clusters, stable 0\.\d\d", said)
    assert "mAP" in said
    assert (place / "loop.safetensors").stat().st_size > 1_000_000


@slow
def test_a_method_of_ones_own_trains(place):
    said = run(place, "your_own_method.py", "people", "own", "--settings", "quick.yaml")
    assert "'mean': " in said


@slow
def test_a_gallery_is_searched_and_forgets(place, trained):
    said = run(place, "search_a_gallery.py", "run", "people")
    assert re.search(r"of 19 individuals\n\d+ of 40 queries answered rightly", said)
    assert len(re.findall(r"^  -?[01]\.\d\d  ", said, flags=re.MULTILINE)) == 3
    assert said.rstrip().endswith("still there: False")


@slow
def test_a_threshold_is_found_and_scored(place, trained):
    said = run(place, "calibrate_unknown.py", "run", "people", "--rate", "0.1")
    assert "strangers are taken for somebody from" in said
    assert re.search(r"BAKS [\d.]+%  BAUS [\d.]+%", said)


@slow
def test_eps_is_swept(place, trained):
    said = run(place, "cluster_and_sweep.py", "run", "people", "--k1", "8")
    assert said.startswith("96 images; ")
    assert re.search(r"taken: eps 0\.\d+\n.*ari|no eps gives sound clusters", said)


@slow
def test_tracklets_become_individuals(place, trained):
    said = run(place, "track_association.py", "run", "tracklets/metadata.csv")
    assert re.search(r"24 tracklets are \d+ individuals", said)
    assert "ari" in said


def test_they_are_short_and_listed():
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    listed = re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == scripts
    assert all(len((EXAMPLES / name).read_text().splitlines()) <= 60 for name in scripts)


def test_the_method_is_that_of_the_tutorial():
    page = (EXAMPLES.parent / "docs" / "tutorials" / "research.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^class Concentration.*?(?=^METHODS)", page, flags=re.DOTALL | re.MULTILINE)
    assert shown.rstrip() in (EXAMPLES / "your_own_method.py").read_text()
