"""The command line: `gracl demo`, `train`, `cluster`, `evaluate`, `profile`, `data check`, `data draw`.

Nothing heavy is imported before a command is known to be well formed, so `--help` stays quick.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from gracl.config import Algorithm, Config, EvaluateConfig, recipes
from gracl.errors import ConfigError, DataError, GraclError, did_you_mean

if TYPE_CHECKING:
    from gracl import profiling
    from gracl.clustering import Labels
    from gracl.data.check import Report
    from gracl.data.records import Dataset, Records
    from gracl.runs import Run
    from gracl.sweep import Sweep
    from gracl.training import Epoch

Flat = tyro.conf.arg(name="")
"""Takes a level of names away: --method.eps, not --config.method.eps."""


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

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A folder of images, a CSV file, or a data set in Market-1501's layout."""
    out: Path | None = None
    """The run's folder; runs/<data>-<recipe> if not given."""
    links: Path | None = None
    """A CSV (first, second, link) of image pairs that must, or cannot, share a cluster."""
    recipe: str = "own-data"
    """Settings to start from: own-data, demo, market1501, msmt17, personx, veri776, dukemtmc."""
    settings: Path | None = None
    """A YAML file of settings over the recipe's; a recipe that it names takes the other's place."""
    config: Annotated[Config, Flat] = field(default_factory=Config)


@dataclass(frozen=True)
class Evaluate:
    """Score a run's model on a data set."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A folder of images, a CSV file, or a data set in Market-1501's layout."""
    evaluate: Annotated[EvaluateConfig, Flat] = field(default_factory=EvaluateConfig)
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Cluster:
    """Cluster images by a run's model; or try many eps and see which to take."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A folder of images, a CSV file, or a data set in Market-1501's layout."""
    out: Path = Path("clusters.csv")
    """Where the cluster of each image is written."""
    sweep: bool = False
    """Cluster with eps from 0.3 to 0.8; the CSV is that of the suggested one."""
    plot: Path | None = None
    """With --sweep: a picture of it (.png, .svg, .pdf); needs the extra report."""
    links: Path | None = None
    """A CSV (first, second, link) of image pairs that must, or cannot, share a cluster."""
    clustering: Algorithm | None = None
    """How distances become clusters; the run's if not given."""
    eps: float | None = None
    """Jaccard distance up to which two images are neighbours; the run's if not given."""
    min_samples: int | None = None
    """Neighbours, itself included, that an image needs to start a cluster; the run's if not given."""
    k1: int | None = None
    """Neighbours of the Jaccard distance, the image itself included; the run's if not given."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""


@dataclass(frozen=True)
class Profile:
    """Where the time of a training went, how fast it was, the memory it took."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder; the run may still be going on."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Check:
    """Read every image of a data set and say what is there, what is wrong, what can be scored."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A folder of images, a CSV file, or a data set in Market-1501's layout."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Draw:
    """Draw people seen by several cameras, as a data set to try things on."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """An empty or new folder."""
    identities: int = 100
    """People to train on."""
    test_identities: int = 50
    """Further people to test with."""
    cameras: int = 4
    """Cameras that see each of them."""
    images_per_camera: int = 4
    """Pictures of a person by each camera."""
    seed: int = 0
    """Of everything drawn."""


@dataclass(frozen=True)
class Data:
    """Look at a data set, or draw one."""

    what: Annotated[
        Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Draw, tyro.conf.subcommand("draw")],
        Flat,
    ]


PROCESS = int(os.environ["RANK"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else None
"""This process's number, where torchrun started it."""

