"""Tracklets of several cameras to individuals: here, images of a table that name their sequence.

python examples/track_association.py runs/people tracklets/metadata.csv

Right behind a tracker, frame by frame, see docs/associate.md.
"""

import argparse
from pathlib import Path

import numpy as np

import gracl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("images", type=Path, help="a table with the columns camera and sequence")
    given = parser.parse_args()

    model = gracl.load_model(given.run)
    records = gracl.load_dataset(given.images).train
    found = gracl.embed(model, records)

    # What a tracker gives for each crop: its camera, its track, and when it was taken, not known here.
    seen = [(record.camera, record.sequence or "", float("nan")) for record in records]
    tracklets = gracl.gather_tracklets(seen, found.features)
    joined = gracl.associate(tracklets)
    print(f"{len(joined)} tracklets are {joined.n_identities} individuals; {joined.note}")
    keys = list(dict.fromkeys(own[:2] for own in seen))  # tracklets are in the order of first images
    for (camera, track), identity in zip(keys, joined.identities, strict=True):
        print(f"  {camera}  {track}  ->  {identity}")

    if records.has("identity"):
        of = {(r.camera, r.sequence or ""): r.identity or "" for r in records}
        names = [of[key] for key in keys]
        print(gracl.compare_labels(joined.identities, np.unique(names, return_inverse=True)[1]))


if __name__ == "__main__":
    main()
