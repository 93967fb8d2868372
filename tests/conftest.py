import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("gracl", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("gracl")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Where image stores go during a test, never the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GRACL_CACHE", str(folder))
    return folder


def random_image(seed=0, size=(12, 8)):
    """Random pixels of (height, width); another seed, another image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save_image(path, seed=0, size=(12, 8)):
    """A file of random pixels, in folders that are made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random_image(seed, size).save(path)
    return path
