"""Settings: defaults < recipe < file < command line, and nothing wrong or unread gets through."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

import gracl
from gracl import cli
from gracl.config import Config, TrainConfig, differences, recipes
from gracl.errors import ConfigError
from gracl.method_settings import SETTINGS, GRACLConfig, MethodConfig

SOURCE = Path(gracl.__file__).parent


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def changed(section: str, **values: Any) -> Any:
    return getattr(Config().replace({section: values}), section)


def parsed(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """What a command line asks for."""
    asked: list[Any] = []
    for kind in (cli.Train, cli.Demo):
        monkeypatch.setitem(cli.ACTIONS, kind, asked.append)
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 0
    return asked[0].config


# -- what overrules what --------------------------------------------------------------------------


def test_recipe_changes_some_defaults_and_leaves_the_rest() -> None:
    assert Config.load("market1501").method.eps == 0.5 != Config().method.eps
    assert Config.load("market1501").sampler == Config().sampler


def test_file_overrules_the_recipe_it_names(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", "recipe: msmt17\nmethod: {eps: 0.65}\n")
    config = Config.load(path)
    assert (config.method.eps, config.train.steps) == (0.65, 400)


def test_file_overrules_the_settings_it_is_loaded_over(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", "train: {epochs: 7}\n")
    config = Config.load(path, over=Config.load("msmt17"))
    assert (config.train.epochs, config.train.steps) == (7, 400)


def test_command_line_overrules_file_overrules_recipe_overrules_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "s.yaml", "method: {eps: 0.4, k1: 11}\n")
    words = ["--recipe", "msmt17", "--settings", str(path), "--method.eps", "0.3"]
    config = parsed(monkeypatch, "train", "photos", *words)
    assert config.method.eps == 0.3  # command line
    assert config.method.k1 == 11  # file
    assert config.train.steps == 400  # recipe
    assert config.method.k2 == Config().method.k2  # default


def test_train_starts_from_own_data_and_demo_from_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(monkeypatch, "train", "photos") == Config.load("own-data")
    assert parsed(monkeypatch, "demo") == Config.load("demo")
    expected = Config.load("demo").replace({"train": {"epochs": 2}})
    assert parsed(monkeypatch, "demo", "--train.epochs=2") == expected


def test_flag_and_value_may_be_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.yaml", "train: {seed: 3}\n")
    config = parsed(monkeypatch, "train", "photos", "--recipe=veri776", f"--settings={path}")
    assert config == Config.load("veri776").replace({"train": {"seed": 3}})


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert Config.load(write(tmp_path / "s.yaml", "# nothing yet\n")) == Config()


def test_settings_cannot_change_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().train.epochs = 3  # type: ignore[misc]


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metod": {}}, "unknown setting 'metod'; did you mean 'method'?"),
        ({"method": {"epss": 1}}, "unknown setting 'method.epss'; did you mean 'eps'?"),
        ({"train": {"lr": 1}}, "unknown setting 'train.lr'; Known: "),
        ({"train": {7: 1}}, "unknown setting 'train.7'; Known: "),
        ({"train": 5}, "train is 5; expected settings below it"),
        ({"train": {"epochs": 0}}, "train.epochs is 0; it must be at least 1"),
        ({"train": {"epochs": 5.0}}, "train.epochs is 5.0, of type float; expected int"),
        ({"train": {"epochs": "5"}}, "train.epochs is '5', of type str; expected int"),
        ({"train": {"epochs": True}}, "train.epochs is True; expected a whole number"),
        ({"train": {"device": 0}}, "train.device is 0, of type int; expected str"),
        ({"train": {"channels_last": 1}}, "train.channels_last is 1, of type int; expected bool"),
        ({"method": {"eps": 1.01}}, "method.eps is 1.01; it must be in [0.0, 1.0]"),
        ({"method": {"eps": -0.01}}, "method.eps is -0.01; it must be in [0.0, 1.0]"),
        ({"method": {"eps": "wide"}}, "method.eps is 'wide', of type str; expected float"),
        ({"method": {"eps": False}}, "method.eps is False, of type bool; expected float"),
        ({"method": {"eps": float("nan")}}, "method.eps is nan; expected a finite number"),
        ({"method": {"inter_weight": float("inf")}}, "inter_weight is inf; expected a finite number"),
        ({"method": {"inter_weight": 10**400}}, "of type int; expected float"),
        ({"method": {"update": "hard"}}, "method.update is 'hard'; "),
        ({"method": {"update": "criterium"}}, "did you mean 'criterion'?"),
        ({"method": {"update": ["mean"]}}, "method.update is ['mean']; "),
        ({"model": {"last_stride": True}}, "model.last_stride is True; "),
        ({"model": {"last_stride": 3}}, "model.last_stride is 3; "),
        ({"model": {"size": 256}}, "model.size is 256; expected 2 numbers, as [256, 128]"),
        ({"model": {"size": [256]}}, "model.size is [256]; expected 2 numbers"),
        ({"model": {"size": [256, 128.0]}}, "size is 128.0, of type float; expected int"),
        ({"model": {"size": [256, 4]}}, "model.size is [256, 4]; each must be at least 8 pixels"),
        ({"model": {"weights": None}}, "model.weights is None, of type NoneType; expected str"),
        (
            {"method": {"inter_weight": 0, "intra_weight": 0, "centroid_weight": 0}},
            "all loss weights are 0, so nothing would be learnt",
        ),
    ],
)
def test_wrong_settings_are_refused(settings: dict[Any, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config().replace(settings)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("method", "eps", 0.0),
        ("method", "eps", 1),
        ("train", "epochs", 1),
        ("train", "batchnorm_group", 2),
        ("model", "size", [8, 8]),
        ("method", "centroid_weight", 1e9),
    ],
)
def test_bounds_themselves_are_allowed(section: str, name: str, value: Any) -> None:
    found = getattr(changed(section, **{name: value}), name)
    assert found == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("value", ["5e-4", "0.0005", 0.0005])
def test_numbers_that_yaml_reads_as_text_are_numbers(value: object) -> None:
    assert changed("train", learning_rate=value).learning_rate == 5e-4


def test_yaml_number_without_a_point_is_accepted_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", "train: {weight_decay: 5e-4, learning_rate: 1}\n")
    train = Config.load(path).train
    assert (train.weight_decay, train.learning_rate) == (5e-4, 1.0)
    assert type(train.learning_rate) is float


def test_sections_check_themselves_when_made_directly() -> None:
    with pytest.raises(ConfigError, match="epochs is 0"):
        TrainConfig(epochs=0)
    with pytest.raises(ConfigError, match="all loss weights are 0"):
        GRACLConfig(inter_weight=0.0, intra_weight=0.0, centroid_weight=0.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"train: [", "is not YAML"),
        (b"- train\n- model\n", "holds a list; expected sections such as 'train:'"),
        (b"just words", "holds a str; expected sections"),
        (b"\xff\xfe\x00", "is not a text file in UTF-8"),
        (b"recipe: markt1501", "no recipe 'markt1501'; did you mean 'market1501'?"),
        (b"train: {epoch: 3}", "unknown setting 'train.epoch'; did you mean 'epochs'?"),
        (b"train: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "s.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        Config.load(tmp_path / "s.yaml")
    assert words in str(refused.value)


def test_file_that_names_itself_as_its_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    with pytest.raises(ConfigError, match="no recipe"):
        Config.load(write(path, f"recipe: {path}"))


def test_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match="neither a file that exists nor a recipe; did you mean 'market1501'"
    ):
        Config.load("market")


# -- recipes --------------------------------------------------------------------------------------

PERSON_AND_VEHICLE_RECIPES = ["dukemtmc", "market1501", "msmt17", "personx", "veri776"]


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads_and_changes_something(name: str) -> None:
    assert differences(Config(), Config.load(name))


def test_every_recipe_is_named_in_the_help_of_train() -> None:
    for name in recipes():
        assert name in (SOURCE / "commands" / "train.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PERSON_AND_VEHICLE_RECIPES)
def test_recipes_of_the_field_hold_its_published_values(name: str) -> None:
    config = Config.load(name)
    model, method, train, augment = config.model, config.method, config.train, config.augment
    assert (model.backbone, model.weights, model.last_stride) == ("resnet50", "pretrained", 1)
    assert model.size == ((224, 224) if name == "veri776" else (256, 128))
    assert (method.k1, method.k2, method.min_samples) == (30, 6, 4)
    assert (method.temperature, method.inter_momentum, method.intra_momentum) == (0.05, 0.1, 0.1)
    assert (config.sampler.clusters_per_batch, config.sampler.images_per_cluster) == (16, 16)
    assert (augment.flip, augment.pad, augment.erase) == (0.5, 10, 0.5)
    assert (train.learning_rate, train.weight_decay) == (3.5e-4, 5e-4)
    assert (train.epochs, train.decay_every, train.decay_factor) == (50, 20, 0.1)
    assert train.batchnorm_group == 64
    assert train.steps == (400 if name in ("msmt17", "veri776") else 200)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("market1501", 0.45, 0.6), ("dukemtmc", 0.6, 0.6), ("msmt17", 0.6, 0.7)],
)
def test_eps_lies_where_the_field_publishes_it(name: str, low: float, high: float) -> None:
    assert low <= Config.load(name).method.eps <= high


# -- YAML and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipes())
def test_yaml_holds_all_settings_and_reads_back_the_same(name: str, tmp_path: Path) -> None:
    config = Config.load(name).replace({"train": {"learning_rate": 1e-8, "seed": 5}})
    text = config.to_yaml()
    assert Config.load(write(tmp_path / "s.yaml", text)) == config
    assert yaml.safe_load(text) == config.plain()
    assert list(config.plain()["train"]) == [item.name for item in fields(TrainConfig)]


def test_differences_are_named_by_section_and_key() -> None:
    other = Config().replace({"model": {"size": [64, 32]}, "train": {"seed": 1}})
    expected = {"model.size": ([256, 128], [64, 32]), "train.seed": (0, 1)}
    assert differences(Config(), other) == expected
    assert differences(other, other) == {}


# -- another method -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "section", "key", "brought"),
    [("ice", "train", "ema", 0.999), ("pplr", "model", "parts", 3)],
)
def test_a_method_brings_what_it_needs_and_overrules_nothing(
    method: str, section: str, key: str, brought: float
) -> None:
    other = {"ema": 0.5, "parts": 6}[key]
    chosen = {"method": {"name": method}}
    assert Config().replace(chosen).plain()[section][key] == brought
    assert Config().replace({section: {key: other}}).replace(chosen).plain()[section][key] == other
    assert Config().replace({**chosen, section: {key: 0}}).plain()[section][key] == 0


@pytest.mark.parametrize(
    ("method", "section", "key"), [("ice", "train", "ema"), ("pplr", "model", "parts")]
)
def test_what_a_method_brought_goes_with_it_and_what_was_set_stays(
    method: str, section: str, key: str
) -> None:
    other, back = {"ema": 0.5, "parts": 6}[key], {"method": {"name": "gracl"}}
    for settings in (Config(), Config.load("own-data")):
        chosen = settings.replace({"method": {"name": method}})
        assert chosen.replace(back) == settings
        mine = chosen.replace({section: {key: other}})
        assert mine.replace(back).plain()[section][key] == other
        brought = chosen.plain()[section][key]
        assert chosen.replace({**back, section: {key: brought}}).plain()[section][key] == brought


def test_a_method_that_is_taken_up_after_another_brings_its_own() -> None:
    ice = Config().replace({"method": {"name": "ice"}})
    pplr = ice.replace({"method": {"name": "pplr"}})
    assert (pplr.train.ema, pplr.model.parts) == (0.0, 3)
    assert pplr.replace({"method": {"name": "ice"}}) == ice


def test_what_the_command_line_leaves_takes_along_what_it_brought(tmp_path: Path) -> None:
    """The settings of a run are all written out, whoever set them."""
    file = write(tmp_path / "ice.yaml", Config().replace({"method": {"name": "ice"}}).to_yaml())
    command = cli._parse(["train", "photos", "--settings", str(file), "--method.name", "gracl"])
    assert command.config.train.ema == 0.0
    words = ["train", "photos", "--settings", str(file), "--method.name", "gracl"]
    assert cli._parse([*words, "--train.ema", "0.999"]).config.train.ema == 0.999


@pytest.mark.parametrize("method", SETTINGS)
def test_settings_made_by_hand_are_those_of_their_method(method: str) -> None:
    kind = SETTINGS[method]
    assert kind() == kind(name=method)
    other = "gracl" if method != "gracl" else "ice"
    with pytest.raises(
        ConfigError, match=f"name is '{other}', whose settings are a .*; found a {kind.__name__}"
    ):
        kind(name=other)
    with pytest.raises(ConfigError, match=f"name is '{method}'.*found a MethodConfig.*replace"):
        MethodConfig(name=method)


def test_an_unknown_method_is_refused_by_hand_too() -> None:
    with pytest.raises(ConfigError, match=r"no method 'gracle'; did you mean 'gracl'"):
        MethodConfig(name="gracle")
    with pytest.raises(ConfigError, match=r"no method 'gracle'"):
        GRACLConfig(name="gracle")


def test_what_was_changed_goes_along_to_a_method_that_takes_it() -> None:
    mine = Config().replace({"method": {"eps": 0.4, "update": "criterion", "temperature": 0.1}})
    other = mine.replace({"method": {"name": "cluster-contrast"}}).plain()["method"]
    assert (other["eps"], other["update"], other["temperature"]) == (0.4, "each", 0.1)
    both = mine.replace({"method": {"name": "cluster-contrast", "update": "hardest"}})
    assert both.plain()["method"]["update"] == "hardest"


@pytest.mark.parametrize("name", [["gracl"], {"a": 1}, None, 3])
def test_a_method_that_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"method\.name is .*expected the name of a method"):
        Config().replace({"method": {"name": name}})


# -- every setting is read ------------------------------------------------------------------------

SECTIONS = {item.name: type(getattr(Config(), item.name)) for item in fields(Config)}


def sections_in(function: ast.AST) -> dict[str, str]:
    """Variables of a function that hold a section: arguments by type, others by assignment."""
    by_class = {kind.__name__: section for section, kind in SECTIONS.items()}
    found = {}
    for node in ast.walk(function):
        if isinstance(node, ast.arg) and node.annotation is not None:
            for kind, section in by_class.items():
                if kind in ast.unparse(node.annotation):
                    found[node.arg] = section
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            found |= {
                ast.unparse(t): node.value.attr for t in node.targets if node.value.attr in SECTIONS
            }
    return found


def settings_read() -> Iterator[tuple[str, str]]:
    """(section, field) wherever source reads `config.section.field` or `variable.field`."""
    for path in SOURCE.rglob("*.py"):
        if path.name == "config.py":
            continue
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            variables = sections_in(function)
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                    yield node.value.attr, node.attr
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    yield variables.get(node.value.id, ""), node.attr


@pytest.mark.parametrize("method", SETTINGS)
def test_settings_of_a_method_are_exactly_its_keyword_arguments(method: str) -> None:
    from gracl.methods import METHODS

    settings = SETTINGS[method](name=method)
    expected = {item.name: getattr(settings, item.name) for item in fields(settings)}
    found = {}
    for kind in METHODS[method].__mro__[:-1]:
        arguments = inspect.signature(kind.__init__).parameters.values()
        found |= {a.name: a.default for a in arguments if a.kind == a.KEYWORD_ONLY}
    assert {"name": method, **found} == expected


def test_every_method_has_its_own_settings() -> None:
    from gracl.methods import METHODS

    assert set(SETTINGS) == set(METHODS)


def test_choices_are_those_of_what_they_choose() -> None:
    """Spelt out twice, for the settings load nothing heavy."""
    from gracl import clustering, neighbors

    hints = get_type_hints(MethodConfig)
    assert get_args(hints["clustering"]) == get_args(clustering.Algorithm) == (*clustering.ALGORITHMS,)
    assert get_args(hints["search"]) == get_args(neighbors.Algorithm)


def test_augment_settings_are_arguments_of_augment() -> None:
    from gracl.data.augment import augment

    names = {item.name for item in fields(SECTIONS["augment"])}
    assert names <= set(inspect.signature(augment).parameters)


@pytest.mark.parametrize("section", sorted(SECTIONS.keys() - {"method", "augment"}))
def test_every_setting_is_read_somewhere(section: str) -> None:
    read = {field for owner, field in settings_read() if owner == section}
    assert {item.name for item in fields(SECTIONS[section])} <= read


def test_every_setting_says_what_it_is() -> None:
    trees = [ast.parse((SOURCE / f"{m}.py").read_text("utf-8")) for m in ("config", "method_settings")]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    sections = [node for node in classes if node.name.endswith("Config") and node.name != "Config"]
    assert len(sections) == len(SECTIONS) + len(SETTINGS)  # the method's own, and what all share
    for section in sections:
        for field, text in zip(section.body, [*section.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(text, ast.Expr), f"{section.name}.{ast.unparse(field.target)}"


def test_a_section_left_empty_in_yaml_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("train:\n", encoding="utf-8")
    assert Config.load(tmp_path / "empty.yaml") == Config()


@pytest.mark.parametrize(
    "text",
    [
        "x: 2024-13-45",
        "train: {epochs: !!float x}",
        "train: {epochs: !!bool x}",
        "train: {epochs: !!timestamp x}",
        "train: {seed: " + "9" * 5000 + "}",
        "[" * 100_000,
        "- " * 5000,
        "train: {epochs: !!python/object/apply:os.getpid []}",
        "recipe: {a: 1}",
    ],
)
def test_yaml_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError):
        Config.load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "place", ["train: {0}", "train: {{epochs: {0}}}", "train: {{schedule: {0}}}",
              "model: {{size: {0}}}", "method: {{name: {0}}}", "recipe: {0}"]
)  # fmt: skip
def test_an_error_does_not_write_out_what_aliases_multiply(tmp_path: Path, place: str) -> None:
    lists = ["&a0 [1]", *(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    (tmp_path / "a.yaml").write_text(place.format(f"[{', '.join(lists)}]"))  # 9 ** 11 ones
    with pytest.raises(ConfigError) as refused:
        Config.load(tmp_path / "a.yaml")
    assert len(str(refused.value)) < 10_000
