"""A run's JSON files, checked: each name by its kind, and one that is missing is an error.

A file that was changed by hand, or cut by a full disk, is refused where it is read, with its place.
What older runs did not tell yet is asked for by `get`, as of any dict.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gracl.errors import RunError

Is = Callable[[Any], bool]
LONGEST = 60
"""Letters of a wrong value that an error shows."""
REMEDY = (
    "It was changed since gracl wrote it, or cut short: take it back from a copy, or train into "
    "another folder"
)


def is_number(value: Any) -> bool:
    """A finite number; True and False are none.

    >>> [is_number(value) for value in (1, 2.5, True, "1", float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def is_count(value: Any) -> bool:
    """A whole number of 0 or more."""
    return isinstance(value, int) and is_number(value) and value >= 0


def is_text(value: Any) -> bool:
    """Text."""
    return isinstance(value, str)


def is_object(value: Any) -> bool:
    """An object; what is in it is looked at by itself."""
    return isinstance(value, dict)


def _or_null(kind: Is) -> Is:
    return lambda value: value is None or kind(value)


def _each(kind: Is) -> Is:
    """A list of such values."""
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _by_name(kind: Is) -> Is:
    """An object of such values."""
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(point, list) and len(point) == 2 and is_count(point[0]) and is_number(point[1])
        for point in value
    )


_KINDS: tuple[tuple[str, Is, str], ...] = (
    ("a number", is_number, "mAP mINP R1 R5 R10 ari outlier_share largest_share"),
    ("a number or null", _or_null(is_number), "stability"),
    ("a whole number, 0 or more", is_count,
     "epoch processes images n_images n_clusters n_singletons n_queries n_without_match seed"),
    ("text", is_text,
     "event time device python name root layout fingerprint links path reason protocol data contender"),
    ("text or an object", lambda value: is_text(value) or is_object(value), "machine"),
    ("text or null", _or_null(is_text), "classes continues failure"),
    ("true or false", lambda value: isinstance(value, bool), "on_training_images"),
    ("a list of texts", _each(is_text), "warnings contenders"),
    ("two texts at most", lambda value: _each(is_text)(value) and len(value) <= 2, "given"),
    ("a list of whole numbers", _each(is_count), "seeds"),
    ("an object of objects", _by_name(is_object), "settings"),
    ("an object of numbers", _by_name(is_number),
     "losses seconds images_per_second peak_memory measures"),
    ("an object of texts", _by_name(is_text), "versions"),
    ("an object of lists of [epoch, number]", _by_name(_is_curve), "curves"),
)  # fmt: skip
_LOOKED_INTO: tuple[tuple[str, Is, str], ...] = (
    ("a list of objects", _each(is_object), "left_out runs"),
    ("an object", is_object, "before after clusters agreement scores"),
)
KINDS: Mapping[str, tuple[str, Is]] = {
    name: (words, kind) for words, kind, names in (*_KINDS, *_LOOKED_INTO) for name in names.split()
}
"""What a value is called in an error, and how it is known, by its name in any of the files."""
_INNER = {name for _, _, names in _LOOKED_INTO for name in names.split()}


class Checked(dict[str, Any]):
    """An object of a file; to ask it for a name that it lacks is a `RunError`.

    >>> checked({"epoch": 3}, "log.jsonl, line 4")["losses"]
    Traceback (most recent call last):
    gracl.errors.RunError: log.jsonl, line 4 has no 'losses'. It was changed since gracl wrote it, ...
    """

    place, remedy = "what was read", REMEDY

    def __missing__(self, name: str) -> Any:
        raise RunError(f"{self.place} has no '{name}'. {self.remedy}")


def checked(value: Any, place: str, *, remedy: str = REMEDY) -> Checked:
    """An object as it was read, with the objects in it, once each value is of the kind of its name.

    Args:
        value: what JSON holds.
        place: where it stands, for errors.
        remedy: what to do then.

    Raises:
        RunError: it is no object, or a value is not of the kind that its name has.
    """
    if not isinstance(value, dict):
        raise RunError(f"{place} holds {_shown(value)}; expected an object. {remedy}")
    found = _object(value, place, remedy)
    for name, inner in value.items():
        words, kind = KINDS.get(name, ("", None))
        if kind is not None and not kind(inner):
            raise RunError(f"{place}: {name} is {_shown(inner)}; expected {words}. {remedy}")
        if name in _INNER and isinstance(inner, list):
            found[name] = [checked(one, place, remedy=remedy) for one in inner]
        elif name in _INNER:
            found[name] = checked(inner, place, remedy=remedy)
        elif isinstance(inner, dict):
            found[name] = _object(inner, place, remedy)
    return found


def _object(values: dict[str, Any], place: str, remedy: str) -> Checked:
    found = Checked(values)
    found.place, found.remedy = place, remedy
    return found


def read_object(path: Path, *, remedy: str = REMEDY) -> Checked:
    """The object in a file; see `checked`.

    Raises:
        RunError: the file is damaged.
    """
    return _parsed(_text_of(path), str(path), remedy)


def read_lines(path: Path) -> list[Checked]:
    """The objects in the whole lines of a file; a last one that a killed process left is passed over.

    Raises:
        RunError: a line is damaged.
    """
    lines = _text_of(path).split("\n")[:-1]
    return [_parsed(line, f"{path}, line {number}", REMEDY) for number, line in enumerate(lines, 1)]


def _parsed(text: str, place: str, remedy: str) -> Checked:
    try:
        return checked(json.loads(text), place, remedy=remedy)
    except (ValueError, RecursionError) as error:  # of a file with lists in lists in lists, the latter
        raise RunError(f"{place} cannot be read as JSON: {error}. {remedy}") from error


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. {REMEDY}") from error


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
