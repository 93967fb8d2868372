import logging
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity

from gracl import forecast, jaccard, training
from gracl.config import Config, EvaluateConfig
from gracl.data.records import Record, Records
from gracl.data.store import ImageStore
from gracl.errors import GraclError, OutOfMemory
from gracl.evaluation import forecast_scores
from gracl.forecast import GIB, Forecast, available_memory, product_seconds, require_memory
from gracl.jaccard import forecast_distance, jaccard_distance
from gracl.methods.pplr import PPLR
from gracl.methods.protocol import Batch, Known
from gracl.methods.spcl import SpCL
from naive import make_features


def test_what_fits_is_announced_only_where_it_is_big(caplog):
    caplog.set_level(logging.INFO, logger="gracl")
    Forecast("a small stage", seconds=2, memory=1000, remedy="").announce()
    assert not caplog.messages
    Forecast("a long stage", seconds=200, memory=1000, remedy="").announce()
    Forecast("a very long stage", seconds=9000, memory=2**28, remedy="").announce()
    assert caplog.messages == [
        "a long stage: about 3 min and 0.0 GiB",
        "a very long stage: about 2.5 h and 0.2 GiB",
    ]


def test_what_does_not_fit_is_refused_with_the_setting_to_change(monkeypatch):
    monkeypatch.setattr(forecast, "available_memory", lambda: 10 * GIB)
    require_memory("it", 9 * GIB, "")
    stage = Forecast("the labels of 9 images", seconds=1, memory=20 * GIB, remedy="Lower train.memory")
    with pytest.raises(OutOfMemory, match=r"of 9 images needs 20.0 GiB and 10.0 .* Lower train.memory"):
        stage.announce()
    assert issubclass(OutOfMemory, MemoryError)
    assert issubclass(OutOfMemory, GraclError)


def test_a_container_bounds_what_is_available(monkeypatch):
    free = available_memory()
    assert free > 0
    numbers = {"/sys/fs/cgroup/memory.max": 5000, "/sys/fs/cgroup/memory.current": 2000}
    monkeypatch.setattr(forecast, "_number_in", numbers.get)
    assert available_memory() == 3000
    monkeypatch.setattr(forecast, "_number_in", lambda _: None)
    assert available_memory() > 3000


def test_product_seconds_are_those_of_a_product():
    a = torch.ones(1500, 1500)
    a @ a
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    assert 0.1 < product_seconds(1500**3) / min(times) < 10


def test_forecasts_grow_with_the_data_and_shrink_with_the_budget():
    def labels(n, memory=2**28):
        return forecast_distance(n, 2048, k=30, memory=memory, remedy="")

    assert labels(100_000).seconds > 50 * labels(10_000).seconds
    assert labels(100_000).memory > 4 * labels(10_000).memory
    assert labels(100_000, 2**20).memory < labels(100_000).memory
    assert not labels(1000).is_big

    def scores(n, **settings):
        return forecast_scores(n, 5 * n, 2048, EvaluateConfig(**settings))

    assert scores(1000).seconds < scores(1000, expand=5).seconds < scores(1000, rerank=True).seconds
    assert scores(50_000).memory < scores(50_000, tpr=True).memory
    assert scores(50_000, memory=0.01).memory < scores(50_000).memory
    assert scores(1000, rerank=True).stage == "re-ranking 6000 images"


def test_the_forecast_of_labels_counts_features_neighbors_a_block_and_pairs(monkeypatch):
    monkeypatch.setattr(forecast, "product_seconds", lambda terms: terms * 1e-12)

    def needs(n=100_000, dimensions=512, k=30, memory=2**20):
        return forecast_distance(n, dimensions, k=k, memory=memory, remedy="take fewer")

    usual = needs()
    assert needs(dimensions=513).memory - usual.memory == (4 + 2) * 100_000  # float32, and float16
    assert needs(k=31).memory - usual.memory == (8 + 4) * 100_000  # an int64 and a float32
    assert needs(memory=2**20 + 1).memory - usual.memory == 1
    assert needs(n=10, memory=2**30).memory == needs(n=10, memory=4 * 10 * 10).memory
    assert needs(n=10, k=30).memory == needs(n=10, k=10).memory
    assert usual.memory > 24 * 150 * 100_000
    assert needs(n=10, k=1, dimensions=1).memory == 4 * 100 + 6 * 10 + 12 * 10 + 24 * 10 * 10
    assert usual.seconds == pytest.approx(512 * 100_000**2 * 1e-12 + 30 * 100_000 * 1e-6)
    assert (usual.stage, usual.remedy) == ("the labels of 100000 images", "take fewer")


