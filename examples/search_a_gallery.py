"""Build a gallery, search it with images that it does not hold, enrol one, and forget them again.

python examples/search_a_gallery.py runs/people people
"""

import argparse
from pathlib import Path

import gracl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("images", type=Path, help="data with identities, and queries of its own")
    parser.add_argument("--threshold", type=float, default=0.7, help="see calibrate_unknown.py")
    given = parser.parse_args()

    model = gracl.load_model(given.run)
    dataset = gracl.load_dataset(given.images)
    names = sorted({record.identity for record in dataset.gallery if record.identity})
    stranger = names[-1]
    held = gracl.Records(tuple(r for r in dataset.gallery if r.identity != stranger))

    # In memory; Gallery.create("people.gallery", model) makes a file that survives a power cut.
    gallery = gracl.Gallery.build(model, held)
    print(f"{len(held)} images of {len(gallery.identities())} individuals")

    right = 0
    for query in dataset.query:
        answer = gallery.search(query, k=5, threshold=given.threshold)
        truth = "unknown" if query.identity == stranger else query.identity
        right += answer.identity == truth
    print(f"{right} of {len(dataset.query)} queries answered rightly")

    mine = [record for record in dataset.query if record.identity == stranger]
    gallery.enrol("the stranger", mine[:1])
    for hit in gallery.search(mine[-1], k=3):
        print(f"  {hit.similarity:.2f}  {hit.identity}  {hit.path}")
    gallery.forget("the stranger")
    print("still there:", "the stranger" in gallery.identities())


if __name__ == "__main__":
    main()
