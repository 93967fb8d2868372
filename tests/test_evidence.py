"""Which comparisons each kind of evidence makes, against loops over all pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gracl import all_pairs, evidence
from gracl.data.records import Box, Record, Records
from gracl.errors import EvaluationError, LinkConflict, ShapeError
from gracl.evidence import from_clusters, from_identities, from_pairs, from_tracklets, has_tracklets
from gracl.links import Links


def crowd(seed=0, n=30, identities=6, cameras=None):
    """Records and unit features, alike within an identity."""
    random = np.random.default_rng(seed)
    who = np.concatenate([[0, 1], random.integers(0, identities, n - 2)])
    rows = random.normal(size=(identities, 6))[who] + 0.7 * random.normal(size=(n, 6))
    features = torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32))
    camera = random.integers(0, cameras, n) if cameras else [None] * n
    records = [
        Record(Path(f"{i}.jpg"), identity=f"p{p}", camera=None if c is None else f"c{c}")
        for i, (p, c) in enumerate(zip(who, camera, strict=True))
    ]
    return features, Records(tuple(records)), who


def numbered(records):
    """Identities as `codes` numbers them."""
    names = sorted({r.identity for r in records if r.identity is not None})
    return np.array([names.index(r.identity) if r.identity in names else -1 for r in records])


def totals(found):
    return [found.n, *found.of_unit.tolist(), found.squares]


def naive_totals(pairs, n_units):
    """Comparisons in all, of each unit, and squared between two."""
    of_unit, between = np.zeros(n_units), np.zeros((n_units, n_units))
    for a, b in pairs:
        of_unit[a] += 1
        of_unit[b] += 1
        between[min(a, b), max(a, b)] += 1
    return [len(pairs), *of_unit.tolist(), float((between**2).sum())], between


# -- identities -----------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 999), searching=st.sampled_from([1, 7, 30]), block=st.sampled_from([40, 10**6])
)
def test_impostors_equal_a_loop_over_all_pairs(seed, searching, block):
    features, records, _ = crowd(seed)
    pids = numbered(records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_pairs, "PRODUCTS", searching * len(records))
        patch.setattr(all_pairs, "BLOCK", block)
        found = from_identities(features, records, rate=0.5, seed=seed)
    probes = set(all_pairs._probes(pids, searching, seed).tolist())
    similarity = features @ features.T
    pairs = [
        (i, j) for i in range(len(pids)) for j in range(i) if pids[i] != pids[j] and {i, j} & probes
    ]
    expected, between = naive_totals([(pids[i], pids[j]) for i, j in pairs], int(pids.max()) + 1)
    assert totals(found.impostors) == pytest.approx(expected)
    values = sorted((float(similarity[i, j]) for i, j in pairs), reverse=True)
    assert found.impostors.similarities.tolist() == pytest.approx(values, abs=1e-6)
    low = np.minimum(found.impostors.first, found.impostors.second)
    high = np.maximum(found.impostors.first, found.impostors.second)
    assert found.impostors.shared.tolist() == between[low, high].tolist()
    assert bool(found.notes) == (searching < len(records))


@given(seed=st.integers(0, 999), cameras=st.sampled_from([None, 2, 3]))
def test_searches_equal_a_loop_over_all_images(seed, cameras):
    features, records, _ = crowd(seed, cameras=cameras)
    pids = numbered(records)
    found = from_identities(features, records, protocol="cross-camera" if cameras else "any").searches
    similarity = (features @ features.T).numpy()
    strangers, known = [], []
    for i, record in enumerate(records):
        others = [similarity[i, j] for j in range(len(pids)) if pids[j] != pids[i]]
        mine = [
            similarity[i, j]
            for j, other in enumerate(records)
            if j != i and pids[j] == pids[i] and (not cameras or other.camera != record.camera)
        ]
        strangers.append(max(others))
        if mine:
            known.append(max(mine) if max(mine) > max(others) else -1)
    assert found.strangers.similarities.tolist() == pytest.approx(sorted(strangers, reverse=True))
    assert found.known.similarities.tolist() == pytest.approx(sorted(known, reverse=True))
    assert found.gallery == len(records)
    units, asked = len(set(pids.tolist())), np.bincount(pids)
    expected = np.add.outer(asked, asked)[np.triu_indices(units, 1)] / (units - 1)
    assert found.strangers.squares == pytest.approx((expected**2).sum())
    assert found.strangers.of_unit.sum() == pytest.approx(2 * len(records))


@pytest.mark.parametrize(("protocol", "name"), [("auto", "cross-camera@1"), ("any", "any@1")])
def test_genuine_pairs_are_those_of_the_protocol(protocol, name):
    features, records, _ = crowd(3, cameras=2)
    found = from_identities(features, records, protocol=protocol)
    expected = [
        float(features[i] @ features[j])
        for i, a in enumerate(records)
        for j, b in enumerate(records)
        if j < i and a.identity == b.identity and (protocol == "any" or a.camera != b.camera)
    ]
    assert found.genuine.similarities.tolist() == pytest.approx(sorted(expected, reverse=True))
    assert (found.genuine.first == found.genuine.second).all()
    assert found.protocol == name


def test_images_of_unknown_identity_have_no_part():
    features, records, _ = crowd(1)
    some = Records((*records[:20], *records[20:].unlabelled()))
    whole, part = from_identities(features, some), from_identities(features[:20], records[:20])
    assert totals(whole.impostors) == totals(part.impostors)
    assert whole.searches.gallery == 20


def test_only_the_most_similar_are_listed_where_there_are_many(monkeypatch):
    features, records, _ = crowd(2, n=60)
    whole = from_identities(features, records).impostors
    monkeypatch.setattr(all_pairs, "LISTED", 50)
    monkeypatch.setattr(all_pairs, "BLOCK", 150)
    few = from_identities(features, records, rate=0.001).impostors
    assert few.similarities.tolist() == pytest.approx(whole.similarities[:50].tolist(), abs=1e-6)
    assert totals(few) == totals(whole)


def test_searching_images_come_evenly_from_all_individuals():
    pids = np.array([0] * 50 + [1] * 5 + [2] * 2)
    assert np.bincount(pids[all_pairs._probes(pids, 9, 0)]).tolist() == [4, 3, 2]
    assert all_pairs._probes(pids, 9, 0).tolist() == all_pairs._probes(pids, 9, 0).tolist()


def test_an_individual_with_very_many_images_brings_some(monkeypatch):
    monkeypatch.setattr(evidence, "DRAWN", 12)
    features, records, _ = crowd(0, n=40, identities=2)
    found = from_identities(features, records)
    assert found.genuine.n == 12  # four images of either
    assert any("4 images at most" in note for note in found.notes)


@pytest.mark.parametrize("names", [[], ["a", "a"], [None, None], ["a", None]])
def test_one_individual_makes_no_impostor(names):
    records = Records(tuple(Record(Path(f"{n}"), identity=name) for n, name in enumerate(names)))
    with pytest.raises(EvaluationError, match="impostors need two"):
        from_identities(torch.eye(2)[: len(names)], records)


def test_individuals_of_one_image_each_have_impostors_but_no_genuine_pair():
    records = Records(tuple(Record(Path(f"{n}"), identity=f"{n}") for n in range(3)))
    found = from_identities(torch.eye(3), records)
    assert found.impostors.n == 3
    assert found.genuine is None
    assert found.searches.known is None


def test_a_protocol_of_a_benchmark_is_refused():
    features, records, _ = crowd()
    with pytest.raises(EvaluationError, match="one of cross-camera, date, sequence, any"):
        from_identities(features, records, protocol="vehicleid-10x")


def test_nan_and_a_wrong_number_of_rows_are_refused():
    features, records, _ = crowd()
    with pytest.raises(ShapeError, match=r"expected \(30, D\)"):
        from_identities(features[:5], records)
    features[3] = torch.nan
    with pytest.raises(ShapeError, match="hold NaN"):
        from_identities(features, records)


# -- pairs ----------------------------------------------------------------------------------------


def test_judged_pairs_share_the_individuals_that_are_known():
    features = torch.nn.functional.normalize(
        torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    )
    records = [Record(Path(f"{n}")) for n in range(6)]
    records[4] = replace(records[4], sequence="t")
    records[5] = replace(records[5], sequence="t")
    judged = Links(must=np.array([[0, 1], [1, 2]]), cannot=np.array([[0, 3], [2, 4], [1, 5]]))
    found = from_pairs(features, Records(tuple(records)), judged)
    assert found.genuine.n == 2
    assert found.genuine.n_units == 1
    assert sorted(found.impostors.of_unit.tolist()) == [1, 2, 3]  # 3; 4 and 5; 0, 1 and 2
    expected = [float(features[a] @ features[b]) for a, b in judged.cannot]
    assert found.impostors.similarities.tolist() == pytest.approx(sorted(expected, reverse=True))


def test_judgements_that_contradict_each_other_are_refused():
    records = Records(tuple(Record(Path(f"{n}"), identity="a" if n < 2 else None) for n in range(3)))
    with pytest.raises(LinkConflict, match="0 and 1"):
        from_pairs(torch.eye(3), records, Links(cannot=np.array([[0, 1]])))


# -- tracklets ------------------------------------------------------------------------------------


def walkers(frames=6):
    """Two people walk together, one alone."""
    records = []
    for name, picture in (("a", "x"), ("b", "x"), ("c", "y")):
        records += [
            Record(Path(f"{picture}{f}.jpg"), sequence=name, box=Box(ord(name), 0, 5, 5))
            for f in range(frames)
        ]
    random = np.random.default_rng(0)
    features = torch.tensor(random.normal(size=(len(records), 4)), dtype=torch.float32)
    return torch.nn.functional.normalize(features), Records(tuple(records))


def test_tracklets_in_one_picture_are_impostors_and_distant_frames_genuine():
    features, records = walkers()
    found = from_tracklets(features, records)
    similarity = features @ features.T
    impostors = similarity[:6, 6:12].flatten().tolist()
    assert found.impostors.similarities.tolist() == pytest.approx(sorted(impostors, reverse=True))
    genuine = [
        float(similarity[i, j])
        for start in (0, 6, 12)
        for i in range(start, start + 6)
        for j in range(i + 3, start + 6)
    ]
    assert found.genuine.similarities.tolist() == pytest.approx(sorted(genuine, reverse=True))
    assert found.genuine.n_units == 3
    assert has_tracklets(records)


def test_boxes_without_sequences_show_impostors_only():
    features, records = walkers(1)
    alone = Records(tuple(replace(record, sequence=None) for record in records))
    found = from_tracklets(features, alone)
    assert found.impostors.n == 1
    assert found.genuine is None


def test_long_tracklets_bring_evenly_spread_frames(monkeypatch):
    features, records = walkers(9)
    monkeypatch.setattr(evidence, "DRAWN", 9)
    found = from_tracklets(features, records)
    similarity = (features @ features.T)[[0, 4, 8]][:, [9, 13, 17]].flatten()
    assert found.impostors.similarities.tolist() == pytest.approx(
        similarity.sort(descending=True).values.tolist()
    )
    assert "3 evenly spread frames" in found.notes[-1]


def test_sequences_alone_show_no_impostor():
    features, records = walkers()
    unboxed = Records(tuple(replace(record, box=None) for record in records))
    assert not has_tracklets(unboxed)
    with pytest.raises(EvaluationError, match="no picture holds boxes of two sequences"):
        from_tracklets(features, unboxed)


# -- clusters -------------------------------------------------------------------------------------


def test_clusters_stand_for_identities_and_outliers_have_no_part():
    features, records, who = crowd(4)
    labels = np.where(np.arange(30) % 5 == 0, -1, who)
    found = from_clusters(features, records.unlabelled(), labels)
    kept = np.flatnonzero(labels >= 0)
    same = from_identities(features[kept], records.take(kept))
    assert totals(found.impostors) == totals(same.impostors)
    assert found.genuine.similarities.tolist() == same.genuine.similarities.tolist()
    assert (found.kind, found.unit) == ("clusters", "clusters")
    assert "20% of the images" in " ".join(found.notes)


def test_true_identities_are_not_read_by_clusters():
    features, records, who = crowd(4)
    told, untold = (from_clusters(features, r, who) for r in (records, records.unlabelled()))
    assert told.impostors.similarities.tolist() == untold.impostors.similarities.tolist()


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, 0, -1]])
def test_one_cluster_shows_no_impostor(labels):
    records = Records(tuple(Record(Path(f"{n}")) for n in range(3)))
    with pytest.raises(EvaluationError, match="--sweep"):
        from_clusters(torch.eye(3), records, np.array(labels))


def test_a_label_is_needed_for_each_image():
    features, records, _ = crowd()
    with pytest.raises(ShapeError, match="2 labels for 30 images"):
        from_clusters(features, records, np.array([0, 1]))