console = Console(highlight=False, markup=False, quiet=bool(PROCESS))
errors = Console(stderr=True, highlight=False, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 1 the data is not usable, 2 an error, 130 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"gracl {metadata.version('gracl')}")
        return
    _print_log()
    try:
        command = _parse(words)
        if isinstance(command, Data):
            command = command.what
        if PROCESS is not None and not isinstance(command, Train):
            raise ConfigError(
                "torchrun starts several processes, and only 'gracl train' shares its work among them; "
                "run this command without torchrun"
            )
        usable = ACTIONS[type(command)](command)
    except GraclError as error:
        if PROCESS:
            # What stops all processes is said by the first; torchrun then ends this one before it
            # speaks. What stops this one alone is said here.
            time.sleep(2)
            errors.print(f"process {PROCESS}:", end=" ")
        errors.print("error:", Text(str(error)), soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped; a training continues after its last whole epoch by the same command")
        sys.exit(130)
    sys.exit(1 if usable is False else 0)


def demo(command: Demo) -> None:
    """The embedded default."""
    from gracl.data.readers import load_dataset
    from gracl.data.store import cache_folder
    from gracl.data.synthetic import draw_people
    from gracl.pictures import draw_rank_list

    n, seed = command.identities, command.config.train.seed
    if n < 8:
        raise ConfigError(f"identities is {n}; expected at least 8")
    folder = cache_folder() / "drawn-people" / f"{n}-{seed}"
    if not (folder / "metadata.csv").is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted drawing left
        console.print(f"drawing {2 * n} people, seen by four cameras")
        draw_people(folder, identities=n, test_identities=n, seed=seed)
    dataset = load_dataset(folder)
    run = _train(command.config, dataset, command.out)
    picture = command.out / "matches.png"
    draw_rank_list(run.model, dataset, settings=command.config.evaluate).save(picture)
    console.print(f"queries and their first ten matches: {picture}", soft_wrap=True)


def train(command: Train) -> None:
    """Train, then say what came of it."""
    from gracl.data.readers import load_dataset

    dataset = load_dataset(command.data)
    out = command.out or Path("runs") / f"{dataset.name}-{command.recipe}"
    _train(command.config, dataset, out, command.links)


def cluster(command: Cluster) -> bool:
    """Cluster images by a run's model; whether the clusters can be used."""
    from gracl.data.readers import load_dataset
    from gracl.runs import Run, cluster_images, write_labels
    from gracl.sweep import draw_sweep, sweep_eps
    from gracl.training import choose_device, use_threads

    use_threads(command.threads)
    run = Run(command.run)
    settings = {name: getattr(command, name) for name in ("clustering", "eps", "min_samples", "k1")}
    given = {name: value for name, value in settings.items() if value is not None}
    config = run.config.replace({"method": given})
    _require_sound(command, config)
    dataset = load_dataset(command.data)
    _print_notes(dataset)
    if len(dataset.query) or len(dataset.gallery):
        console.print("only the training images are clustered, not query and gallery")
    with Bars() as bars:
        found = cluster_images(
            run.model.to(choose_device(command.device)),
            dataset,
            config,
            links=command.links,
            progress=bars,
        )
    for problem in found.problems[:5]:
        console.print(Text(f"left out: {problem.path}: {problem.reason}"), soft_wrap=True)
    if len(found.problems) > 5:
        console.print(f"... and {len(found.problems) - 5} more; see: gracl data check")
    labels, method = found.labels, found.method
    if 4 * method.k1 > len(labels):
        console.print(
            f"note: k1 is {method.k1} and there are {len(labels)} images, so each image's neighbours "
            "are much of what there is; try --k1 with the images of one identity",
            soft_wrap=True,
        )
    if command.sweep:
        tried = sweep_eps(
            found.distance,
            min_samples=method.min_samples,
            algorithm=method.clustering,
            links=found.links,
        )
        _print_sweep(tried, found.records, dataset)
        if command.plot is not None:
            draw_sweep(tried, command.plot)
            console.print(f"drawn into {command.plot}", soft_wrap=True)
        if tried.suggestion is None:
            console.print(f"{command.out} is not written", soft_wrap=True)
            return False
        labels = tried.suggestion.labels
    else:
        _print_clusters(labels, found.records, dataset)
    write_labels(command.out, found.records, labels)
    console.print(f"the cluster of each image: {command.out}", soft_wrap=True)
    return True


def _require_sound(command: Cluster, config: Config) -> None:
    """Refuses what could only fail, or overwrite something, after all the work."""
    from gracl.sweep import require_drawable

    method = config.method
    if command.plot is not None:
        if not command.sweep:
            raise ConfigError("--plot draws a sweep; give --sweep too")
        require_drawable(command.plot)
    if command.sweep and command.eps is not None:
        raise ConfigError("--sweep tries many eps; leave --eps out")
    if command.sweep and method.clustering == "hdbscan":
        raise ConfigError("hdbscan has no eps to sweep; give --clustering dbscan, or no --sweep")
    if method.clustering in ("agglomerative", "community") and method.eps >= 1:
        raise ConfigError(f"--eps is {method.eps:g}; {method.clustering} needs one below 1")
    if command.out.is_dir() or not command.out.parent.is_dir():
        raise ConfigError(f"--out is {command.out}; expected a file in a folder that exists")
    if command.out.exists():
        with command.out.open(encoding="utf-8", errors="replace") as lines:
            head = lines.readline()
        if not head.startswith("path,cluster"):
            raise ConfigError(
                f"{command.out} exists and is no table of clusters, so it is not overwritten. Give "
                "another --out"
            )


def evaluate(command: Evaluate) -> None:
    """Score a run's model."""
    from gracl.data.readers import load_dataset
    from gracl.evaluation import evaluate as score
    from gracl.runs import Run
    from gracl.training import choose_device, use_threads

    dataset = load_dataset(command.data)
    use_threads(command.threads)
    model = Run(command.run).model.to(choose_device(command.device))
    scores = score(model, dataset, command.evaluate)
    if command.json:
        print(json.dumps(asdict(scores)))
        return
    console.print(str(scores), soft_wrap=True)
    if dataset.tests_on_training_images:
        console.print("no query and gallery here: these images searched each other")
    _print_notes(dataset)


def profile(command: Profile) -> None:
    """Print where the time of a run went."""
    from gracl.profiling import profile_run
    from gracl.runs import Run

    found = profile_run(Run(command.run))
    if command.json:
        print(json.dumps(asdict(found)))
    else:
        _print_profile(found)


def check(command: Check) -> bool:
    """Print what a data set holds; whether it can be trained on."""
    from gracl.data.check import check_dataset
    from gracl.data.readers import load_dataset

    dataset = load_dataset(command.data)
    with Bars() as bars:
        report = check_dataset(dataset, lambda done, total: bars("read", done, total))
    if command.json:
        print(json.dumps({**asdict(report), "usable": report.usable}, default=str))
    else:
        _print_report(report)
    return report.usable


def draw(command: Draw) -> None:
    """Draw a data set."""
    from gracl.data.synthetic import draw_people

    try:
        folder = draw_people(**asdict(command))
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error
    console.print(f"drawn into {folder}", soft_wrap=True)


ACTIONS: dict[type, Callable[[Any], bool | None]] = {
    Demo: demo,
    Train: train,
    Cluster: cluster,
    Evaluate: evaluate,
    Profile: profile,
    Check: check,
    Draw: draw,
}


def _parse(words: list[str]) -> Any:
    """The command, with the defaults of the recipe and the file that it names."""
    recipe = _value_of(words, "--recipe") or "own-data"
    if recipe not in recipes():
        raise ConfigError(f"no recipe '{recipe}'; {did_you_mean(recipe, recipes())}")
    config = Config.load(recipe)
    settings = _value_of(words, "--settings")
    if settings is not None:
        if not Path(settings).is_file():
            raise ConfigError(f"--settings {settings}: there is no such file")
        config = Config.load(settings, over=config)
    demo_default = Demo(config=Config.load("demo"))
    train_default = Train(data=tyro.MISSING, recipe=recipe, config=config)
    commands = Union[  # noqa: UP007 - its members are made at run time
        Annotated[Demo, tyro.conf.subcommand("demo", default=demo_default)],
        Annotated[Train, tyro.conf.subcommand("train", default=train_default)],
        Annotated[Cluster, tyro.conf.subcommand("cluster")],
        Annotated[Evaluate, tyro.conf.subcommand("evaluate")],
        Annotated[Profile, tyro.conf.subcommand("profile")],
        Annotated[Data, tyro.conf.subcommand("data")],
    ]
    return tyro.cli(
        commands,
        prog="gracl",
        description="Learn to re-identify people, vehicles, animals or objects without labels.",
        args=words,
    )


def _value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag, read ahead: it decides the defaults of all others."""
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


# -- what is printed ------------------------------------------------------------------------------


class Speed(ProgressColumn):
    """How many are done in a second: images, or steps of training."""

    def render(self, task: Task) -> Text:
        """Nothing before there is anything to measure by."""
        return Text("" if not task.speed else f"{task.speed:.1f}/s")


class Bars:
    """Progress bars, one a stage, that vanish when all is done."""

    def __enter__(self) -> Bars:
        self.progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            Speed(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.done: dict[str, int] = {}
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of a stage."""
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total)
        elif done < self.done[stage]:  # the next epoch's; an old clock would show its time wrong
            self.progress.reset(self.tasks[stage])
        self.done[stage] = done
        self.progress.update(self.tasks[stage], completed=done, total=total)