def test_a_graph_that_does_not_fit_is_refused_before_it_is_filled(monkeypatch):
    features = make_features(0)
    monkeypatch.setattr(forecast, "available_memory", lambda: 1000)
    for device in ("numba", "tensors"):
        if device == "tensors":
            monkeypatch.setattr(jaccard.importlib.util, "find_spec", lambda *_: None)
        with pytest.raises(OutOfMemory, match=r"a graph of \d+ distances needs .* Lower method.k1"):
            jaccard_distance(features, k1=10, k2=3)


# -- what a method needs besides ------------------------------------------------------------------


def most_memory(work):
    """Bytes of tensors at the widest moment of a function, beyond those there when it starts."""
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(np.cumsum([event.nbytes() for event in events]).max())


def without_clusters(method, labels):
    """A method for which images have these labels, whatever their features."""
    method.find_neighbors = method.measure = lambda *_: None
    method.cluster = lambda *_, **__: labels
    return method


def test_spcl_needs_what_was_forecast_where_all_images_are_alone():
    n, dimensions, group = 20_000, 512, 64
    method = without_clusters(SpCL(temperature=0.5), np.arange(n))
    method.choose = lambda labels, _: labels
    first = torch.nn.functional.normalize(torch.randn(n, dimensions))
    method.start_epoch(first)
    del first
    method.centroids = torch.empty(0)
    rows = torch.arange(group)
    features = method.remembered()[:group].clone().requires_grad_()

    def epoch():
        labels = torch.from_numpy(method.start_epoch(method.remembered()))
        loss = method.loss(Batch(features, labels[rows], rows))
        torch.stack(list(loss.values())).sum().backward()

    needed = method.needed_memory(n, dimensions, parts=0, group=group)
    assert 0.8 * needed < most_memory(epoch) < 1.1 * needed


def test_pplr_needs_what_was_forecast_for_its_parts():
    n, dimensions, parts = 6000, 512, 3
    method = without_clusters(PPLR(Known(memory=2**20)), np.arange(n) % 500)
    features = torch.nn.functional.normalize(torch.randn(n, dimensions))

    def epoch():  # and the searches, which are counted with the labels
        found = torch.randn(n, parts, dimensions)
        found /= found.norm(dim=2, keepdim=True)
        method.start_epoch(features, parts=found)

    needed = method.needed_memory(n, dimensions, parts=parts, group=64)
    assert 0.8 * needed < most_memory(epoch) < needed + 6 * n * dimensions


@pytest.mark.parametrize(("name", "parts"), [("spcl", 0), ("pplr", 3)])
def test_a_method_that_needs_more_than_others_is_refused_before_it_starts(monkeypatch, name, parts):
    config = Config().replace(
        {
            "model": {"backbone": "test_resnet", "size": (64, 32), "parts": parts},
            "method": {"name": name, "k1": 5},
        }
    )
    model = training.build_model(config.model)
    records = Records(tuple(Record(Path(f"{number}.jpg")) for number in range(100)))
    images = ImageStore(records, torch.zeros(100, 3, 64, 32, dtype=torch.uint8))
    labels = training.forecast_labels(len(images), model.dim, config).memory
    monkeypatch.setattr(forecast, "available_memory", lambda: int(labels / (1 - forecast.RESERVE)) + 99)
    with pytest.raises(OutOfMemory, match="the labels of 100 images needs"):
        next(training.fit(model, images, config))
