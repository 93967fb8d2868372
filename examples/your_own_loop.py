"""The training loop in your hands: it yields once an epoch, and what to do then is yours.

python examples/your_own_loop.py people loop.safetensors --settings demo
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

import gracl
from gracl.training import choose_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="a folder of images, or a table")
    parser.add_argument("out", type=Path, help="a file for the weights")
    parser.add_argument("--settings", default="own-data", help="a recipe, or a YAML file")
    given = parser.parse_args()

    config = gracl.Config.load(given.settings)
    dataset = gracl.load_dataset(given.images)
    model = gracl.build_model(config.model, seed=config.train.seed)
    model.to(choose_device(config.train.device))
    images = gracl.open_store(dataset.train.unlabelled(), size=model.size)  # decoded, once

    stable = 0
    for epoch in gracl.fit(model, images, config):
        stability = epoch.health.stability or 0.0  # no label is needed for it
        print(f"epoch {epoch.number}: {epoch.n_clusters} clusters, stable {stability:.2f}")
        save_file(epoch.model.state_dict(), given.out)
        stable = stable + 1 if stability > 0.95 else 0
        if stable == 3:
            print("clusters have stopped changing; enough")
            break

    model.eval()
    if dataset.train.has("identity"):
        print(gracl.evaluate(model, dataset))


if __name__ == "__main__":
    main()
