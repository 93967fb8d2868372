"""What every section of the settings is made on: it checks its own types and ranges, and is replaced.

Nothing heavy is imported here, so that `gracl --help` stays quick.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from gracl.errors import ConfigError, did_you_mean

T = TypeVar("T", bound="Section")


def ranged(default: float, low: float, high: float = math.inf) -> Any:
    """A number that must lie in [low, high]."""
    return field(default=default, metadata={"range": (low, high)})


def shown(value: Any) -> str:
    """A value for an error, cut where it is long: YAML's aliases write billions of items in a line.

    >>> shown([256, 128]), shown([list(range(9))] * 9)
    ('[256, 128]', '[[0, 1, 2, 3, 4, 5, ...], [0, 1, 2, 3, 4, 5, ...], ...]')
    """
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 6
_SHORT.maxlevel = 3


class Section:
    """A part of the tree: checks each field against its type and range when it is made."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            checked = _checked(item.name, value, hints[item.name])
            low, high = item.metadata.get("range", (-math.inf, math.inf))
            if isinstance(checked, int | float) and not low <= checked <= high:
                bound = f"in [{low}, {high}]" if high < math.inf else f"at least {low}"
                raise ConfigError(f"{item.name} is {checked}; it must be {bound}")
            object.__setattr__(self, item.name, checked)

    def chosen_by(self, settings: Mapping[str, Any]) -> Section:  # noqa: ARG002
        """The section that settings are about to change: another kind of it, where they choose one."""
        return self

    def plain(self) -> dict[str, Any]:
        """Nested mappings of plain values, as YAML holds them."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: _plain(value) for name, value in values.items()}


def replaced(section: T, settings: Mapping[str, Any], path: str = "") -> T:
    """A copy with some settings changed, as nested mappings of plain values; `path` is for errors."""
    section = section.chosen_by(settings)  # type: ignore[assignment]
    known = {item.name for item in fields(section)}  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{path}{key}"
        if key not in known:
            raise ConfigError(f"unknown setting '{name}'; {did_you_mean(str(key), known)}")
        current = getattr(section, key)
        if not isinstance(current, Section):
            changed[key] = value
        elif value is None or isinstance(value, Mapping):  # None: a section left empty in YAML
            changed[key] = replaced(current, value or {}, f"{name}.")
        else:
            raise ConfigError(f"{name} is {shown(value)}; expected settings below it")
    try:
        return dataclasses.replace(section, **changed)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"{path}{error}") from None


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value as the type that the field declares, or an error."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices or type(value) not in {type(c) for c in choices}:
            found = value if isinstance(value, str) else shown(value)
            raise ConfigError(f"{name} is {shown(value)}; {did_you_mean(found, map(str, choices))}")
        return value
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, list | tuple) or len(value) != len(kinds):
            raise ConfigError(f"{name} is {shown(value)}; expected {len(kinds)} numbers, as [256, 128]")
        numbers = tuple(_checked(name, v, kind) for v, kind in zip(value, kinds, strict=True))
        if min(numbers) < 8:
            raise ConfigError(f"{name} is {shown(value)}; each must be at least 8 pixels")
        return numbers
    if hint is float:
        # YAML 1.1 reads 5e-4 as text, since it has no point
        number = _number(value)
        if number is not None:
            if not math.isfinite(number):
                raise ConfigError(f"{name} is {shown(value)}; expected a finite number")
            return number
    if type(value) is not hint and not (isinstance(hint, type) and isinstance(value, hint)):
        hint_name = getattr(hint, "__name__", str(hint))
        raise ConfigError(
            f"{name} is {shown(value)}, of type {type(value).__name__}; expected {hint_name}"
        )
    if hint is int and isinstance(value, bool):
        raise ConfigError(f"{name} is {value}; expected a whole number")
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return list(value) if isinstance(value, tuple) else value
