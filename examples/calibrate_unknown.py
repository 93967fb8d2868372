"""Which similarity means "unknown"? For a rate of false matches that you state, and what it costs.

python examples/calibrate_unknown.py runs/people people --rate 0.01
"""

import argparse
from dataclasses import replace
from pathlib import Path

import gracl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("images", type=Path, help="data with identities that the run never saw")
    parser.add_argument("--rate", type=float, default=0.01, help="of pairs of two individuals")
    given = parser.parse_args()

    model = gracl.load_model(given.run)
    dataset = gracl.load_dataset(given.images)
    found = gracl.embed(model, dataset.gallery)

    # Refused, with the lowest rate that can be shown, where there are too few individuals.
    chosen = gracl.calibrate(found, rate=given.rate)
    print(chosen)
    print(f"strangers are taken for somebody from {chosen.threshold:.3f} on: {chosen.false_matches}")
    print(f"and of true pairs so many are found: {chosen.true_matches}")

    # The same threshold on queries, of individuals that the gallery holds and of others.
    names = sorted({record.identity for record in dataset.gallery if record.identity})
    known = set(names[: len(names) // 2])
    held = gracl.Records(tuple(r for r in dataset.gallery if r.identity in known))
    half = replace(dataset, gallery=held)
    scores, _, _ = gracl.evaluate_open_set(model, half, threshold=chosen)
    print(scores)


if __name__ == "__main__":
    main()
