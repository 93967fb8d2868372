"""Reads names, signatures and docstrings out of gracl's source, without importing any of it.

Importing gracl's modules would import torch, so that nobody could build the pages without it.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
WIDTH = 88
"""Columns from which a signature has one argument a line."""
SECTIONS = ("Args:", "Returns:", "Yields:", "Raises:", "Example:", "Examples:")
NAMED = ("Args:", "Raises:")
"""Sections whose lines are names with what is said of them."""

Definition = ast.ClassDef | ast.FunctionDef
Field = tuple[str, str, str, str]
"""Name, type, default ("" where there is none), and what is said of it."""


@cache
def tree(module: str) -> ast.Module:
    """The source of a module, such as gracl.data.store."""
    stem = SOURCE.joinpath(*module.split("."))
    file = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def homes() -> dict[str, str]:
    """The public names, and the module of each."""
    for node in tree("gracl").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            found = ast.literal_eval(node.value)
            assert isinstance(found, dict)
            return {name: home(module, name) for name, module in found.items()}
    raise LookupError("gracl/__init__.py has no _HOMES")


def home(module: str, name: str) -> str:
    """The module that defines a name: this one, or one that it imports the name from."""
    for node in tree(module).body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            assert node.module is not None
            return home(node.module, name)
    return module


def definition(module: str, name: str) -> Definition | None:
    """The class or function of this name; None where it is a value."""
    for node in tree(module).body:
        if isinstance(node, Definition) and node.name == name:
            return node
    return None


def value(module: str, name: str) -> tuple[str, str]:
    """A value's source, and the text below it."""
    ((_, _, source, text),) = [found for found in assigned(tree(module).body) if found[0] == name]
    return source, text


def assigned(body: list[ast.stmt]) -> Iterator[Field]:
    """What a body assigns, with the docstring below each."""
    for node, below in zip(body, [*body[1:], None], strict=True):
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = inspect.cleandoc(str(below.value.value))
        if isinstance(node, ast.AnnAssign):
            default = "" if node.value is None else ast.unparse(node.value)
            yield ast.unparse(node.target), ast.unparse(node.annotation), default, text
        elif isinstance(node, ast.Assign):
            yield ast.unparse(node.targets[0]), "", ast.unparse(node.value), text


def fields(node: ast.ClassDef) -> list[Field]:
    """The public fields of a dataclass."""
    return [found for found in assigned(node.body) if not found[0].startswith("_")]


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """The public methods and properties of a class that say what they do."""
    return [
        item
        for item in node.body
        if isinstance(item, ast.FunctionDef)
        and not item.name.startswith("_")
        and ast.get_docstring(item)
    ]


def decorators(node: Definition) -> set[str]:
    """What stands above a definition, without arguments."""
    return {ast.unparse(item).split("(")[0].split(".")[-1] for item in node.decorator_list}


def signature(node: Definition, name: str | None = None) -> str:
    """How it is called, over several lines where it is long."""
    name = name or node.name
    if isinstance(node, ast.ClassDef):
        made = [item for item in node.body if getattr(item, "name", "") == "__init__"]
        if not made or "Use `" in (ast.get_docstring(made[0]) or ""):  # type: ignore[arg-type]
            return f"class {name}"
        first = made[0]
        assert isinstance(first, ast.FunctionDef)
        return f"class {_called(first, name, returns=False)}"
    if "property" in decorators(node):
        return f"{name}: {ast.unparse(node.returns) if node.returns else 'Any'}"
    return _called(node, name)


def _called(node: ast.FunctionDef, name: str, *, returns: bool = True) -> str:
    arguments = [part for part in _arguments(node.args) if part not in ("self", "cls")]
    end = f" -> {ast.unparse(node.returns)}" if returns and node.returns else ""
    line = f"{name}({', '.join(arguments)}){end}"
    if len(line) <= WIDTH:
        return line
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return f"{name}(\n{lines}){end}"


def _arguments(found: ast.arguments) -> Iterator[str]:
    plain = [*found.posonlyargs, *found.args]
    defaults = [None] * (len(plain) - len(found.defaults)) + [*found.defaults]
    for argument, default in zip(plain, defaults, strict=True):
        yield _argument(argument, default)
    if found.vararg:
        yield f"*{_argument(found.vararg, None)}"
    elif found.kwonlyargs:
        yield "*"
    for argument, default in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        yield _argument(argument, default)
    if found.kwarg:
        yield f"**{_argument(found.kwarg, None)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation is not None:
        text += f": {ast.unparse(argument.annotation)}"
    if default is not None:
        text += f" = {ast.unparse(default)}" if argument.annotation else f"={ast.unparse(default)}"
    return text


# -- docstrings as Markdown -----------------------------------------------------------------------


def summary(node: Definition) -> str:
    """The first sentence of a docstring, on one line."""
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return _escaped(re.split(r"(?<=\.)\s", text + " ")[0].strip())


def markdown(docstring: str) -> str:
    """A docstring of ours as Markdown: its sections, lists of arguments, and examples."""
    blocks: list[str] = []
    lines = docstring.splitlines()
    while lines:
        line = lines.pop(0)
        if line in SECTIONS:
            inner = _take(lines, lambda text: not text or text.startswith(" "))
            inside = textwrap.dedent("\n".join(inner)).strip()
            said = _names(inside) if line in NAMED else markdown(inside)
            blocks.append(f"**{line.removesuffix(':')}**\n\n{said}")
        elif line.startswith(">>>"):
            shown = [line, *_take(lines, bool)]
            blocks.append("```pycon\n" + "\n".join(shown) + "\n```")
        elif line.startswith("    "):
            shown = [line, *_take(lines, lambda text: not text or text.startswith("    "))]
            blocks.append("```text\n" + textwrap.dedent("\n".join(shown)).strip() + "\n```")
        elif line:
            said = "\n".join([line, *_take(lines, lambda text: bool(text) and text not in SECTIONS)])
            blocks.append(_escaped(said.replace("::", ":") if said.endswith("::") else said))
    return "\n\n".join(blocks)


def _take(lines: list[str], wanted: object) -> list[str]:
    assert callable(wanted)
    taken = []
    while lines and wanted(lines[0]):
        taken.append(lines.pop(0))
    return taken


def _names(text: str) -> str:
    """`name, name: what is said` lines as a list."""
    items: list[str] = []
    for line in text.splitlines():
        if line and not line.startswith(" ") and ":" in line:
            name, _, said = line.partition(":")
            items.append(f"* `{name}`: {_escaped(said.strip())}")
        elif items:
            items[-1] += f" {_escaped(line.strip())}"
        else:
            items.append(f"* {_escaped(line.strip())}")
    return "\n".join(items)


def _escaped(text: str) -> str:
    """Prose whose angle brackets and roles of Sphinx are no markup."""
    text = re.sub(r":(?:class|func|meth|mod):`~?", "`", text)
    parts = re.split(r"(``?[^`]*``?)", text)
    kept = [
        part if part.startswith("`") else part.replace("<", "&lt;").replace("f*", r"f\*")
        for part in parts
    ]
    return "".join(kept)


def escaped(text: str) -> str:
    """Prose for a cell of a table."""
    return " ".join(_escaped(text).split()).replace("|", r"\|")
