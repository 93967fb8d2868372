"""One frozen, typed tree of settings: defaults < recipe < YAML file < command line.

Every section checks its own types and ranges once, when it is made; a wrong key or value is refused
with the nearest right one. Nothing heavy is imported here, so that `gracl --help` stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from gracl.errors import ConfigError, did_you_mean
from gracl.method_settings import GRACLConfig, MethodConfig, settings_of
from gracl.paths import is_file
from gracl.sections import Section, ranged, replaced, shown


@dataclass(frozen=True)
class DataConfig(Section):
    """Images in."""

    on_bad: Literal["skip", "refuse"] = "skip"
    """Leave out images that cannot be decoded, and list them; or stop."""
    link_sequences: bool = False
    """Images of one sequence (tracklet, burst) must share a cluster."""
    separate_boxes: bool = False
    """Two crops of one picture cannot share a cluster."""


@dataclass(frozen=True)
class ModelConfig(Section):
    """The network."""

    backbone: str = "resnet50"
    """Any timm backbone that gives feature maps or tokens, or resnet50_ibn_a and its like."""
    weights: str = "none"
    """"none": random. "pretrained": timm's own. "hf-hub:org/name": from the hub. Else a file."""
    size: tuple[int, int] = (256, 128)
    """Height and width in pixels that every crop is resized to."""
    pooling: Literal["auto", "gem", "average", "cls"] = "auto"
    """Generalised mean with a learnt power, plain mean, or class token; auto suits the backbone."""
    last_stride: Literal[1, 2] = 1
    """Stride of the last stage; 1 keeps maps twice as large. Tokens have none: nothing changes."""
    parts: int = ranged(0, 0, 8)
    """Stripes of the image, top to bottom, with features of their own; for methods that need them."""


@dataclass(frozen=True)
class SamplerConfig(Section):
    """What a batch is made of."""

    clusters_per_batch: int = ranged(16, 2)
    """Clusters in a batch."""
    images_per_cluster: int = ranged(16, 1)
    """Images of each."""
    other_cameras: bool = True
    """Choose a cluster's images from different cameras, where cameras are known."""


@dataclass(frozen=True)
class AugmentConfig(Section):
    """Random changes of training images."""

    flip: float = ranged(0.5, 0.0, 1.0)
    """Probability of mirroring left and right."""
    pad: int = ranged(10, 0)
    """Pixels by which an image is shifted at most."""
    erase: float = ranged(0.5, 0.0, 1.0)
    """Probability of erasing a rectangle."""
    color: float = ranged(0.0, 0.0, 1.0)
    """Strength of brightness, contrast and saturation change."""


@dataclass(frozen=True)
class TrainConfig(Section):
    """The training loop."""

    epochs: int = ranged(50, 1)
    """Times that images are clustered and trained on."""
    steps: int = ranged(200, 1)
    """Batches an epoch."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """adamw takes weight_decay off the weights themselves, not through the gradient."""
    learning_rate: float = ranged(3.5e-4, 1e-8, 1.0)
    """At its highest."""
    weight_decay: float = ranged(5e-4, 0.0, 1.0)
    """As L2 in adam."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """Drops of the learning rate; or half a cosine down to 0 at the last epoch; or neither."""
    warmup: float = ranged(0.0, 0.0)
    """Epochs over which the learning rate rises from a hundredth to its height."""
    decay_every: int = ranged(20, 1)
    """Epochs between two drops."""
    decay_factor: float = ranged(0.1, 0.0, 1.0)
    """What the learning rate is multiplied by at each drop."""
    clip: float = ranged(0.0, 0.0)
    """Length that a step's gradient is cut to; 0 leaves it."""
    ema: float = ranged(0.0, 0.0, 0.99999)
    """Share of itself that a teacher keeps at each step; it then makes the features that are
    clustered, and is the model in the end. 0 is none."""
    batchnorm_group: int = ranged(64, 2)
    """Images that BatchNorm, and the device, sees at a time, whatever the batch and the number of
    devices."""
    extract_batch: int = ranged(256, 1)
    """Images at a time when features are taken."""
    seed: int = ranged(0, 0)
    """Of weights, batches and augmentation."""
    device: str = "auto"
    """"auto" is the first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps. Under torchrun
    each process takes its own."""
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = "auto"
    """Of the network alone. auto: bfloat16 on a GPU that has it, else float16; float32 on a CPU."""
    compile: bool = False
    """Compile the network by torch.compile: slow to start, then faster on most GPUs."""
    store: Literal["auto", "device", "host"] = "auto"
    """Where decoded images wait: on the device where they fit, always there, or in host memory."""
    deterministic: bool = False
    """The same digits in every run on one kind of GPU, at some speed; on a CPU they always are. On a
    GPU, an operation that torch cannot do so is an error."""
    channels_last: bool = True
    """Memory layout of images and weights: faster for most networks, on CPU and GPU alike."""
    threads: int = ranged(0, 0)
    """CPU threads; 0 is as many as there are cores."""
    memory: float = ranged(0.0625, 0.001)
    """GiB that one block of similarities may take while labels are made; less is slower."""


