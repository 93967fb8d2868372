"""A method of your own in the same engine: a temperature for each cluster (docs/tutorials/research.md).

python examples/your_own_method.py people runs/concentration
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

import gracl
from gracl.methods import METHODS
from gracl.methods.memory import means_of_clusters, move_to_means
from gracl.methods.pseudo_labels import PseudoLabels


class Concentration(PseudoLabels):
    """Cluster means, each with a temperature that grows with the spread of its cluster."""

    temperature, momentum, smooth = 0.05, 0.1, 10

    def build_memory(self, features, labels, **_):
        """(C, D) means; and (C,) temperatures, whose mean is `temperature`."""
        means = means_of_clusters(features, labels)
        labels = torch.from_numpy(labels).to(features.device)
        member = labels >= 0
        y = labels[member]
        far = (features[member] - means[y]).norm(dim=1)
        sizes = torch.bincount(y).float()
        spread = torch.zeros_like(sizes).index_add(0, y, far) / (sizes * (sizes + self.smooth).log())
        self.temperatures = self.temperature * spread / spread.mean()
        return {"mean": means}

    def loss(self, batch):
        """Cross entropy over all means, each similarity by its cluster's temperature."""
        logits = batch.features.float() @ self.banks["mean"].T / self.temperatures.clamp(min=0.01)
        return {"mean": F.cross_entropy(logits, batch.labels)}

    @torch.no_grad()
    def update(self, batch):
        """Rows follow the mean of their images in the batch."""
        move_to_means(self.banks["mean"], batch.features, batch.labels, self.momentum)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="a folder of images, or a table")
    parser.add_argument("out", type=Path, help="the run's folder")
    parser.add_argument("--settings", default="demo", help="a recipe, or a YAML file")
    given = parser.parse_args()

    METHODS["concentration"] = Concentration
    config = gracl.Config.load(given.settings).replace({"method": {"name": "concentration"}})
    run = gracl.train(config, gracl.load_dataset(given.images), given.out)
    print(run.epochs[-1]["losses"])


if __name__ == "__main__":
    main()