def _print_log() -> None:
    """What the library tells its log, such as what a big stage will need, is printed."""
    import logging

    class Printed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.print(Text(record.getMessage()), soft_wrap=True)

    log = logging.getLogger("gracl")
    log.handlers[:] = [logging.NullHandler() if PROCESS else Printed()]
    log.setLevel(logging.INFO)


def _train(config: Config, dataset: Dataset, out: Path, links: Path | None = None) -> Run:
    from gracl.runs import train as train_run

    console.print(
        f"{dataset.name}: {len(dataset.train)} images to learn from (read as {dataset.layout})"
    )
    _print_notes(dataset)
    started = time.perf_counter()
    spent: list[float] = []

    def tell(epoch: Epoch) -> None:
        spent.append(sum(epoch.seconds.values()))
        _print_epoch(epoch, config.train.epochs, seconds_each=sum(spent) / len(spent))

    with Bars() as bars:
        run = train_run(config, dataset, out, links=links, on_epoch=tell, progress=bars)
    if run.left_out:
        console.print(f"{len(run.left_out)} images could not be read; see {out / 'data.json'}")
    _print_before_and_after(run)
    console.print(f"the cluster of each image: {out / 'labels.csv'}", soft_wrap=True)
    console.print(f"{time.perf_counter() - started:.0f} s; the run: {out}", soft_wrap=True)
    return run


