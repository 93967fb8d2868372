"""The command line: reads which command was typed, with the settings it names, and runs it.

The commands are in `gracl.commands`, one a file. Nothing heavy is imported before a command is known to
be well formed, so `--help` stays quick.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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

COMMANDS: dict[str, type] = {
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
    "gallery": gallery.Gallery,
    "serve": Serve,
    "profile": Profile,
    "report": Report,
    "review": Review,
    "data": data.Data,
    "hub": hub.Hub,
}
"""By the first word that is typed, in the order in which help lists them."""
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
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        raise ConfigError(f"there is no command '{words[0]}'; {did_you_mean(words[0], COMMANDS)}")
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
    compared: dict[str, Any] = {"data": tyro.MISSING, "recipe": recipe, "config": config}
    defaults: dict[str, Any] = {
        "demo": Demo(config=Config.load("demo").replace(chosen)),
        "train": Train(recipe=recipe, config=config),
        "compare": Compare(**compared),
        "ablate": Ablate(**compared),
    }
    members = tuple(_subcommand(name, kind, defaults) for name, kind in COMMANDS.items())
    commands: Any = Union[members]  # noqa: UP007 - they are known at run time alone
    return tyro.cli(
        commands,
        prog="gracl",
        description="Learn to re-identify people, vehicles, animals or objects without labels. "
        "What a command takes: gracl COMMAND --help. Which version this is: gracl --version",
        args=words,
    )


def _subcommand(name: str, kind: type, defaults: Mapping[str, Any]) -> Any:
    default = {"default": defaults[name]} if name in defaults else {}
    return Annotated[kind, tyro.conf.subcommand(name, **default)]


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
