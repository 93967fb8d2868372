"""One training on several processes, each taking its share; torchrun starts them.

Inside `together` every process runs the same code in step: each computes its share of the rows, and
what the others computed is gathered. Outside of it, and in a process that is alone, each function here
does what it says for one process, so nobody who calls them asks how many there are.
"""

from __future__ import annotations

import importlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gracl.errors import OutOfStep

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long processes wait for one of them, say for its images to be decoded. One that has died is
noticed at once, by torchrun."""

REMEDY = (
    "Use one kind of device and one version of torch throughout; the same command continues from the "
    "last checkpoint"
)

_in_step = False


@contextmanager
def processes() -> Iterator[None]:
    """Joins the processes that torchrun started, and runs the block `together` with them.

    A process that nobody started so stays alone. After an error the group is left as it is: the others
    may be waiting in it, and the end of this process is what tells them.
    """
    begins = launched() and not dist.is_initialized()
    if begins:
        # Its functions name the group as a default. Imported later, as optimizers do, they would keep
        # it and its threads beyond the end, where one that lets go of a tensor aborts the process.
        importlib.import_module("torch.distributed.nn.functional")
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    with together():
        yield
    if begins:
        dist.destroy_process_group()


@contextmanager
def together() -> Iterator[None]:
    """A block that all processes of the group run in step; its functions take shares in it."""
    global _in_step
    before = _in_step
    _in_step = dist.is_available() and dist.is_initialized()
    try:
        yield
    finally:
        _in_step = before


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched() else 0


def rank() -> int:
    """This process's number inside `together`, from 0; 0 for one that is alone."""
    return dist.get_rank() if _in_step else 0


def size() -> int:
    """How many processes share the work here; 1 outside of `together`."""
    return dist.get_world_size() if _in_step else 1


def split(borders: Sequence[int]) -> list[int]:
    """Deals out pieces in order, about equally: process r has the rows [ends[r], ends[r + 1]).

    Only whole pieces are dealt out: what is computed piece by piece is then the same to the digit,
    however many processes there are.

    Args:
        borders: where the pieces begin, and the number of rows: 0, ..., N.

    >>> split([0, 64, 128, 150])
    [0, 150]
    """
    ends = [0] * size() + [len(borders) - 1]

    def halve(first: int, last: int) -> None:
        """Half of these processes take half of the pieces that lie between theirs and the next."""
        if last - first > 1:
            middle = (first + last) // 2
            here, pieces = ends[first], ends[last] - ends[first]
            ends[middle] = here + pieces * (middle - first) // (last - first)
            halve(first, middle)
            halve(middle, last)

    halve(0, size())
    return [borders[end] for end in ends]


def gather(part: Tensor, ends: Sequence[int]) -> Tensor:
    """The rows of all processes, on each of them; `ends` is what `split` gave."""
    if size() == 1:
        return part
    sizes = [b - a for a, b in pairwise(ends)]
    # Parts of one size, as the backends ask for; what pads them is cut off again.
    padded = part.new_zeros((max(sizes), *part.shape[1:]))
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([rows[:n] for rows, n in zip(parts, sizes, strict=True)])


def add_in_halves(first: int, last: int, term: Callable[[int], list[Tensor]]) -> list[Tensor]:
    """term(first) + ... + term(last - 1), the sum of one half added to that of the other.

    Sums of floats depend on their order. Halved again and again, n terms are added in one order,
    whether one process has them all or 2, 4, 8 ... have a share each, as `split` deals them out.

    >>> add_in_halves(0, 3, lambda i: [torch.tensor(float(i))])
    [tensor(3.)]
    """
    if last - first == 1:
        return term(first)
    middle = (first + last) // 2
    left = add_in_halves(first, middle, term)
    torch._foreach_add_(left, add_in_halves(middle, last, term))
    return left


def add_up(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its sum over the processes, added in halves, the same on each.

    Each process adds up one part of all values, so this sends no more than the usual ring does.
    """
    if size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    width = -(-len(flat) // size())
    mine = torch.nn.functional.pad(flat, (0, width * size() - len(flat)))
    parts = torch.empty_like(mine)
    dist.all_to_all_single(parts, mine)
    rows = parts.view(size(), width)
    (total,) = add_in_halves(0, size(), lambda process: [rows[process]])
    dist.all_gather_into_tensor(mine, total)
    values = torch.split(mine[: len(flat)], [tensor.numel() for tensor in tensors])
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value.view(tensor.shape))


def of_first(tensor: Tensor) -> Tensor:
    """The first process's values of a tensor that all have in one shape."""
    if size() > 1:
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor


def from_first(function: Callable[[], T]) -> T:
    """What a function gives, or raises, on the first process; the others get it without a call."""
    if size() == 1:
        return function()
    outcome: list[tuple[T | None, Exception | None] | None] = [None]
    if rank() == 0:
        try:
            outcome = [(function(), None)]
        except Exception as error:  # raised below, in step with the others
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    assert outcome[0] is not None
    result, failure = outcome[0]
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]


@contextmanager
def first_of_machine_first() -> Iterator[None]:
    """A block that one process of each machine runs before the machine's others: what it leaves on
    the disk they find."""
    if local_rank() != 0:
        meet()
    yield
    if local_rank() == 0:
        meet()


def require_same(what: str, tensors: Iterable[Tensor], remedy: str = REMEDY) -> None:
    """Stops all processes where the bytes of these tensors are not the same on each.

    Raises:
        OutOfStep: names what differs, and where.
    """
    if size() == 1:
        return
    checksum = 0
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous().reshape(-1)
        checksum = zlib.crc32(values.view(torch.uint8).numpy().data, checksum)
    found = gather(torch.tensor([checksum]), range(size() + 1)).tolist()
    if len(set(found)) > 1:
        odd = [number for number, value in enumerate(found) if value != found[0]]
        raise OutOfStep(
            f"{what} of process {', '.join(map(str, odd))} differ from those of process 0, so they "
            f"would train different models. {remedy}"
        )


def meet() -> None:
    """Waits until all processes are here."""
    if size() > 1:
        dist.all_reduce(torch.zeros(1))
