"""`gracl calibrate`: the threshold that means "unknown", for a stated rate of false matches."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gracl.commands.options import Images, LayoutName, load
from gracl.errors import ConfigError, DataError
from gracl.paths import is_folder
from gracl.terminal import Bars, console, print_left_out, print_notes

if TYPE_CHECKING:
    from gracl.clustering import Labels
    from gracl.data.records import Dataset, Records
    from gracl.features import Features


@dataclass(frozen=True)
class Calibrate:
    """Find the similarity below which a query is unknown, for a stated rate of false matches."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder, or a model.safetensors."""
    data: Images
    rate: float = 0.001
    """Share of strangers that may be taken for someone they are not."""
    rate_per: Literal["comparison", "search"] = "comparison"
    """Whether of pairs of images, or of searches among all images; see docs/calibrate.md."""
    pairs: Path | None = None
    """A CSV (first, second, same) of judged image pairs from all of DATA, same being 1 or 0."""
    evidence: Literal["auto", "pairs", "identities", "tracklets", "clusters"] = "auto"
    """What shows who is who; auto is the first of these that there is."""
    part: Literal["auto", "train", "gallery"] = "auto"
    """Which images; auto is the gallery where there is one. Queries are not looked at."""
    protocol: str = "auto"
    """What a genuine pair must differ in: cross-camera, date, sequence or any."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """The JSON file to write; calibration.json in the run's folder if not given."""
    on_bad: Literal["refuse", "skip"] = "skip"
    """An image that cannot be read: stop with its name, or leave it out and say so."""
    seed: int = 0
    """Of what is drawn, where there is too much to look at all."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    json: bool = False
    """Print JSON."""
    layout: LayoutName = None


def calibrate(command: Calibrate) -> None:
    """Find a threshold, say how far it may be trusted, and write it down."""
    from gracl import calibration, embedding
    from gracl.data.pairs import read_pairs
    from gracl.files import load_model, require_calibration_writable, write_calibration
    from gracl.training import use_threads

    out = command.out or (command.run if is_folder(command.run) else Path()) / "calibration.json"
    require_calibration_writable(out)
    _require_sound(command)
    use_threads(command.threads)
    model = load_model(command.run)
    dataset = load(command)
    images = _images(command, dataset)
    with Bars() as bars:
        found = embedding.embed(
            model,
            images,
            device=command.device,
            on_bad=command.on_bad,
            progress=lambda done, total: bars("embed", done, total or done),
        )
    judged = None
    if command.pairs is not None:
        judged = read_pairs(command.pairs, found.records, root=dataset.root)
    kind = command.evidence
    if kind == "auto":
        kind = calibration.strongest(found.records, judged)
    done = calibration.calibrate(
        found,
        rate=command.rate,
        rate_per=command.rate_per,
        evidence=kind,
        pairs=judged,
        labels=_labels(command, found) if kind == "clusters" else None,
        protocol=command.protocol,
        seed=command.seed,
    )
    done = replace(done, notes=(*_trained_on(command.run, found.records), *done.notes))
    write_calibration(out, done)
    if command.json:
        print(json.dumps({"data": dataset.name, **asdict(done)}))
        return
    print_notes(dataset)
    print_left_out(found.left_out)
    console.print(f"{dataset.name}, {len(found)} images: {done}", soft_wrap=True)
    console.print(f"written: {out}", soft_wrap=True)


def _require_sound(command: Calibrate) -> None:
    """Refuses what would not be read, or could only fail after all the work."""
    from gracl.data import protocols

    if not 0 < command.rate < 1:
        raise ConfigError(f"--rate is {command.rate:g}; expected a share in (0, 1), such as 0.01")
    if command.pairs is not None and command.evidence not in ("auto", "pairs"):
        raise ConfigError(f"--pairs is given, and --evidence {command.evidence} does not read it")
    if command.pairs is not None and command.part != "auto":
        raise ConfigError(
            f"--pairs names its images, so --part {command.part} is not read; leave it out"
        )
    if command.evidence == "pairs" and command.pairs is None:
        raise ConfigError("--evidence pairs needs a table of them; give --pairs FILE")
    if command.protocol != "auto":
        protocols.find(command.protocol)
        if command.evidence not in ("auto", "identities"):
            raise ConfigError(
                f"--protocol belongs to identities, and --evidence is {command.evidence}; leave it out"
            )


def _images(command: Calibrate, dataset: Dataset) -> Records:
    """The images that are judged; else the gallery, which is new to the model and no query."""
    import numpy as np

    from gracl.data.pairs import read_pairs
    from gracl.data.records import Records

    if command.pairs is not None:
        known = (*dataset.train, *dataset.query, *dataset.gallery)
        images = Records(tuple(dict.fromkeys(known)))
        judged = read_pairs(command.pairs, images, root=dataset.root)
        return images.take(np.unique(np.concatenate([judged.must, judged.cannot])))
    part = command.part
    if part == "auto":
        part = "gallery" if len(dataset.gallery) else "train"
    images = dataset.gallery if part == "gallery" else dataset.train
    if not len(images):
        raise DataError(
            f"{dataset.name} has no images in its part '{part}'; it has {len(dataset.train)} to train "
            f"on, and {len(dataset.gallery)} in its gallery. Give another --part"
        )
    return images


def _labels(command: Calibrate, found: Features) -> Labels:
    """Clusters by the run's own settings, with the links that it would honour."""
    from gracl import training
    from gracl.labelling import known_links
    from gracl.runs import Run

    if not is_folder(command.run):
        raise ConfigError("--evidence clusters clusters as the run did; give its folder as RUN")
    config = Run(command.run).config
    records = found.records.unlabelled()
    links = known_links(records, config.data, source=None, root=Path())
    training.forecast_labels(len(found), found.dim, config).announce()
    known = training.known_of(records, config, links=links)
    labels, _ = training.build_method(config.method, known).label(found.features)
    return labels


def _trained_on(run: Path, records: Records) -> tuple[str, ...]:
    """Says so where the model has seen the images that its threshold is taken from."""
    from gracl.runs import Run

    if not (run / "labels.csv").is_file():
        return ()
    trained = {os.path.realpath(path) for path, _ in Run(run).labels}
    n = sum(os.path.realpath(record.path) in trained for record in records)
    if not n:
        return ()
    return (
        f"the model was trained on {n} of these {len(records)} images, so it tells them apart better "
        "than others: strangers that it has not seen may reach the threshold more often than said here",
    )
