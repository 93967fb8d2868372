"""The command line: `gracl demo`, `train`, `compare`, `ablate`, `cluster`, `evaluate`, `profile`, ...

Nothing heavy is imported before a command is known to be well formed, so `--help` stays quick.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro
from rich.text import Text

from gracl.config import Config, EvaluateConfig, recipes
from gracl.errors import ConfigError, DataError, GraclError, did_you_mean
from gracl.method_settings import Algorithm
from gracl.terminal import (
    PROCESS,
    Bars,
    console,
    errors,
    print_before_and_after,
    print_clusters,
    print_comparison,
    print_epoch,
    print_exported,
    print_left_out,
    print_log,
    print_notes,
    print_outcome,
    print_profile,
    print_report,
    print_sweep,
)

if TYPE_CHECKING:
    from gracl.contenders import Contender
    from gracl.data.records import Dataset, Records
    from gracl.models.embedder import Embedder
    from gracl.runs import Run
    from gracl.training import Epoch

Flat = tyro.conf.arg(name="")
"""Takes a level of names away: --method.eps, not --config.method.eps."""
Images = Annotated[
    tyro.conf.Positional[Path],
    tyro.conf.arg(
        metavar="DATA",
        help="A folder of images, a table, boxes as JSON, or a published data set as it was unpacked.",
    ),
]
LayoutName = Annotated[
    str | None,
    tyro.conf.arg(
        help="How to read DATA, where there are several ways: market1501, msmt17-v2-train, ..."
    ),
]


@dataclass(frozen=True)
class Demo:
    """Draw people, learn to tell them apart without labels, show what was learnt. Minutes on a CPU."""

    out: Path = Path("runs/demo")
    """The run's folder; the same command continues what is there."""
    identities: int = 100
    """Drawn people to train on; as many further ones are the test."""
    config: Annotated[Config, Flat] = field(default_factory=Config)


@dataclass(frozen=True)
class Train:
    """Train GRACL on unlabelled images; the same command continues after any interruption."""

    data: Images
    out: Path | None = None
    """The run's folder; runs/<data>-<recipe> if not given."""
    links: Path | None = None
    """A CSV (first, second, link) of image pairs that must, or cannot, share a cluster."""
    recipe: str = "own-data"
    """Settings to start from: own-data, demo, market1501, msmt17, personx, veri776, dukemtmc."""
    settings: Path | None = None
    """A YAML file of settings over the recipe's; a recipe that it names takes the other's place."""
    config: Annotated[Config, Flat] = field(default_factory=Config)
    layout: LayoutName = None


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What `compare` and `ablate` share: each contender is trained with each seed, then scored."""

    data: Annotated[
        Path,
        tyro.conf.arg(metavar="DATA", help="As 'gracl train' takes it, with identities to score by."),
    ]
    seeds: int = 3
    """Trainings of each contender, with the seeds 0, 1, ...; two or more give an interval."""
    test_share: float | None = None
    """Where DATA has no test part: the share of identities that is one, drawn anew with each seed."""
    plot: bool = False
    """Draw mAP and ARI by epoch into OUT/curves.png (mAP also between first and last epoch with
    --evaluate.every); needs the extra report."""
    json: bool = False
    """Print JSON, the same as OUT/comparison.json."""
    recipe: str = "own-data"
    """Settings to start from, as of 'gracl train'."""
    settings: Path | None = None
    """A YAML file of settings over the recipe's; a recipe that it names takes the other's place."""
    config: Annotated[Config, Flat] = field(default_factory=Config)
    layout: LayoutName = None


@dataclass(frozen=True, kw_only=True)
class Compare(SideBySide):
    """Train methods, or files of settings, with the same seeds and compare them; resumable."""

    contenders: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="METHOD...", help="Names of methods, or YAML files of settings."),
    ] = ()
    out: Path = Path("runs/compare")
    """The folder of all runs; the same command continues what is there."""


@dataclass(frozen=True, kw_only=True)
class Ablate(SideBySide):
    """Train with several values of some settings and compare them; resumable."""

    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values: method.relation=cosine,jaccard. Give it again for another setting."""
    one_at_a_time: bool = False
    """The settings as they are and each single change; else every combination of the values."""
    out: Path = Path("runs/ablate")
    """The folder of all runs; the same command continues what is there."""


