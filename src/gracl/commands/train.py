"""`gracl demo` and `gracl train`."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gracl.commands.options import Flat, LayoutName, OptionalImages, load
from gracl.config import Config
from gracl.disk import OTHER_CACHE
from gracl.errors import ConfigError, DataError
from gracl.terminal import Bars, console, print_before_and_after, print_epoch, print_notes

if TYPE_CHECKING:
    from gracl.data.records import Dataset
    from gracl.runs import Run
    from gracl.training import Epoch


@dataclass(frozen=True)
class Demo:
    """Draw people, learn to tell them apart without labels, show what was learnt. Minutes on a CPU."""

    out: Path = Path("runs/demo")
    """The run's folder; the same command continues what is there."""
    identities: int = 100
    """Drawn people to train on; as many further ones are the test."""
    config: Annotated[Config, Flat] = field(default_factory=Config)


@dataclass(frozen=True)
class Train:
    """Train GRACL on unlabelled images; the same command continues after any interruption."""

    data: OptionalImages = None
    continues: Annotated[Path | None, tyro.conf.arg(name="continue", metavar="RUN")] = None
    """Train on from this finished run, with the decisions of its review (gracl review RUN). Its
    settings and its DATA hold unless others are given."""
    out: Path | None = None
    """The run's folder; if not given runs/<data>-<recipe>, or the name of the run that is continued
    with the next number."""
    links: Path | None = None
    """A CSV (first, second, link) of image pairs that must, or cannot, share a cluster."""
    recipe: str = "own-data"
    """Settings to start from: own-data, demo, market1501, msmt17, personx, veri776, dukemtmc."""
    settings: Path | None = None
    """A YAML file of settings over the recipe's; a recipe that it names takes the other's place."""
    config: Annotated[Config, Flat] = field(default_factory=Config)
    layout: LayoutName = None


def demo(command: Demo) -> None:
    """The embedded default."""
    from gracl.data.readers import load_dataset
    from gracl.data.store import cache_folder
    from gracl.data.synthetic import draw_people
    from gracl.files import write
    from gracl.pictures import draw_rank_list

    n, seed = command.identities, command.config.train.seed
    if n < 8:
        raise ConfigError(f"identities is {n}; expected at least 8")
    folder = cache_folder() / "drawn-people" / f"{n}-{seed}"
    if not (folder / "metadata.csv").is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted drawing left
        console.print(f"drawing {2 * n} people, seen by four cameras")
        try:
            draw_people(folder, identities=n, test_identities=n, seed=seed)
        except DataError as error:
            raise DataError(f"{error}. It is gracl's cache: give {OTHER_CACHE}") from error
    dataset = load_dataset(folder)
    run = _train(command.config, dataset, command.out)
    picture = command.out / "matches.png"
    drawn = io.BytesIO()
    draw_rank_list(run.model, dataset, settings=command.config.evaluate).save(drawn, "PNG")
    write(picture, drawn.getvalue())
    console.print(f"queries and their first ten matches: {picture}", soft_wrap=True)


def train(command: Train) -> None:
    """Train, then say what came of it."""
    if command.continues is not None:
        _continue(command, command.continues)
        return
    if command.data is None:
        raise ConfigError("nothing says what to learn from; give DATA, or --continue RUN")
    dataset = load(command)
    out = command.out or Path("runs") / f"{dataset.name}-{command.recipe}"
    _train(command.config, dataset, out, command.links)


def _continue(command: Train, earlier: Path) -> None:
    """The run after a reviewed one, and how its clusters differ from those of the review."""
    from gracl.review.carrying import has_review
    from gracl.review.next_run import continue_training, next_folder, since_review
    from gracl.runs import Run
    from gracl.study import dataset_of

    run = Run(earlier)
    dataset = dataset_of(run) if command.data is None else load(command)
    out = command.out or next_folder(earlier)
    if not has_review(earlier):
        console.print(f"note: {earlier} was never reviewed, so there are no corrections to honour")
    begin = partial(
        continue_training, run, out, config=command.config, data=dataset, links=command.links
    )
    done = _watched(command.config, dataset, out, begin)
    what = "the review of " if has_review(earlier) else ""
    console.print(f"since {what}{earlier}: {since_review(run, done, dataset)}", soft_wrap=True)
    console.print(f"go on with: gracl review {out}", soft_wrap=True)


def _train(config: Config, dataset: Dataset, out: Path, links: Path | None = None) -> Run:
    from gracl import runs

    return _watched(config, dataset, out, partial(runs.train, config, dataset, out, links=links))


def _watched(config: Config, dataset: Dataset, out: Path, begin: Callable[..., Run]) -> Run:
    """Trains by `begin`, showing how it goes and what came of it."""
    console.print(
        f"{dataset.name}: {len(dataset.train)} images to learn from (read as {dataset.layout})"
    )
    print_notes(dataset)
    started = time.perf_counter()
    spent: list[float] = []

    def tell(epoch: Epoch) -> None:
        spent.append(sum(epoch.seconds.values()))
        print_epoch(epoch, config.train.epochs, seconds_each=sum(spent) / len(spent))

    with Bars() as bars:
        run = begin(on_epoch=tell, progress=bars)
    if run.left_out:
        console.print(f"{len(run.left_out)} images could not be read; see {out / 'data.json'}")
    print_before_and_after(run)
    console.print(f"the cluster of each image: {out / 'labels.csv'}", soft_wrap=True)
    console.print(f"{time.perf_counter() - started:.0f} s; the run: {out}", soft_wrap=True)
    return run