def _print_notes(dataset: Dataset) -> None:
    for note in dataset.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if dataset.problems:
        console.print(f"{len(dataset.problems)} files or rows left out; see: gracl data check")


def _print_epoch(epoch: Epoch, epochs: int, *, seconds_each: float) -> None:
    from gracl.forecast import duration

    health = epoch.health
    cells = [
        f"{epoch.number:>{len(str(epochs))}}/{epochs}",
        f"clusters {health.n_clusters:>4}",
        f"outliers {health.outlier_share:>4.0%}",
        f"largest {health.largest_share:>4.0%}",
        "stable    -" if health.stability is None else f"stable {health.stability:.2f}",
        f"loss {epoch.losses['total']:.3f}",
        f"{sum(epoch.seconds.values()):.0f} s",
        f"{duration(seconds_each * (epochs - epoch.number))} left",
    ]
    console.print("  ".join(cells), soft_wrap=True)
    for warning in health.warnings:
        console.print(f"  note: {warning}", soft_wrap=True)


def _print_clusters(labels: Labels, records: Records, dataset: Dataset) -> None:
    from gracl.clustering import health
    from gracl.evaluation import agreement_with_truth

    state = health(labels)
    console.print(
        f"{state.n_images} images: {state.n_clusters} clusters, {state.outlier_share:.1%} in none, "
        f"{state.largest_share:.1%} of the others in the largest"
    )
    for warning in state.warnings:
        console.print(f"note: {warning.replace('method.', '--')}", soft_wrap=True)
    agreed = agreement_with_truth(labels, records, dataset.train)
    if agreed is not None:
        console.print(
            f"against the known identities: ARI {agreed.ari:.1%}, AMI {agreed.ami:.1%}, purity "
            f"{agreed.purity:.1%}, {agreed.n_identities} identities"
        )


