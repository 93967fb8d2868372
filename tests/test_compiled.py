"""Compiled loops check no bounds: run as plain Python, where an index outside is an error, they give
the same."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from gracl import _dbscan_numba, _ranks_numba, jaccard, neighbors

SIZES = [(1, 1), (2, 1), (2, 2), (9, 1), (9, 2), (9, 9), (40, 7)]


def everything(n, k):
    """What each module of compiled loops gives for n drawn rows and k neighbours, as arrays."""
    draws = torch.Generator().manual_seed(n)
    features = torch.nn.functional.normalize(torch.randn(n, 16, generator=draws))
    found = neighbors.search(features, k, algorithm="pruned")
    distance = jaccard.jaccard_from_neighbors(features, found, k1=k, k2=max(1, k // 2))
    thresholds = features[:, :3].sort(dim=1).values.flatten().numpy()
    return {
        "indices": found.indices.numpy(),
        "farthest": neighbors.search(features, k, algorithm="pruned", farthest=True).farthest.numpy(),
        "distance": distance.toarray(),
        "labels": _dbscan_numba.label(distance, 0.6, min(2, k)),
        "counts": _ranks_numba.count_at_least(features, thresholds, np.arange(n + 1) * 3),
    }


@pytest.fixture(scope="module")
def as_plain_python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, __file__, str(folder)], env=environment, check=True)
    return folder


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_compiled_loops_stay_inside_their_arrays_and_give_what_python_gives(n, k, as_plain_python):
    plain = np.load(as_plain_python / f"{n}-{k}.npz")
    compiled = everything(n, k)
    assert plain.files == list(compiled)
    for name in plain.files:
        np.testing.assert_allclose(compiled[name], plain[name], rtol=0, atol=1e-6, err_msg=name)


if __name__ == "__main__":
    for n, k in SIZES:
        np.savez(f"{sys.argv[1]}/{n}-{k}.npz", **everything(n, k))
