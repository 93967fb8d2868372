"""The house keeps its shape: layers look down, methods see no truth, the surface is documented."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import gracl

ROOT = Path(gracl.__file__).parent

LAYERS = [  # lowest first; a name with a dot at the end is all of a folder
    ("errors",),
    (
        "disk",
        "forecast",
        "lock",
        "_threads",
        "distributed",
        "stopwatch",
        "precision",
        "paths",
        "run_json",
    ),
    (
        "neighbors",
        "_search_pruned",
        "_search_approximate",
        "_jaccard_numba",
        "_jaccard_torch",
        "jaccard",
    ),
    (
        "links",
        "_dbscan_numba",
        "clustering",
        "sweep",
        "agreement",
        "_ranks_numba",
        "metrics",
        "rerank",
        "openset",
        "error_rates",
        "linkage",
        "linked_clusters",
        "presence",
        "doubt",
        "association",
    ),
    ("data.",),
    ("models.",),
    ("extraction", "activation", "tracklets", "all_pairs", "evidence", "calibration"),
    ("methods.",),
    ("sections", "method_settings", "config", "recipes."),
    ("optimization", "engine", "training", "evaluation", "rank_lists", "pictures"),
    ("files", "continuation", "logbook", "labelling", "runs", "features", "embedding", "tracking"),
    ("gallery.",),
    ("profiling", "contenders", "comparison", "contest", "curves", "study"),
    ("review.",),
    ("report.",),
    ("_export_graph", "_export_check", "export"),
    ("card", "repository", "hub"),
    ("web.",),
    ("terminal",),
    ("commands.",),
    ("cli",),
    ("__init__", "__main__"),
]
"""Every module has its layer, and imports from its own and from lower ones only."""


def modules() -> dict[str, ast.Module]:
    """Source by name below gracl, such as "data.store"; a folder's own file is "data.__init__"."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
        for path in sorted(ROOT.rglob("*.py"))
    }


MODULES = modules()


def layer_of(module: str) -> int | None:
    for height, names in enumerate(LAYERS):
        if any(module == name or (name[-1] == "." and module.startswith(name)) for name in names):
            return height
    return None


def imports(module: str, tree: ast.AST) -> Iterator[str]:
    """Modules of gracl that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by dots"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            if name.split(".")[0] == "gracl":
                yield resolve(name.removeprefix("gracl").removeprefix("."))


def resolve(name: str) -> str:
    """The module that a dotted name lies in."""
    while name and name not in MODULES:
        if f"{name}.__init__" in MODULES:
            return f"{name}.__init__"
        name = name.rpartition(".")[0]
    return name or "__init__"


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Public functions and classes, and the public methods of public classes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, kinds) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


# -- layers ---------------------------------------------------------------------------------------


def test_the_search_for_imports_finds_each_way_of_writing_one() -> None:
    lines = "import gracl.runs", "from gracl import metrics", "from gracl.data.store import decode"
    text = "\n".join(lines[:2]) + f"\ndef f():\n    {lines[2]}"
    assert list(imports("x", ast.parse(text))) == ["runs", "metrics", "data.store"]


@pytest.mark.parametrize("module", MODULES)
def test_module_has_a_layer(module: str) -> None:
    assert layer_of(module) is not None, f"give {module} a place in LAYERS"


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__init__"])
def test_module_imports_downwards_only(module: str) -> None:
    own = layer_of(module)
    for imported in imports(module, MODULES[module]):
        below = layer_of(imported)
        assert own is not None
        assert below is not None
        assert below <= own, f"gracl.{module} imports gracl.{imported}, which stands above it"


def test_settings_stop_at_the_run_layer() -> None:
    config = layer_of("config")
    assert config is not None
    users = {m for m, tree in MODULES.items() if m != "__init__" and "config" in imports(m, tree)}
    assert users
    assert all((layer_of(user) or 0) > config for user in users)


# -- methods --------------------------------------------------------------------------------------

TRUTH = {"identity", "identities", "pid", "pids", "truth", "Record", "Records", "Dataset"}


def names_used(tree: ast.AST) -> set[str]:
    """Every name that code, as opposed to prose, mentions."""
    found = set()
    for node in ast.walk(tree):
        found |= {getattr(node, field, None) for field in ("id", "attr", "arg", "name", "module")}
    return {str(name) for name in found if name is not None}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("methods.")])
def test_method_never_sees_a_true_identity(module: str) -> None:
    words = {word for name in names_used(MODULES[module]) for word in name.replace(".", "_").split("_")}
    assert not words & TRUTH
    assert not any(
        name.startswith(("data.", "evaluation")) for name in imports(module, MODULES[module])
    )


def reads_classes(tree: ast.AST) -> bool:
    """Whether code reads `classes` of anything but itself, as what a method is told has them."""
    return any(
        isinstance(node, ast.Attribute) and node.attr == "classes" and ast.unparse(node.value) != "self"
        for node in ast.walk(tree)
    )


def test_only_the_supervised_bound_reads_classes() -> None:
    methods = {name: tree for name, tree in MODULES.items() if name.startswith("methods.")}
    assert {name for name, tree in methods.items() if reads_classes(tree)} == {"methods.supervised"}
    needed = {name for name, tree in methods.items() if "frozenset({'classes'})" in ast.unparse(tree)}
    assert needed == {"methods.supervised"}


def test_the_search_for_names_would_find_an_identity() -> None:
    found = names_used(ast.parse("def f(own_pids): return record.identity"))
    assert {"own_pids", "identity"} <= found


# -- public surface -------------------------------------------------------------------------------


def test_public_names_are_sorted_and_unique() -> None:
    assert list(gracl.__all__) == sorted(set(gracl.__all__))


@pytest.mark.parametrize("name", gracl.__all__)
def test_public_name_can_be_imported_from_its_home(name: str) -> None:
    home = importlib.import_module(gracl._HOMES[name])
    assert getattr(gracl, name) is getattr(home, name)


def test_public_names_are_known_to_type_checkers() -> None:
    block = next(n for n in MODULES["__init__"].body if isinstance(n, ast.If))
    declared = {alias.asname for n in block.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert declared == set(gracl.__all__)


def test_dir_lists_the_public_names() -> None:
    assert set(gracl.__all__) <= set(dir(gracl))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gracl' has no attribute 'trian'"):
        gracl.trian  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module: str) -> None:
    tree = MODULES[module]
    assert ast.get_docstring(tree), f"gracl.{module}"
    missing = [
        name
        for name, node in public_definitions(tree)
        if not ast.get_docstring(node)  # type: ignore[arg-type]
    ]
    assert missing == []


def test_every_error_is_a_gracl_error() -> None:
    from gracl import errors

    kinds = [v for v in vars(errors).values() if getattr(v, "__module__", "") == errors.__name__]
    kinds = [kind for kind in kinds if isinstance(kind, type)]
    assert len(kinds) > 5
    assert all(issubclass(kind, gracl.GraclError) for kind in kinds)


def test_modules_import_in_no_circle() -> None:
    below = {
        name: {target for target in imports(name, tree) if target in MODULES and target != name}
        for name, tree in MODULES.items()
        if name != "__init__"  # its imports are for type checkers; names are loaded on first use
    }
    while free := [name for name, targets in below.items() if not targets & below.keys()]:
        for name in free:
            del below[name]
    assert not below, f"a circle among {sorted(below)}"
