"""The loop: it learns, it repeats itself to the digit, and it stops rather than train on rubbish."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from gracl import training
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.data.records import Records
from gracl.data.store import open_store
from gracl.data.synthetic import draw_people
from gracl.errors import ClusterCollapse, ConfigError, DataError, NonFiniteLoss, RunError
from gracl.files import load_snapshot
from gracl.precision import Precision
from gracl.profiling import profile_run
from gracl.runs import Run, train

SMALL = Config.load("demo").replace(
    {
        "model": {"backbone": "test_resnet"},
        "sampler": {"clusters_per_batch": 4, "images_per_cluster": 4},
        "method": {"k1": 8, "k2": 3, "eps": 0.7, "min_samples": 2},
        "train": {"epochs": 3, "steps": 3, "batchnorm_group": 8, "threads": 1},
    }
)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / "drawn"
    draw_people(folder, identities=10, test_identities=5, cameras=2, images_per_camera=4)
    return folder


@pytest.fixture
def dataset(people):
    return load_dataset(people)


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def test_the_same_seed_gives_the_same_digits_and_another_seed_does_not(dataset, tmp_path):
    runs = [train(SMALL, dataset, tmp_path / name) for name in ("a", "b")]
    other = train(SMALL.replace({"train": {"seed": 1}}), dataset, tmp_path / "c")
    assert_same_weights(weights(runs[0].folder), weights(runs[1].folder))
    losses = [[line["losses"] for line in run.epochs] for run in (*runs, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.fixture
def torch_as_before(monkeypatch):
    """What a deterministic run sets for the whole process is taken back."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def test_a_deterministic_run_asks_torch_for_it_and_gives_a_cpu_the_same_digits(
    dataset, tmp_path, torch_as_before
):
    plain = train(SMALL, dataset, tmp_path / "plain")
    assert not torch.are_deterministic_algorithms_enabled()
    strict = train(SMALL.replace({"train": {"deterministic": True}}), dataset, tmp_path / "strict")
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert_same_weights(weights(plain.folder), weights(strict.folder))


@pytest.mark.parametrize("deterministic", [True, False])
def test_convolutions_are_tried_out_on_a_gpu_only_where_digits_may_differ(
    torch_as_before, deterministic
):
    training.use_deterministic(deterministic)
    before = torch.backends.cudnn.benchmark
    with Precision("float32", torch.device("cuda")).backward():
        assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.backends.cudnn.benchmark == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_deterministic_runs_on_a_gpu_give_the_same_digits(dataset, tmp_path, torch_as_before):
    strict = SMALL.replace({"train": {"deterministic": True, "device": "cuda"}})
    runs = [train(strict, dataset, tmp_path / name) for name in ("a", "b")]
    assert_same_weights(weights(runs[0].folder), weights(runs[1].folder))
    assert runs[0].labels == runs[1].labels


