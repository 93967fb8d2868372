"""GRACL on real images: retrieval before and after, clusters against the truth, time and memory.

    python benchmarks/real_data.py cows FOLDER --weights FILE

FOLDER is a data set as `gracl train` takes it, FILE the backbone's weights. Settings come from
benchmarks/settings/NAME.yaml. Each seed is a process of its own (so that its peak memory is its own)
and draws its own split: of a set with enough identities, some are test only and are never trained on.
Scores are those of the last epoch. Results go to benchmarks/results/real_NAME.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import describe, spread

HERE = Path(__file__).parent
SPLITS: dict[str, float | None] = {
    # share of the training identities that become the test part of a seed
    "cows": 0.3,
    # None: the set's own test part
    "vehicles": None,
    "mini_mars": None,
    # trained, without identities, on the images that it is tested on
    "mini_mars_test_half": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(SPLITS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        print(json.dumps(train_once(arguments)))
        return
    runs = []
    for seed in arguments.seeds:
        command = [sys.executable, __file__, *sys.argv[1:], "--seed", str(seed)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        print(seed, runs[-1], flush=True)
    result = {
        **describe(),
        "command": f"python benchmarks/real_data.py {arguments.name} FOLDER --weights FILE"
        f" --threads {arguments.threads}",
        "settings": f"benchmarks/settings/{arguments.name}.yaml",
        "weights": arguments.weights.name,
        "protocol": runs[0]["protocol"],
        "images": runs[0]["images"],
        "mean_and_spread": {key: spread([run[key] for run in runs]) for key in MEASURED},
        "seeds": dict(zip(arguments.seeds, runs, strict=True)),
    }
    out = HERE / "results" / f"real_{arguments.name}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["mean_and_spread"], indent=1), f"\nwritten: {out.name}")


MEASURED = (
    "mAP_before", "mAP_after", "R1_before", "R1_after", "ARI_before", "ARI_after",
    "mAP_any_before", "mAP_any_after", "R1_any_before", "R1_any_after", "seconds", "peak_memory_MB",
)  # fmt: skip


def train_once(arguments: argparse.Namespace) -> dict[str, Any]:
    """One seed: everything measured, as plain values."""
    import torch

    import gracl
    from gracl.config import EvaluateConfig

    torch.set_num_threads(arguments.threads)
    seed, name = arguments.seed, arguments.name
    dataset = gracl.load_dataset(arguments.folder)
    share = SPLITS[name]
    if share is not None:
        dataset = gracl.split_by_identity(dataset, test_share=share, seed=seed)
    if name.endswith("_test_half"):
        dataset = dataclasses.replace(dataset, train=dataset.query)
    config = gracl.Config.load(HERE / "settings" / f"{name}.yaml").replace(
        {
            "model": {"weights": str(arguments.weights)},
            "train": {"seed": seed, "threads": arguments.threads},
        }
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        untrained = gracl.build_model(config.model, seed=seed)
        any_before = gracl.evaluate(untrained, dataset, EvaluateConfig(protocol="any"))
        run = gracl.train(config, dataset, Path(folder) / "run")
        seconds = time.perf_counter() - started
        any_after = gracl.evaluate(run.model, dataset, EvaluateConfig(protocol="any"))
        before, after = run.before, run.after
    return {
        "protocol": after["scores"]["protocol"],
        "images": {
            "train": len(dataset.train),
            "query": len(dataset.test[0]),
            "gallery": len(dataset.test[1]),
            "queries_without_match": after["scores"]["n_without_match"],
        },
        **{
            f"{short}_{when}": scores["scores"][key]
            for short, key in (("mAP", "mAP"), ("R1", "R1"))
            for when, scores in (("before", before), ("after", after))
        },
        **{
            f"ARI_{when}": scores["agreement"]["ari"]
            for when, scores in (("before", before), ("after", after))
        },
        "mAP_any_before": any_before.mAP,
        "mAP_any_after": any_after.mAP,
        "R1_any_before": any_before.cmc[1],
        "R1_any_after": any_after.cmc[1],
        "seconds": seconds,
        "peak_memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