def _print_sweep(tried: Sweep, records: Records, dataset: Dataset) -> None:
    from gracl.evaluation import agreement_with_truth

    suggested = tried.suggestion
    known = agreement_with_truth(tried.points[0].labels, records, dataset.train) is not None
    table = Table(title="clusters by eps")
    for column in ("eps", "clusters", "outliers", "largest", "stable", *(["ARI"] * known), ""):
        table.add_column(column, justify="right")
    for point in tried.points:
        state = point.health
        cells = [f"{point.eps:g}", str(state.n_clusters), f"{state.outlier_share:.0%}"]
        cells += [f"{state.largest_share:.0%}", f"{state.stability:.3f}"]
        if known:
            agreed = agreement_with_truth(point.labels, records, dataset.train)
            cells.append(f"{agreed.ari:.1%}" if agreed else "-")
        table.add_row(*cells, "<- suggested" if point is suggested else "")
    console.print(table)
    rival = tried.rival
    if rival is not None:
        console.print(
            f"note: from eps {rival.eps:g} on one cluster holds {rival.health.largest_share:.0%} of "
            f"the images and stays, with {rival.health.outlier_share:.0%} left out. If these are one "
            f"individual, take --eps {rival.eps:g}; look at some of them first",
            soft_wrap=True,
        )
    if suggested is None:
        console.print(
            "no eps gives sound clusters: everywhere more than half of the images are in none, or one "
            "cluster holds more than a quarter. Train longer, start from better weights, or try other "
            "--k1 and --min-samples",
            soft_wrap=True,
        )
        return
    console.print(
        f"suggested without any label: eps {suggested.eps:g}, the largest at which clusters hardly "
        f"change with eps (to train with it: --method.eps {suggested.eps:g})",
        soft_wrap=True,
    )


def _print_before_and_after(run: Run) -> None:
    before, after = run.before, run.after
    table = Table(title="learnt without a label")
    for column in ("", "before", "after"):
        table.add_column(column, justify="left" if not column else "right")
    rows = [
        ("mAP", "scores", "mAP"),
        ("mINP", "scores", "mINP"),
        *((f"R{k}", "scores", f"R{k}") for k in (1, 5, 10)),
        ("ARI of clusters", "agreement", "ari"),
        ("clusters", "clusters", "n_clusters"),
        ("outliers", "clusters", "outlier_share"),
    ]
    for name, group, key in rows:
        if group in before and group in after:
            values = [side[group][key] for side in (before, after)]
            table.add_row(name, *(str(v) if isinstance(v, int) else f"{v:.1%}" for v in values))
    console.print(table)
    if "scores" not in after:
        console.print("no identities known, or none seen twice: retrieval cannot be scored")
        return
    scores = after["scores"]
    left_out = scores["n_without_match"]
    where = " (the training images search each other)" if after["on_training_images"] else ""
    console.print(
        f"protocol {scores['protocol']}{where}: {scores['n_queries']} queries, {left_out} without a "
        "match left out; scores are those of the last epoch"
    )


def _print_profile(found: profiling.Profile) -> None:
    from gracl.forecast import GIB, duration

    table = Table(title=f"{found.epochs} epochs in {duration(found.total)}")
    for column in ("stage", "seconds", "share", "images a second"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, seconds in found.seconds.items():
        speed = found.images_per_second.get(stage)
        cells = (
            f"{seconds:.1f}",
            f"{seconds / found.total:.1%}",
            "" if speed is None else f"{speed:.0f}",
        )
        table.add_row(stage, *cells)
    console.print(table)
    memory = ", ".join(f"{place} {size / GIB:.1f} GiB" for place, size in found.peak_memory.items())
    processes = f"{found.processes} process" + ("es" if found.processes > 1 else "")
    console.print(f"on {found.device}, {processes}; most memory of one: {memory}", soft_wrap=True)


def _print_report(report: Report) -> None:
    table = Table(title=f"read as {report.layout}")
    columns = ("split", "images", "identities", "no identity", "cameras", "images per identity")
    for column in columns:
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, split in report.splits.items():
        if split.images:
            low, median, high = split.images_per_identity
            spread = f"{low} - {median:g} - {high}" if split.identities else "-"
            numbers = (split.images, split.identities, split.without_identity, split.cameras)
            table.add_row(name, *map(str, numbers), spread)
    console.print(table)
    for note in report.notes:
        console.print(f"note: {note}", soft_wrap=True)
    possible = {name: n for name, n in report.queries_by_protocol.items() if n}
    listed = ", ".join(f"{name} ({n} queries)" for name, n in possible.items())
    console.print(f"can be scored under: {listed or 'nothing; no identity is seen twice'}")
    for problem in report.problems[:50]:
        console.print(Text(f"problem: {problem.path}: {problem.reason}"), soft_wrap=True)
    if len(report.problems) > 50:
        console.print(f"... and {len(report.problems) - 50} more; --json lists all")
    verdict = "usable" if report.usable else "not usable: nothing to train on"
    console.print(f"{len(report.problems)} problems; {verdict}")
