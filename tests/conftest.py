import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from browser import browser, complaints, page  # noqa: F401 - fixtures
from faulty import disk, typed  # noqa: F401 - fixtures

settings.register_profile("gracl", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("gracl")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Where image stores go during a test, never the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GRACL_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def own_torch_files(monkeypatch):
    """Old torch, which refuses strangers' torch files, reads those that a test has written itself."""
    monkeypatch.setattr("gracl.models.weights.UNPICKLES_SAFELY", "2.6")


def random_image(seed=0, size=(12, 8)):
    """Random pixels of (height, width); another seed, another image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save_image(path, seed=0, size=(12, 8)):
    """A file of random pixels, in folders that are made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random_image(seed, size).save(path)
    return path


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """Drawn people, with a training and a test part; not to be changed."""
    from gracl.data.synthetic import draw_people

    folder = tmp_path_factory.mktemp("small") / "people"
    draw_people(folder, identities=10, test_identities=5, cameras=2, images_per_camera=4)
    return folder


@pytest.fixture(scope="session")
def small_run(small_data, tmp_path_factory):
    """The folder of a finished run on `small_data`; not to be changed, see `finished_run`."""
    from gracl.config import Config
    from gracl.data.readers import load_dataset
    from gracl.runs import train

    settings = {
        "model": {"backbone": "test_resnet", "size": [64, 32], "weights": "none"},
        "method": {"eps": 0.6, "min_samples": 3, "k1": 8, "k2": 2},
        "sampler": {"clusters_per_batch": 4, "images_per_cluster": 4},
        "train": {"epochs": 2, "steps": 4, "batchnorm_group": 16, "threads": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = Config.load("demo").replace(settings)
        return train(config, load_dataset(small_data), tmp_path_factory.mktemp("run") / "r").folder


@pytest.fixture(scope="session")
def small_gallery(small_data, small_run, tmp_path_factory):
    """The file of a gallery of `small_data`, with thumbnails; not to be changed."""
    from gracl.gallery.gallery import Gallery

    path = tmp_path_factory.mktemp("gallery") / "people.gallery"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        Gallery.build(small_run, small_data, path, thumbnails=True).close()
    return path