@dataclass(frozen=True)
class Evaluate:
    """Score a run's model on a data set."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    data: Images
    evaluate: Annotated[EvaluateConfig, Flat] = field(default_factory=EvaluateConfig)
    open_set: bool = False
    """Score how well known individuals are told from new ones, instead."""
    threshold: float | None = None
    """With --open-set: similarity from which a query is known; found in the gallery if not given."""
    answers: Path | None = None
    """With --open-set: a CSV (image_id, identity) of what each query is taken for."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    json: bool = False
    """Print JSON."""
    layout: LayoutName = None


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


@dataclass(frozen=True)
class Embed:
    """Write the features of images, by a run's model, as one table."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder, or a model.safetensors."""
    data: Annotated[
        tyro.conf.Positional[Path],
        tyro.conf.arg(metavar="IMAGES", help="As DATA of 'gracl train', or the file of one image."),
    ]
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("features.parquet")
    """What to write: .parquet (extra parquet), .npz or .csv."""
    batch_size: int = 256
    """Images that the model sees at a time; lower it if memory runs out."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """An image that cannot be read: stop with its name, or leave it out and say so."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    layout: LayoutName = None


@dataclass(frozen=True)
class Export:
    """Write a run's model as one file for other programs, checked against the model."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The file to write: .onnx, .pt2 (a torch program) or .pt (the backbone's weights for timm)."""
    format: Literal["onnx", "program", "torch"] | None = None
    """What to write; the ending of OUT tells it if not given."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    """Where images have their channels: (B, 3, H, W), or (B, H, W, 3) as they lie in memory."""
    resize: bool = False
    """Take images of any height and width, and resize them in the graph as gracl does."""
    normalized: bool = False
    """Take float32 images that the program has normalised already, as BoxMOT does."""
    half: bool = False
    """Compute the backbone in float16; images and features stay as they are."""


@dataclass(frozen=True)
class Profile:
    """Where the time of a training went, how fast it was, the memory it took."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder; the run may still be going on."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Check:
    """Read every image of a data set and say what is there, what is wrong, what can be scored."""

    data: Images
    json: bool = False
    """Print JSON."""
    layout: LayoutName = None


@dataclass(frozen=True)
class Draw:
    """Draw people seen by several cameras, as a data set to try things on."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """An empty or new folder."""
    identities: int = 100
    """People to train on."""
    test_identities: int = 50
    """Further people to test with."""
    cameras: int = 4
    """Cameras that see each of them."""
    images_per_camera: int = 4
    """Pictures of a person by each camera."""
    seed: int = 0
    """Of everything drawn."""


@dataclass(frozen=True)
class Convert:
    """Write a data set as plain image files and one table: boxes cut out, pictures upright."""

    data: Images
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """A new folder, or an empty one."""
    size: tuple[int, int] | None = None
    """Height and width to resize images to; their own if not given."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    """jpeg at quality 95, or png, which loses nothing."""
    layout: LayoutName = None


@dataclass(frozen=True)
class Split:
    """Divide the training images of a data set into training and test, as a CSV."""

    data: Images
    out: Path
    """The CSV to write; it can be given wherever a data set is asked for."""
    by: Literal["identity", "date", "burst"] = "identity"
    """What is kept whole: identities; days, later ones to the test; bursts of nearly the same image."""
    test_share: float = 0.5
    """Share of the identities, the dated images, or the images that becomes the test part."""
    seed: int = 0
    """Of everything drawn."""
    cutoff: str | None = None
    """With --by date: the first day of the test part, in place of the share."""
    per_identity: bool = False
    """With --by date: the last days of each identity."""
    near: float = 0.95
    """With --by burst: correlation from which images are nearly the same; 0: sequences alone."""
    apart: bool = False
    """With --by burst: keep each identity on one side, too."""
    queries: bool = False
    """Draw one query for each identity and camera (date, sequence); the others are the gallery."""
    query_share: float | None = None
    """Draw this share of each identity's test images as queries instead."""
    layout: LayoutName = None


