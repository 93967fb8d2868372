"""Trials: one method with one set of settings, trained once on one data set, and what came of it.

The other scripts list trials; this one runs them, each with one thread and as many at once as there are
workers. A trial that a log has is not run again, so a list can be stopped and continued.

Drawn people come in two difficulties, and a seed is a world of its own: other people, other cameras.
Of the cows, a seed is another division into those trained on and those tested with. The seed is that
of the weights and batches too, so that trials of one seed are pairs.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SMALL = {"backbone": "mobilenetv2_100", "last_stride": 2}
DRAWN: dict[str, Any] = {
    "model": {"backbone": "resnet10t", "size": [64, 32], "last_stride": 2},
    "method": {"k1": 15, "k2": 4, "eps": 0.6},
    "sampler": {"clusters_per_batch": 8, "images_per_cluster": 8},
    "augment": {"pad": 4, "color": 0.3},
    "train": {
        "epochs": 4,
        "steps": 25,
        "learning_rate": 0.001,
        "decay_every": 3,
        "channels_last": False,
    },
}
SETTINGS: dict[str, dict[str, Any]] = {
    "drawn": DRAWN,
    "drawn_hard": DRAWN,
    "cows": {
        "model": {**SMALL, "size": [72, 72]},
        # With 0.55, as benchmarks/ablation.py had it, 85 % of the images are in no cluster; with 0.65,
        # 45 %, and the largest cluster is below a tenth. Seen without labels, on seeds 0 and 1.
        "method": {"k1": 15, "k2": 4, "eps": 0.65},
        "sampler": {"clusters_per_batch": 8, "images_per_cluster": 8},
        "augment": {"flip": 0.0, "color": 0.9, "pad": 6},
        "train": {"epochs": 4, "steps": 25, "decay_every": 3, "learning_rate": 2e-4},
    },
    "mini_mars": {
        "model": {**SMALL, "size": [96, 48]},
        "method": {"k1": 100, "k2": 15, "eps": 0.55},
        "sampler": {"clusters_per_batch": 8, "images_per_cluster": 8},
        "augment": {"color": 0.5, "pad": 6},
        "train": {"epochs": 3, "steps": 40, "decay_every": 2, "learning_rate": 2e-4},
    },
}
"""What a method changes nothing of, by data set; chosen before any method was compared."""
WORLDS = {
    "drawn": {"cameras": 4, "images_per_camera": 4, "nuisance": 1.0},
    "drawn_hard": {"cameras": 6, "images_per_camera": 2, "nuisance": 1.4},
}
PEOPLE = {"identities": 50, "test_identities": 40}
FIRST_WORLD = 1000
COWS_TESTED = 0.3


Line = Mapping[str, Any]
"""A trial and what came of it, as a log has it."""


@dataclass(frozen=True)
class Trial:
    """What is run, by plain values."""

    data: str
    variant: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    by_epoch: bool = False
    """Also score the model after each epoch."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Tells it from all others of a log."""
        return self.data, self.variant, self.seed


@dataclass(frozen=True)
class Places:
    """Where the real data and the backbone's weights are."""

    real: tuple[tuple[str, str], ...]
    """(name, folder) of each."""
    weights: str
    worlds: str

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Places:
        """From the flags that `add_flags` adds."""
        return cls(tuple(real_of(arguments).items()), str(arguments.weights), str(arguments.worlds))


def real_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Folders of real data by name, from the flags that `add_flags` adds."""
    return dict(item.split("=", 1) for item in arguments.real)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What every script that runs trials takes."""
    parser.add_argument("--real", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--weights", type=Path, help="of the backbone for real data")
    parser.add_argument("--worlds", type=Path, default=Path(tempfile.gettempdir()) / "gracl-worlds")
    parser.add_argument("--log", type=Path, required=True, help="where trials are kept, as JSON lines")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)


def command(script: str, arguments: argparse.Namespace, *more: str) -> str:
    """What was typed, with words in place of this machine's folders."""
    real = [f"--real {name}=FOLDER" for name in real_of(arguments)]
    weights = ["--weights FILE"] if real else []
    return " ".join([f"python benchmarks/{script}.py", *more, *real, *weights, "--log LOG"])


