"""The nearest neighbours of unit vectors, a block of queries at a time.

Four roads lead to the same neighbours: the full product; the product in float16, with a proof for each
row that its rounding hid nothing; a short product that bounds the full one (`_search_pruned`); and an
approximate index for millions of rows (`_search_approximate`), which says how much it finds.

Letters: Q queries, G gallery rows, N rows of one set, D dimensions, k neighbours.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from gracl import distributed
from gracl.errors import ConfigError, ShapeError, did_you_mean

MEMORY = 64 * 2**20
"""Bytes that one block of similarities may take unless the caller says otherwise."""

Algorithm = Literal["auto", "product", "half", "pruned", "approximate"]

UNIT = 0.02
"""How far a row's length may lie from 1: bfloat16 keeps two digits and a half."""
HALF_FROM = 8192
"""Rows from which a GPU searches in float16 first."""


@dataclass(frozen=True)
class Neighbors:
    """The k nearest gallery rows of each query, nearest first."""

    indices: Tensor
    """(Q, k) int64 rows of the gallery."""
    similarities: Tensor
    """(Q, k) float32 cosine similarities, falling along each row."""
    farthest: Tensor | None = None
    """(Q,) float32: the lowest similarity of the query to any gallery row, if it was asked for."""
    recall: float = 1.0
    """Share of the true neighbours that are here, measured on a sample; 1 for an exact search."""

    def __len__(self) -> int:
        return len(self.indices)


def search(
    features: Tensor,
    k: int,
    *,
    algorithm: Algorithm = "auto",
    farthest: bool = False,
    memory: int = MEMORY,
) -> Neighbors:
    """The k nearest rows of each row among all rows, the row itself always first.

    A row stands first among its own neighbours even where duplicates tie with it, so "k ranks, the
    image itself included" is true of every row. Other ties are broken arbitrarily, but the same way
    each time on one machine.

    Where several processes work together, each searches for its share of the rows, by "product" or
    "half"; for "pruned" and "approximate" each searches for all of them.

    Args:
        features: (N, D) float32 unit rows, on any device.
        k: how many, the row itself included; cut to N where it is larger.
        algorithm: "product" multiplies every pair of rows out. "half" does so in float16, multiplies
            the best candidates again in float32, and searches a row anew where a bound on the
            rounding does not prove its neighbours right. "pruned" (CPU, needs numba) multiplies only
            pairs that a bound from leading principal directions does not rule out. These three are
            exact. "approximate" is an index of faiss whose recall is measured on a sample, and made
            better until it finds 99 %. "auto" is exact: "half" for large sets on a GPU; on a CPU
            "pruned" where a sample says that it pays; otherwise "product".
        farthest: also find the lowest similarity of each row; for "product" and "pruned".
        memory: bytes that one block of similarities may take; the result does not depend on it,
            up to rounding.

    Raises:
        SearchError: an approximate index does not find what it should, however wide it searches.

    >>> found = search(torch.eye(3), k=2)
    >>> found.indices[:, 0].tolist(), found.similarities[:, 0].tolist()
    ([0, 1, 2], [1.0, 1.0, 1.0])
    """
    features = check_features(features)
    if k < 1:
        raise ShapeError(f"k is {k}; a search needs k >= 1, the row itself included")
    if algorithm not in get_args(Algorithm):
        raise ConfigError(f"'{algorithm}' is no search; {did_you_mean(algorithm, get_args(Algorithm))}")
    k = min(k, len(features))
    if k == 0:
        return _by_product(features, k, memory, rows=torch.arange(0), farthest=farthest)
    if farthest and algorithm in ("half", "approximate"):
        raise ConfigError(f"'{algorithm}' cannot find the farthest rows; use 'product' or 'auto'")
    if algorithm == "approximate":
        from gracl import _search_approximate

        return Neighbors(*_search_approximate.search(features, k, memory=memory))
    if algorithm == "pruned" or (algorithm == "auto" and features.device.type == "cpu"):
        found = _by_bound(features, k, memory, always=algorithm == "pruned", farthest=farthest)
        if found is not None:
            return found
    rows, ends = _shares(features, memory)
    is_large = features.is_cuda and len(features) >= HALF_FROM and not farthest
    if algorithm == "half" or (algorithm == "auto" and is_large):
        return _gathered(_by_half(features, k, memory, share=rows), ends)
    return _gathered(_by_product(features, k, memory, rows=rows, farthest=farthest), ends)


