"""Every error a user can cause, as a tree below `GraclError`.

Each message says what was found, what was expected, and what to type next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class GraclError(Exception):
    """Root of every error that gracl raises on purpose."""


class ConfigError(GraclError):
    """A setting has a wrong name, type or value."""


class DataError(GraclError, ValueError):
    """Images, folders or tables are missing, unreadable or contradict each other."""


class WeightsError(GraclError, ValueError):
    """A weights file cannot be read or does not fit the model."""


class ShapeError(GraclError, ValueError):
    """A tensor or array has a shape, type or content that the function cannot take."""


class OutOfMemory(GraclError, MemoryError):  # noqa: N818 - Python's own name has the suffix already
    """A stage needs more memory than there is; raised before it starts."""


class SearchError(GraclError, RuntimeError):
    """An approximate index does not find what it should."""


class EvaluationError(GraclError, ValueError):
    """The data cannot be scored under the protocol that was asked for."""


class ExportError(GraclError, RuntimeError):
    """A model cannot be exported, or what was written does not give its features."""


class ClusterCollapse(GraclError, RuntimeError):  # noqa: N818 - it is the event that has the name
    """Clustering left nothing to learn from: no cluster at all, or only one."""


class LinkConflict(GraclError, ValueError):  # noqa: N818
    """Two images must share a cluster and cannot."""


class NonFiniteLoss(GraclError, RuntimeError):  # noqa: N818
    """A loss or its gradient became infinite or NaN; raised before the optimiser steps on it."""

    files: Sequence[str] = ()
    """Paths of the batch's images."""


class OutOfStep(GraclError, RuntimeError):  # noqa: N818
    """Processes that train one model hold different ones."""


class FingerprintError(GraclError, ValueError):
    """Features of different models were put together; their similarities would mean nothing."""


class GalleryError(GraclError, RuntimeError):
    """A gallery cannot be made, opened, searched or changed."""


class NoGallery(GalleryError):  # noqa: N818 - it is what was found
    """There is no gallery where one was to be opened."""


class HubError(GraclError, RuntimeError):
    """A model cannot be put on the Hugging Face hub."""


class ReviewError(GraclError, ValueError):
    """A decision of a review means nothing as the clusters stand, or cannot be kept."""


class Contradiction(ReviewError):  # noqa: N818
    """A decision contradicts what was said before; it may be overruled."""


class RunError(GraclError, RuntimeError):
    """A run's folder cannot be written, read or continued."""


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Ends an error about an unknown name: the nearest known one, and all of them.

    >>> did_you_mean("epss", ["eps", "k1"])
    "did you mean 'eps'? Known: eps, k1"
    """
    names = sorted(known)
    near = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'? " if near else ""
    shown = names if len(names) <= 30 else difflib.get_close_matches(found, names, n=5, cutoff=0.0)
    return f"{hint}{'Known' if shown is names else 'Nearest'}: {', '.join(shown)}"


def some(paths: Sequence[object], most: int = 5) -> str:
    """Ends an error about many files: the first of them, and how many more there are.

    >>> some(["a.jpg", "b.jpg", "c.jpg"], most=2)
    'a.jpg, b.jpg and 1 more'
    """
    listed = ", ".join(str(path) for path in paths[:most])
    return listed + (f" and {len(paths) - most} more" if len(paths) > most else "")