def test_a_finished_run_is_returned_as_it_is(dataset, tmp_path):
    train(SMALL, dataset, tmp_path / "run")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    train(SMALL, dataset, tmp_path / "run", on_epoch=lambda _: pytest.fail("trained again"))
    del before["config.yaml"]
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_run_stopped_between_epochs_continues_to_the_same_weights(dataset, tmp_path, stop_after):
    whole = train(SMALL, dataset, tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(epoch):
        if epoch.number == stop_after:
            raise StopError

    with pytest.raises(StopError):
        train(SMALL, dataset, tmp_path / "broken", on_epoch=stop)
    assert load_snapshot(tmp_path / "broken" / "checkpoint.safetensors").epoch == stop_after
    continued = train(SMALL, dataset, tmp_path / "broken")
    assert_same_weights(weights(whole.folder), weights(continued.folder))
    same = ("epoch", "losses", "n_clusters", "stability")
    assert [[line[k] for k in same] for line in whole.epochs] == [
        [line[k] for k in same] for line in continued.epochs
    ]
    assert whole.labels == continued.labels
    assert whole.after == continued.after


KILLED = """
import sys
from gracl.config import Config
from gracl.data.readers import load_dataset
from gracl.runs import train
train(
    Config.load(sys.argv[1]),
    load_dataset(sys.argv[2]),
    sys.argv[3],
    progress=lambda *a: print(*a, flush=True),
)
"""


@pytest.mark.slow
def test_a_run_killed_anywhere_continues_to_the_same_weights(dataset, people, tmp_path):
    settings = tmp_path / "settings.yaml"
    config = SMALL.replace({"train": {"epochs": 5}})
    settings.write_text(config.to_yaml())
    whole = train(config, dataset, tmp_path / "whole")
    random = np.random.default_rng(0)
    folder = tmp_path / "killed"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    deaths = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(settings), str(people), str(folder)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        for _ in range(int(random.integers(1, 7))):
            if not process.stdout.readline():
                break
        time.sleep(float(random.uniform(0, 0.05)))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        deaths += process.wait() == -signal.SIGKILL
        if (folder / "model.safetensors").is_file():
            break
    continued = train(config, dataset, folder)
    assert deaths >= 4
    assert_same_weights(weights(whole.folder), weights(continued.folder))
    assert [line["epoch"] for line in continued.epochs] == [1, 2, 3, 4, 5]


def test_more_epochs_may_be_added_to_a_finished_run(dataset, tmp_path):
    longer = SMALL.replace({"train": {"epochs": 4}})
    train(SMALL, dataset, tmp_path / "grown")
    assert_same_weights(
        weights(train(longer, dataset, tmp_path / "grown").folder),
        weights(train(longer, dataset, tmp_path / "whole").folder),
    )


def test_a_run_killed_between_its_model_and_its_last_line_ends_properly(dataset, tmp_path, monkeypatch):
    from gracl import runs

    original = runs.append

    def die_before_the_last_line(path, line):
        if line["event"] == "end":
            raise KeyboardInterrupt
        original(path, line)

    with monkeypatch.context() as patched:
        patched.setattr(runs, "append", die_before_the_last_line)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, dataset, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").is_file()
    continued = train(SMALL, dataset, tmp_path / "run")
    assert continued.after == train(SMALL, dataset, tmp_path / "whole").after


def test_a_finished_run_killed_at_the_end_of_added_epochs_is_not_taken_as_finished(dataset, tmp_path):
    longer = SMALL.replace({"train": {"epochs": 4}})
    train(SMALL, dataset, tmp_path / "grown")

    def die(_epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(longer, dataset, tmp_path / "grown", on_epoch=die)
    assert load_snapshot(tmp_path / "grown" / "checkpoint.safetensors").epoch == 4
    assert_same_weights(
        weights(train(longer, dataset, tmp_path / "grown").folder),
        weights(train(longer, dataset, tmp_path / "whole").folder),
    )


def test_other_settings_do_not_continue_a_run(dataset, tmp_path):
    train(SMALL, dataset, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"method\.eps was 0\.7, is 0\.5.*another --out"):
        train(SMALL.replace({"method": {"eps": 0.5}}), dataset, tmp_path / "run")


def test_the_length_of_a_cosine_may_not_change(dataset, tmp_path):
    cosine = SMALL.replace({"train": {"schedule": "cosine", "epochs": 1}})
    train(cosine, dataset, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"train\.epochs was 1, is 2"):
        train(cosine.replace({"train": {"epochs": 2}}), dataset, tmp_path / "run")


def test_a_teacher_is_what_is_scored_and_kept_and_continues(dataset, tmp_path):
    config = SMALL.replace({"train": {"ema": 0.8}})
    models = []

    def stop(epoch):
        models.append(epoch.model)
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, dataset, tmp_path / "run", on_epoch=stop)
    snapshot = load_snapshot(tmp_path / "run" / "checkpoint.safetensors")
    assert_same_weights(snapshot.state["teacher"], models[1].state_dict())
    conv = next(name for name in snapshot.state["model"] if name.endswith("conv1.weight"))
    assert not torch.equal(snapshot.state["model"][conv], snapshot.state["teacher"][conv])
    continued = train(config, dataset, tmp_path / "run", on_epoch=lambda e: models.append(e.model))
    whole = train(config, dataset, tmp_path / "whole")
    assert_same_weights(weights(whole.folder), weights(continued.folder))
    assert_same_weights(weights(continued.folder), models[-1].state_dict())
    assert whole.after == continued.after


def test_the_log_says_where_the_time_went(dataset, tmp_path):
    run = train(SMALL, dataset, tmp_path / "run")
    stages = ["extract", "search", "graph", "cluster", "proxies", "train"]
    start, *epochs, end = run.log
    assert list(start["seconds"]) == ["decode", "evaluate"]
    assert list(end["seconds"]) == ["evaluate"]
    for line in epochs:
        assert list(line["seconds"]) == stages
        assert min(line["seconds"].values()) > 0
        speed = line["images_per_second"]
        assert speed["extract"] == pytest.approx(len(dataset.train) / line["seconds"]["extract"])
        assert 3 * 8 <= round(speed["train"] * line["seconds"]["train"]) <= 3 * 16
        assert line["peak_memory"]["host"] > 2**26
    assert (start["device"], start["processes"], start["threads"]) == ("cpu", 1, 1)


def test_a_method_that_remembers_all_images_takes_features_once(dataset, tmp_path, monkeypatch):
    calls = []
    original = training.extract

    def counted(*arguments, **settings):
        calls.append(1)
        return original(*arguments, **settings)

    monkeypatch.setattr(training, "extract", counted)
    config = SMALL.replace({"method": {"name": "spcl"}})
    whole = train(config, dataset, tmp_path / "whole")
    assert len(calls) == 1
    assert ["extract" in line["seconds"] for line in whole.epochs] == [True, False, False]
    assert ["extract" in line["images_per_second"] for line in whole.epochs] == [True, False, False]
    speed = profile_run(whole).images_per_second
    assert speed["extract"] == whole.epochs[0]["images_per_second"]["extract"]

    def stop(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, dataset, tmp_path / "broken", on_epoch=stop)
    assert len(calls) == 2
    continued = train(config, dataset, tmp_path / "broken")
    assert len(calls) == 2
    assert_same_weights(weights(whole.folder), weights(continued.folder))


def test_a_run_that_failed_before_it_learnt_anything_begins_anew(dataset, tmp_path):
    hopeless = SMALL.replace({"method": {"eps": 0.0, "min_samples": 8}})
    with pytest.raises(ClusterCollapse):
        train(hopeless, dataset, tmp_path / "run")
    run = train(SMALL, dataset, tmp_path / "run")
    assert run.config == SMALL
    assert [line["event"] for line in run.log] == ["start", "epoch", "epoch", "epoch", "end"]


def test_a_run_killed_while_it_wrote_its_first_file_begins_anew(dataset, tmp_path):
    (tmp_path / "config.yaml.unfinished").write_text("data:")
    assert [line["epoch"] for line in train(SMALL, dataset, tmp_path).epochs] == [1, 2, 3]


def test_fewer_epochs_than_were_trained_change_nothing(dataset, tmp_path):
    run = train(SMALL, dataset, tmp_path / "run")
    train(SMALL.replace({"train": {"epochs": 1}}), dataset, tmp_path / "run")
    assert run.config == SMALL


@pytest.mark.parametrize("n", [1, 3])
def test_too_few_images_are_refused(dataset, tmp_path, n):
    few = dataclasses.replace(dataset, train=dataset.train[:n])
    with pytest.raises(DataError, match=f"{n} images are too few.*at least 4"):
        train(SMALL, few, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_that_cannot_be_read_are_listed(people, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(people / "images", folder)
    (folder / "broken.jpg").write_bytes(b"not an image")
    run = train(SMALL, load_dataset(folder), tmp_path / "run")
    assert [Path(entry["path"]).name for entry in run.left_out] == ["broken.jpg"]
    assert "broken.jpg" not in {Path(path).name for path, _ in run.labels}


def test_a_trained_network_keeps_its_statistics_when_it_is_trained_on(dataset, tmp_path):
    model = train(SMALL, dataset, tmp_path / "run").model
    images = open_store(dataset.train, size=SMALL.model.size)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.initialise(model, images, SMALL)
    assert_same_weights(before, model.state_dict())
    fresh = training.build_model(SMALL.model)
    means = fresh.backbone.bn1.running_mean.clone()
    training.initialise(fresh, images, SMALL)
    assert not torch.equal(means, fresh.backbone.bn1.running_mean)


def test_a_store_of_another_size_is_refused(dataset):
    images = open_store(dataset.train, size=(32, 32))
    with pytest.raises(DataError, match=r"\(32, 32\).*\(64, 32\)"):
        next(training.fit(training.build_model(SMALL.model), images, SMALL))


def test_weights_that_became_infinite_are_not_kept(dataset, tmp_path, monkeypatch):
    original = torch.optim.Adam.step

    def explode(self, *arguments):
        original(self, *arguments)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))

    monkeypatch.setattr(torch.optim.Adam, "step", explode)
    config = SMALL.replace({"train": {"steps": 1}})
    with pytest.raises(NonFiniteLoss, match="weights became infinite or NaN in epoch 1"):
        train(config, dataset, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_other_images_do_not_continue_a_run(dataset, tmp_path):
    train(SMALL, dataset, tmp_path / "run")
    fewer = dataclasses.replace(dataset, train=dataset.train[:-1])
    with pytest.raises(RunError, match="not the same"):
        train(SMALL, fewer, tmp_path / "run")


def test_a_folder_with_other_things_is_left_alone(dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(RunError, match="exists and is not a run"):
        train(SMALL, dataset, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_training_does_not_read_identities(dataset, tmp_path):
    truth = train(SMALL, dataset, tmp_path / "truth")
    without = dataclasses.replace(dataset, train=dataset.train.unlabelled())
    blind = train(SMALL, without, tmp_path / "blind")
    assert_same_weights(weights(truth.folder), weights(blind.folder))
    assert "agreement" in truth.after
    assert "agreement" not in blind.after


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_batch(
    dataset, tmp_path, monkeypatch
):
    config = SMALL.replace({"train": {"epochs": 2}})
    healthy = train(SMALL.replace({"train": {"epochs": 1}}), dataset, tmp_path / "one")

    from gracl.methods.gracl import GRACL

    original, calls = GRACL.loss, []

    def broken(self, batch):
        calls.append(1)
        losses = original(self, batch)
        return {k: v * (float("nan") if len(calls) == 9 else 1.0) for k, v in losses.items()}

    monkeypatch.setattr(GRACL, "loss", broken)
    with pytest.raises(NonFiniteLoss, match=r"epoch 2, step 2 \(inter nan.*batch of \d+\.jpg"):
        train(config, dataset, tmp_path / "two")
    kept = load_snapshot(tmp_path / "two" / "checkpoint.safetensors")
    assert kept.epoch == 1
    assert_same_weights(weights(healthy.folder), kept.state["model"])


def test_the_model_is_untouched_by_the_step_that_failed(dataset, monkeypatch):
    images = open_store(dataset.train, size=SMALL.model.size)
    model = training.build_model(SMALL.model)

    from gracl.methods.gracl import GRACL

    infinite = float("inf")
    monkeypatch.setattr(GRACL, "loss", lambda _self, batch: {"inter": infinite * batch.features.sum()})
    parameters = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(NonFiniteLoss, match="step 1"):
        next(training.fit(model, images, SMALL))
    assert all(torch.equal(a, b) for a, b in zip(parameters, model.parameters(), strict=True))


def test_a_collapse_stops_the_run_and_says_what_to_change(dataset, tmp_path):
    with pytest.raises(ClusterCollapse, match=r"outliers.*method\.eps"):
        train(SMALL.replace({"method": {"eps": 0.0, "min_samples": 8}}), dataset, tmp_path / "run")
    with pytest.raises(RunError, match="not finished"):
        _ = Run(tmp_path / "run").model


def test_a_custom_loop_sees_every_epoch(dataset):
    model = training.build_model(SMALL.model)
    seen = [
        (e.number, e.n_clusters, sorted(e.losses)) for e in training.fit(model, dataset.train, SMALL)
    ]
    assert [number for number, _, _ in seen] == [1, 2, 3]
    assert all(n_clusters >= 2 for _, n_clusters, _ in seen)
    assert all(names == ["centroid", "inter", "intra", "total"] for _, _, names in seen)


def test_a_run_reads_back_what_it_wrote(dataset, tmp_path):
    run = train(SMALL, dataset, tmp_path / "run")
    assert run.config == SMALL
    assert [line["epoch"] for line in run.epochs] == [1, 2, 3]
    assert len(run.labels) == len(dataset.train)
    images = torch.zeros(2, 3, *SMALL.model.size, dtype=torch.uint8)
    features = run.model(images)
    assert features.shape == (2, run.model.dim)
    assert not run.model.training
    assert {p.name for p in run.folder.iterdir()} == {
        "config.yaml",
        "data.json",
        "images.csv",
        "log.jsonl",
        "labels.csv",
        "checkpoint.safetensors",
        "model.safetensors",
    }


@pytest.mark.slow
def test_gracl_learns_from_a_low_start(tmp_path):
    folder = draw_people(tmp_path / "drawn", identities=40, test_identities=40, seed=3)
    config = Config.load("demo").replace({"train": {"epochs": 4, "steps": 30, "threads": 2}})
    run = train(config, load_dataset(folder), tmp_path / "run")
    assert run.before["scores"]["mAP"] < 0.45
    assert run.after["scores"]["mAP"] > run.before["scores"]["mAP"] + 0.2
    assert run.after["agreement"]["ari"] > run.before["agreement"]["ari"] + 0.3


def test_a_method_that_lacks_what_it_needs_is_refused_before_anything_is_done(people, tmp_path):
    (tmp_path / "photos").mkdir()
    for number, path in enumerate(sorted((people / "images").rglob("*.jpg"))[:20]):
        shutil.copy(path, tmp_path / "photos" / f"{number}.jpg")
    for name in ("supervised", "cap"):
        config = SMALL.replace({"method": {"name": name}})
        with pytest.raises(DataError, match=f"the method {name} needs"):
            train(config, load_dataset(tmp_path / "photos"), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_folder_of_another_project_with_the_same_names_is_left_alone(dataset, tmp_path):
    for name, text in {
        "config.yaml": "site_name: mine",
        "data.json": "{}",
        "labels.csv": "mine",
    }.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RunError, match="exists and is not a run"):
        train(SMALL, dataset, tmp_path)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(RunError, match="exists and is not a run"):
        train(SMALL, dataset, tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "site_name: mine"


def test_other_pictures_under_the_same_names_do_not_continue_a_run(people, tmp_path):
    folder = tmp_path / "frames"
    shutil.copytree(people / "images", folder)
    train(SMALL, load_dataset(folder), tmp_path / "run")
    files = sorted(folder.rglob("*.jpg"))
    pictures = [path.read_bytes() for path in files]
    for path, picture in zip(files, pictures[1:] + pictures[:1], strict=True):
        path.write_bytes(picture)
    with pytest.raises(RunError, match="not the same"):
        train(SMALL, load_dataset(folder), tmp_path / "run")


def with_identities_swapped(dataset):
    """The same images, two of them with each other's identity."""
    first, *rest = dataset.train
    at = next(i for i, record in enumerate(rest) if record.identity != first.identity)
    swapped = dataclasses.replace(first, identity=rest[at].identity)
    rest[at] = dataclasses.replace(rest[at], identity=first.identity)
    return dataclasses.replace(dataset, train=Records((swapped, *rest)))


def test_other_identities_do_not_continue_a_run_that_learns_from_them(dataset, tmp_path):
    bound = SMALL.replace({"method": {"name": "supervised"}, "train": {"epochs": 1, "steps": 1}})
    longer = bound.replace({"train": {"epochs": 2}})
    train(bound, dataset, tmp_path / "run")
    with pytest.raises(RunError, match=r"other identities .* the method supervised .* another --out"):
        train(longer, with_identities_swapped(dataset), tmp_path / "run")
    assert len(train(longer, dataset, tmp_path / "run").epochs) == 2


def test_other_identities_continue_a_run_that_does_not_read_them(dataset, tmp_path):
    short = SMALL.replace({"train": {"epochs": 1, "steps": 1}})
    train(short, dataset, tmp_path / "run")
    longer = short.replace({"train": {"epochs": 2}})
    assert len(train(longer, with_identities_swapped(dataset), tmp_path / "run").epochs) == 2


def test_a_supervised_run_from_before_identities_were_kept_continues(dataset, tmp_path):
    bound = SMALL.replace({"method": {"name": "supervised"}, "train": {"epochs": 1, "steps": 1}})
    train(bound, dataset, tmp_path / "run")
    about = tmp_path / "run" / "data.json"
    known = json.loads(about.read_text())
    del known["classes"]
    about.write_text(json.dumps(known))
    longer = bound.replace({"train": {"epochs": 2}})
    assert len(train(longer, dataset, tmp_path / "run").epochs) == 2


def test_a_run_continues_where_its_images_were_moved(people, tmp_path):
    shutil.copytree(people / "images", tmp_path / "here")
    train(SMALL, load_dataset(tmp_path / "here"), tmp_path / "run")
    (tmp_path / "here").rename(tmp_path / "there")
    longer = SMALL.replace({"train": {"epochs": 4}})
    assert len(train(longer, load_dataset(tmp_path / "there"), tmp_path / "run").epochs) == 4


@pytest.mark.parametrize(
    ("epoch", "labels"),
    [
        ("x", torch.arange(3)),
        ("9" * 5000, torch.arange(3)),
        ("3", torch.zeros(3, dtype=torch.bfloat16)),
        ("3", torch.zeros(2, 2, dtype=torch.int64)),
        ("3", None),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, epoch, labels):
    tensors = {"model.x": torch.zeros(1)} | ({} if labels is None else {"labels": labels})
    (tmp_path / "c.safetensors").write_bytes(to_safetensors(tensors, {"epoch": epoch}))
    with pytest.raises(RunError):
        load_snapshot(tmp_path / "c.safetensors")