@dataclass(frozen=True)
class EvaluateConfig(Section):
    """Scoring."""

    protocol: Literal[
        "auto",
        "cross-camera",
        "date",
        "sequence",
        "any",
        "cuhk03-single-shot",
        "vehicleid-10x",
        "market1501+500k",
    ] = "auto"
    """What a match must differ in from its query, and what is drawn; auto is the first of cross-camera,
    date, sequence and any that the data allows."""
    tracklets: bool = False
    """Sequences search sequences, each by the mean of its images' features."""
    rerank: bool = False
    """Re-rank by k-reciprocal neighbours."""
    rerank_k1: int = ranged(20, 1)
    """Neighbours in re-ranking, besides the image itself."""
    rerank_k2: int = ranged(6, 1)
    """Nearest encodings averaged in re-ranking, the image itself included."""
    rerank_lambda: float = ranged(0.3, 0.0, 1.0)
    """Weight of the original distance in re-ranking."""
    expand: int = ranged(0, 0)
    """Gallery images that each query is averaged with before ranking; 0 is none."""
    expand_alpha: float = ranged(0.0, 0.0)
    """How much nearer images count for more in that average."""
    tpr: bool = False
    """Also the share of matching pairs accepted where 1 in 10,000, 1,000 or 100 others is."""
    every: int = ranged(0, 0)
    """Epochs between scorings while training; 0 is only before and after."""
    memory: float = ranged(0.0625, 0.001)
    """GiB that one block of similarities may take while images are ranked; less is slower."""


@dataclass(frozen=True)
class Config(Section):
    """All settings of a run.

    >>> Config.load("market1501").method.eps
    0.5
    >>> Config().replace({"method": {"epss": 0.4}})
    Traceback (most recent call last):
    gracl.errors.ConfigError: unknown setting 'method.epss'; did you mean 'eps'? Known: ...
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=GRACLConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    @classmethod
    def load(cls, source: str | Path, *, over: Self | None = None) -> Self:
        """A recipe by name, or a YAML file.

        Args:
            source: a recipe's name or a file's path. A file may name the recipe it starts from:
                `recipe: market1501`.
            over: the settings that these change; the defaults if not given.
        """
        if str(source) in recipes():
            text = resources.files("gracl.recipes").joinpath(f"{source}.yaml").read_text("utf-8")
        else:
            path = Path(source)
            if not is_file(path):
                known = did_you_mean(str(source), recipes())
                raise ConfigError(f"'{source}' is neither a file that exists nor a recipe; {known}")
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{source} is not a text file in UTF-8: {error}") from error
        try:
            settings = yaml.safe_load(text) or {}
        except Exception as error:  # for dates and numbers that are none, PyYAML raises what it likes
            raise ConfigError(f"{source} is not YAML: {error}") from error
        if not isinstance(settings, dict):
            raise ConfigError(
                f"{source} holds a {type(settings).__name__}; expected sections such as 'train:'"
            )
        base = over or cls()
        if "recipe" in settings:
            recipe = settings.pop("recipe")
            recipe = recipe if isinstance(recipe, str) else shown(recipe)
            if recipe not in recipes():
                raise ConfigError(f"{source}: no recipe '{recipe}'; {did_you_mean(recipe, recipes())}")
            base = cls.load(recipe)
        return base.replace(settings)

    def replace(self, settings: Mapping[str, Any]) -> Self:
        """A copy with some settings changed, as nested mappings of plain values.

        Another `method.name` brings the settings that its method cannot do without, under these and
        where they stand at their defaults; what both methods have, and was changed, is kept. What the
        method that is left had brought goes back to its default, unless it has another value by now.

        >>> ice = Config().replace({"method": {"name": "ice"}})
        >>> ice.train.ema, ice.replace({"method": {"name": "gracl"}}).train.ema
        (0.999, 0.0)
        """
        method = settings.get("method")
        name = method.get("name", self.method.name) if isinstance(method, Mapping) else self.method.name
        if name == self.method.name:
            return replaced(self, settings)
        mine = replaced(self, self._still_as(self.method.brings))
        return replaced(replaced(mine, mine._not_yet_set(settings_of(name).brings)), settings)

    def _still_as(self, brought: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Defaults of the settings that are as a method brought them."""
        mine, defaults = self.plain(), type(self)().plain()
        return {
            name: {key: defaults[name][key] for key, v in values.items() if mine[name][key] == v}
            for name, values in brought.items()
        }

    def _not_yet_set(self, brought: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """What a method brings, without what was changed already."""
        mine, defaults = self.plain(), type(self)().plain()
        return {
            name: {key: v for key, v in values.items() if mine[name][key] == defaults[name][key]}
            for name, values in brought.items()
        }

    def to_yaml(self) -> str:
        """All settings, resolved."""
        return yaml.safe_dump(self.plain(), sort_keys=False)


def recipes() -> list[str]:
    """Names of the recipes that ship with gracl.

    >>> "market1501" in recipes()
    True
    """
    files = resources.files("gracl.recipes").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Settings in which two trees differ, by dotted name; None where a method has no such setting.

    >>> differences(Config(), Config().replace({"train": {"epochs": 3}}))
    {'train.epochs': (50, 3)}
    """
    mine, theirs = a.plain(), b.plain()
    return {
        f"{section}.{key}": (values.get(key), theirs[section].get(key))
        for section, values in mine.items()
        for key in {**values, **theirs[section]}
        if values.get(key) != theirs[section].get(key)
    }