@dataclass(frozen=True)
class Data:
    """Look at a data set, convert it, split it, or draw one."""

    what: Annotated[
        Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
        | Annotated[Split, tyro.conf.subcommand("split")]
        | Annotated[Draw, tyro.conf.subcommand("draw")],
        Flat,
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 1 the data is not usable, 2 an error, 130 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"gracl {metadata.version('gracl')}")
        return
    print_log()
    try:
        command = _parse(words)
        if isinstance(command, Data):
            command = command.what
        if PROCESS is not None and not isinstance(command, Train):
            raise ConfigError(
                "torchrun starts several processes, and only 'gracl train' shares its work among them; "
                "run this command without torchrun"
            )
        usable = ACTIONS[type(command)](command)
    except GraclError as error:
        if PROCESS:
            # What stops all processes is said by the first; torchrun then ends this one before it
            # speaks. What stops this one alone is said here.
            time.sleep(2)
            errors.print(f"process {PROCESS}:", end=" ")
        errors.print("error:", Text(str(error)), soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped; a training continues after its last whole epoch by the same command")
        sys.exit(130)
    sys.exit(1 if usable is False else 0)


def demo(command: Demo) -> None:
    """The embedded default."""
    from gracl.data.readers import load_dataset
    from gracl.data.store import cache_folder
    from gracl.data.synthetic import draw_people
    from gracl.pictures import draw_rank_list

    n, seed = command.identities, command.config.train.seed
    if n < 8:
        raise ConfigError(f"identities is {n}; expected at least 8")
    folder = cache_folder() / "drawn-people" / f"{n}-{seed}"
    if not (folder / "metadata.csv").is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted drawing left
        console.print(f"drawing {2 * n} people, seen by four cameras")
        draw_people(folder, identities=n, test_identities=n, seed=seed)
    dataset = load_dataset(folder)
    run = _train(command.config, dataset, command.out)
    picture = command.out / "matches.png"
    draw_rank_list(run.model, dataset, settings=command.config.evaluate).save(picture)
    console.print(f"queries and their first ten matches: {picture}", soft_wrap=True)


def train(command: Train) -> None:
    """Train, then say what came of it."""

    dataset = _load(command)
    out = command.out or Path("runs") / f"{dataset.name}-{command.recipe}"
    _train(command.config, dataset, out, command.links)


def compare(command: Compare) -> None:
    """Train methods or files of settings side by side."""
    from gracl.contenders import contenders_of

    _side_by_side(command, contenders_of(command.contenders, command.config))


def ablate(command: Ablate) -> None:
    """Train several values of settings side by side."""
    from gracl.contenders import grid

    varied = _varied(command.vary)
    _side_by_side(command, grid(command.config, varied, one_at_a_time=command.one_at_a_time))


def _varied(words: Sequence[str]) -> dict[str, list[str]]:
    """Values by setting, of words such as method.relation=cosine,jaccard or model.size=[64,32]."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, _, values = word.partition("=")
        if not name or not values:
            raise ConfigError(f"--vary {word}: expected one such as method.relation=cosine,jaccard")
        if name in found:
            raise ConfigError(f"--vary {name} is given twice; give all its values at once")
        found[name] = re.split(r",(?![^\[]*\])", values)  # no comma within brackets parts two
    return found


def _side_by_side(command: Compare | Ablate, contenders: Sequence[Contender]) -> None:
    """Trains all, then prints the table or the JSON."""
    from gracl.comparison import compare as compare_runs
    from gracl.comparison import draw_curves
    from gracl.sweep import require_drawable

    if command.seeds < 1:
        raise ConfigError(f"--seeds is {command.seeds}; expected 1 or more")
    if command.plot:
        require_drawable("curves.png")
    dataset = _load(command)
    settings: dict[str, Any] = {"seeds": range(command.seeds)}
    data = _by_seed(dataset, command.test_share)
    if command.json:
        found = compare_runs(contenders, data, command.out, **settings)
    else:
        print_notes(dataset)
        names = ", ".join(contender.name for contender in contenders)
        console.print(f"{command.seeds} trainings each of {names}", soft_wrap=True)
        with Bars() as bars:
            found = compare_runs(
                contenders, data, command.out, on_run=print_outcome, progress=bars, **settings
            )
    if command.plot:
        draw_curves(found, command.out / "curves.png")
    if command.json:
        print((command.out / "comparison.json").read_text(encoding="utf-8"))
        return
    print_comparison(found)
    console.print(f"all runs and comparison.json: {command.out}", soft_wrap=True)


def _by_seed(dataset: Dataset, test_share: float | None) -> Dataset | Callable[[int], Dataset]:
    """The data set as it is, or divided anew with each seed."""
    from gracl.data.splits import split_by_identity

    if test_share is None:
        return dataset
    if not dataset.tests_on_training_images:
        raise ConfigError(
            f"--test-share divides data without a test part, and {dataset.name} has one. Leave it out"
        )
    return lambda seed: split_by_identity(dataset, test_share=test_share, seed=seed)


def cluster(command: Cluster) -> bool:
    """Cluster images by a run's model; whether the clusters can be used."""
    from gracl.files import write_labels
    from gracl.openset import write_clusters
    from gracl.runs import Run, cluster_images
    from gracl.sweep import draw_sweep, sweep_eps
    from gracl.training import choose_device, use_threads

    use_threads(command.threads)
    run = Run(command.run)
    settings = {name: getattr(command, name) for name in ("clustering", "eps", "min_samples", "k1")}
    given = {name: value for name, value in settings.items() if value is not None}
    config = run.config.replace({"method": given})
    _require_sound(command, config)
    dataset = _load(command)
    print_notes(dataset)
    if command.animalclef is not None:
        _require_unique_names("--animalclef", dataset.train)
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
    _require_own_table("--out", command.out, "path,cluster")
    if command.animalclef is not None:
        _require_own_table("--animalclef", command.animalclef, "image_id,cluster")


def _require_own_table(option: str, path: Path, head: str) -> None:
    """Refuses to write a table where it cannot be, or over something that is not one of its kind."""
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"{option} is {path}; expected a file in a folder that exists")
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as lines:
            first = lines.readline()
        if not first.startswith(head):
            raise ConfigError(
                f"{path} exists and is no table with the columns {head}, so it is not overwritten. "
                f"Give another {option}"
            )