def mean_of_nearest_foreign(
    features: Tensor,
    labels: Tensor,
    m: int,
    *,
    counts_as_other: Tensor,
    known: Neighbors | None = None,
    memory: int = MEMORY,
) -> Tensor:
    """Mean similarity of each labelled row to its m nearest rows of other groups.

    Args:
        features: (N, D) float32 unit rows.
        labels: (N,) int64 group of each row; rows below 0 belong to no group.
        m: how many foreign rows are averaged; 1 is the nearest alone. Where a row has fewer foreign
            rows than m, all of them are averaged.
        counts_as_other: (N,) bool, which rows may stand on the other side of a relation.
        known: neighbours of all rows. A row that has m foreign ones among them needs no search.
        memory: bytes that one block of similarities may take.

    Returns:
        (N,) float32; -1, the lowest similarity there is, where a row has no foreign row. Rows
        without a group are compared with every row but themselves.
    """
    features = check_features(features)
    result = torch.full((len(features),), -1.0, device=features.device)
    searched = torch.arange(len(features), device=features.device)
    if known is not None and len(known):
        foreign = counts_as_other[known.indices] & (known.indices != searched[:, None])
        foreign &= (labels[known.indices] != labels[:, None]) | (labels[:, None] < 0)
        among = foreign & (foreign.cumsum(dim=1) <= m)
        settled = among.sum(dim=1) == m
        means = known.similarities.masked_fill(~among, 0.0).sum(dim=1) / m
        result = torch.where(settled, means, result)
        searched = searched[~settled]
    others = torch.nonzero(counts_as_other).flatten()
    if not len(others):
        return result
    gallery, groups = features[others], labels[others]
    for start, block in similarity_blocks(features[searched], gallery, memory=memory):
        rows = searched[start : start + len(block)]
        own = labels[rows, None] == groups[None, :]
        own &= labels[rows, None] >= 0
        own |= rows[:, None] == others
        block.masked_fill_(own, -torch.inf)
        best = torch.topk(block, min(m, len(others)), dim=1).values
        valid = torch.isfinite(best)
        mean = best.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)
        result[rows] = torch.where(valid.any(dim=1), mean, result[rows])
    return result


def similarity_blocks(
    queries: Tensor, gallery: Tensor, *, memory: int = MEMORY
) -> Iterator[tuple[int, Tensor]]:
    """Yields (first row, (B, G) similarities) so that no Q x G matrix ever exists.

    Each block is a fresh tensor that the caller may write into.
    """
    rows = rows_in_block(gallery, memory)
    for start in range(0, len(queries), rows):
        yield start, queries[start : start + rows] @ gallery.T


