"""The command line: reads which command was typed, with the settings it names, and runs it.

The commands are in `gracl.commands`, one a file. Nothing heavy is imported before a command is known to
be well formed, so `--help` stays quick.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.text import Text

from gracl import disk
from gracl.commands import data, gallery, hub
from gracl.commands.associate import Associate, associate
from gracl.commands.calibrate import Calibrate, calibrate
from gracl.commands.cluster import Cluster, cluster
from gracl.commands.compare import Ablate, Compare, ablate, compare
from gracl.commands.embed import Embed, embed
from gracl.commands.evaluate import Evaluate, evaluate
from gracl.commands.export import Export, export
from gracl.commands.profile import Profile, profile
from gracl.commands.report import Report, report
from gracl.commands.review import Review, review
from gracl.commands.serve import Serve, serve
from gracl.commands.train import Demo, Train, demo, train
from gracl.config import Config, recipes
from gracl.errors import ConfigError, GraclError, did_you_mean
from gracl.paths import is_file
from gracl.terminal import PROCESS, errors, print_log

ACTIONS: dict[type, Callable[[Any], bool | None]] = {
    Demo: demo,
    Train: train,
    Compare: compare,
    Ablate: ablate,
    Cluster: cluster,
    Associate: associate,
    Evaluate: evaluate,
    Calibrate: calibrate,
    Embed: embed,
    Export: export,
    Serve: serve,
    Profile: profile,
    Report: report,
    Review: review,
    **data.ACTIONS,
    **gallery.ACTIONS,
    **hub.ACTIONS,
}
"""What each command does, those of groups among them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 1 the data is not usable, 2 an error, 130 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"gracl {metadata.version('gracl')}")
        return
    print_log()
    try:
        command = _parse(words)
        if isinstance(command, data.Data | gallery.Gallery | hub.Hub):
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
    except OSError as error:
        refusal = _in_words(error)
        if refusal is None:
            raise
        errors.print("error:", Text(refusal), soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped; a training continues after its last whole epoch by the same command")
        sys.exit(130)
    sys.exit(1 if usable is False else 0)


def _in_words(error: OSError) -> str | None:
    """What a disk refused to other libraries, as gracl's own files say it; None if it was no disk."""
    what = error.filename if isinstance(error.filename, str) else "what was to be written"
    if error.errno in disk.DENIED:
        return f"{what}: {error.strerror}. Get the permission for it, or give another"
    if error.errno not in (*disk.FULL, errno.EROFS):
        return None
    where = Path(what) if what == error.filename else Path.cwd() / "output"
    return f"cannot write {what}: {disk.in_words(error, where, 'another place')}"


def _parse(words: list[str]) -> Any:
    """The command, with the defaults of the recipe and the file that it names."""
    recipe = _value_of(words, "--recipe") or "own-data"
    if recipe not in recipes():
        raise ConfigError(f"no recipe '{recipe}'; {did_you_mean(recipe, recipes())}")
    earlier = _value_of(words, "--continue")
    config = Config.load(recipe) if earlier is None else _settings_after(earlier, words)
    settings = _value_of(words, "--settings")
    if settings is not None:
        if not is_file(Path(settings)):
            raise ConfigError(f"--settings {settings}: there is no such file")
        config = Config.load(settings, over=config)
    # The method decides which settings there are.
    method = _value_of(words, "--method.name")
    chosen = {} if method is None else {"method": {"name": method}}
    config = config.replace(chosen)
    demo_default = Demo(config=Config.load("demo").replace(chosen))
    train_default = Train(recipe=recipe, config=config)
    compared: dict[str, Any] = {"data": tyro.MISSING, "recipe": recipe, "config": config}
    commands = Union[  # noqa: UP007 - its members are made at run time
        Annotated[Demo, tyro.conf.subcommand("demo", default=demo_default)],
        Annotated[Train, tyro.conf.subcommand("train", default=train_default)],
        Annotated[Compare, tyro.conf.subcommand("compare", default=Compare(**compared))],
        Annotated[Ablate, tyro.conf.subcommand("ablate", default=Ablate(**compared))],
        Annotated[Cluster, tyro.conf.subcommand("cluster")],
        Annotated[Associate, tyro.conf.subcommand("associate")],
        Annotated[Evaluate, tyro.conf.subcommand("evaluate")],
        Annotated[Calibrate, tyro.conf.subcommand("calibrate")],
        Annotated[Embed, tyro.conf.subcommand("embed")],
        Annotated[Export, tyro.conf.subcommand("export")],
        Annotated[gallery.Gallery, tyro.conf.subcommand("gallery")],
        Annotated[Serve, tyro.conf.subcommand("serve")],
        Annotated[Profile, tyro.conf.subcommand("profile")],
        Annotated[Report, tyro.conf.subcommand("report")],
        Annotated[Review, tyro.conf.subcommand("review")],
        Annotated[data.Data, tyro.conf.subcommand("data")],
        Annotated[hub.Hub, tyro.conf.subcommand("hub")],
    ]
    return tyro.cli(
        commands,
        prog="gracl",
        description="Learn to re-identify people, vehicles, animals or objects without labels.",
        args=words,
    )


def _settings_after(earlier: str, words: Sequence[str]) -> Config:
    """The settings of a run that is continued, which stand where a recipe's would."""
    from gracl.review.next_run import next_config
    from gracl.runs import Run

    if _value_of(words, "--recipe") is not None:
        raise ConfigError("--continue RUN takes the settings of that run; leave --recipe out")
    return next_config(Run(Path(earlier)))


def _value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag, read ahead: it decides the defaults of all others."""
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
