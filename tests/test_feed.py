import time

import pytest
import torch

from conftest import save_image
from gracl.data import feed
from gracl.data.feed import Feed
from gracl.data.records import Record, Records
from gracl.data.store import ImageStore, open_store

CPU = torch.device("cpu")
ROWS = [torch.tensor([4, 0, 0]), slice(2, 5), torch.tensor([], dtype=torch.int64), slice(0, 9)]


@pytest.fixture
def store(tmp_path):
    records = [Record(save_image(tmp_path / f"{i}.png", i)) for i in range(9)]
    return open_store(Records(tuple(records)), size=(12, 8), cache=tmp_path / "cache")


@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_the_rows_in_their_order(store, resident):
    found = list(Feed(store, CPU, resident=resident).batches(ROWS * 3))
    assert len(found) == 12
    for batch, rows in zip(found, ROWS * 3, strict=True):
        assert torch.equal(batch, store.images[rows])
        assert batch.dtype == torch.uint8


def test_on_the_cpu_the_store_is_where_it_is_wanted(store):
    whole = Feed(store, CPU)
    assert whole.resident
    assert whole.images.data_ptr() == store.images.data_ptr()
    assert len(whole) == 9


def test_only_a_few_batches_are_made_ready(store):
    asked = []

    def rows():
        for i in range(9):
            asked.append(i)
            yield slice(i, i + 1)

    batches = Feed(store, CPU, resident=False).batches(rows())
    next(batches)
    assert len(asked) == feed.AHEAD + 1
    batches.close()
    assert len(asked) == feed.AHEAD + 1


def test_what_cannot_be_loaded_is_an_error_where_it_is_wanted(store):
    batches = Feed(store, CPU, resident=False).batches([slice(0, 2), torch.tensor([99])])
    assert len(next(batches)) == 2
    with pytest.raises(IndexError):
        next(batches)


def test_batches_are_loaded_while_another_is_worked_on(store):
    class Slow:
        def __getitem__(self, rows):
            time.sleep(0.05)
            return store.images[rows]

    slow = Feed(store, CPU, resident=False)
    slow.images = Slow()
    batches = slow.batches([slice(0, 3)] * 4)
    next(batches)
    time.sleep(0.3)
    start = time.perf_counter()
    assert len(list(batches)) == 3
    assert time.perf_counter() - start < 0.05


@pytest.mark.parametrize(("free", "expected"), [(10**6, True), (1000, False)])
def test_a_gpu_keeps_a_store_that_leaves_it_room(monkeypatch, free, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 10**9))
    images = torch.zeros(9, 3, 12, 8, dtype=torch.uint8)
    assert feed.fits(ImageStore(Records(()), images), torch.device("cuda")) == expected
    assert not feed.fits(ImageStore(Records(()), images), torch.device("mps"))
