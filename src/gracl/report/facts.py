"""What was trained on what, with which settings, on what machine, and how long it took."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from gracl.config import Config
from gracl.data.records import FIELDS, Dataset, Records
from gracl.errors import RunError
from gracl.forecast import GIB, duration
from gracl.models.hub import HUB
from gracl.profiling import Profile, profile_run
from gracl.report.album import below, without_folders
from gracl.report.figures import number
from gracl.runs import Run
from gracl.study import Study

Row = tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """A stage of the training, and what it took."""

    name: str
    seconds: float
    share: float
    """Of all stages, in [0, 1]."""
    speed: float | None
    """Images a second, where images are gone through."""


@dataclass(frozen=True)
class Facts:
    """A run in words and numbers; no folder above the data's root is named."""

    name: str
    data: str
    layout: str
    method: str
    backbone: str
    ended: str
    """When the log's last line was written."""
    parts: tuple[Row, ...]
    """Part, images, and how many identities, cameras, dates and sequences are known of it."""
    left_out: tuple[tuple[str, str], ...]
    """Path and reason of what could not be used."""
    notes: tuple[str, ...]
    """What the reader of the data says of it, and the run's last epoch of its clusters."""
    settings: str
    """As YAML."""
    machine: tuple[Row, ...]
    stages: tuple[Stage, ...]
    time: str
    """All stages together, in words; "" where the log has no epoch."""


def facts_of(study: Study) -> Facts:
    """What a report says of a run before it shows anything."""
    run, dataset = study.run, study.dataset
    log = run.log
    try:
        profile = profile_run(run)
    except RunError:  # the log has no epoch with times, and all else can be shown
        profile = None
    warnings = run.epochs[-1].get("warnings", []) if run.epochs else []
    return Facts(
        name=run.folder.resolve().name,
        data=dataset.name,
        layout=dataset.layout,
        method=study.config.method.name,
        backbone=study.found.backbone,
        ended=str(log[-1].get("time", "")) if log else "",
        parts=_parts(dataset),
        left_out=_left_out(run, dataset),
        notes=tuple(without_folders(note, dataset.root) for note in (*dataset.notes, *warnings)),
        settings=_settings(study.config),
        machine=_machine(run, study, profile),
        stages=_stages(profile),
        time="" if profile is None else f"{number(profile.epochs)} epochs in {duration(profile.total)}",
    )


def _parts(dataset: Dataset) -> tuple[Row, ...]:
    sides = [("training", dataset.train), ("query", dataset.query), ("gallery", dataset.gallery)]
    return tuple((name, number(len(part)), *_counts(part)) for name, part in sides if len(part))


def _counts(records: Records) -> Row:
    """How many values of each fact are known; an em dash where none is."""
    known = [{value for value in records.values(name) if value is not None} for name in FIELDS]
    return tuple(number(len(values)) if values else "–" for values in known)


def _left_out(run: Run, dataset: Dataset) -> tuple[tuple[str, str], ...]:
    undecoded = [(Path(one["path"]), one["reason"]) for one in run.left_out]
    unread = [(problem.path, problem.reason) for problem in dataset.problems]
    return tuple(
        (below(dataset.root, path), without_folders(reason, dataset.root, path))
        for path, reason in [*undecoded, *unread]
    )


def _settings(config: Config) -> str:
    """All settings; of a file of weights its name alone."""
    weights = config.model.weights
    if not weights.startswith(HUB):
        weights = Path(weights).name
    model = dataclasses.replace(config.model, weights=weights)
    return dataclasses.replace(config, model=model).to_yaml()


def _machine(run: Run, study: Study, profile: Profile | None) -> tuple[Row, ...]:
    start = next((line for line in run.log if line["event"] == "start"), {})
    versions = {**start.get("versions", {}), "Python": start.get("python", "")}
    rows = [
        ("trained with", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("on", f"{start.get('device', '')}, {start.get('processes', 1)} process(es)"),
        ("model", f"{study.found.backbone}, fingerprint {study.found.fingerprint[:12]}"),
        (
            "images resized to",
            f"{study.images.size[0]} x {study.images.size[1]} pixels (height, width)",
        ),
    ]
    if profile is not None:
        memory = ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in profile.peak_memory.items())
        rows.append(("most memory of a process", memory))
    return tuple(rows)


def _stages(profile: Profile | None) -> tuple[Stage, ...]:
    if profile is None:
        return ()
    total = max(profile.total, 1e-9)
    return tuple(
        Stage(name, spent, spent / total, profile.images_per_second.get(name))
        for name, spent in profile.seconds.items()
    )