# -- one trial ------------------------------------------------------------------------------------


def drawn(name: str, seed: int, places: Places) -> Path:
    """A world's folder, drawn if it is not there; not by two workers at once."""
    from gracl.data.synthetic import draw_people

    folder = Path(places.worlds) / f"{name}-{seed}"
    if not (folder / "metadata.csv").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        draw_people(folder, **PEOPLE, **WORLDS[name], seed=FIRST_WORLD + seed)  # type: ignore[arg-type]
    return folder


@functools.lru_cache(maxsize=2)
def dataset_of(name: str, seed: int, places: Places) -> Any:
    """The data of a seed."""
    import gracl

    if name in WORLDS:
        return gracl.load_dataset(drawn(name, seed, places))
    dataset = gracl.load_dataset(dict(places.real)[name])
    if name == "cows":
        dataset = gracl.split_by_identity(dataset, test_share=COWS_TESTED, seed=seed)
    return dataset


def run(trial: Trial, places: Places) -> dict[str, Any]:
    """Scores of the last epoch, and what each epoch was like."""
    import gracl
    import proxies
    from gracl.evaluation import agreement_with_truth, identities_of

    dataset = dataset_of(trial.data, trial.seed, places)
    weights = "none" if trial.data in WORLDS else places.weights
    config = gracl.Config().replace(SETTINGS[trial.data]).replace(trial.settings)
    config = config.replace(
        {"model": {"weights": weights}, "train": {"seed": trial.seed, "threads": 1}}
    )
    images = dataset.train.unlabelled()
    pids = identities_of(images, dataset.train)
    model = gracl.build_model(config.model, seed=trial.seed)
    epochs: list[dict[str, Any]] = []
    started = time.process_time()
    spent = 0.0
    with proxies.watched(pids) as seen:
        for epoch in gracl.fit(model, images, config, classes=pids):
            agreed = agreement_with_truth(epoch.labels, epoch.records, dataset.train)
            line = {
                "loss": epoch.losses["total"],
                "clusters": epoch.n_clusters,
                "outliers": epoch.health.outlier_share,
                "stability": epoch.health.stability,
                "ari": agreed.ari if agreed else None,
                "purity": agreed.purity if agreed else None,
                **seen,
            }
            if trial.by_epoch:
                before = time.process_time()
                line["mAP"] = gracl.evaluate(epoch.model, dataset, config.evaluate).mAP
                spent += time.process_time() - before
            epochs.append(line)
    seconds = time.process_time() - started - spent  # of the CPU: other work runs beside
    scores = gracl.evaluate(model, dataset, config.evaluate)
    return {
        "mAP": scores.mAP,
        "R1": scores.cmc[1],
        "mINP": scores.mINP,
        "ari": epochs[-1]["ari"],
        "protocol": scores.protocol,
        "images": [len(dataset.train), *map(len, dataset.test)],
        "seconds": seconds,
        "peak_memory": epoch.peak_memory,
        "epochs": epochs,
    }


# -- many -----------------------------------------------------------------------------------------


