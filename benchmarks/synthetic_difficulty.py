"""How hard are the drawn people?  Three yardsticks, measured on identities never trained on.

* a histogram of colours in six horizontal stripes, which needs no learning;
* a network as it is initialised, which needs no learning either;
* the same network trained with labels on other people: what there is to be learnt.

Run it as ``python benchmarks/synthetic_difficulty.py --seeds 3``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gracl.data.synthetic import draw_person
from measuring import describe, spread

CAMERAS, SHOTS = 4, 4
FULL_SIZE = (128, 64)
PEOPLE_PER_BATCH, IMAGES_PER_PERSON = 16, 4
TEMPERATURE = 0.05
NETWORK = "resnet10t"


class People:
    """Crops of a range of identities with who and where: images (N, 3, H, W), uint8."""

    def __init__(self, identities: range, size: tuple[int, int], seed: int) -> None:
        keys = [(p, c, s) for p in identities for c in range(CAMERAS) for s in range(SHOTS)]
        crops = [draw_person(p, camera=c, shot=s, size=size, seed=seed) for p, c, s in keys]
        self.crops = np.stack(crops)
        self.images = torch.from_numpy(self.crops).permute(0, 3, 1, 2).contiguous()
        self.who = np.array([p for p, _, _ in keys])
        self.where = np.array([c for _, c, _ in keys])

    def score(self, features: NDArray[np.float32]) -> float:
        """Cross-camera mAP of features (N, D) of unit length, in percent."""
        return mean_average_precision(features, self.who, self.where)


def mean_average_precision(
    features: NDArray[np.float32], who: NDArray[np.int64], where: NDArray[np.int64]
) -> float:
    """Cross-camera mAP in percent, every image a query; same person and camera is left out."""
    similarity = features @ features.T
    scores = []
    for query, row in enumerate(similarity):
        kept = (who != who[query]) | (where != where[query])
        hits = (who == who[query])[kept][np.argsort(-row[kept], kind="stable")]
        places = np.flatnonzero(hits)
        scores.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
    return 100 * float(np.mean(scores))


def histograms(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Square roots of colour histograms (Hellinger), six stripes of 8 x 8 x 8 bins: (N, 3072)."""
    bins = (crops >> 5).astype(np.int64) @ np.array([64, 8, 1])
    stripes = np.array_split(bins, 6, axis=1)
    rows = [
        np.concatenate([np.bincount(s[n].ravel(), minlength=512) for s in stripes])
        for n in range(len(crops))
    ]
    counts = np.sqrt(np.array(rows, dtype=np.float32))
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    return counts


def as_input(images: Tensor) -> Tensor:
    return (images.float() / 255 - 0.45) / 0.25


