"""`gracl cluster`: images by a run's model, and which eps to take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gracl.commands.options import (
    Images,
    LayoutName,
    load,
    require_own_table,
    require_unique_names,
)
from gracl.config import Config
from gracl.errors import ConfigError
from gracl.method_settings import Algorithm
from gracl.terminal import Bars, console, print_clusters, print_left_out, print_notes, print_sweep


@dataclass(frozen=True)
class Cluster:
    """Cluster images by a run's model; or try many eps and see which to take."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    data: Images
    out: Path = Path("clusters.csv")
    """Where the cluster of each image is written."""
    animalclef: Path | None = None
    """Also write image_id, cluster as AnimalCLEF takes it, outliers as clusters of one. An image's id
    is its file's name without the ending."""
    sweep: bool = False
    """Cluster with eps from 0.3 to 0.8; the CSV is that of the suggested one."""
    plot: Path | None = None
    """With --sweep: a picture of it (.png, .svg, .pdf); needs the extra report."""
    links: Path | None = None
    """A CSV (first, second, link) of image pairs that must, or cannot, share a cluster."""
    clustering: Algorithm | None = None
    """How distances become clusters; the run's if not given."""
    eps: float | None = None
    """Jaccard distance up to which two images are neighbours; the run's if not given."""
    min_samples: int | None = None
    """Neighbours, itself included, that an image needs to start a cluster; the run's if not given."""
    k1: int | None = None
    """Neighbours of the Jaccard distance, the image itself included; the run's if not given."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    layout: LayoutName = None


def cluster(command: Cluster) -> bool:
    """Cluster images by a run's model; whether the clusters can be used."""
    from gracl.files import write_labels
    from gracl.labelling import cluster_images
    from gracl.openset import write_clusters
    from gracl.runs import Run
    from gracl.sweep import draw_sweep, sweep_eps
    from gracl.training import choose_device, use_threads

    use_threads(command.threads)
    run = Run(command.run)
    settings = {name: getattr(command, name) for name in ("clustering", "eps", "min_samples", "k1")}
    given = {name: value for name, value in settings.items() if value is not None}
    config = run.config.replace({"method": given})
    _require_sound(command, config)
    dataset = load(command)
    print_notes(dataset)
    if command.animalclef is not None:
        require_unique_names("--animalclef", dataset.train)
    if len(dataset.query) or len(dataset.gallery):
        console.print("only the training images are clustered, not query and gallery")
    with Bars() as bars:
        found = cluster_images(
            run.model.to(choose_device(command.device)),
            dataset,
            config,
            links=command.links,
            progress=bars,
        )
    print_left_out(found.problems)
    labels, method = found.labels, found.method
    if 4 * method.k1 > len(labels):
        console.print(
            f"note: k1 is {method.k1} and there are {len(labels)} images, so each image's neighbours "
            "are much of what there is; try --k1 with the images of one identity",
            soft_wrap=True,
        )
    if command.sweep:
        tried = sweep_eps(
            found.distance,
            min_samples=method.min_samples,
            algorithm=method.clustering,
            links=found.links,
        )
        print_sweep(tried, found.records, dataset)
        if command.plot is not None:
            draw_sweep(tried, command.plot)
            console.print(f"drawn into {command.plot}", soft_wrap=True)
        if tried.suggestion is None:
            console.print(f"{command.out} is not written", soft_wrap=True)
            return False
        labels = tried.suggestion.labels
    else:
        print_clusters(labels, found.records, dataset)
    write_labels(command.out, found.records, labels)
    console.print(f"the cluster of each image: {command.out}", soft_wrap=True)
    if command.animalclef is not None:
        write_clusters(command.animalclef, [r.path.stem for r in found.records], labels)
        console.print(f"as AnimalCLEF takes it: {command.animalclef}", soft_wrap=True)
    return True


def _require_sound(command: Cluster, config: Config) -> None:
    """Refuses what could only fail, or overwrite something, after all the work."""
    from gracl.sweep import require_drawable

    method = config.method
    if command.plot is not None:
        if not command.sweep:
            raise ConfigError("--plot draws a sweep; give --sweep too")
        require_drawable(command.plot)
    if command.sweep and command.eps is not None:
        raise ConfigError("--sweep tries many eps; leave --eps out")
    if command.sweep and method.clustering == "hdbscan":
        raise ConfigError("hdbscan has no eps to sweep; give --clustering dbscan, or no --sweep")
    if method.clustering in ("agglomerative", "community") and method.eps >= 1:
        raise ConfigError(f"--eps is {method.eps:g}; {method.clustering} needs one below 1")
    require_own_table("--out", command.out, "path,cluster")
    if command.animalclef is not None:
        require_own_table("--animalclef", command.animalclef, "image_id,cluster")
