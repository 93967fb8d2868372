"""What the page of `gracl review` is told of a review: plain, compact values, one request at a time.

A page knows the version of what it shows. Whoever decides by an older one is told so, and nothing is
done: two tabs, or two people, never overwrite each other unseen.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gracl.clustering import OUTLIER
from gracl.data.thumbnails import Thumbnails
from gracl.embedding import embed
from gracl.errors import GraclError, ReviewError

if TYPE_CHECKING:
    from gracl.models.embedder import Embedder
    from gracl.review.ledger import Decision
    from gracl.review.questions import Question
    from gracl.review.review import Cluster, Review
    from gracl.study import Study

SHOWN = 3
"""Images of each cluster in the list."""
BESIDE = 6
"""Further images of either side of a question."""
QUIET = 0.6
"""Seconds without a request after which pictures are prepared."""
Answer = dict[str, Any]
"""What becomes JSON."""


class StaleError(GraclError):
    """A page decides by what is no longer so."""


class Desk:
    """A review at work: its images, its version, and one request after the other."""

    def __init__(self, review: Review, study: Study, *, thumbnails: Thumbnails | None = None) -> None:
        """Takes a review that nobody else decides in meanwhile.

        Args:
            review: the decisions.
            study: what they are about; features of pictures that are searched for are by its model.
            thumbnails: small pictures of its images; None opens those of gracl's cache.
        """
        self.review, self.study = review, study
        self.thumbnails = thumbnails or Thumbnails(study.records)
        self.key = study.run.data["fingerprint"][:16]
        """Of the images: a browser keeps pictures by their address, and another run has others."""
        self._lock = threading.RLock()
        self._begun = secrets.token_hex(4)
        self._asked: dict[tuple[int, int], Question] = {}
        self._confirmed = self._confirmed_clusters()
        self._noticed = -QUIET

    @property
    def version(self) -> str:
        """Of the partition; another after each decision, and after each start of the server."""
        return f"{self._begun}-{self.review.version}"

    # -- looking ----------------------------------------------------------------------------------

    def everything(self) -> Answer:
        """All clusters in short, and where the work stands."""
        with self._lock:
            clusters = [short(cluster) for cluster in self.review.clusters()]
            return {**self._standing(), "clusters": clusters}

    def cluster(self, number: int) -> Answer:
        """One cluster's images, the most typical first; those of no cluster as number -1."""
        with self._lock:
            if number == OUTLIER:
                rows: Sequence[int] = self.review.outliers()
                doubts = [0.0] * len(rows)
            else:
                rows = self.review.cluster(number).rows
                doubts = [round(float(self.review.doubt(row)), 3) for row in rows]
            return {"version": self.version, "number": number, **self.about(rows), "doubts": doubts}

    def near(self, number: int, k: int) -> Answer:
        """Clusters that may be the same: [number, similarity], most similar first."""
        with self._lock:
            near = self.review.near(number, k)
            return {"version": self.version, "near": [[n, _rounded(s)] for n, s in near]}

    def history(self, limit: int) -> Answer:
        """Decisions, the latest first, and how clusters differ from those of the review before."""
        with self._lock:
            since = self.review.since()
            return {
                "decisions": [_told(one) for one in self.review.history(limit)],
                "since": None if since is None else str(since),
            }

    def find(self, text: str) -> Answer:
        """Numbers of the clusters with an image whose path, camera, date or sequence holds a text."""
        wanted = text.casefold()
        with self._lock:
            found = {
                int(label)
                for label, words in zip(self.review.labels, self._words, strict=True)
                if wanted in words
            }
        return {"numbers": sorted(found)}

    def similar(self, to: int | torch.Tensor, k: int) -> Answer:
        """The images most similar to one of the run, or to a feature (D,)."""
        with self._lock:
            found = self.review.similar(to, k)
            rows = [row for row, _ in found]
            similarities = [_rounded(s) for _, s in found]
            return {"version": self.version, **self.about(rows), "similarities": similarities}

    def similar_to_picture(self, picture: NDArray[np.uint8], k: int) -> Answer:
        """The images most similar to a picture (H, W, 3) that may be none of them."""
        return self.similar(embed(self._model, picture).features[0], k)

    def about(self, rows: Sequence[int]) -> Answer:
        """What is known of images, a list for each fact; cameras and dates only if any is known."""
        labels, records = self.review.labels, self.study.records
        found: Answer = {
            "rows": [int(row) for row in rows],
            "clusters": [int(labels[row]) for row in rows],
            "files": [self._names[row] for row in rows],
        }
        for name in ("camera", "date"):
            values = [getattr(records[row], name) for row in rows]
            if any(value is not None for value in values):
                found[f"{name}s"] = values
        return found

    def question(self) -> Answer:
        """The pair whose answer would tell most, or none."""
        with self._lock:
            asked = self.review.question()
            if asked is None:
                return {"version": self.version, "question": None}
            self._asked[asked.first, asked.second] = asked
            question = {
                "sides": [
                    self._side(asked.first, asked.first_rows),
                    self._side(asked.second, asked.second_rows),
                ],
                "together": asked.together,
                "likely": _rounded(asked.likely),
            }
            return {"version": self.version, "question": question}

    # -- deciding ---------------------------------------------------------------------------------

    def decide(self, version: str, how: Callable[[Review], Decision | None]) -> Answer:
        """Decides, and tells what changed: clusters in short, and the numbers that are gone.

        Args:
            version: that the page shows.
            how: what is done.

        Raises:
            StaleError: the version is an older one.
            ReviewError: it contradicts an earlier decision, or names what is not there.
        """
        with self._lock:
            if version != self.version:
                raise StaleError(
                    "meanwhile something was decided elsewhere, so nothing was done. What you see now "
                    "is how it stands; decide again if it still holds"
                )
            decision = how(self.review)
            if decision is None:
                return {**self._standing(), "decision": None, "clusters": [], "gone": []}
            self._asked.clear()
            there, gone = [], []
            for number in sorted({*decision.clusters, *self._confirmed_anew()}):
                try:
                    there.append(short(self.review.cluster(number)))
                except ReviewError:
                    gone.append(number)
            return {
                **self._standing(),
                "decision": _told(decision),
                "clusters": there,
                "gone": gone,
            }

    def answer(
        self, version: str, first: int, second: int, same: bool, *, overrule: bool = False
    ) -> Answer:
        """Says whether two images are one individual; questions learn from it, if they asked."""

        def how(review: Review) -> Decision:
            asked = self._asked.get((first, second))
            if asked is not None:
                return review.answer(asked, same, overrule=overrule)
            say = review.same if same else review.different
            return say(first, second, overrule=overrule)

        return self.decide(version, how)

    def skip(self, first: int, second: int) -> Answer:
        """Passes over a pair that was asked, and asks the next one."""
        with self._lock:
            asked = self._asked.pop((first, second), None)
            if asked is not None:
                self.review.skip(asked)
            return self.question()

    # -- pictures ---------------------------------------------------------------------------------

    def notice(self) -> None:
        """Somebody is at work: what can wait does."""
        self._noticed = time.monotonic()

    def prepare_thumbnails(self, stop: threading.Event, *, at_once: int = 32) -> None:
        """Makes the small pictures that are missing, in quiet moments, the most doubtful ones first."""
        with self._lock:
            clusters = sorted(self.review.clusters(), key=lambda cluster: -cluster.doubt)
            rows = [int(row) for cluster in clusters for row in cluster.rows]
            rows += [int(row) for row in self.review.outliers()]
        for start in range(0, len(rows), at_once):
            while time.monotonic() - self._noticed < QUIET and not stop.wait(QUIET / 4):
                pass
            if stop.is_set():
                return
            self.thumbnails.prepare(rows[start : start + at_once])

    @cached_property
    def _model(self) -> Embedder:
        return self.study.run.model

    # -- helpers ----------------------------------------------------------------------------------

    @cached_property
    def _names(self) -> list[str]:
        """(N,) paths below the data set's folder."""
        root = self.study.dataset.root
        return [
            (r.path.relative_to(root) if r.path.is_relative_to(root) else r.path).as_posix()
            for r in self.study.records
        ]

    @cached_property
    def _words(self) -> list[str]:
        """(N,) what an image can be found by."""
        return [
            " ".join(filter(None, (name, r.camera, r.date, r.sequence))).casefold()
            for name, r in zip(self._names, self.study.records, strict=True)
        ]

    def _side(self, row: int, rows: Sequence[int]) -> Answer:
        """One image of a question, and a few of those it stands for."""
        number = int(self.review.labels[row])
        others = [other for other in rows if other != row][:BESIDE]
        return {
            "number": number,
            "size": len(rows),
            **self.about([row, *others]),
        }

    def _confirmed_clusters(self) -> set[int]:
        labels = self.review.labels
        sizes = np.bincount(labels + 1)
        said = np.bincount(labels[list(self.review.confirmed())] + 1, minlength=len(sizes))
        return set((np.flatnonzero((said == sizes) & (sizes > 0)) - 1).tolist()) - {OUTLIER}

    def _confirmed_anew(self) -> set[int]:
        """Clusters that are confirmed since, or no more: their images need not have moved."""
        before, self._confirmed = self._confirmed, self._confirmed_clusters()
        return before ^ self._confirmed

    def _standing(self) -> Answer:
        """What every answer that changes the page brings."""
        progress = self.review.progress()
        return {
            "version": self.version,
            "outliers": progress.n_outliers,
            "progress": {
                "images": progress.n_images,
                "clusters": progress.n_clusters,
                "confirmed": progress.n_confirmed_images,
                "decisions": progress.n_decisions,
            },
        }


def short(cluster: Cluster) -> list[Any]:
    """A cluster in the list: number, size, doubt, name, confirmed, changed, first images."""
    return [
        int(cluster.number),
        len(cluster.rows),
        _rounded(cluster.doubt),
        cluster.name,
        int(cluster.confirmed),
        int(cluster.changed),
        [int(row) for row in cluster.rows[:SHOWN]],
    ]


def _told(decision: Decision) -> Answer:
    return {
        "id": decision.id,
        "kind": decision.kind,
        "text": decision.text,
        "by": decision.by,
        "time": str(decision.time),
        "undone": bool(decision.undone),
        "carried": decision.state == "carried",
    }


def _rounded(value: float) -> float:
    return round(float(value), 3)