def run_all(trials: Sequence[Trial], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs what the log lacks; gives the log's lines of these trials, in their order."""
    places = Places.of(arguments)
    done = {line_key(line) for line in read(arguments.log)}
    left = [trial for trial in trials if trial.key not in done]
    for name, seed in {(trial.data, trial.seed): None for trial in left if trial.data in WORLDS}:
        drawn(name, seed, places)
    with tempfile.TemporaryDirectory() as folder:
        queue = Path(folder) / "queue"
        queue.write_text("".join(json.dumps(asdict(trial)) + "\n" for trial in left))
        command = [sys.executable, __file__, str(queue), str(arguments.log)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRACL_TRIALS": json.dumps(asdict(places))}
        workers = [subprocess.Popen(command, env=environment) for _ in range(arguments.workers)]
        failed = [worker.wait() for worker in workers]
        if any(failed):
            raise SystemExit("a worker failed; the same command continues")
    found = {line_key(line): line for line in read(arguments.log)}
    return [found[trial.key] for trial in trials]


def line_key(line: Line) -> tuple[str, str, int]:
    """`Trial.key` of a line of the log."""
    return line["data"], line["variant"], line["seed"]


def read(log: Path) -> list[dict[str, Any]]:
    """All lines of a log."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def work(queue: Path, log: Path) -> None:
    """Takes trials from the queue's front until none is left."""
    import torch

    import gracl

    torch.set_num_threads(1)
    told = json.loads(os.environ["GRACL_TRIALS"])
    places = Places(**{**told, "real": tuple(map(tuple, told["real"]))})
    while (line := _next(queue)) is not None:
        trial = Trial(**line)
        try:
            found = run(trial, places)
        except gracl.GraclError as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        with log.open("a") as lines:
            fcntl.flock(lines, fcntl.LOCK_EX)
            lines.write(json.dumps({**asdict(trial), **found}) + "\n")
        short = {key: found[key] for key in ("mAP", "ari", "seconds", "error") if key in found}
        print(*trial.key, short, flush=True)


def _next(queue: Path) -> dict[str, Any] | None:
    with queue.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        first, *rest = file.read().splitlines(keepends=True) or [""]
        file.seek(0)
        file.truncate()
        file.writelines(rest)
    found: dict[str, Any] | None = json.loads(first) if first else None
    return found


# -- tables ---------------------------------------------------------------------------------------


def by_variant(
    lines: Iterable[Mapping[str, Any]], data: str
) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Lines of one data set by variant, then by seed."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        if line["data"] == data:
            found.setdefault(line["variant"], {})[line["seed"]] = line
    return found


def summary(lines: Sequence[Line], reference: str) -> dict[str, Any]:
    """By data set and variant: means and spreads, and differences from the reference in pairs."""
    from scipy import stats

    from measuring import spread

    tables: dict[str, Any] = {}
    for data in dict.fromkeys(line["data"] for line in lines):
        variants = by_variant(lines, data)
        table = tables[data] = {}
        for name, seeds in variants.items():
            good = {seed: line for seed, line in seeds.items() if "mAP" in line}
            row: dict[str, Any] = {"seeds": sorted(good)}
            errors = {seed: line["error"] for seed, line in seeds.items() if "error" in line}
            if errors:
                row["errors"] = errors
            if good:
                row |= {k: spread([line[k] for line in good.values()]) for k in MEASURED}
            both = sorted(good.keys() & variants.get(reference, {}).keys())
            differences = [good[s]["mAP"] - variants[reference][s]["mAP"] for s in both]
            if name != reference and len(differences) > 1:
                mean = sum(differences) / len(differences)
                reach = stats.t.ppf(0.975, len(both) - 1) * stats.sem(differences)
                row["mAP_minus_reference"] = {
                    "mean": round(mean, 4),
                    "interval_95": [round(mean - reach, 4), round(mean + reach, 4)],
                    "by_seed": [round(d, 4) for d in differences],
                }
            table[name] = row
    return tables


MEASURED = ("mAP", "R1", "mINP", "ari", "seconds")


def markdown(tables: Mapping[str, Any], data: str) -> str:
    """One data set's table, best first."""
    rows = [row for row in tables[data].items() if "mAP" in row[1]]
    lines = ["| | mAP | R1 | ARI | mAP, difference in pairs | seconds |", "| --- |" + " --- |" * 5]
    for name, row in sorted(rows, key=lambda item: -item[1]["mAP"]["mean"]):
        cells = [
            f"{100 * row[k]['mean']:.1f} ± {100 * row[k]['std']:.1f}" for k in ("mAP", "R1", "ari")
        ]
        pairs = row.get("mAP_minus_reference")
        text = "reference"
        if pairs:
            low, high = (100 * v for v in pairs["interval_95"])
            text = f"{100 * pairs['mean']:+.1f} ({low:+.1f} to {high:+.1f})"
        lines.append(f"| {name} | {' | '.join(cells)} | {text} | {row['seconds']['mean']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
