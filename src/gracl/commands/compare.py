"""`gracl compare` and `gracl ablate`: several trainings side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gracl.commands.options import Flat, LayoutName, load
from gracl.config import Config
from gracl.errors import ConfigError
from gracl.terminal import Bars, console, print_comparison, print_notes, print_outcome

if TYPE_CHECKING:
    from gracl.contenders import Contender
    from gracl.data.records import Dataset


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What `compare` and `ablate` share: each contender is trained with each seed, then scored."""

    data: Annotated[
        Path,
        tyro.conf.arg(metavar="DATA", help="As 'gracl train' takes it, with identities to score by."),
    ]
    seeds: int = 3
    """Trainings of each contender, with the seeds 0, 1, ...; two or more give an interval."""
    test_share: float | None = None
    """Where DATA has no test part: the share of identities that is one, drawn anew with each seed."""
    plot: bool = False
    """Draw mAP and ARI by epoch into OUT/curves.png (mAP also between first and last epoch with
    --evaluate.every); needs the extra report."""
    json: bool = False
    """Print JSON, the same as OUT/comparison.json."""
    recipe: str = "own-data"
    """Settings to start from, as of 'gracl train'."""
    settings: Path | None = None
    """A YAML file of settings over the recipe's; a recipe that it names takes the other's place."""
    config: Annotated[Config, Flat] = field(default_factory=Config)
    layout: LayoutName = None


@dataclass(frozen=True, kw_only=True)
class Compare(SideBySide):
    """Train methods, or files of settings, with the same seeds and compare them; resumable."""

    contenders: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="METHOD...", help="Names of methods, or YAML files of settings."),
    ] = ()
    out: Path = Path("runs/compare")
    """The folder of all runs; the same command continues what is there."""


@dataclass(frozen=True, kw_only=True)
class Ablate(SideBySide):
    """Train with several values of some settings and compare them; resumable."""

    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values: method.relation=cosine,jaccard. Give it again for another setting."""
    one_at_a_time: bool = False
    """The settings as they are and each single change; else every combination of the values."""
    out: Path = Path("runs/ablate")
    """The folder of all runs; the same command continues what is there."""


def compare(command: Compare) -> None:
    """Train methods or files of settings side by side."""
    from gracl.contenders import contenders_of

    _side_by_side(command, contenders_of(command.contenders, command.config))


def ablate(command: Ablate) -> None:
    """Train several values of settings side by side."""
    from gracl.contenders import grid

    varied = _varied(command.vary)
    _side_by_side(command, grid(command.config, varied, one_at_a_time=command.one_at_a_time))


def _varied(words: Sequence[str]) -> dict[str, list[str]]:
    """Values by setting, of words such as method.relation=cosine,jaccard or model.size=[64,32]."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, _, values = word.partition("=")
        if not name or not values:
            raise ConfigError(f"--vary {word}: expected one such as method.relation=cosine,jaccard")
        if name in found:
            raise ConfigError(f"--vary {name} is given twice; give all its values at once")
        found[name] = re.split(r",(?![^\[]*\])", values)  # no comma within brackets parts two
    return found


def _side_by_side(command: Compare | Ablate, contenders: Sequence[Contender]) -> None:
    """Trains all, then prints the table or the JSON."""
    from gracl.contest import compare as compare_runs
    from gracl.curves import draw_curves
    from gracl.sweep import require_drawable

    if command.seeds < 1:
        raise ConfigError(f"--seeds is {command.seeds}; expected 1 or more")
    if command.plot:
        require_drawable("curves.png")
    dataset = load(command)
    settings: dict[str, Any] = {"seeds": range(command.seeds)}
    data = _by_seed(dataset, command.test_share)
    if command.json:
        found = compare_runs(contenders, data, command.out, **settings)
    else:
        print_notes(dataset)
        names = ", ".join(contender.name for contender in contenders)
        console.print(f"{command.seeds} trainings each of {names}", soft_wrap=True)
        with Bars() as bars:
            found = compare_runs(
                contenders, data, command.out, on_run=print_outcome, progress=bars, **settings
            )
    if command.plot:
        draw_curves(found, command.out / "curves.png")
    if command.json:
        print((command.out / "comparison.json").read_text(encoding="utf-8"))
        return
    print_comparison(found)
    console.print(f"all runs and comparison.json: {command.out}", soft_wrap=True)


def _by_seed(dataset: Dataset, test_share: float | None) -> Dataset | Callable[[int], Dataset]:
    """The data set as it is, or divided anew with each seed."""
    from gracl.data.splits import split_by_identity

    if test_share is None:
        return dataset
    if not dataset.tests_on_training_images:
        raise ConfigError(
            f"--test-share divides data without a test part, and {dataset.name} has one. Leave it out"
        )
    return lambda seed: split_by_identity(dataset, test_share=test_share, seed=seed)
