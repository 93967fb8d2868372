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
from itertools import starmap
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
from gracl.commands.options import Group
from gracl.commands.profile import Profile, profile
from gracl.commands.report import Report, report
from gracl.commands.review import Review, review
from gracl.commands.serve import Serve, serve
from gracl.commands.train import Demo, Train, demo, train
from gracl.config import Config, recipes
from gracl.errors import ConfigError, GraclError, did_you_mean
from gracl.paths import is_file
from gracl.terminal import PROCESS, errors, print_log

COMMANDS: dict[str, type | Group] = {
    "demo": Demo,
    "train": Train,
    "compare": Compare,
    "ablate": Ablate,
    "cluster": Cluster,
    "associate": Associate,
    "evaluate": Evaluate,
    "calibrate": Calibrate,
    "embed": Embed,
    "export": Export,
    "gallery": gallery.GALLERY,
    "serve": Serve,
    "profile": Profile,
    "report": Report,
    "review": Review,
    "data": data.DATA,
    "hub": hub.HUB,
}
"""By the first word that is typed, in the order in which help lists them."""
EVERYTHING = Group(
    "Learn to re-identify people, vehicles, animals or objects without labels. What a command takes: "
    "gracl COMMAND --help. Which version this is: gracl --version",
    COMMANDS,
)
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


def _parse(words: Sequence[str]) -> Any:
    """The command that was typed; where only a group of them was, what is in it is printed."""
    found: type | Group = EVERYTHING
    called, rest = ["gracl"], list(words)
    while isinstance(found, Group):
        if not rest or rest[0].startswith("-"):
            return _overview(called, found, rest)
        word = rest.pop(0)
        if word not in found.commands:
            typed = " ".join([*called[1:], word])
            raise ConfigError(f"there is no command '{typed}'; {did_you_mean(word, found.commands)}")
        called, found = [*called, word], found.commands[word]
    # Alone, so that an option that is mistyped is compared with those of this command.
    return tyro.cli(found, prog=" ".join(called), args=rest, **_defaults(found, rest))


def _overview(called: Sequence[str], group: Group, words: Sequence[str]) -> Any:
    """Prints what a group has, and ends."""
    members = tuple(starmap(_member, group.commands.items()))
    commands: Any = Union[members]  # noqa: UP007 - they are known at run time alone
    return tyro.cli(commands, prog=" ".join(called), description=group.help, args=words)


def _member(name: str, kind: type | Group) -> Any:
    if isinstance(kind, Group):
        return Annotated[object, tyro.conf.subcommand(name, description=kind.help)]
    return Annotated[kind, tyro.conf.subcommand(name)]


def _defaults(kind: Any, words: Sequence[str]) -> dict[str, Any]:
    """What a command that takes settings starts from: the recipe and the file that it names."""
    if kind not in (Demo, Train, Compare, Ablate):
        return {}
    recipe = "demo" if kind is Demo else _value_of(words, "--recipe") or "own-data"
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
    config = config if method is None else config.replace({"method": {"name": method}})
    if kind is Demo:
        return {"default": Demo(config=config)}
    if kind is Train:
        return {"default": Train(recipe=recipe, config=config)}
    return {"default": kind(data=tyro.MISSING, recipe=recipe, config=config)}


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
