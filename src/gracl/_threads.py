"""Compiled loops on as many threads as torch uses, and torch left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch


@contextmanager
def as_many_as_torch() -> Iterator[int]:
    """numba runs on torch's number of threads, as far as it has them; gives that number.

    numba and torch can share one OpenMP runtime. numba starting its threads then changes how many
    torch uses, and with it the order of torch's sums: a first epoch would differ from a second. So
    torch's number is put back.
    """
    threads = torch.get_num_threads()
    allowed = max(1, min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        numba.set_num_threads(allowed)
        yield allowed
    finally:
        torch.set_num_threads(threads)
