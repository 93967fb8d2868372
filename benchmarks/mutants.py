"""Small faults put into a module, one at a time: what a test suite that can be trusted must notice.

A mutant changes one node of the syntax tree. Docstrings, annotations, decorators, imports and the words
of an error are left alone: nothing is computed there.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ORDER = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
OPPOSITE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {
    "min": "max", "argmin": "argmax", "amin": "amax", "minimum": "maximum", "any": "all",
    "zeros": "ones", "zeros_like": "ones_like", "new_zeros": "new_ones",
}  # fmt: skip
SWAPPED = NAMES | {new: old for old, new in NAMES.items()}
SIDES = {"left": "right", "right": "left"}
CONDITIONS = (ast.If, ast.IfExp, ast.While)


@dataclass(frozen=True)
class Mutant:
    """One fault."""

    function: str
    """Where it is, as Python names it: "Ranking.first"; empty at the top of the module."""
    line: int
    change: str
    """What became what, and in which line of the source."""
    place: int
    """Which node of the tree, in the order of `_nodes`."""
    choice: int
    """Which of that node's changes."""


@dataclass
class _Spot:
    """A node, and where it hangs."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None
    function: str
    rebound: frozenset[str]
    """Names that the function binds more than once: not binding one of them is a fault that runs."""

    def put(self, new: ast.AST) -> None:
        """Hangs another node in its place."""
        if self.index is None:
            setattr(self.parent, self.field, new)
        else:
            getattr(self.parent, self.field)[self.index] = new


def mutants(source: str) -> list[Mutant]:
    """All faults that are known here, in the order of the source."""
    lines = source.splitlines()
    found = []
    seen: Counter[str] = Counter()
    for place, spot in enumerate(_nodes(ast.parse(source))):
        line: int = getattr(spot.node, "lineno", 0) or getattr(spot.parent, "lineno", 1)
        for choice, (label, _) in enumerate(_changes(spot)):
            change = f"{label} | {lines[line - 1].strip()}"
            seen[spot.function + change] += 1
            if seen[spot.function + change] > 1:
                change += f" | number {seen[spot.function + change]}"
            found.append(Mutant(spot.function, line, change, place, choice))
    return found


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """The tree of the module with the fault in it, its line numbers those of the source."""
    tree = ast.parse(source)
    spot = list(_nodes(tree))[mutant.place]
    _, new = list(_changes(spot))[mutant.choice]
    spot.put(new)
    for node in ast.walk(new):
        if not hasattr(node, "lineno"):
            ast.copy_location(node, spot.node)
    return ast.fix_missing_locations(tree)


def depending(source: str, function: str) -> set[str]:
    """The functions of a module that read this one or call it, through others too, and itself."""
    names = {
        node.name: {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    }
    if not function:
        return set(names)
    found = {function}
    while more := {name for name, used in names.items() if used & found} - found:
        found |= more
    return found


def _nodes(tree: ast.Module) -> Iterator[_Spot]:
    for index, statement in enumerate(tree.body):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield from _inside(_Spot(statement, tree, "body", index, statement.name, frozenset()))
        elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            yield _Spot(statement.value, statement, "value", None, "", frozenset())


def _inside(spot: _Spot) -> Iterator[_Spot]:
    """A node and all below it that computes something."""
    node, function, rebound = spot.node, spot.function, spot.rebound
    if isinstance(node, ast.FunctionDef):
        bound = Counter(
            inner.id
            for inner in ast.walk(node)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        )
        arguments = {argument.arg for argument in ast.walk(node) if isinstance(argument, ast.arg)}
        rebound = frozenset(name for name, n in bound.items() if n > 1 or name in arguments)
    yield spot
    if isinstance(node, ast.Raise):
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "format_spec", "bases"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_docstring(child):
                continue
            named = isinstance(child, ast.FunctionDef | ast.ClassDef)
            inner = f"{function}.{child.name}" if named else function  # type: ignore[attr-defined]
            where = index if isinstance(value, list) else None
            yield from _inside(_Spot(child, node, field, where, inner, rebound))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(spot: _Spot) -> Iterator[tuple[str, ast.AST]]:
    """(what became what, the node in its place), in words short enough to read in a list."""
    node = spot.node
    if isinstance(node, ast.Constant):
        for value in _other_values(node.value):
            yield f"{node.value!r} -> {value!r}", ast.Constant(value)
    elif isinstance(node, ast.stmt):
        yield from _statements(node, spot.rebound)
    elif isinstance(node, ast.expr):
        yield from _expressions(node)
    if isinstance(node, CONDITIONS):
        yield f"not ({ast.unparse(node.test)})", _with(node, test=_negated(node.test))
    elif isinstance(node, ast.comprehension):
        for i, test in enumerate(node.ifs):
            others = [_negated(each) if i == j else each for j, each in enumerate(node.ifs)]
            yield f"not ({ast.unparse(test)})", _with(node, ifs=others)


def _other_values(value: object) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return value + 1, value - 1
    if isinstance(value, float):
        return (value * 2, value / 2) if value else (1.0,)
    return (SIDES[value],) if isinstance(value, str) and value in SIDES else ()


def _expressions(node: ast.expr) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            other = (ORDER | OPPOSITE)[type(op)]()
            new = _with(node, ops=[*node.ops[:i], other, *node.ops[i + 1 :]])
            yield _became(node, new), new
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        new = _with(node, op=ARITHMETIC[type(node.op)]())
        yield _became(node, new), new
    elif isinstance(node, ast.BoolOp):
        new = _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        yield _became(node, new), new
    elif isinstance(node, ast.UnaryOp):
        yield _became(node, node.operand), node.operand
    elif isinstance(node, ast.Call):
        for i, keyword in enumerate(node.keywords):
            if keyword.arg:
                new = _with(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])
                yield f"without {ast.unparse(keyword)} in {ast.unparse(node.func)}", new
        func = node.func
        if isinstance(func, ast.Attribute) and func.attr in SWAPPED:
            new = _with(node, func=_with(func, attr=SWAPPED[func.attr]))
            yield f"{func.attr} -> {SWAPPED[func.attr]} in {ast.unparse(node)}", new
        elif isinstance(func, ast.Name) and func.id in SWAPPED:
            new = _with(node, func=_with(func, id=SWAPPED[func.id]))
            yield f"{func.id} -> {SWAPPED[func.id]} in {ast.unparse(node)}", new


def _statements(node: ast.stmt, rebound: frozenset[str]) -> Iterator[tuple[str, ast.AST]]:
    gone = f"without {ast.unparse(node).splitlines()[0]}", ast.Pass()
    if isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "return None", ast.Return(value=None)
    elif isinstance(node, ast.Raise | ast.Delete) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield gone
    elif isinstance(node, ast.AugAssign):
        yield gone
        if type(node.op) in ARITHMETIC:
            new = _with(node, op=ARITHMETIC[type(node.op)]())
            yield _became(node, new), new
    elif isinstance(node, ast.Assign) and all(
        not isinstance(target, ast.Name) or target.id in rebound for target in node.targets
    ):
        if not isinstance(node.targets[0], ast.Tuple):
            yield gone
    elif isinstance(node, ast.Continue | ast.Break):
        yield "continue <-> break", ast.Break() if isinstance(node, ast.Continue) else ast.Continue()


def _with(node: Any, **fields: Any) -> Any:
    """A copy of a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _became(old: ast.AST, new: ast.AST) -> str:
    return f"{ast.unparse(old)} -> {ast.unparse(new)}"