def rows_in_block(gallery: Tensor, memory: int) -> int:
    """How many rows of similarities to a gallery take so many bytes, one at least."""
    return max(1, memory // (gallery.element_size() * max(1, len(gallery))))


def check_features(features: Tensor) -> Tensor:
    """The features as float32 without gradient, or a `ShapeError` for what no distance is taken of."""
    if not isinstance(features, Tensor):
        raise ShapeError(
            f"features are a {type(features).__name__}; expected a torch tensor: "
            "torch.as_tensor(features)"
        )
    features = features.detach()
    if features.ndim != 2:
        raise ShapeError(
            f"features have shape {tuple(features.shape)}; expected (N, D), one row an image"
        )
    features = features.float()
    # By parts: the question takes as much memory as what it is asked of.
    parts = [part.norm(dim=1) for part in torch.split(features, 4096)]
    lengths = torch.cat(parts) if parts else features.new_zeros(0)
    bad = int((~torch.isfinite(lengths)).sum())
    if bad:
        raise ShapeError(
            f"{bad} of {len(features)} feature rows hold NaN or infinity; expected finite unit "
            "rows. Check the model's weights and the images that gave these rows"
        )
    # A row of zeros is nobody's neighbour; any other length makes distances mean something else.
    long = ((lengths - 1).abs() > UNIT) & (lengths > 0)
    if bool(long.any()):
        raise ShapeError(
            f"{int(long.sum())} of {len(features)} feature rows are not of unit length (the first "
            f"has {float(lengths[long][0]):.3g}). Divide them by it: "
            "torch.nn.functional.normalize(features)"
        )
    return features


def _shares(features: Tensor, memory: int) -> tuple[Tensor, list[int]]:
    """The rows that this process searches for, whole blocks of them, and where all shares end."""
    block = rows_in_block(features, memory)
    ends = distributed.split([*range(0, len(features), block), len(features)])
    start, end = ends[distributed.rank()], ends[distributed.rank() + 1]
    return torch.arange(start, end, device=features.device), ends


def _gathered(part: Neighbors, ends: list[int]) -> Neighbors:
    """The neighbours of all rows, from each process's share of them."""
    farthest = part.farthest
    return Neighbors(
        distributed.gather(part.indices, ends),
        distributed.gather(part.similarities, ends),
        farthest if farthest is None else distributed.gather(farthest, ends),
    )


# -- roads ----------------------------------------------------------------------------------------


def _by_product(
    features: Tensor, k: int, memory: int, *, rows: Tensor, farthest: bool = False
) -> Neighbors:
    """These rows multiplied with all."""
    queries = features if len(rows) == len(features) else features[rows]
    indices = torch.empty((len(rows), k), dtype=torch.int64, device=features.device)
    similarities = torch.empty((len(rows), k), dtype=torch.float32, device=features.device)
    lowest = torch.empty(len(rows), dtype=torch.float32, device=features.device)
    for start, block in similarity_blocks(queries, features, memory=memory):
        part = slice(start, start + len(block))
        if farthest:
            lowest[part] = block.amin(dim=1)
        place = torch.arange(len(block), device=block.device), rows[part]
        own = block[place]
        block[place] = torch.inf
        best, where = torch.topk(block, k, dim=1)
        best[:, 0] = own
        indices[part], similarities[part] = where, best
        del block, own, best, where  # before the next is made, so that there is one at a time
    return Neighbors(indices, similarities, lowest if farthest else None)


def _by_half(features: Tensor, k: int, memory: int, *, share: Tensor) -> Neighbors:
    """The product of some rows with all in float16, its best candidates again in float32, each row
    proven.

    With g the rounded rows and e = f - g, a similarity differs from its rounded one by at most
    |g_i| |e_j| + |e_i| |g_j| + |e_i| |e_j|, and by the rounding of the product itself. A row is right
    if its k-th similarity is above all that the candidates left out can have.
    """
    n = len(features)
    width = min(n, 2 * k + 32)
    rounded = features.half()
    errors = (features - rounded.float()).norm(dim=1)
    size, error = rounded.float().norm(dim=1).max(), errors.max()
    indices = torch.empty((len(share), k), dtype=torch.int64, device=features.device)
    similarities = torch.empty((len(share), k), dtype=torch.float32, device=features.device)
    proven = torch.empty(len(share), dtype=torch.bool, device=features.device)
    for start, block in similarity_blocks(rounded[share], rounded, memory=memory):
        part = slice(start, start + len(block))
        rows = share[part]
        block[torch.arange(len(block), device=block.device), rows] = torch.inf
        best, where = torch.topk(block, width, dim=1)
        exact = torch.bmm(features[where], features[rows, :, None])[:, :, 0]
        own = exact[:, 0].clone()
        exact[:, 0] = torch.inf
        values, order = torch.topk(exact, k, dim=1)
        left_out = best[:, -1].float()
        left_out = left_out + size * errors[rows] + size * error + errors[rows] * error
        # 11 significant bits a number, and sums of D products in float32
        left_out = left_out + left_out.abs() * 2**-10 + features.shape[1] * 2**-23
        proven[part] = values[:, -1] >= left_out if width < n else True
        values[:, 0] = own
        indices[part], similarities[part] = where.gather(1, order), values
    doubtful = torch.nonzero(~proven).flatten()
    if len(doubtful):
        again = _by_product(features, k, memory, rows=share[doubtful])
        indices[doubtful], similarities[doubtful] = again.indices, again.similarities
    return Neighbors(indices, similarities)


def _by_bound(
    features: Tensor, k: int, memory: int, *, always: bool, farthest: bool
) -> Neighbors | None:
    """The pruned search, or None where it does not pay or numba is not at hand."""
    if importlib.util.find_spec("numba") is None or features.device.type != "cpu":
        if always:
            raise ConfigError("the search 'pruned' needs numba and features on the CPU; use 'product'")
        return None
    from gracl import _search_pruned

    plan = _search_pruned.plan(features, k, always=always)
    if plan is None:
        return None
    indices, similarities = _search_pruned.search(features, k, plan.directions, memory=memory)
    lowest = _search_pruned.farthest(features, plan.directions, memory=memory) if farthest else None
    return Neighbors(indices, similarities, lowest)
