"""SIGKILL at random moments: what is confirmed is there, and what goes on ends as if undisturbed.

    python benchmarks/kills.py [--kills 50]

Each kind of work runs in a process that is killed at a random moment of its time, and is begun again by
the same call, until it was killed so many times in all; whenever it comes to its end, what it left is
compared with what an undisturbed process leaves, and a new one begins:

    training   weights and labels, bit for bit
    store      the decoded images, bit for bit, and no unfinished folder is ever opened
    gallery    each image whose addition was reported is there; in the end entries and features are as
               they should be
    review     each decision that was returned from is there; in the end clusters are as they should be

Processes are forked from one that has loaded torch, so that a kill meets the work and not the start of
Python.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gracl
from gracl.data.synthetic import draw_people
from gracl.errors import NoGallery
from measuring import command, save

SETTINGS: dict[str, Any] = {
    "model": {"backbone": "test_resnet", "size": [64, 32], "weights": "none"},
    "method": {"k1": 8, "k2": 2, "min_samples": 3},
    "sampler": {"clusters_per_batch": 4, "images_per_cluster": 4},
    "train": {"epochs": 3, "steps": 4, "batchnorm_group": 16, "threads": 1},
}
IMAGES: dict[str, Any] = {"identities": 16, "test_identities": 4, "cameras": 3, "images_per_camera": 4}
Work = Callable[[Path, Path], None]
"""Called with a folder to leave its results in, and a file to add a line to for each confirmation."""
Check = Callable[[Path, list[str]], str]
"""Called with that folder and those lines; what it is now, as one text, or an error of its own."""


class Lost(Exception):  # noqa: N818
    """Something that was confirmed is not there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each kind of work")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draws = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as top:
        people = Path(top) / "people"
        draw_people(people, **IMAGES)
        os.environ["GRACL_CACHE"] = f"{top}/cache"
        run = Path(top) / "run"
        child(lambda: train(people, run), None)
        kinds: dict[str, tuple[Work, Check]] = {
            "training": (
                lambda out, _: train(people, out / "run"),
                lambda out, _: trained(out / "run"),
            ),
            "store": (lambda out, _: decode(people, out), lambda out, _: decoded(people, out)),
            "gallery": (lambda out, told: add(people, run, out, told), added),
            "review": (lambda out, told: review(run, out, told), reviewed_by(run)),
        }
        results = {}
        for name, (work, check) in kinds.items():
            results[name] = disturb(Path(top) / name, work, check, arguments.kills, draws)
            print(name, results[name], flush=True)
    save("kills", {"command": command(), "seed": arguments.seed, "results": results})


def disturb(
    top: Path, work: Work, check: Check, kills: int, draws: np.random.Generator
) -> dict[str, Any]:
    """Kills some work so many times; counts how often it came to its end, and compares each end."""
    took = []
    for _ in range(3):
        whole = fresh(top / "undisturbed")
        start = time.perf_counter()
        child(partial(work, whole, whole / "told"), None)
        took.append(time.perf_counter() - start)
    seconds = min(took)  # the machine may have been busy, and a kill is to meet the work
    expected = check(whole, lines(whole / "told"))
    done, ended, unequal, lost = 0, 0, 0, 0
    out = fresh(top / "0")
    while done < kills:
        survived = child(partial(work, out, out / "told"), float(draws.uniform(0, seconds)))
        done += not survived
        try:
            found = check(out, lines(out / "told")) if survived else None
            if not survived:
                check(out, lines(out / "told"))  # what was confirmed so far is there
        except Lost as error:
            lost += 1
            print("LOST:", error, flush=True)
            found = None
        if survived:
            ended += 1
            unequal += found != expected
            out = fresh(top / str(ended))
    child(partial(work, out, out / "told"), None)
    unequal += check(out, lines(out / "told")) != expected
    return {
        "kills": done,
        "runs_compared": ended + 1,
        "unequal": unequal,
        "lost": lost,
        "seconds_undisturbed": round(seconds, 2),
    }


