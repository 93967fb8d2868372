"""What a person's answers are worth: clusters and mAP by the number of questions that were answered.

    python benchmarks/corrections.py --real cows=FOLDER --weights FILE --log LOG

A run is trained, then reviewed: each question is answered by the truth. Three ways of choosing which
pair of images to ask about are compared:

    questions   what `gracl review` asks, see gracl/review/questions.py
    near        an image at random, and one of its ten nearest at random
    random      two images at random

Of each the ARI of the clusters as the review leaves them is measured after 0, 50, 100 and 200 answers.
Then, of the first and the last way, the run is continued with these answers as links, as `gracl train
--continue` does, and the ARI of its clusters and the mAP on other individuals are measured. With no
answers it is continued too, for a second training alone changes a model. Settings and data are those of
benchmarks/trials.py; a seed is a world of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import trials
from measuring import save, spread

COUNTS = (0, 50, 100, 200)
WAYS = ("questions", "near", "random")
TRAINED = ("questions", "random")
NEAREST = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    trials.add_flags(parser)
    parser.add_argument("--data", nargs="+", default=["drawn_hard", "cows"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[3, 4, 5])
    parser.add_argument(
        "--train-after",
        nargs="+",
        type=int,
        default=list(COUNTS),
        help="answers; a training takes minutes",
    )
    arguments = parser.parse_args()
    places = trials.Places.of(arguments)
    done = trials.read(arguments.log)
    for data in arguments.data:
        for seed in arguments.seeds:
            if not any((line["data"], line["seed"]) == (data, seed) for line in done):
                line = {
                    "data": data,
                    "seed": seed,
                    **measure(data, seed, places, arguments.train_after),
                }
                with arguments.log.open("a") as log:
                    log.write(json.dumps(line) + "\n")
    lines = trials.read(arguments.log)
    typed = f"--seeds {' '.join(map(str, arguments.seeds))} --data {' '.join(arguments.data)}"
    typed += f" --train-after {' '.join(map(str, arguments.train_after))}"
    save(
        "corrections",
        {
            "command": trials.command("corrections", arguments, typed),
            "results": {data: table(lines, data) for data in arguments.data},
            "lines": [line for line in lines if line["data"] in arguments.data],
        },
    )


def measure(data: str, seed: int, places: trials.Places, train_after: list[int]) -> dict[str, Any]:
    """One run and what answers make of it, by way and number of answers."""
    import torch

    import gracl

    torch.set_num_threads(1)
    dataset = trials.dataset_of(data, seed, places)
    weights = "none" if data in trials.WORLDS else places.weights
    config = gracl.Config().replace(trials.SETTINGS[data])
    config = config.replace({"model": {"weights": weights}, "train": {"seed": seed, "threads": 1}})
    found: dict[str, Any] = {"ari": {}, "trained": {}}
    with tempfile.TemporaryDirectory() as top:
        run = gracl.train(config, dataset, Path(top) / "run")
        found["before"] = {"mAP": run.after["scores"]["mAP"], "ari": run.after["agreement"]["ari"]}
        study = gracl.open_study(run, data=dataset)
        for way in WAYS:
            found["ari"][way] = {}
            with gracl.Review.open(study, by="the truth", at=Path(top) / f"{way}.sqlite") as review:
                draws = np.random.default_rng(seed)
                for count in COUNTS:
                    while review.progress().n_decisions < count and ask(review, way, draws):
                        pass
                    ari = gracl.compare_labels(review_labels(review), study.pids).ari
                    found["ari"][way][count] = ari
                    if way in TRAINED and count in train_after and (count or way == TRAINED[0]):
                        out = Path(top) / f"{way}-{count}"
                        found["trained"].setdefault(way, {})[count] = trained(run, dataset, review, out)
                    print(data, seed, way, count, round(ari, 3), found["trained"].get(way), flush=True)
    return found


def ask(review: Any, way: str, draws: np.random.Generator) -> bool:
    """One question, answered by the truth; whether there was one."""
    pids = review.study.pids
    if way == "questions":
        question = review.question()
        if question is None:
            return False
        review.answer(question, bool(pids[question.first] == pids[question.second]))
        return True
    a = int(draws.integers(len(pids)))
    if way == "near":
        b = review.similar(a, k=NEAREST)[int(draws.integers(NEAREST))][0]
    else:
        b = int(draws.choice(np.delete(np.arange(len(pids)), a)))
    (review.same if pids[a] == pids[b] else review.different)(a, b)
    return True


def review_labels(review: Any) -> Any:
    """Clusters as they stand, numbered without gaps."""
    labels = review.labels
    numbers = np.unique(labels[labels >= 0])
    return np.where(labels < 0, -1, np.searchsorted(numbers, labels))


def trained(run: Any, dataset: Any, review: Any, out: Path) -> dict[str, float]:
    """Clusters and scores of the run after this one, with the review's answers as links."""
    import gracl
    from gracl.review.next_run import next_config

    links = review.links()
    done = gracl.train(next_config(run), dataset, out, links=lambda _: links, continues=run)
    return {"mAP": done.after["scores"]["mAP"], "ari": done.after["agreement"]["ari"]}


def table(lines: list[dict[str, Any]], data: str) -> dict[str, Any]:
    """Means and spreads over seeds, by way and number of answers."""
    own = [line for line in lines if line["data"] == data]
    by_count = {
        way: {str(n): spread([line["ari"][way][str(n)] for line in own]) for n in COUNTS}
        for way in WAYS
    }
    continued: dict[str, Any] = {}
    for way in TRAINED:
        counts = [n for n in COUNTS if all(str(n) in line["trained"][way] for line in own)]
        continued[way] = {
            str(n): {
                k: spread([line["trained"][way][str(n)][k] for line in own]) for k in ("mAP", "ari")
            }
            for n in counts
        }
    return {
        "seeds": [line["seed"] for line in own],
        "before": {k: spread([line["before"][k] for line in own]) for k in ("mAP", "ari")},
        "ari_as_reviewed": by_count,
        "continued": continued,
    }


if __name__ == "__main__":
    main()
