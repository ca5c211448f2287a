"""The wrong changes that can be made in a file, one at a time.

A change turns a comparison, a condition, a number, a truth value, an `and` or the result of a
function. Sentences for people and types are left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPARED = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Mutant:
    """One change: the file, the line, the place in the tree, and what is done there."""

    file: str
    line: int
    node: int
    what: str


def mutants_of(path: Path, sources: Path) -> Iterator[Mutant]:
    """Every change that is made in a file of a folder of sources."""
    tree = ast.parse(path.read_text())
    file = str(path.relative_to(sources))
    passed_over = {id(inner) for node in ast.walk(tree) for inner in _left_alone(node)}
    for number, node in enumerate(ast.walk(tree)):
        line = getattr(node, "lineno", 0)
        if id(node) in passed_over:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            yield Mutant(file, line, number, "comparison")
        elif isinstance(node, ast.BoolOp):
            yield Mutant(file, line, number, "and for or")
        elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(
            node.test, ast.Compare
        ):
            yield Mutant(file, line, number, "condition")
        elif isinstance(node, ast.Constant) and _can_change(node.value):
            yield Mutant(file, line, number, "value")
        elif isinstance(node, ast.Return) and not _gives_nothing(node):
            yield Mutant(file, line, number, "result")


def _can_change(value: Any) -> bool:
    """Whether a number has another one next to it: the largest floats have not."""
    return isinstance(value, bool | int | float) and (isinstance(value, bool) or value + 1 != value)


def _gives_nothing(node: ast.Return) -> bool:
    """Whether a result is none, or as false as none is."""
    value = node.value
    return value is None or (
        isinstance(value, ast.Constant) and (value.value is None or value.value is False)
    )


def _left_alone(node: ast.AST) -> Iterator[ast.AST]:
    """What is said to people, types, and the arguments of decorators."""
    if isinstance(node, ast.Raise):
        for call in ast.walk(node):
            if isinstance(call, ast.Call):
                yield from (one for arg in call.args for one in ast.walk(arg))
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield from (one for part in node.decorator_list for one in ast.walk(part))
    if isinstance(node, ast.AnnAssign):
        yield from ast.walk(node.annotation)


def changed(path: Path, mutant: Mutant) -> ast.Module:
    """The tree of a file with the change in it."""
    tree, node = place_of(path, mutant)
    if mutant.what == "comparison":
        node.ops[0] = COMPARED[type(node.ops[0])]()
    elif mutant.what == "and for or":
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif mutant.what == "condition":
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif mutant.what == "value":
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    else:
        node.value = ast.Constant(None)
    return ast.fix_missing_locations(tree)


def place_of(path: Path, mutant: Mutant) -> tuple[ast.Module, Any]:
    """The tree of a file, and the node in it that a change is about."""
    tree = ast.parse(path.read_text())
    return tree, list(ast.walk(tree))[mutant.node]