def child(work: Callable[[], None], limit: float | None) -> bool:
    """Runs some work in a forked process; whether it came to its end before it was killed.

    Raises:
        RuntimeError: it failed.
    """
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
    ends = os.pidfd_open(pid)
    select.select([ends], [], [], limit)
    os.close(ends)
    os.kill(pid, signal.SIGKILL)  # one that has ended does not mind
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return False
    if status:
        raise RuntimeError(f"the work failed with status {status}")
    return True


# -- the kinds of work ----------------------------------------------------------------------------


def train(people: Path, out: Path) -> None:
    gracl.train(gracl.Config.load("demo").replace(SETTINGS), gracl.load_dataset(people), out)


def trained(out: Path) -> str:
    if not (out / "model.safetensors").is_file():
        return "unfinished"
    return digest(out / "model.safetensors", out / "labels.csv")


def decode(people: Path, out: Path) -> None:
    gracl.open_store(gracl.load_dataset(people).train, size=(64, 32), cache=out)


def decoded(people: Path, out: Path) -> str:
    stores = [path.parent for path in out.glob("*/store.json") if ".unfinished" not in path.parent.name]
    records = gracl.load_dataset(people).train
    for store in stores:
        shape = np.load(store / "images.npy", mmap_mode="r").shape
        if shape != (len(records), 3, 64, 32):
            raise Lost(f"a finished store has the shape {shape}")
    return digest(*(store / "images.npy" for store in stores))


def add(people: Path, run: Path, out: Path, told: Path) -> None:
    at = out / "people.gallery"
    try:
        gallery = gracl.Gallery.open(at)
    except NoGallery:
        gallery = gracl.Gallery.create(at, run)
    with gallery:
        gallery.add(people, batch_size=8, progress=lambda n: tell(told, str(n)))


def added(out: Path, told: list[str]) -> str:
    try:
        opened = gracl.Gallery.open(out / "people.gallery")
    except NoGallery as error:
        if told:
            raise Lost("the gallery is gone") from error
        return "none"
    with opened as gallery:
        entries = gallery.entries()
        found = [hit.similarity for hit in gallery.search(entries[0].path, k=5)] if entries else []
    if told and len(entries) < max(map(int, told)):
        raise Lost(f"{max(map(int, told))} additions were reported, {len(entries)} are there")
    paths = sorted((Path(entry.path).name, entry.identity) for entry in entries)
    return hashlib.sha256(repr((paths, np.round(found, 6).tolist())).encode()).hexdigest()


def review(run: Path, out: Path, told: Path) -> None:
    study = gracl.open_study(run)
    pids = study.pids
    with gracl.Review.open(study, by="the truth", at=out / "review.sqlite") as opened:
        while opened.progress().n_decisions < 30:
            question = opened.question()
            if question is None:
                break
            same = bool(pids[question.first] == pids[question.second])
            tell(told, str(opened.answer(question, same).id))


def reviewed_by(run: Path) -> Check:
    def check(out: Path, told: list[str]) -> str:
        if not (out / "review.sqlite").is_file():
            if told:
                raise Lost("the review is gone")
            return "none"
        with gracl.Review.open(gracl.open_study(run), by="me", at=out / "review.sqlite") as opened:
            ids = {decision.id for decision in opened.history()}
            if not ids >= set(map(int, told)):
                raise Lost(f"decisions {set(map(int, told)) - ids} were confirmed and are not there")
            return hashlib.sha256(opened.labels.tobytes()).hexdigest()

    return check


# -- small parts ----------------------------------------------------------------------------------


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def tell(file: Path, text: str) -> None:
    """A line that outlives the process: the system has it when this returns."""
    with file.open("a") as out:
        out.write(text + "\n")


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.is_file() else []


def digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


if __name__ == "__main__":
    main()
