"""A name that no file can have is one that is not there, for each function that takes a path."""

from __future__ import annotations

import os

import pytest

import gracl
from gracl.errors import GraclError
from gracl.paths import is_file, is_folder, is_there
from gracl.tracking import read_travel

LONG = "x" * 300
READERS = {
    "load_dataset": gracl.load_dataset,
    "a named layout": lambda name: gracl.load_dataset("market1501", root=name),
    "from_huggingface": gracl.from_huggingface,
    "read_coco": gracl.read_coco,
    "read_tracks": lambda name: gracl.read_tracks(f"{name}.txt"),
    "read_features": lambda name: gracl.read_features(f"{name}.npz"),
    "read_calibration": gracl.read_calibration,
    "read_links": lambda name: gracl.read_links(name, []),
    "read_travel": read_travel,
    "load_model": gracl.load_model,
    "a gallery": gracl.Gallery.open,
    "a run": lambda name: gracl.Run(name).config,
    "settings": gracl.Config.load,
    "embed": lambda name: list(gracl.embed(None, name)),
}


@pytest.mark.parametrize("name", [LONG, "a/" * 3000, "a\0b"], ids=["long", "deep", "nul"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_name_that_no_file_can_have_is_refused_in_words(read, name):
    with pytest.raises(GraclError):
        read(name)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may enter any folder")
def test_what_lies_in_a_folder_that_may_not_be_entered_is_not_there(tmp_path):
    (tmp_path / "a").touch()
    tmp_path.chmod(0)
    found = [look(tmp_path / "a") for look in (is_there, is_file, is_folder)]
    tmp_path.chmod(0o700)
    assert found == [False] * 3
