"""Slow twins of the numerical core, written from the definitions and easy to check by eye.

Plain loops over plain numbers, no code shared with `gracl`. Everything is float64. `make_features` is
what most tests feed to both.
"""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import torch


def make_features(seed, identities=8, images=8, dimensions=16, noise=0.5):
    """Unit rows as re-ID gives them: clusters of unequal spread, and images that are nobody's."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, dimensions, generator=random)
    spread = noise * (0.5 + torch.rand(identities, 1, 1, generator=random))
    clustered = centres[:, None] + spread * torch.randn(
        identities, images, dimensions, generator=random
    )
    nobody = torch.randn(identities, dimensions, generator=random)
    rows = torch.cat([clustered.flatten(0, 1), nobody])
    rows = rows[torch.randperm(len(rows), generator=random)]
    return torch.nn.functional.normalize(rows)


# --- neighbours -----------------------------------------------------------------------------------


def squared_distances(features):
    """Of unit rows: d^2 = 2 - 2 cos."""
    features = np.asarray(features, dtype=np.float64)
    return 2 - 2 * features @ features.T


def nearest(features, k):
    """The k nearest rows of each row; the row itself first, then by distance, then by place."""
    distances = squared_distances(features)
    ranks = []
    for i in range(len(distances)):
        others = sorted((distances[i, j], j) for j in range(len(distances)) if j != i)
        ranks.append([i, *(j for _, j in others)][:k])
    return ranks


def mean_of_nearest_foreign(features, labels, m, counts_as_other):
    features = np.asarray(features, dtype=np.float64)
    result = []
    for i in range(len(features)):
        foreign = []
        for j in range(len(features)):
            same_group = labels[i] >= 0 and labels[i] == labels[j]
            if counts_as_other[j] and j != i and not same_group:
                foreign.append(float(features[i] @ features[j]))
        top = sorted(foreign, reverse=True)[:m]
        result.append(sum(top) / len(top) if top else -1.0)
    return result


# --- k-reciprocal encoding (Zhong et al. 2017, section 3) -----------------------------------------


def reciprocal(ranks, i, k):
    """R(i, k): the images among the first k ranks of i that have i among their own first k."""
    return {j for j in ranks[i][:k] if i in ranks[j][:k]}


def expanded(ranks, i, k, half):
    """R*(i, k): R(i, k) and every R(c, half) that shares more than two thirds of itself with it."""
    core = reciprocal(ranks, i, k)
    result = set(core)
    for c in core:
        candidate = reciprocal(ranks, c, half)
        if len(candidate & core) * 3 > len(candidate) * 2:
            result |= candidate
    return result


def encoding(distances, ranks, *, k, half, expand):
    """(N, N) weights exp(-d), each row divided by its sum, then averaged over `expand` ranks."""
    n = len(ranks)
    weights = np.zeros((n, n))
    for i in range(n):
        for j in expanded(ranks, i, k, half):
            weights[i, j] = math.exp(-distances[i][j])
        weights[i] /= weights[i].sum()
    if expand == 1:
        return weights
    return np.array([np.mean([weights[j] for j in ranks[i][:expand]], axis=0) for i in range(n)])


def jaccard(weights):
    """1 - sum of minima / sum of maxima, for every pair of rows."""
    n = len(weights)
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                result[i, j] = 1 - np.minimum(weights[i], weights[j]).sum() / (
                    np.maximum(weights[i], weights[j]).sum()
                )
    return result


def clustering_encoding(features, k1, k2, ranks=None):
    """k1 ranks with the image itself included; distances are not scaled."""
    ranks = nearest(features, max(k1, k2)) if ranks is None else ranks
    distances = squared_distances(features)
    return encoding(distances, ranks, k=k1, half=round(k1 / 2) + 1, expand=k2)


def clustering_distance(features, k1, k2, ranks=None):
    return jaccard(clustering_encoding(features, k1, k2, ranks))


def reranked_distance(queries, gallery, k1, k2, lambda_value):
    """Zhong et al.: k1 neighbours besides the image itself; d^2 divided by the row's largest."""
    features = np.concatenate([queries, gallery])
    distances = squared_distances(features)
    scaled = distances / distances.max(axis=1, keepdims=True)
    ranks = nearest(features, max(k1 + 1, k2))
    weights = encoding(scaled, ranks, k=k1 + 1, half=round(k1 / 2) + 1, expand=k2)
    final = (1 - lambda_value) * jaccard(weights) + lambda_value * scaled
    return final[: len(queries), len(queries) :]


def expanded_queries(queries, gallery, k, alpha):
    """Chum et al.: the query plus its k nearest gallery rows, each times its similarity ** alpha."""
    queries, gallery = (np.asarray(part, dtype=np.float64) for part in (queries, gallery))
    result = []
    for query in queries:
        nearest = sorted(gallery, key=lambda row: -float(query @ row))[:k]
        total = query + sum(max(0.0, float(query @ row)) ** alpha * row for row in nearest)
        result.append(total / math.sqrt(float(total @ total)))
    return np.array(result)


