import sys

import numpy as np
import pytest
import torch

from gracl.agreement import compare_labels
from gracl.clustering import adjusted_mutual_information, cluster
from gracl.errors import ConfigError, ShapeError
from gracl.jaccard import jaccard_distance
from gracl.sweep import CHAINED, GRID, NEARLY, draw_sweep, require_drawable, sweep_eps
from naive import make_features


@pytest.fixture(scope="module")
def distance():
    return jaccard_distance(make_features(1, identities=20, images=12, noise=0.6), k1=12, k2=4)


def test_points_hold_the_clusters_of_their_eps(distance):
    found = sweep_eps(distance, eps=(0.7, 0.3, 0.5), min_samples=3)
    assert [point.eps for point in found.points] == [0.3, 0.5, 0.7]
    expected = [cluster(distance, eps=eps, min_samples=3) for eps in (0.3, 0.5, 0.7)]
    for point, labels in zip(found.points, expected, strict=True):
        assert np.array_equal(point.labels, labels)
        assert point.health.n_clusters == labels.max() + 1
    a, b, c = expected
    first, second = adjusted_mutual_information(a, b), adjusted_mutual_information(b, c)
    stability = [point.health.stability for point in found.points]
    assert stability == pytest.approx([first, (first + second) / 2, second])


def test_suggestion_is_the_largest_of_the_sound_and_stable_eps(distance):
    found = sweep_eps(distance)
    assert len(found.points) == len(GRID)
    sound = [
        point
        for point in found.points
        if point.health.n_clusters >= 2
        and point.health.largest_share <= CHAINED
        and point.health.outlier_share <= 0.5
    ]
    greatest = max(point.health.stability for point in sound)
    allowed = [p.eps for p in sound if p.health.stability >= NEARLY * greatest]
    assert found.suggestion.eps == max(allowed)


def test_suggestion_finds_good_clusters_without_a_label():
    identities = 20
    features = make_features(3, identities=identities, images=12, noise=0.7)
    # make_features shuffles: the truth is found by drawing the same features without noise
    truth = make_features(3, identities=identities, images=12, noise=0.0)
    pids = np.unique(truth.numpy().round(4), axis=0, return_inverse=True)[1].ravel()
    found = sweep_eps(jaccard_distance(features, k1=12, k2=4))
    scores = {point.eps: compare_labels(point.labels, pids).ari for point in found.points}
    assert scores[found.suggestion.eps] > 0.9 * max(scores.values())
    assert max(scores.values()) > 0.7


def test_nothing_is_suggested_where_no_clusters_are_sound():
    alike = jaccard_distance(make_features(0)[:1].repeat(30, 1), k1=30, k2=1)
    assert sweep_eps(alike).suggestion is None


@pytest.mark.parametrize("eps", [(), (0.5,), (0.5, 0.5), (0.2, 1.0), (-0.1, 0.5)])
def test_eps_that_cannot_be_swept_are_refused(distance, eps):
    with pytest.raises(ShapeError, match="two or more values"):
        sweep_eps(distance, eps=eps)


def test_an_algorithm_without_eps_is_refused(distance):
    with pytest.raises(ConfigError, match="hdbscan has no eps to sweep"):
        sweep_eps(distance, algorithm="hdbscan")


def test_the_plot_is_drawn(distance, tmp_path):
    pytest.importorskip("matplotlib")
    draw_sweep(sweep_eps(distance), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_names_the_extra(distance, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'gracl\[report\]'"):
        draw_sweep(sweep_eps(distance, eps=(0.4, 0.5)), tmp_path / "sweep.png")


def test_a_large_cluster_that_stays_is_put_before_a_person():
    """One of ten animals is in nearly half of the images: its cluster looks chained, and is right."""
    ids = torch.cat([torch.arange(1, 10).repeat_interleave(20), torch.zeros(150, dtype=torch.long)])
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(10, 64, generator=draws)[ids]
    features = features + 0.1 * torch.randn(len(ids), 64, generator=draws)
    features = torch.nn.functional.normalize(features)
    found = sweep_eps(jaccard_distance(features))
    assert found.rival is not None
    assert found.rival.health.n_clusters == 10
    assert compare_labels(found.rival.labels, ids.numpy()).ari == pytest.approx(1.0)


def test_where_clusters_are_sound_there_is_no_rival(distance):
    assert sweep_eps(distance).rival is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("sweep.foo", "plot is .png"), ("sweep", "plot is"), ("no/x.png", "not a folder")],
)
def test_a_picture_that_cannot_be_written_is_refused_first(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        require_drawable(tmp_path / name)
