"""A review of a run: its clusters as they stand after all that a person decided, and what to ask next.

    review = Review.open(open_study("runs/photos"), by="Ann")
    for cluster in review.clusters()[:10]: ...                  # the most doubtful first
    review.merge([12, 57])
    review.name(12, "Ada")
    review.undo()

What a decision says is kept twice: as the clusters that it changed, which is what a person sees, and as
pairs of images that must, or cannot, be one individual, which is what holds however the images are
clustered anew (`gracl train --continue`).

Letters: N images, D feature dimensions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gracl.errors import Contradiction, ReviewError
from gracl.links import OUTLIER, Labels, Links, must_groups
from gracl.review import exchange
from gracl.review.carrying import LEDGER, image_of, prepare, said_of
from gracl.review.drafts import Draft, Drafts
from gracl.review.exchange import Form
from gracl.review.ledger import Confirmed, Decision, Ledger, Link, pairs_of
from gracl.review.partition import Change, Partition
from gracl.review.questions import Question, Questions
from gracl.review.since import Since, compare
from gracl.review.standing import Standing
from gracl.study import Study

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Cluster:
    """A cluster as it stands."""

    number: int
    rows: tuple[int, ...]
    """Of its images, the most typical first."""
    doubt: float
    """In [0, 1]; see `gracl.doubt`."""
    name: str | None
    confirmed: bool
    """Whether each of its images was said to belong with others of it."""
    changed: bool
    """Whether it is not the cluster that the model found."""


@dataclass(frozen=True)
class Progress:
    """How far a review has come."""

    n_images: int
    n_clusters: int
    n_outliers: int
    n_confirmed_images: int
    n_decisions: int
    """That stand."""


def _alone(method: _F) -> _F:
    """One thread at a time."""

    @wraps(method)
    def locked(self: Review, *args: Any, **how: Any) -> Any:
        with self._lock:
            return method(self, *args, **how)

    return locked  # type: ignore[return-value]


class Review:
    """The clusters of a run under review. Safe for several threads; one process at a time."""

    def __init__(self, study: Study, ledger: Ledger, *, by: str) -> None:
        """Use `open`."""
        self.study, self.by = study, by
        self._ledger = ledger
        self._lock = threading.RLock()
        labels, names = ledger.base()
        self._base = labels
        self._base_sizes = np.bincount(labels[labels != OUTLIER], minlength=1)
        self._partition = Partition(labels, names)
        for decision in ledger.standing():
            self._partition.apply(decision.change)
        self._standing = Standing(study.features, self._partition)
        self._questions = Questions(self._standing)
        self._drafts = Drafts(self._standing, self._path)
        self._skipped: set[frozenset[int]] = set()
        self._read_links()
        self.version = 0
        """Raised by whatever changes the review, so that a page knows when it is out of date."""

    @classmethod
    def open(cls, study: Study, *, by: str, at: str | Path | None = None) -> Review:
        """Opens the review of a run, or begins one.

        What was said in the review of the run that this one continues (`gracl train --continue`), and
        what was said before a run was trained further, is carried over.

        Args:
            study: the run.
            by: the person's name, which is kept with each decision.
            at: the file of decisions; `review.sqlite` in the run's folder if not given.

        Raises:
            ReviewError: another process reviews it, or the file is of other images or no review.
        """
        if not by.strip():
            raise ReviewError("the reviewer has no name; give one: --by NAME")
        ledger = Ledger(Path(at) if at is not None else study.run.folder / LEDGER)
        try:
            prepare(ledger, study)
            return cls(study, ledger, by=by.strip())
        except BaseException:
            ledger.close()
            raise

    @_alone
    def close(self) -> None:
        """Lets another process review the run."""
        self._ledger.close()

    def __enter__(self) -> Review:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- looking -----------------------------------------------------------------------------------

    @property
    def labels(self) -> Labels:
        """(N,) clusters as they stand; `OUTLIER` is none."""
        return self._partition.labels.copy()

    @property
    def names(self) -> dict[int, str]:
        """Of the clusters that have one."""
        return dict(self._partition.names)

    @_alone
    def clusters(self) -> list[Cluster]:
        """All clusters, the most doubtful first."""
        confirmed = self._confirmed_rows()
        ordered = self._standing.all_ordered().items()
        found = [self._cluster(number, rows, confirmed) for number, rows in ordered]
        return sorted(found, key=lambda cluster: (-cluster.doubt, cluster.number))

    @_alone
    def cluster(self, number: int) -> Cluster:
        """One cluster.

        Raises:
            ReviewError: there is none of that number.
        """
        self._drafts.require_clusters([number])
        rows = self._standing.ordered(self._partition.rows(number))
        return self._cluster(number, rows, self._confirmed_rows())

    @_alone
    def outliers(self) -> list[int]:
        """Rows of the images that are in no cluster."""
        return self._partition.rows(OUTLIER)

    @_alone
    def doubt(self, row: int) -> float:
        """How doubtful it is that an image belongs to its cluster, in [0, 1]."""
        self._drafts.require_rows([row])
        return float(self._standing.image[row])

    @_alone
    def near(self, number: int, k: int = 6) -> list[tuple[int, float]]:
        """The k nearest clusters and their similarities, falling; those said to be different too."""
        self._drafts.require_clusters([number])
        return self._standing.near(number, k)

    @_alone
    def similar(self, image: int | Tensor, k: int = 24) -> list[tuple[int, float]]:
        """Rows of the k images nearest to one of the run's, without it, or to a unit vector (D,)."""
        if isinstance(image, int):
            self._drafts.require_rows([image])
        vector = self.study.features[image] if isinstance(image, int) else image
        similarity = self.study.features @ vector
        if isinstance(image, int):
            similarity[image] = -torch.inf
        best, rows = similarity.topk(min(k, len(similarity) - isinstance(image, int)))
        return list(zip(rows.tolist(), best.tolist(), strict=True))

    @_alone
    def confirmed(self) -> dict[int, Confirmed]:
        """By row, of each image that was said to belong with others, or to be an individual alone.

        Who said so last, and when.
        """
        found = {}
        for link in self._links:
            if link.kind == "must":
                found[link.first] = found[link.second] = Confirmed(link.by, link.time)
        return found

    @_alone
    def history(self, limit: int | None = None) -> list[Decision]:
        """The latest decisions, newest first; those taken back among them."""
        return self._ledger.decisions(limit)

    @_alone
    def progress(self) -> Progress:
        """How far the review has come."""
        n_outliers = len(self._partition.rows(OUTLIER))
        return Progress(
            len(self._partition.labels),
            len(self._partition.numbers),
            n_outliers,
            len(self._confirmed_rows()),
            self._ledger.counted(),
        )

    @_alone
    def since(self) -> Since | None:
        """How the clusters differ from those that the review before this one ended with, if any."""
        earlier = self._ledger.earlier()
        if earlier is None:
            return None
        pids = self.study.pids if self.study.knows_truth else None
        return compare(earlier, self._partition.labels, pids)

    @_alone
    def links(self) -> Links:
        """All pairs that must, or cannot, be one individual, by row: what a training honours.

        Clusters of different names are held apart by one pair each.
        """
        return said_of(self._links, self._partition)

    # -- deciding ----------------------------------------------------------------------------------
    #
    # Each raises Contradiction where it contradicts what was said before, and names that; with
    # `overrule` the later word holds. ReviewError is raised where it means nothing.

    @_alone
    def merge(self, numbers: Sequence[int], *, overrule: bool = False) -> Decision:
        """These clusters are one individual; they become the first of them."""
        return self._decide(self._drafts.merge(numbers, overrule=overrule), overrule)

    @_alone
    def split(self, rows: Sequence[int], *, overrule: bool = False) -> Decision:
        """These images are not the individual of the rest: they become a cluster of their own.

        Whether they are one individual is for `confirm` to say; but images of several clusters, or of
        none, are gathered as one.
        """
        return self._decide(self._drafts.split(rows), overrule)

    @_alone
    def eject(self, rows: Sequence[int], *, overrule: bool = False) -> Decision:
        """These images do not belong to their clusters, and it is not said where they belong."""
        return self._decide(self._drafts.eject(rows), overrule)

    @_alone
    def move(self, rows: Sequence[int], number: int, *, overrule: bool = False) -> Decision:
        """These images are the individual of another cluster."""
        return self._decide(self._drafts.move(rows, number), overrule)

    @_alone
    def confirm(self, number: int, *, overrule: bool = False) -> Decision:
        """All images of a cluster are one individual."""
        return self._decide(self._drafts.confirm(number), overrule)

    @_alone
    def name(self, number: int, name: str | None, *, overrule: bool = False) -> Decision:
        """Says who a cluster is, which confirms it, or takes its name away (None).

        A cluster that has the name already becomes part of it.
        """
        return self._decide(self._drafts.name(number, name), overrule)

    @_alone
    def same(
        self, a: int, b: int, *, question: Question | None = None, overrule: bool = False
    ) -> Decision:
        """Two images are one individual; their clusters become one, the first image's.

        Where other images of the two clusters were said to be different, only those come together that
        are linked to the two images.
        """
        whole = self._drafts.same(a, b, overrule=overrule)
        drafts = [whole, *self._drafts.same_alone(a, b, groups=self._groups)]
        draft = next((draft for draft in drafts if not self._contradicted(draft)), whole)
        return self._decide(draft, overrule, question)

    @_alone
    def different(
        self, a: int, b: int, *, question: Question | None = None, overrule: bool = False
    ) -> Decision:
        """Two images are two individuals. A cluster that holds both is parted.

        Of a question about its halves, the second half leaves; else each image goes with the nearer of
        the two, images that were said to be the same as a whole.
        """
        draft = self._drafts.different(a, b, question=question, groups=self._groups)
        return self._decide(draft, overrule, question)

    @_alone
    def assign(self, identities: Mapping[int, str], *, text: str, overrule: bool = False) -> Decision:
        """Images by row and whose they are: those of one individual become one cluster of that name.

        Args:
            identities: by row; `cluster-12` and the like are no names, but tell individuals apart.
            text: where this comes from, in words.
            overrule: see above.
        """
        return self._decide(self._drafts.assign(identities, text), overrule)

    @_alone
    def undo(self) -> Decision | None:
        """Takes the last decision back; None where there is none left."""
        last = self._ledger.last("done")
        if last is not None:
            self._ledger.set_state(last, "undone")
            self._changed(last.change.reversed())
        return last

    @_alone
    def redo(self) -> Decision | None:
        """Makes the decision hold that was taken back last; None where there is none."""
        next_one = self._ledger.last("undone")
        if next_one is not None:
            self._ledger.set_state(next_one, "done")
            self._changed(next_one.change)
        return next_one

    # -- asking ------------------------------------------------------------------------------------

    @_alone
    def question(self) -> Question | None:
        """The pair of images about which an answer helps most; see `gracl.review.questions`."""
        return self._questions.best(
            self._ledger.answers(),
            groups=self._groups,
            apart=self._clusters_apart(),
            skipped=self._skipped,
        )

    @_alone
    def answer(self, question: Question, same: bool, *, overrule: bool = False) -> Decision:
        """`same` or `different`, from which further questions learn."""
        say = self.same if same else self.different
        return say(question.first, question.second, question=question, overrule=overrule)

    @_alone
    def skip(self, question: Question) -> None:
        """Does not ask about this pair again until the review is opened anew."""
        self._skipped.add(frozenset((question.first, question.second)))

    # -- tables ------------------------------------------------------------------------------------

    def export(self, path: str | Path, *, form: Form = "auto", only_confirmed: bool = False) -> Path:
        """Writes who is who; see `gracl.review.exchange.write`."""
        return exchange.write(
            self.study,
            path,
            labels=self.labels,
            names=self.names,
            confirmed=self.confirmed(),
            form=form,
            only_confirmed=only_confirmed,
        )

    def read(self, path: str | Path, *, overrule: bool = False) -> Decision:
        """Takes over who is who from a table, in one decision; see `gracl.review.exchange.read`.

        Images that the table leaves without identity, or does not name, stay as they are.
        """
        found = exchange.read(self.study, path)
        return self.assign(found.identities, text=found.text, overrule=overrule)

    # -- small parts -------------------------------------------------------------------------------

    def _decide(self, draft: Draft, overrule: bool, question: Question | None = None) -> Decision:
        """Writes a decision, then lets it hold; or refuses it, and nothing has happened."""
        against = self._contradicted(draft)
        if against and not overrule:
            raise Contradiction(self._contradiction(against))
        decision = self._ledger.add(
            draft.kind,
            draft.text,
            self.by,
            draft.change,
            draft.said,
            overrules=against,
            similarity=None if question is None else question.similarity,
        )
        self._changed(draft.change)
        return decision

    def _contradicted(self, draft: Draft) -> list[Link]:
        """Links that would not hold any more.

        A `must` that holds lies within one cluster, and a `cannot` does not. A change contradicts those
        that it would put at odds with that, and so does what is said of the very same pair.
        """
        labels = self._partition.labels.copy()
        labels[list(draft.change.rows)] = draft.change.after
        spoken = {(kind, *sorted(pair)) for kind, *pair in draft.said}
        found = []
        for link in self._links:
            together = labels[link.first] == labels[link.second] != OUTLIER
            opposite = "cannot" if link.kind == "must" else "must"
            denied = (opposite, *sorted((link.first, link.second))) in spoken
            if together != (link.kind == "must") or denied:
                found.append(link)
        return found

    def _contradiction(self, against: Sequence[Link]) -> str:
        link = against[0]
        word = "the same" if link.kind == "must" else "different"
        if link.first == link.second:
            return (
                f"{self._path(link.first)} was confirmed as an individual by {link.by} on "
                f"{link.time[:10]} (decision {link.decision}). Undo that first, or overrule it"
            )
        others = len({other.decision for other in against} - {link.decision})
        more = f", and {others} further decisions speak against it" if others else ""
        first, second = self._path(link.first), self._path(link.second)
        return (
            f"{first} and {second} were said to be {word} by {link.by} on {link.time[:10]} "
            f"(decision {link.decision}){more}. Undo that first, or overrule it"
        )

    def _changed(self, change: Change) -> None:
        self._partition.apply(change)
        self._read_links()
        if change.clusters:
            self._standing.refresh(change.clusters)
        self._questions.refresh({*change.clusters, *self._touched()})
        self.version += 1

    def _read_links(self) -> None:
        before: set[tuple[int, int]] = getattr(self, "_musts", set())
        self._links = self._ledger.links()
        self._musts = {(link.first, link.second) for link in self._links if link.kind == "must"}
        self._fresh = before ^ self._musts
        n = len(self._partition.labels)
        self._groups = must_groups(Links(must=pairs_of(self._links, "must")), n)

    def _touched(self) -> set[int]:
        """Clusters whose images are linked in another way than before, so may be cut elsewhere."""
        rows = {row for pair in self._fresh for row in pair}
        return {int(self._partition.labels[row]) for row in rows} - {OUTLIER}

    def _cluster(self, number: int, rows: Sequence[int], confirmed: Collection[int]) -> Cluster:
        was = self._base[rows]
        first = int(was[0])
        return Cluster(
            number,
            tuple(rows),
            float(self._standing.cluster[number]),
            self._partition.names.get(number),
            all(row in confirmed for row in rows),
            first == OUTLIER or bool((was != first).any()) or self._base_sizes[first] != len(rows),
        )

    def _confirmed_rows(self) -> set[int]:
        return {row for pair in self._musts for row in pair}

    def _clusters_apart(self) -> set[frozenset[int]]:
        """Pairs of clusters that were said to be different; an outlier stands as -1 - its row."""

        def place(row: int) -> int:
            label = int(self._partition.labels[row])
            return label if label != OUTLIER else -1 - row

        return {
            frozenset((place(link.first), place(link.second)))
            for link in self._links
            if link.kind == "cannot"
        }

    def _path(self, row: int) -> str:
        return image_of(self.study.records[row], self.study.dataset.root)[0]
