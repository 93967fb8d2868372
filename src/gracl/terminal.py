"""What commands show in a terminal: bars while they work, tables and sentences of what came of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
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

if TYPE_CHECKING:
    from gracl import profiling
    from gracl.clustering import Labels
    from gracl.comparison import Comparison, Outcome, Row
    from gracl.data.check import Report
    from gracl.data.records import Dataset, Problem, Records
    from gracl.export import Exported
    from gracl.gallery.results import Found
    from gracl.hub import Pushed
    from gracl.runs import Run
    from gracl.sweep import Sweep
    from gracl.training import Epoch

PROCESS = int(os.environ["RANK"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else None
"""This process's number, where torchrun started it; only the first shows anything."""

console = Console(highlight=False, markup=False, quiet=bool(PROCESS))
errors = Console(stderr=True, highlight=False, markup=False)


class Speed(ProgressColumn):
    """How many are done in a second: images, or steps of training."""

    def render(self, task: Task) -> Text:
        """Nothing before there is anything to measure by."""
        return Text("" if not task.speed else f"{task.speed:.1f}/s")


class Bars:
    """Progress bars, one a stage, that vanish when all is done; none where nobody watches."""

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
        if console.is_interactive:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_interactive:  # else rich would leave an empty line in a file or pipe
            self.progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of a stage."""
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total)
        elif done < self.done[stage]:  # the next epoch's; an old clock would show its time wrong
            self.progress.reset(self.tasks[stage])
        self.done[stage] = done
        self.progress.update(self.tasks[stage], completed=done, total=total)


def print_log() -> None:
    """What the library tells its log, such as what a big stage will need, is printed."""
    import logging

    class Printed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.print(Text(record.getMessage()), soft_wrap=True)

    log = logging.getLogger("gracl")
    log.handlers[:] = [logging.NullHandler() if PROCESS else Printed()]
    log.setLevel(logging.INFO)


def print_notes(dataset: Dataset) -> None:
    """What to know of a data set before trusting a number taken on it."""
    for note in dataset.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if dataset.problems:
        console.print(f"{len(dataset.problems)} files or rows left out; see: gracl data check")


def print_left_out(problems: Sequence[Problem]) -> None:
    """Names the first images that could not be used, and counts the others."""
    for problem in problems[:5]:
        console.print(Text(f"left out: {problem.path}: {problem.reason}"), soft_wrap=True)
    if len(problems) > 5:
        console.print(f"... and {len(problems) - 5} more; see: gracl data check")


def print_found(found: Sequence[Found]) -> None:
    """Whose each image is, then its hits, nearest first."""
    for one in found:
        answer = one.identity or "nobody with a name"
        console.print(Text.assemble(f"{one.query.path}: ", (answer, "bold")), soft_wrap=True)
        for hit in one:
            whose = f"{hit.identity}  " if hit.identity else ""
            line = f"  {hit.similarity:.3f}  {whose}{hit.path}"
            console.print(Text(line), soft_wrap=True)


def print_epoch(epoch: Epoch, epochs: int, *, seconds_each: float) -> None:
    """One line an epoch, with the time that is left at so many seconds each."""
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


def print_clusters(labels: Labels, records: Records, dataset: Dataset) -> None:
    """Counts of clusters, and their agreement with the truth where it is known."""
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
            f"{agreed.purity:.1%}, {agreed.n_identities} identities "
            f"({agreed.cluster_count_error:+d} clusters)"
        )


def print_sweep(tried: Sweep, records: Records, dataset: Dataset) -> None:
    """A line for each eps, and which one to take."""
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


def print_before_and_after(run: Run) -> None:
    """Scores and clusters of the untrained and of the trained network."""
    from gracl.clustering import Health
    from gracl.logbook import ends_of

    before, after = run.before, run.after
    table = Table(title="learnt without a label")
    for column in ("", "before", "after"):
        table.add_column(column, justify="left" if not column else "right")
    for row in ends_of(before, after):
        table.add_row(*row)
    console.print(table)
    names = [field.name for field in dataclasses.fields(Health)]
    for warning in Health(**{name: after["clusters"][name] for name in names}).warnings:
        console.print(f"note: by the trained model {warning}", soft_wrap=True)
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


def print_outcome(outcome: Outcome) -> None:
    """One line a run of a comparison."""
    from gracl.forecast import duration

    name = f"seed {outcome.seed}  {outcome.contender}"
    if outcome.failure is not None:
        console.print(f"{name}: failed: {outcome.failure}", soft_wrap=True)
        return
    measures = outcome.measures
    cells = [f"{share} {measures[share]:.1%}" for share in ("mAP", "R1", "ARI") if share in measures]
    console.print("  ".join([name, *cells, duration(60 * measures["minutes"])]), soft_wrap=True)


def print_comparison(found: Comparison) -> None:
    """A line a contender, what it is better or worse than, and what the numbers are."""
    from gracl.comparison import SHARES

    table = Table(
        title=f"side by side on {found.data}", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True
    )
    table.add_column("", overflow="fold")
    for column in (*SHARES, "min", "GiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(row.name, *_cells(row))
    console.print(table)
    for outcome in found.failures:
        console.print(
            f"failed: {outcome.contender}, seed {outcome.seed}: {outcome.failure}", soft_wrap=True
        )
    first, *others = found.contenders
    for name in others:
        console.print(_difference(found, name, first), soft_wrap=True)
    console.print(_about_comparison(found), soft_wrap=True)


def _cells(row: Row) -> list[str]:
    """mAP, R1, mINP and ARI in percent, minutes and memory as means."""
    from gracl.comparison import SHARES

    cells = []
    for share in SHARES:
        spread = row.spreads.get(share)
        around = "" if spread is None or spread.std is None else f" ± {100 * spread.std:.1f}"
        cells.append("-" if spread is None else f"{100 * spread.mean:.1f}{around}")
    plain = [row.spreads.get(name) for name in ("minutes", "memory")]
    return cells + ["-" if spread is None else f"{spread.mean:.1f}" for spread in plain]


def _difference(found: Comparison, name: str, first: str) -> str:
    """One sentence on mAP; the interval is that of a paired t over seeds."""
    if not found.values(name, "mAP").keys() & found.values(first, "mAP").keys():
        return f"{name} against {first}: no seed that both finished"
    paired = found.paired(name, first)
    words = f"{name} against {first}: mAP {100 * paired.difference:+.1f} points"
    if paired.low is None or paired.high is None:
        return f"{words}, {paired.word}: one seed gives no interval"
    return f"{words} [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}], {paired.word}"


def _about_comparison(found: Comparison) -> str:
    n = len(found.seeds)
    seeds = "1 seed" if n == 1 else f"{n} seeds, mean ± standard deviation"
    words = f"scores of the last epoch in percent, protocol {' and '.join(found.protocols) or '-'}"
    if any(outcome.on_training_images for outcome in found.outcomes):
        words += " (the training images search each other)"
    words += f", {seeds}"
    if n > 1 and len(found.contenders) > 1:
        words += "; in brackets the 95 % interval of the difference, seeds paired"
    if any(row.finished < n for row in found.rows):
        words += "; a contender's figures are of the seeds that it finished"
    if len(found.protocols) > 1:
        words += ". Scores under different protocols cannot be compared"
    return words


def print_exported(done: Exported) -> None:
    """The file, and what it was checked by."""
    console.print(f"{done.path}: {done.bytes / 2**20:.1f} MiB", soft_wrap=True)
    if not done.batches:
        console.print("the backbone's weights, for: torch.load(FILE, weights_only=True)")
        return
    *others, last = done.batches
    batches = f"{', '.join(str(n) for n in others)} and {last}"
    console.print(
        f"compared with the model, {batches} images at a time: features differ by "
        f"{done.difference:.1g} at most, least cosine {done.cosine:.6f}",
        soft_wrap=True,
    )


def print_pushed(done: Pushed) -> None:
    """What went to the hub, or would go there."""
    seen = "private" if done.private else "public: everybody can see it"
    went = "would be uploaded; nobody was asked" if done.commit is None else f"uploaded: {done.commit}"
    for name, size in done.files.items():
        console.print(f"{name}: {size:,} bytes", soft_wrap=True)
    console.print(
        f"{done.url} ({seen}, licence {done.license}, fingerprint {done.fingerprint[:12]}): {went}",
        soft_wrap=True,
    )


def print_profile(found: profiling.Profile) -> None:
    """A line a stage: its seconds, share and speed."""
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


def print_report(report: Report) -> None:
    """What `gracl data check` found."""
    console.print(Text(str(report)), soft_wrap=True)