# --- DBSCAN (Ester et al. 1996) -------------------------------------------------------------------


def dbscan(distances, eps, min_samples):
    """Grows clusters one after another from the first core point that has none yet."""
    n = len(distances)
    near = [[j for j in range(n) if distances[i][j] <= eps] for i in range(n)]
    core = [len(near[i]) >= min_samples for i in range(n)]
    labels = [-1] * n
    number = 0
    for i in range(n):
        if not core[i] or labels[i] != -1:
            continue
        labels[i] = number
        to_visit = [i]
        while to_visit:
            point = to_visit.pop()
            if not core[point]:
                continue
            for j in near[point]:
                if labels[j] == -1:
                    labels[j] = number
                    to_visit.append(j)
        number += 1
    return labels


# --- retrieval scores -----------------------------------------------------------------------------


def is_junk(query, gallery, q, g):
    """Of the query's identity, but the same image, the same scene, or a scene that is unknown."""
    if query.pids[q] < 0 or query.pids[q] != gallery.pids[g]:
        return False
    if query.images[q] == gallery.images[g]:
        return True
    if query.scenes is None or gallery.scenes is None:
        return False
    mine, theirs = query.scenes[q], gallery.scenes[g]
    return mine == theirs or mine < 0 or theirs < 0


def match_ranks(similarity, query, gallery):
    """Per query the 1-based ranks of its matches, junk taken out, ties with others lost."""
    result = []
    for q in range(len(query.pids)):
        listed = []
        for g in range(len(gallery.pids)):
            if not is_junk(query, gallery, q, g):
                match = query.pids[q] >= 0 and query.pids[q] == gallery.pids[g]
                listed.append((-float(similarity[q][g]), match))  # False sorts before True
        result.append([place for place, (_, match) in enumerate(sorted(listed), 1) if match])
    return result


def average_precision(ranks):
    return sum(number / rank for number, rank in enumerate(ranks, 1)) / len(ranks)


def retrieval_scores(similarity, query, gallery, cmc_ranks):
    """(mAP, mINP, CMC) over the queries that have a match."""
    scored = [ranks for ranks in match_ranks(similarity, query, gallery) if ranks]
    n = len(scored)
    return (
        sum(average_precision(ranks) for ranks in scored) / n,
        sum(len(ranks) / ranks[-1] for ranks in scored) / n,
        {k: sum(ranks[0] <= k for ranks in scored) / n for k in cmc_ranks},
    )


def true_positive_rate(similarity, query, gallery, rate):
    """Best share of matches accepted by a threshold that accepts at most this share of the others.

    Trying every similarity as the threshold that must be exceeded, and one below all.
    """
    matches, others = [], []
    for q in range(len(query.pids)):
        for g in range(len(gallery.pids)):
            if query.pids[q] >= 0 and not is_junk(query, gallery, q, g):
                same = query.pids[q] == gallery.pids[g]
                (matches if same else others).append(float(similarity[q][g]))
    best = 0.0
    for threshold in [-math.inf, *matches, *others]:
        accepted = sum(value > threshold for value in others)
        if accepted <= rate * len(others) and matches:
            best = max(best, sum(value > threshold for value in matches) / len(matches))
    return best


# --- agreement of labels --------------------------------------------------------------------------


def purity(labels, pids):
    right = 0
    for label in set(labels) - {-1}:
        members = [p for p, found in zip(pids, labels, strict=True) if found == label]
        right += max(members.count(p) for p in members)
    return right / sum(label != -1 for label in labels)


def pair_scores(labels, pids):
    """(precision, recall, F1) of the pairs that the labels put together; no pair scores 0."""
    put = belong = both = 0
    for i, j in combinations(range(len(labels)), 2):
        together = labels[i] == labels[j] != -1
        same = pids[i] == pids[j]
        put, belong, both = put + together, belong + same, both + (together and same)
    if both == 0:
        return 0.0, 0.0, 0.0
    precision, recall = both / put, both / belong
    return precision, recall, 2 * precision * recall / (precision + recall)


# --- augmentation ---------------------------------------------------------------------------------


def flip_and_crop(image, mirrored, down, right, pad):
    """(C, H, W): mirror, pad with black, cut the old size out at (pad + down, pad + right)."""
    channels, height, width = image.shape
    if mirrored:
        image = image[:, :, ::-1]
    padded = np.zeros((channels, height + 2 * pad, width + 2 * pad), dtype=image.dtype)
    padded[:, pad : pad + height, pad : pad + width] = image
    top, left = pad + down, pad + right
    return padded[:, top : top + height, left : left + width]