def _require_unique_names(option: str, images: Records) -> None:
    """An image's id is its file's name, which must then tell it from all others."""
    names = Counter(record.path.stem for record in images)
    name, count = max(names.items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise ConfigError(
            f"{option} names images by their files, and {count} are called '{name}'. Give them names "
            "of their own: gracl data convert DATA OUT"
        )


def evaluate(command: Evaluate) -> None:
    """Score a run's model."""
    from gracl.evaluation import evaluate as score
    from gracl.runs import Run
    from gracl.training import choose_device, use_threads

    if not command.open_set and (command.threshold, command.answers) != (None, None):
        raise ConfigError("--threshold and --answers belong to --open-set; give that too")
    dataset = _load(command)
    use_threads(command.threads)
    model = Run(command.run).model.to(choose_device(command.device))
    if command.open_set:
        _evaluate_open_set(command, model, dataset)
        return
    scores = score(model, dataset, command.evaluate)
    if command.json:
        print(json.dumps({"data": dataset.name, **asdict(scores)}))
        return
    console.print(f"{dataset.name}: {scores}", soft_wrap=True)
    if dataset.tests_on_training_images:
        console.print("no query and gallery here: these images searched each other")
    print_notes(dataset)


def _evaluate_open_set(command: Evaluate, model: Embedder, dataset: Dataset) -> None:
    from gracl.evaluation import evaluate_open_set
    from gracl.openset import write_answers

    settings, plain = command.evaluate, EvaluateConfig(protocol=command.evaluate.protocol)
    read = replace(settings, memory=plain.memory)
    if read != plain:
        raise ConfigError(
            "--open-set compares single images as they are: leave --tracklets, --rerank, --expand and "
            "--tpr out"
        )
    if command.answers is not None:
        _require_own_table("--answers", command.answers, "image_id,identity")
        _require_unique_names("--answers", dataset.test[0])
    protocol = settings.protocol
    scores, queries, given = evaluate_open_set(
        model,
        dataset,
        protocol="any" if protocol == "auto" else protocol,
        threshold=command.threshold,
    )
    if command.json:
        print(json.dumps({"data": dataset.name, **asdict(scores)}))
    else:
        console.print(f"{dataset.name}: {scores}", soft_wrap=True)
    if command.answers is not None:
        write_answers(command.answers, [record.path.stem for record in queries], given)


def embed(command: Embed) -> None:
    """Write features of images."""
    from gracl import embedding, features
    from gracl.data.parts import is_image
    from gracl.files import load_model
    from gracl.training import use_threads

    features.require_writable(command.out)
    use_threads(command.threads)
    model = load_model(command.run)
    images: Path | Dataset = command.data
    if not (command.data.is_file() and is_image(command.data.name)):
        images = _load(command)
        print_notes(images)
    with Bars() as bars:
        found = embedding.embed(
            model,
            images,
            batch_size=command.batch_size,
            device=command.device,
            on_bad=command.on_bad,
            progress=lambda done, total: bars("embed", done, total or done),
        )
    features.write_features(command.out, found)
    print_left_out(found.left_out)
    console.print(
        f"{len(found)} images, {found.dim} features each, by {found.backbone} "
        f"{found.fingerprint[:12]}: {command.out}",
        soft_wrap=True,
    )


def export(command: Export) -> None:
    """Write a run's model for other programs."""
    from gracl import export as exporting
    from gracl.runs import Run

    kind = exporting.format_of(command.out, command.format)
    choices: dict[str, Any] = {
        name: getattr(command, name) for name in ("layout", "resize", "normalized", "half")
    }
    exporting.require_writable(command.out, kind)
    if kind == "torch":
        given = [f"--{name}" for name, value in choices.items() if value not in (False, "nchw")]
        if given:
            raise ConfigError(f"{', '.join(given)}: weights alone have no graph; leave it out")
        done = exporting.export_weights(Run(command.run).model, command.out)
    else:
        write = exporting.export_onnx if kind == "onnx" else exporting.export_program
        done = write(Run(command.run).model, command.out, **choices)
    print_exported(done)


def profile(command: Profile) -> None:
    """Print where the time of a run went."""
    from gracl.profiling import profile_run
    from gracl.runs import Run

    found = profile_run(Run(command.run))
    if command.json:
        print(json.dumps(asdict(found)))
    else:
        print_profile(found)


def check(command: Check) -> bool:
    """Print what a data set holds; whether it can be trained on."""
    from gracl.data.check import check_dataset

    dataset = _load(command)
    with Bars() as bars:
        report = check_dataset(dataset, lambda done, total: bars("read", done, total))
    if command.json:
        print(json.dumps({**asdict(report), "usable": report.usable}, default=str))
    else:
        print_report(report)
    return report.usable


def convert(command: Convert) -> None:
    """Write a data set as plain files."""
    from gracl.data.convert import convert_dataset

    dataset = _load(command)
    with Bars() as bars:
        done = convert_dataset(
            dataset,
            command.out,
            size=command.size,
            image_format=command.image_format,
            progress=lambda done, total: bars("convert", done, total),
        )
    console.print(str(done), soft_wrap=True)


def split(command: Split) -> None:
    """Divide a data set, and write that down."""
    from gracl.data import splits

    if command.by != "date" and (command.cutoff is not None or command.per_identity):
        raise ConfigError("--cutoff and --per-identity belong to --by date")
    if command.by != "burst" and command.apart:
        raise ConfigError("--apart belongs to --by burst; --by identity keeps identities apart anyway")
    dataset = _load(command)
    share, seed = command.test_share, command.seed
    if command.by == "identity":
        divided = splits.split_by_identity(dataset, test_share=share, seed=seed)
    elif command.by == "date":
        divided = splits.split_by_date(
            dataset, cutoff=command.cutoff, test_share=share, per_identity=command.per_identity
        )
    else:
        with Bars() as bars:
            divided = splits.split_by_burst(
                dataset,
                test_share=share,
                seed=seed,
                near=command.near or None,
                by_identity=command.apart,
                progress=lambda done, total: bars("read", done, total),
            )
    if command.queries or command.query_share is not None:
        divided = splits.draw_queries(divided, share=command.query_share, seed=seed)
    splits.write_split(divided, command.out)
    sizes = f"{len(divided.train)} train, {len(divided.query)} query, {len(divided.gallery)} gallery"
    console.print(f"{command.out}: {sizes}", soft_wrap=True)
    print_notes(divided)


def draw(command: Draw) -> None:
    """Draw a data set."""
    from gracl.data.synthetic import draw_people

    try:
        folder = draw_people(**asdict(command))
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error
    console.print(f"drawn into {folder}", soft_wrap=True)


def _load(
    command: Train | Compare | Ablate | Evaluate | Cluster | Embed | Check | Convert | Split,
) -> Dataset:
    from gracl.data.readers import load_dataset

    if command.layout is None:
        return load_dataset(command.data)
    return load_dataset(command.layout, root=command.data)


ACTIONS: dict[type, Callable[[Any], bool | None]] = {
    Demo: demo,
    Train: train,
    Compare: compare,
    Ablate: ablate,
    Cluster: cluster,
    Evaluate: evaluate,
    Embed: embed,
    Export: export,
    Profile: profile,
    Check: check,
    Convert: convert,
    Split: split,
    Draw: draw,
}


def _parse(words: list[str]) -> Any:
    """The command, with the defaults of the recipe and the file that it names."""
    recipe = _value_of(words, "--recipe") or "own-data"
    if recipe not in recipes():
        raise ConfigError(f"no recipe '{recipe}'; {did_you_mean(recipe, recipes())}")
    config = Config.load(recipe)
    settings = _value_of(words, "--settings")
    if settings is not None:
        if not Path(settings).is_file():
            raise ConfigError(f"--settings {settings}: there is no such file")
        config = Config.load(settings, over=config)
    # The method decides which settings there are.
    method = _value_of(words, "--method.name")
    chosen = {} if method is None else {"method": {"name": method}}
    config = config.replace(chosen)
    demo_default = Demo(config=Config.load("demo").replace(chosen))
    train_default = Train(data=tyro.MISSING, recipe=recipe, config=config)
    compared: dict[str, Any] = {"data": tyro.MISSING, "recipe": recipe, "config": config}
    commands = Union[  # noqa: UP007 - its members are made at run time
        Annotated[Demo, tyro.conf.subcommand("demo", default=demo_default)],
        Annotated[Train, tyro.conf.subcommand("train", default=train_default)],
        Annotated[Compare, tyro.conf.subcommand("compare", default=Compare(**compared))],
        Annotated[Ablate, tyro.conf.subcommand("ablate", default=Ablate(**compared))],
        Annotated[Cluster, tyro.conf.subcommand("cluster")],
        Annotated[Evaluate, tyro.conf.subcommand("evaluate")],
        Annotated[Embed, tyro.conf.subcommand("embed")],
        Annotated[Export, tyro.conf.subcommand("export")],
        Annotated[Profile, tyro.conf.subcommand("profile")],
        Annotated[Data, tyro.conf.subcommand("data")],
    ]
    return tyro.cli(
        commands,
        prog="gracl",
        description="Learn to re-identify people, vehicles, animals or objects without labels.",
        args=words,
    )


def _value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag, read ahead: it decides the defaults of all others."""
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _train(config: Config, dataset: Dataset, out: Path, links: Path | None = None) -> Run:
    from gracl.runs import train as train_run

    console.print(
        f"{dataset.name}: {len(dataset.train)} images to learn from (read as {dataset.layout})"
    )
    print_notes(dataset)
    started = time.perf_counter()
    spent: list[float] = []

    def tell(epoch: Epoch) -> None:
        spent.append(sum(epoch.seconds.values()))
        print_epoch(epoch, config.train.epochs, seconds_each=sum(spent) / len(spent))

    with Bars() as bars:
        run = train_run(config, dataset, out, links=links, on_epoch=tell, progress=bars)
    if run.left_out:
        console.print(f"{len(run.left_out)} images could not be read; see {out / 'data.json'}")
    print_before_and_after(run)
    console.print(f"the cluster of each image: {out / 'labels.csv'}", soft_wrap=True)
    console.print(f"{time.perf_counter() - started:.0f} s; the run: {out}", soft_wrap=True)
    return run
