import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from gracl import _search_approximate, _search_pruned, neighbors
from gracl.errors import ConfigError, SearchError, ShapeError
from gracl.neighbors import mean_of_nearest_foreign, search, similarity_blocks
from naive import make_features

EXACT = ["product", "half", "pruned"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 7, 30, 72])
@pytest.mark.parametrize("algorithm", ["auto", *EXACT])
def test_search_equals_its_naive_twin(seed, k, algorithm):
    features = make_features(seed)
    found = search(features, k, algorithm=algorithm)
    assert found.recall == 1
    assert found.farthest is None
    assert found.indices.tolist() == naive.nearest(features, k)
    cosines = features.double() @ features.double().T
    expected = cosines.gather(1, found.indices)
    torch.testing.assert_close(found.similarities.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("algorithm", ["auto", "product", "pruned"])
@pytest.mark.parametrize("shift", [0.0, 5.0])
@pytest.mark.parametrize("n", [1, 2, 72])
def test_farthest_is_the_lowest_similarity_of_a_row(algorithm, shift, n):
    """Also where all similarities are positive: the rows share a direction."""
    features = torch.nn.functional.normalize(make_features(0)[:n] + shift)
    lowest = (features.double() @ features.double().T).amin(dim=1)
    for memory in (1, 2**20):
        found = search(features, 3, algorithm=algorithm, farthest=True, memory=memory)
        torch.testing.assert_close(found.farthest.double(), lowest, atol=1e-6, rtol=0)


@pytest.mark.parametrize("algorithm", ["half", "approximate"])
def test_half_and_approximate_searches_cannot_find_the_farthest(algorithm):
    with pytest.raises(ConfigError, match=f"'{algorithm}' cannot find the farthest rows"):
        search(torch.eye(3), 2, algorithm=algorithm, farthest=True)


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ConfigError, match="'prunde' is no search; did you mean 'pruned'"):
        search(torch.eye(3), 2, algorithm="prunde")


@pytest.mark.parametrize("algorithm", EXACT)
def test_each_row_is_first_among_its_own_duplicates(algorithm):
    features = make_features(0).repeat(4, 1)
    found = search(features, 6, algorithm=algorithm)
    assert found.indices[:, 0].tolist() == list(range(len(features)))
    originals = len(features) // 4
    four_nearest = found.indices[:, :4] % originals
    assert (four_nearest == torch.arange(len(features))[:, None] % originals).all()


@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 20),
    k=st.integers(1, 30),
    algorithm=st.sampled_from(EXACT),
)
@settings(deadline=None)
def test_neighbors_are_distinct_start_with_the_row_and_fall(seed, n, k, algorithm):
    found = search(make_features(seed)[:n], k, algorithm=algorithm)
    assert found.indices.shape == found.similarities.shape == (n, min(k, n))
    assert all(len(set(row)) == len(row) for row in found.indices.tolist())
    assert found.indices[:, 0].tolist() == list(range(n))
    assert (found.similarities.diff(dim=1) <= 1e-6).all()


@pytest.mark.parametrize("memory", [1, 1000, 5000])
@pytest.mark.parametrize("algorithm", EXACT)
def test_memory_budget_does_not_change_neighbors(memory, algorithm):
    features = make_features(1)
    whole = search(features, 9, algorithm=algorithm)
    blocks = search(features, 9, algorithm=algorithm, memory=memory)
    assert torch.equal(whole.indices, blocks.indices)
    torch.testing.assert_close(whole.similarities, blocks.similarities, atol=1e-6, rtol=0)