def random_rectangle(height, width, random, area=(0.02, 0.4), aspect=0.3):
    """(top, left, height, width) of random erasing (Zhong et al. 2020, algorithm 1), or None."""
    for _ in range(100):
        target = random.uniform(*area) * height * width
        ratio = random.uniform(aspect, 1 / aspect)
        tall, wide = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if tall < height and wide < width:
            return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide
    return None


# --- model parts ----------------------------------------------------------------------------------


def batch_norm(group, epsilon=1e-5):
    """(B, C) normalised by its own mean and biased variance."""
    mean = group.mean(axis=0)
    variance = ((group - mean) ** 2).mean(axis=0)
    return (group - mean) / np.sqrt(variance + epsilon)


def running_after(running, statistics, momentum):
    """One move by the momentum towards the mean of the groups' statistics."""
    return (1 - momentum) * running + momentum * sum(statistics) / len(statistics)


def generalized_mean(maps, p, epsilon=1e-6):
    """(C, h, w) -> (C,)."""
    result = []
    for channel in maps:
        cells = [max(float(x), epsilon) ** p for x in channel.ravel()]
        result.append((sum(cells) / len(cells)) ** (1 / p))
    return result


# --- other clusterings, of the full matrix of distances -------------------------------------------


def numbered(clusters, n):
    """Labels of sets of images, numbered by first member; whoever is in none is -1."""
    labels = [-1] * n
    for number, members in enumerate(sorted(clusters, key=min)):
        for i in members:
            labels[i] = number
    return labels


def average_linkage(distances, eps, min_samples):
    """Joins the two clusters of the least mean distance, until that is above eps."""
    clusters = [{i} for i in range(len(distances))]
    while len(clusters) > 1:
        means = {
            (a, b): sum(distances[i][j] for i in clusters[a] for j in clusters[b])
            / (len(clusters[a]) * len(clusters[b]))
            for a, b in combinations(range(len(clusters)), 2)
        }
        a, b = min(means, key=means.get)
        if means[a, b] > eps:
            break
        clusters[a] |= clusters.pop(b)
    return numbered([c for c in clusters if len(c) >= min_samples], len(distances))


def mutual_reachability(distances, min_samples):
    """Campello et al. 2013: the larger of the distance and of both core distances, itself included."""
    n = len(distances)
    core = [sorted(row)[min_samples - 1] if min_samples <= n else 1.0 for row in distances]
    return [[max(core[i], core[j], distances[i][j]) for j in range(n)] for i in range(n)]


def spanning_lengths(distances):
    """Edges of a minimum spanning tree of all pairs, sorted: the same for each such tree (Prim)."""
    outside = dict(enumerate(distances[0]))
    del outside[0]
    lengths = []
    while outside:
        nearest = min(outside, key=outside.get)
        lengths.append(outside.pop(nearest))
        for i in outside:
            outside[i] = min(outside[i], distances[nearest][i])
    return sorted(lengths)


# --- links ----------------------------------------------------------------------------------------


def closure(n, pairs):
    """Sets of images that hang together through pairs."""
    groups = [{i} for i in range(n)]
    for a, b in pairs:
        first = next(group for group in groups if a in group)
        second = next(group for group in groups if b in group)
        if first is not second:
            groups.remove(second)
            first |= second
    return groups


def hold(group, pairs):
    """Whether a set of images holds both ends of one of the pairs."""
    return any(a in group and b in group for a, b in pairs)


def honour(labels, stored, must, cannot):
    """The labels that links ask for, numbered by first member; None if the links contradict.

    `stored` maps pairs (i, j), i < j, to distances.
    """
    n = len(labels)
    tied = closure(n, must)
    if any(hold(group, cannot) for group in tied):
        return None
    together = [p for p in combinations(range(n), 2) if labels[p[0]] == labels[p[1]] != -1]
    result = []
    for cluster in closure(n, [*together, *must]):
        if not hold(cluster, cannot):
            if len(cluster) > 1 or labels[min(cluster)] != -1:
                result.append(cluster)
            continue
        parts = [group for group in tied if group <= cluster]
        while True:
            near = [
                (mean(stored.get((min(p), max(p)), 1.0) for p in product(a, b)), a, b)
                for a, b in combinations(parts, 2)
                if not hold(a | b, cannot)
            ]
            nearest = min(near, key=lambda item: item[0], default=(1.0, set(), set()))
            if nearest[0] > 0.9:
                break
            parts.remove(nearest[1])
            parts.remove(nearest[2])
            parts.append(nearest[1] | nearest[2])
        result += [part for part in parts if len(part) > 1]
    return numbered(result, n)


