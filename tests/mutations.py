"""Small changes of a function, one at a time: what a mistake in it could look like. `tests/mutants.py` runs them.

A change turns a comparison, an operator or a condition around, moves a number, or takes out a call, an error or a
filter. Texts of messages, annotations and defaults of arguments are left as they are, and so are our own assertions
that lengths agree (`assert`, `zip(strict=True)`), which differ only where something else is wrong, and what no test on
a CPU can notice: whether a copy waits (`non_blocking`) and the order of equal numbers in a sort (`stable`).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
OTHERS = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
"""Functions, and those that are called in their place."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """A change of one function."""

    file: Path
    function: str
    """Its qualified name in the module."""
    line: int
    says: str
    """The line before and after."""
    code: CodeType
    """The function's, with the change."""


def list_mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of the functions and methods of a file, in their order."""
    for classes, function in _list_functions(ast.parse(file.read_text(encoding="utf-8")), ()):
        name = ".".join((*classes, function.name))
        tree: ast.stmt = function
        for each in reversed(classes):
            tree = ast.ClassDef(each, [], [], [tree], [])
        module = ast.fix_missing_locations(ast.Module([tree], []))
        for place, new in _changes(function):
            before, old = _get(place), ast.unparse(_find_statement(function, place.line))
            _set(place, new)
            code = _find(compile(ast.fix_missing_locations(module), str(file), "exec"), name)
            now = ast.unparse(_find_statement(function, place.line))
            _set(place, before)
            if now != old:
                yield Mutant(file, name, place.line, _tell(old, now), code)


@dataclass(frozen=True)
class Place:
    """Where a node stands in its parent."""

    parent: ast.AST
    field: str
    index: int | None
    line: int


def _get(place: Place) -> object:
    held = getattr(place.parent, place.field)
    return held if place.index is None else held[place.index]


def _set(place: Place, value: object) -> None:
    if place.index is None:
        setattr(place.parent, place.field, value)
    else:
        getattr(place.parent, place.field)[place.index] = value


def _list_functions(node: ast.AST, classes: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Function]]:
    """The functions of a module and of its classes, with these classes; functions within functions belong to them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield classes, child
        elif isinstance(child, ast.ClassDef):
            yield from _list_functions(child, (*classes, child.name))


def _changes(function: Function) -> Iterator[tuple[Place, object]]:
    for i, statement in enumerate(function.body):
        if not (i == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            yield from _of_node(statement, Place(function, "body", i, statement.lineno))


def _of_node(node: ast.AST, place: Place) -> Iterator[tuple[Place, object]]:
    """The changes of a node and of what is within it."""
    if _is_kept(node):
        return
    for new in _list_variants(node):
        yield place, new
    if isinstance(node, ast.Raise):
        return
    line = getattr(node, "lineno", place.line)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "args") and not isinstance(node, ast.Call):
            continue
        if isinstance(value, ast.AST):
            yield from _of_node(value, Place(node, field, None, getattr(value, "lineno", line)))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from _of_node(item, Place(node, field, i, getattr(item, "lineno", line)))
                if field == "ifs":  # of a comprehension: the filter lets everything through
                    yield Place(node, field, i, getattr(item, "lineno", line)), ast.Constant(True)


def _is_kept(node: ast.AST) -> bool:
    """Whether no mistake is made of a node: a text, a docstring, an assertion, or a choice for GPUs."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Raise):
        return isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) == "AssertionError"
    return isinstance(node, ast.JoinedStr | ast.Assert) or (
        isinstance(node, ast.keyword) and node.arg in ("strict", "non_blocking", "stable")
    )


def _list_variants(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in the place of a node."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in COMPARISONS:
                ops = [COMPARISONS[type(o)]() if j == i else o for j, o in enumerate(node.ops)]
                yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS and not _is_text(node):
        changed = copy.copy(node)
        changed.op = OPERATORS[type(node.op)]()
        yield changed
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if name in OTHERS:
            func = copy.copy(node.func)
            setattr(func, "id" if isinstance(func, ast.Name) else "attr", OTHERS[name])
            yield ast.Call(func, node.args, node.keywords)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If) and not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
    return any(isinstance(s, ast.JoinedStr) or (isinstance(s, ast.Constant) and type(s.value) is str) for s in sides)


def _find_statement(function: Function, line: int) -> ast.AST:
    """The innermost statement of a function that reaches over a line."""
    found: ast.AST = function
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and hasattr(node, "lineno") and node.lineno <= line <= (node.end_lineno or 0):
            found = node
    return found


def _find(code: CodeType, name: str) -> CodeType:
    """The code of a function within that of its module."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    (found,) = [const for const in inner if name == const.co_qualname or name.startswith(f"{const.co_qualname}.")]
    return found if found.co_qualname == name else _find(found, name)


def _tell(before: str, after: str) -> str:
    """The first line that differs, as it was and as it is."""
    pairs: Sequence[tuple[str, str]] = list(zip(before.splitlines(), after.splitlines(), strict=False))
    one, two = next(((a, b) for a, b in pairs if a != b), (before.splitlines()[-1], "(gone)"))
    return f"{one.strip()[:150]}  ->  {two.strip()[:150]}"
