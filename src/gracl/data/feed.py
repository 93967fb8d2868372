"""Images of a store on the device that computes, batch by batch; nothing is decoded here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from gracl.data.store import ImageStore

AHEAD = 3
"""Batches that are made ready while the device works on another."""
SHARE_OF_DEVICE = 0.5
"""Of the device's free memory that a store may take; the rest is the network's."""


class Feed:
    """A store's images, as uint8 batches on a device.

    On the CPU, batches are rows of the memory-mapped store. On a GPU the store is copied there once,
    where it fits (Market-1501's 12,936 images of 256 x 128 are 1.3 GB); where it does not, a thread
    gathers the next batches into pinned memory and sends them while the device computes.

    Args:
        store: the decoded images.
        device: where batches are wanted.
        resident: keep the whole store on the device; None decides by its free memory.
    """

    def __init__(
        self, store: ImageStore, device: torch.device, *, resident: bool | None = None
    ) -> None:
        self.store = store
        self.device = device
        self.resident = fits(store, device) if resident is None else resident
        self.images = store.images.to(device) if self.resident else store.images

    def __len__(self) -> int:
        return len(self.store)

    def batches(self, rows: Iterable[Tensor | slice]) -> Iterator[Tensor]:
        """(B, 3, H, W) uint8 on the device, for each set of rows in turn."""
        if self.resident:
            for wanted in rows:
                yield self.images[wanted.to(self.device) if isinstance(wanted, Tensor) else wanted]
            return
        with ThreadPoolExecutor(1) as loader:
            coming: deque[Loading] = deque()
            for wanted in rows:
                coming.append(Loading(loader, self.images, wanted, self.device))
                if len(coming) > AHEAD:
                    yield coming.popleft().arrived()
            while coming:
                yield coming.popleft().arrived()


class Loading:
    """One batch on its way to the device."""

    def __init__(
        self, loader: ThreadPoolExecutor, images: Tensor, rows: Tensor | slice, device: torch.device
    ) -> None:
        self.device = device
        is_gpu = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if is_gpu else None  # type: ignore[no-untyped-call]
        self.sent = loader.submit(self._send, images, rows)

    def _send(self, images: Tensor, rows: Tensor | slice) -> Tensor:
        batch = images[rows]
        if self.stream is None:
            return batch.to(self.device)
        # Only from pinned memory does a copy run beside the computation, on a stream of its own.
        with torch.cuda.stream(self.stream):
            return batch.pin_memory().to(self.device, non_blocking=True)

    def arrived(self) -> Tensor:
        """The batch, for the stream that computes; waits on the device, not here."""
        batch = self.sent.result()
        if self.stream is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self.stream)
            batch.record_stream(computing)
        return batch


def fits(store: ImageStore, device: torch.device) -> bool:
    """Whether a store should lie on the device; on the CPU it does already."""
    if device.type == "cpu":
        return True
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return store.images.nbytes < SHARE_OF_DEVICE * free
