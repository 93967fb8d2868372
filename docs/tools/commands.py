"""Pages of the reference: every command with its options, and every setting."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import sources

SECTIONS = {
    "DataConfig": "data",
    "ModelConfig": "model",
    "SamplerConfig": "sampler",
    "AugmentConfig": "augment",
    "TrainConfig": "train",
    "EvaluateConfig": "evaluate",
}


def pages() -> dict[str, str]:
    """Markdown by path."""
    return {"reference/commands.md": commands(), "reference/settings.md": settings()}


# -- commands -------------------------------------------------------------------------------------


def commands() -> str:
    """All commands, in the order of `gracl --help`."""
    parts = ["# Commands", "`gracl COMMAND --help` says the same in a terminal."]
    for words, node in _leaves("gracl.cli"):
        called = " ".join(["gracl", *words])
        positional, options = _split(node)
        shown = " ".join([called, *(name for name, _, _ in positional)])
        parts += [f"## {called}", f"```console\n$ {shown}\n```"]
        parts.append(sources.markdown(ast.get_docstring(node) or ""))
        rows = [
            f"| `{name}` | {f'`{default}`' if default else ''} | {text} |"
            for name, default, text in positional + options
        ]
        if rows:
            parts.append("| argument | if not given | |\n| --- | --- | --- |\n" + "\n".join(rows))
        if any("Config" in kind for _, kind, _, _ in _all_fields(node)):
            parts.append("All [settings](settings.md) are options too, as in `--train.epochs 20`.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _leaves(module: str, table: str = "COMMANDS") -> Iterator[tuple[list[str], ast.ClassDef]]:
    """Each command's words and class; groups such as `gracl data` are gone through."""
    for word, name in _table_of(module, table):
        if name.isupper():
            below = _leaves(f"gracl.commands.{word}", name)
            yield from (([word, *words], leaf) for words, leaf in below)
        else:
            yield [word], _class(name, module)


def _table_of(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Word and class of each command, from the table of all or from a group."""
    value = next(
        value for known, _, value, _ in sources.assigned(sources.tree(module).body) if known == name
    )
    table = next(node for node in ast.walk(ast.parse(value)) if isinstance(node, ast.Dict))
    for key, kind in zip(table.keys, table.values, strict=True):
        assert isinstance(key, ast.Constant)
        yield str(key.value), ast.unparse(kind).split(".")[-1]


def _modules() -> list[str]:
    folder = sources.SOURCE / "gracl" / "commands"
    return [
        f"gracl.commands.{file.stem}" for file in sorted(folder.glob("*.py")) if file.stem != "__init__"
    ]


def _class(name: str, first: str) -> ast.ClassDef:
    for module in (first, *_modules()):
        node = sources.definition(module, name)
        if isinstance(node, ast.ClassDef):
            return node
    raise LookupError(f"no class {name} in gracl.commands")


def _aliases() -> dict[str, str]:
    return {
        name: value
        for module in _modules()
        for name, _, value, _ in sources.assigned(sources.tree(module).body)
        if value.startswith("Annotated[")
    }


def _all_fields(node: ast.ClassDef) -> list[sources.Field]:
    """Its own, after those of what it extends."""
    above = [
        item
        for base in node.bases
        if isinstance(base, ast.Name)
        for item in _all_fields(_class(base.id, "gracl.commands.options"))
    ]
    return above + sources.fields(node)


Row = tuple[str, str, str]


def _split(node: ast.ClassDef) -> tuple[list[Row], list[Row]]:
    """What is typed in order, and what is typed by name."""
    positional: list[Row] = []
    options: list[Row] = []
    for name, kind, default, text in _all_fields(node):
        kind = _aliases().get(kind, kind)
        inner = re.match(r"Annotated\[(\w+), Flat\]", kind)
        if inner:
            if not inner[1].endswith("Config"):
                more = _split(_class(inner[1], "gracl.commands.options"))
                positional += more[0]
                options += more[1]
            continue
        said = _text(kind, "help") or text
        default = "needed" if default == "tyro.MISSING" else default
        shown = "" if default in ("None", "()", "''") or "field(" in default else default
        shown = re.sub(r"^Path\('(.*)'\)$", r"\1", shown).strip("'")
        if "Positional" in kind:
            positional.append((_text(kind, "metavar") or name.upper(), shown, sources.escaped(said)))
        elif "ClassVar" not in kind:
            flag = _text(kind, "name") or name.replace("_", "-")
            shown = {"False": "no", "True": "yes"}.get(shown, shown)
            options.append((f"--{flag}", shown, sources.escaped(said)))
    return positional, options


def _text(kind: str, key: str) -> str:
    found = re.search(rf"\b{key}=('[^']*'|\"[^\"]*\")", kind)
    return found[1][1:-1] if found else ""


# -- settings -------------------------------------------------------------------------------------


def settings() -> str:
    """Every setting of every section, and those of each method."""
    parts = [
        "# Settings",
        "On the command line `--train.epochs 20`; in a YAML file `train: {epochs: 20}`; in Python "
        '`Config.replace({"train": {"epochs": 20}})`. Defaults are those of gracl; a '
        "[recipe](../datasets.md) sets some of them otherwise. A wrong name or value is refused with "
        "the nearest right one.",
    ]
    for kind, section in SECTIONS.items():
        node = sources.definition("gracl.config", kind)
        assert isinstance(node, ast.ClassDef)
        parts += [
            f"## {section}",
            sources.markdown(ast.get_docstring(node) or ""),
            _table(section, node),
        ]
    for method in sources.tree("gracl.method_settings").body:
        if isinstance(method, ast.ClassDef) and method.name.endswith("Config"):
            name = "of all methods" if method.name == "MethodConfig" else f"of {_name(method)}"
            said = sources.markdown(ast.get_docstring(method) or "")
            parts += [f"## method, {name}", said, _table("method", method)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _name(node: ast.ClassDef) -> str:
    own = [default for name, _, default, _ in sources.fields(node) if name == "name"]
    return f"`{ast.literal_eval(own[0])}`" if own else "`gracl`"


def _table(section: str, node: ast.ClassDef) -> str:
    rows = []
    for name, kind, default, text in sources.fields(node):
        if "ClassVar" in kind or (name == "name" and node.name != "MethodConfig"):
            continue
        low = re.match(r"ranged\(([^,]+), ([^,]+)(?:, ([^,]+))?\)", default)
        if low:
            kind += f", {low[2]} to {low[3]}" if low[3] else f", {low[2]} or more"
            default = low[1]
        shown = default.strip("'") if default not in ("''", '""') else default
        kind = kind.removeprefix("Literal[").removesuffix("]") if kind.startswith("Literal") else kind
        said = sources.escaped(text)
        rows.append(
            f"| `{section}.{name}` | `{shown}` | {said}<br><small>{sources.escaped(kind)}</small> |"
        )
    if not rows:
        return ""
    return "| setting | default | |\n| --- | --- | --- |\n" + "\n".join(rows)
