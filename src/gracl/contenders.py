"""Who is compared: settings with a name, from methods, from files, or from a grid of values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from gracl.config import Config
from gracl.errors import ConfigError, did_you_mean
from gracl.methods import METHODS
from gracl.paths import is_file

BASE = "base"
"""The contender of an ablation in which nothing is changed."""


@dataclass(frozen=True)
class Contender:
    """Settings with a name."""

    name: str
    config: Config

    @property
    def folder(self) -> str:
        """The name as a folder of any file system can have it.

        >>> Contender("relation=jaccard update=mean", Config()).folder
        'relation=jaccard_update=mean'
        """
        clean = re.sub(r"[^\w.=,+-]+", "-", self.name.replace(" ", "_"), flags=re.ASCII).strip(".")
        if clean == self.name.replace(" ", "_") and len(clean) <= 100:
            return clean
        # Other names must not become the same one by what was taken away.
        return f"{clean[:90]}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


def contenders_of(words: Sequence[str], base: Config) -> tuple[Contender, ...]:
    """Contenders by the names of methods, or by YAML files of settings.

    Args:
        words: each a method's name, or the path of a file; a file's contender is named after it.
        base: the settings that both change. A file that names a recipe starts from that instead.

    >>> [c.config.method.name for c in contenders_of(["gracl", "cluster-contrast"], Config())]
    ['gracl', 'cluster-contrast']
    """
    found = tuple(_contender_of(word, base) for word in words)
    require_own_names(found)
    return found


def _contender_of(word: str, base: Config) -> Contender:
    if word in METHODS:
        return Contender(word, base.replace({"method": {"name": word}}))
    if not is_file(Path(word)):
        raise ConfigError(
            f"'{word}' is neither a method nor a YAML file of settings that exists; "
            f"{did_you_mean(word, METHODS)}; or give a file such as settings.yaml"
        )
    return Contender(Path(word).stem, Config.load(word, over=base))


def grid(
    base: Config, varied: Mapping[str, Sequence[str]], *, one_at_a_time: bool = False
) -> tuple[Contender, ...]:
    """Contenders from values of settings.

    Args:
        base: all other settings.
        varied: by a setting's dotted name, its values as they stand in YAML.
        one_at_a_time: the base and each single change of it; else every combination of the values.

    Raises:
        ConfigError: no such setting or value, or the same one twice.

    >>> values = {"method.eps": ["0.55"], "method.k1": ["20", "25"]}
    >>> [contender.name for contender in grid(Config(), values, one_at_a_time=True)]
    ['base', 'eps=0.55', 'k1=20', 'k1=25']
    >>> grid(Config(), values)[-1].name
    'eps=0.55 k1=25'
    """
    if not varied or not all(varied.values()):
        raise ConfigError("nothing is varied; give settings such as method.relation=cosine,jaccard")
    short = _short_names(varied)
    if one_at_a_time:
        found = [Contender(BASE, base)]
        singles = [((name, value),) for name, values in varied.items() for value in values]
        changed = [_changed(base, single, short) for single in singles]
        found += [contender for contender in changed if contender.config != base]
    else:
        choices = [[(name, value) for value in values] for name, values in varied.items()]
        found = [_changed(base, chosen, short) for chosen in product(*choices)]
    require_own_names(found)
    return tuple(found)


def _short_names(varied: Iterable[str]) -> dict[str, str]:
    """The last part of each setting's name, or all of it where others end so too."""
    last = {name: name.rpartition(".")[2] for name in varied}
    ends = list(last.values())
    return {name: end if ends.count(end) == 1 else name for name, end in last.items()}


def _changed(base: Config, chosen: Sequence[tuple[str, str]], short: Mapping[str, str]) -> Contender:
    settings: dict[str, dict[str, Any]] = {}
    for name, text in chosen:
        section, dot, key = name.partition(".")
        if not dot:
            known = [f"{part}.{key}" for part, values in base.plain().items() for key in values]
            raise ConfigError(f"'{name}' is no setting with its section; {did_you_mean(name, known)}")
        try:
            settings.setdefault(section, {})[key] = yaml.safe_load(text)
        except Exception as error:  # for dates and numbers that are none, PyYAML raises what it likes
            raise ConfigError(f"{name} is '{text}', which is not a value in YAML") from error
    config = base.replace(settings)
    return Contender(" ".join(f"{short[name]}={text.strip()}" for name, text in chosen), config)


def require_own_names(contenders: Sequence[Contender]) -> None:
    """Refuses contenders that would share a folder, on file systems that ignore case too."""
    if not contenders:
        raise ConfigError("nothing to compare; give methods, or files of settings")
    seen: dict[str, str] = {}
    for contender in contenders:
        key = contender.folder.casefold()
        if key in seen:
            raise ConfigError(
                f"'{seen[key]}' and '{contender.name}' would have the same name. Give each contender "
                "once, under a name of its own"
            )
        seen[key] = contender.name