# --- open sets and tracklets ----------------------------------------------------------------------


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def open_set_scores(similarity, query_pids, gallery_pids, threshold):
    """(BAKS, BAUS, AUROC), all identities known and no image on both sides."""
    answers, best = [], []
    for row in similarity:
        value, place = max((float(s), -g) for g, s in enumerate(row))
        best.append(value)
        answers.append(gallery_pids[-place] if value >= threshold else None)
    known = [p in gallery_pids for p in query_pids]

    def balanced(wanted, is_right):
        shares = {}
        for q, pid in enumerate(query_pids):
            if known[q] == wanted:
                shares.setdefault(pid, []).append(is_right(q))
        return mean(mean(right) for right in shares.values())

    pairs = [
        1.0 if best[k] > best[n] else 0.5 if best[k] == best[n] else 0.0
        for k in range(len(best))
        for n in range(len(best))
        if known[k] and not known[n]
    ]
    return (
        balanced(True, lambda q: answers[q] == query_pids[q]),
        balanced(False, lambda q: answers[q] is None),
        mean(pairs),
    )


def calibration(similarity, pids, threshold):
    """BAKS * BAUS of a gallery whose images are each asked for as known, then as new."""
    known, new = {}, {}
    for i, pid in enumerate(pids):
        own = [similarity[i][j] for j in range(len(pids)) if j != i and pids[j] == pid]
        other = [similarity[i][j] for j in range(len(pids)) if pids[j] != pid]
        if own:
            right = max(own) > max(other) and max(own) >= threshold
            known.setdefault(pid, []).append(right)
        new.setdefault(pid, []).append(max(other) < threshold)
    return mean(map(mean, known.values())) * mean(map(mean, new.values()))


def mean_features(features, sequences):
    """Sequence -> the mean of its rows, divided by its length."""
    result = {}
    for name in dict.fromkeys(sequences):
        rows = [row for row, own in zip(features, sequences, strict=True) if own == name]
        total = np.sum(np.asarray(rows, dtype=np.float64), axis=0) / len(rows)
        result[name] = total / math.sqrt(float(total @ total))
    return result


# --- association ----------------------------------------------------------------------------------


def constrained_linkage(similarity, there, must, cannot, threshold):
    """Join the two clusters of the highest mean similarity that may be joined, until it is too low.

    Rows that are not `there` have no say in a mean. None where must-linked rows cannot be together.
    """
    clusters = [{i} for i in range(len(similarity))]
    for a, b in must:
        first = next(c for c in clusters if a in c)
        second = next(c for c in clusters if b in c)
        if first is not second:
            first |= second
            clusters.remove(second)
    if any(hold(group, cannot) for group in clusters):
        return None
    while True:
        best = None
        for first, second in combinations(clusters, 2):
            pairs = [(a, b) for a in first for b in second if there[a] and there[b]]
            if not pairs or hold(first | second, cannot):
                continue
            mean_similarity = sum(similarity[a][b] for a, b in pairs) / len(pairs)
            if mean_similarity >= threshold and (best is None or mean_similarity > best[0]):
                best = (mean_similarity, first, second)
        if best is None:
            return numbered(clusters, len(similarity))
        _, first, second = best
        first |= second
        clusters.remove(second)


def known_apart(cameras, first, last, travel):
    """Every pair, looked at by itself."""
    found = []
    for a, b in combinations(range(len(cameras)), 2):
        if None in (cameras[a], cameras[b]) or any(
            math.isnan(t[i]) for t in (first, last) for i in (a, b)
        ):
            continue
        if cameras[a] == cameras[b]:
            apart = first[a] <= last[b] and first[b] <= last[a]
        else:
            apart = False
            for early, late in ((a, b), (b, a)):
                least = travel.get((cameras[early], cameras[late]))
                begins_later = first[late] >= first[early]
                apart |= least is not None and begins_later and first[late] < last[early] + least
        if apart:
            found.append([a, b])
    return found


def identification(labels, pids, boxes):
    """(IDF1, IDP, IDR) by trying every way of matching; rows of no label or no identity apart."""
    true = sorted({p for p in pids if p >= 0})
    given = sorted({label for label, p in zip(labels, pids, strict=True) if p >= 0 and label >= 0})
    rows = list(zip(labels, pids, boxes, strict=True))

    def common(t, g):
        return sum(n for label, p, n in rows if p == t and label == g)

    def best(left, free):
        if not left:
            return 0
        options = [best(left[1:], free)]
        options += [common(left[0], g) + best(left[1:], free - {g}) for g in free]
        return max(options)

    matched = best(true, frozenset(given))
    n_true = sum(n for _, p, n in rows if p >= 0)
    n_given = sum(n for label, p, n in rows if p >= 0 and label >= 0)
    both = n_true + n_given
    return (
        2 * matched / both if both else 0.0,
        matched / n_given if n_given else 0.0,
        matched / n_true if n_true else 0.0,
    )