@pytest.mark.parametrize("memory", [1, 400, 10_000])
def test_blocks_respect_the_memory_budget_and_hold_every_pair(memory):
    queries, gallery = make_features(2)[:13], make_features(3)[:10]
    blocks = list(similarity_blocks(queries, gallery, memory=memory))
    one_row = 4 * len(gallery)
    assert all(block.nbytes <= max(memory, one_row) for _, block in blocks)
    assert [start for start, _ in blocks] == [*range(0, 13, max(1, memory // one_row))]
    whole = torch.cat([block for _, block in blocks])
    torch.testing.assert_close(whole, queries @ gallery.T)


def test_search_leaves_its_input_alone():
    features = make_features(4)
    before = features.clone()
    search(features, 5)
    assert torch.equal(features, before)


def test_one_row_is_its_own_only_neighbor():
    found = search(torch.tensor([[0.6, 0.8]]), 5)
    assert found.indices.tolist() == [[0]]
    assert found.similarities.tolist() == [[1.0]]


@pytest.mark.parametrize("algorithm", ["auto", *EXACT])
def test_no_rows_have_no_neighbors(algorithm):
    found = search(torch.empty(0, 8), 5, algorithm=algorithm)
    assert len(found) == 0
    assert found.indices.shape == (0, 0)


def test_double_and_half_features_give_float32_similarities():
    features = make_features(5)
    for kind in (torch.float64, torch.float16):
        found = search(features.to(kind), 3)
        assert found.similarities.dtype == torch.float32
        torch.testing.assert_close(
            found.similarities, search(features, 3).similarities, atol=2e-3, rtol=0
        )


def test_k_below_one_is_refused():
    with pytest.raises(ShapeError, match="k is 0; a search needs k >= 1"):
        search(torch.eye(3), 0)


def test_features_that_are_not_rows_are_refused():
    with pytest.raises(ShapeError, match=r"shape \(2, 3, 4\); expected \(N, D\)"):
        search(torch.ones(2, 3, 4), 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_counted_and_refused(bad):
    features = torch.eye(4)
    features[1, 2] = features[3, 0] = features[3, 1] = bad
    with pytest.raises(ShapeError, match="2 of 4 feature rows hold NaN or infinity"):
        search(features, 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("m", [1, 3, 1000])
@pytest.mark.parametrize("memory", [1, 2**20])
def test_mean_of_nearest_foreign_equals_its_naive_twin(seed, m, memory):
    features = make_features(seed, identities=4, images=5)
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 4, len(features))
    counted = random.random(len(features)) < 0.8
    found = mean_of_nearest_foreign(
        features,
        torch.from_numpy(labels),
        m,
        counts_as_other=torch.from_numpy(counted),
        memory=memory,
    )
    expected = naive.mean_of_nearest_foreign(features, labels, m, counted)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_a_row_without_foreign_rows_gets_the_lowest_similarity():
    features, labels = torch.eye(3), torch.zeros(3, dtype=torch.int64)
    for counted in (torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)):
        found = mean_of_nearest_foreign(features, labels, 2, counts_as_other=counted)
        assert found.tolist() == [-1.0, -1.0, -1.0]


def test_a_row_without_a_group_is_not_its_own_foreign_row():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = mean_of_nearest_foreign(
        features, torch.tensor([-1, -1]), 1, counts_as_other=torch.ones(2, dtype=torch.bool)
    )
    assert found.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_known_neighbors_save_searches_and_change_nothing(monkeypatch, m, k):
    features = make_features(3)
    random = np.random.default_rng(k)
    labels = torch.from_numpy(random.integers(-1, 4, len(features)))
    counted = torch.from_numpy(random.random(len(features)) < 0.8)
    searched = []
    blocks = neighbors.similarity_blocks

    def counting(queries, gallery, **settings):
        searched.append(len(queries))
        return blocks(queries, gallery, **settings)

    known = search(features, k)
    monkeypatch.setattr(neighbors, "similarity_blocks", counting)
    expected = mean_of_nearest_foreign(features, labels, m, counts_as_other=counted)
    found = mean_of_nearest_foreign(features, labels, m, counts_as_other=counted, known=known)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert searched[0] == len(features)
    assert searched[1] < searched[0] if k > 2 * m else searched[1] <= searched[0]


# -- the bound ------------------------------------------------------------------------------------


def falling_features(n, dimensions=128, seed=0):
    """Unit rows whose spectrum falls, as that of images does."""
    random = torch.Generator().manual_seed(seed)
    scale = (torch.arange(dimensions) + 2.0) ** -0.8
    centres = torch.randn(n // 16, dimensions, generator=random).repeat(16, 1)
    rows = (centres + 0.7 * torch.randn(len(centres), dimensions, generator=random)) * scale
    return torch.nn.functional.normalize(rows + 0.1)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("m", [1, 8, 64, 128])
@pytest.mark.parametrize("memory", [1, 2**24])
def test_any_directions_in_any_precision_give_the_nearest_rows(narrow, m, memory):
    features = falling_features(320)
    lowest = (features.double() @ features.double().T).amin(dim=1)
    turn = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(m))).Q
    indices, similarities = _search_pruned.search(
        features, 12, turn[:, :m].contiguous(), memory=memory, narrow=narrow
    )
    farthest = _search_pruned.farthest(features, turn[:, :m].contiguous(), memory=memory, narrow=narrow)
    torch.testing.assert_close(farthest.double(), lowest, atol=1e-6, rtol=0)
    assert indices.tolist() == naive.nearest(features, 12)
    exact = (features.double() @ features.double().T).gather(1, indices)
    torch.testing.assert_close(similarities.double(), exact, atol=1e-6, rtol=0)


@given(seed=st.integers(0, 999), narrow=st.booleans(), size=st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_the_bound_is_never_below_what_it_bounds(seed, narrow, size):
    """Also for rows that are not of unit length, and for negative similarities."""
    random = torch.Generator().manual_seed(seed)
    features = size * torch.randn(40, 32, generator=random) * torch.rand(32, generator=random)
    directions = torch.linalg.qr(torch.randn(32, 6, generator=random)).Q
    mine, theirs, slack = _search_pruned._short_rows(features, directions, narrow)
    bound = (mine @ theirs.T).float()
    exact = features @ features.T
    scale = float(features.norm(dim=1).max() ** 2)
    rounding = slack[0] * bound.abs() + slack[1] * max(1.0, scale)
    assert (bound + rounding >= exact).all()


def test_opposite_rows_are_found_too():
    """The threshold falls below zero, where bounds are no longer ordered as integers."""
    rows = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    features = torch.cat([rows, -rows])
    for algorithm in EXACT:
        found = search(features, 6, algorithm=algorithm)
        assert found.indices.tolist() == naive.nearest(features, 6), algorithm


def test_pruning_is_chosen_where_the_spectrum_falls_and_not_where_it_is_flat(monkeypatch):
    monkeypatch.setattr(_search_pruned, "bfloat16_pays", lambda: False)
    falling = falling_features(8000, dimensions=256)
    plan = _search_pruned.plan(falling, 10)
    assert plan is not None
    assert plan.cost < _search_pruned.WORTH_IT
    random = torch.randn(8000, 256, generator=torch.Generator().manual_seed(0))
    assert _search_pruned.plan(torch.nn.functional.normalize(random), 10) is None
    assert _search_pruned.plan(falling[:500], 10) is None  # too few rows to earn the preparation


def test_pruning_multiplies_few_pairs_out(monkeypatch):
    """The plan's forecast of survivors is what the kernel meets, and far below N."""
    features = falling_features(8000, dimensions=256)
    plan = _search_pruned.plan(features, 10, always=True)
    threshold = (features @ features.T).topk(10, dim=1).values[:, -1:]
    mine, theirs, _ = _search_pruned._short_rows(features, plan.directions, narrow=False)
    survivors = float((mine @ theirs.T >= threshold).float().mean()) * len(features)
    assert 0.5 < plan.survivors / survivors < 2
    assert survivors < len(features) / 10


def test_pruned_without_numba_is_refused_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(neighbors.importlib.util, "find_spec", lambda *_: None)
    assert search(torch.eye(3), 2).indices[:, 0].tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match="the search 'pruned' needs numba"):
        search(torch.eye(3), 2, algorithm="pruned")


# -- float16 --------------------------------------------------------------------------------------


def test_rows_that_float16_cannot_prove_are_searched_anew(monkeypatch):
    """A fan of rows nearer to each other than float16 tells apart."""
    angles = torch.linspace(0, 0.02, 300)
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    anew = []
    product = neighbors._by_product

    def counting(features, k, memory, rows=None, **settings):
        anew.append(len(rows))
        return product(features, k, memory, rows=rows, **settings)

    monkeypatch.setattr(neighbors, "_by_product", counting)
    found = search(features, 4, algorithm="half")
    assert anew
    expected = (features.double() @ features.double().T).topk(4, dim=1).values
    torch.testing.assert_close(found.similarities.double(), expected, atol=3e-7, rtol=0)


# -- an approximate index -------------------------------------------------------------------------


def test_approximate_search_finds_what_it_says_it_finds():
    features = falling_features(6400)
    found = search(features, 10, algorithm="approximate")
    exact = search(features, 10, algorithm="product")
    assert found.indices[:, 0].tolist() == list(range(len(features)))
    assert (found.similarities.diff(dim=1)[:, 1:] <= 1e-6).all()
    hits = (found.indices[:, :, None] == exact.indices[:, None, :]).any(dim=2)
    assert found.recall >= 0.99
    assert float(hits[:, 1:].float().mean()) == pytest.approx(found.recall, abs=0.01)


def test_approximate_search_puts_each_row_before_its_duplicates():
    features = falling_features(640).repeat_interleave(20, dim=0)
    found = search(features, 5, algorithm="approximate")
    assert found.indices[:, 0].tolist() == list(range(len(features)))
    assert all(len(set(row)) == 5 for row in found.indices[::97].tolist())


def test_a_wrong_index_is_noticed(monkeypatch):
    features = falling_features(1600)
    build = _search_approximate._build
    shuffled = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))]
    monkeypatch.setattr(_search_approximate, "_build", lambda _: build(shuffled.numpy()))
    with pytest.raises(SearchError, match=r"finds .* of the neighbours of 256 rows though it looks"):
        search(features, 10, algorithm="approximate")


def test_missing_faiss_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install 'gracl\[faiss\]'"):
        search(falling_features(320), 5, algorithm="approximate")


@pytest.mark.parametrize("factor", [0.5, 3.0, 1e20])
def test_rows_that_are_not_of_unit_length_are_refused(factor):
    features = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator()))
    features[4] *= factor
    with pytest.raises(ShapeError, match=r"1 of 6 feature rows .*(normalize|infinity)"):
        neighbors.search(features, 2)


def test_rows_of_zeros_and_of_half_precision_are_no_error():
    features = torch.nn.functional.normalize(torch.randn(50, 300, generator=torch.Generator()))
    features[3] = 0
    found = neighbors.search(features.bfloat16(), 2)
    assert found.indices[:, 0].tolist() == list(range(50))


def test_what_is_no_tensor_is_refused():
    with pytest.raises(ShapeError, match=r"a ndarray; expected a torch tensor.*as_tensor"):
        neighbors.search(np.eye(3), 2)