@torch.no_grad()
def embed(network: nn.Module, images: Tensor) -> NDArray[np.float32]:
    network.eval()
    parts = [F.normalize(network(as_input(batch))) for batch in torch.split(images, 128)]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor) -> None:
    """Set the batch norm statistics to the mean over the data, in one pass."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average over batches
    for batch in torch.split(images[torch.randperm(len(images))], 128):
        network(as_input(batch))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1


def augment(images: Tensor) -> Tensor:
    """Random mirror, crop after padding and gains of the channels, for every image its own."""
    n, _, h, w = images.shape
    pad = h // 16
    padded = F.pad(images, (pad,) * 4, mode="replicate")
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, n)).tolist()
    crops = [
        image[:, top : top + h, left : left + w]
        for image, top, left in zip(padded, tops, lefts, strict=True)
    ]
    out = torch.stack(crops)
    mirrored = torch.rand(n) < 0.5
    out[mirrored] = out[mirrored].flip(-1)
    # Each channel's gain: the cameras' tints are few, and must not be learnt by heart.
    gains = torch.exp(0.2 * torch.randn(n, 3, 1, 1))
    return out * gains


def train(network: nn.Module, data: People, epochs: int, seed: int) -> None:
    """Softmax over the training people, normalised and with a temperature."""
    rng = np.random.default_rng(seed)
    people = np.unique(data.who)
    members = {p: np.flatnonzero(data.who == p) for p in people}
    place = {p: i for i, p in enumerate(people)}
    with torch.no_grad():
        width = network(as_input(data.images[:2])).shape[1]
    prototypes = nn.Parameter(torch.randn(len(people), width))
    optimiser = torch.optim.AdamW([*network.parameters(), prototypes], weight_decay=1e-3)
    rounds = CAMERAS * SHOTS // IMAGES_PER_PERSON * len(people) // PEOPLE_PER_BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=epochs * rounds)
    network.train()
    for _ in range(epochs * rounds):
        chosen = rng.choice(people, PEOPLE_PER_BATCH, replace=False)
        picks = [rng.choice(members[p], IMAGES_PER_PERSON, replace=False) for p in chosen]
        labels = torch.tensor([place[p] for p in chosen]).repeat_interleave(IMAGES_PER_PERSON)
        images = augment(data.images[np.concatenate(picks)].float()).clamp(0, 255)
        features = F.normalize(network(as_input(images)))
        loss = F.cross_entropy(features @ F.normalize(prototypes).T / TEMPERATURE, labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()


def measure(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one world: mAP in percent, seconds of one core, crops a second."""
    torch.manual_seed(seed)
    unseen = range(options.identities, options.identities + options.test)
    small = (options.height, options.height // 2)

    began = time.process_time()
    full = People(unseen, FULL_SIZE, seed)
    figures = {"crops_per_second": len(full.crops) / (time.process_time() - began)}
    figures["histogram_128x64"] = full.score(histograms(full.crops))

    network = timm.create_model(NETWORK, pretrained=False, num_classes=0)
    calibrate(network, full.images)
    figures["untrained_128x64"] = full.score(embed(network, full.images))
    test = People(unseen, small, seed)
    calibrate(network, test.images)
    name = f"{small[0]}x{small[1]}"
    figures[f"untrained_{name}"] = test.score(embed(network, test.images))

    data = People(range(options.identities), small, seed)
    began = time.process_time()
    train(network, data, options.epochs, seed)
    figures["training_seconds"] = time.process_time() - began
    figures[f"supervised_{name}"] = test.score(embed(network, test.images))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--identities", type=int, default=200, help="people to train on")
    parser.add_argument("--test", type=int, default=100, help="further people to measure on")
    parser.add_argument("--seeds", type=int, default=3, help="how many worlds, from seed 0 on")
    parser.add_argument("--epochs", type=int, default=10, help="of supervised training")
    parser.add_argument("--height", type=int, default=64, help="of the training crops")
    parser.add_argument("--threads", type=int, default=1)
    default = Path(__file__).parent / "results" / "synthetic_difficulty.json"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    runs = []
    for seed in range(options.seeds):
        runs.append(measure(seed, options))
        print(f"seed {seed}:", {name: round(x, 1) for name, x in runs[-1].items()}, flush=True)
    summary = {name: spread([run[name] for run in runs]) for name in runs[0]}
    print(f"\n{'':20}{'mean':>8}{'std':>8}   (over {len(runs)} seeds)")
    for name, row in summary.items():
        print(f"{name:20}{row['mean']:8.1f}{row['std']:8.1f}")

    report: dict[str, Any] = {
        **describe(),
        "what": "cross-camera mAP in percent on identities not trained on; every image a query",
        "command": "python benchmarks/synthetic_difficulty.py "
        + " ".join(
            f"--{name} {getattr(options, name)}"
            for name in ("identities", "test", "seeds", "epochs", "height", "threads")
        ),
        "network": NETWORK,
        "cameras": CAMERAS,
        "images_per_camera": SHOTS,
        "seeds": list(range(options.seeds)),
        "summary": summary,
        "runs": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {options.out.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
