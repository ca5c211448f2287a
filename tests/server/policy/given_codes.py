"""Finds the codes of all reasons that the sources can give; fails on one that it cannot read."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import loragate_server

PACKAGE = Path(loragate_server.__file__).parent
ROOMS = ("audit", "policy", "gate", "intake")
MAKERS = frozenset({"Reason", "_reason"})
PASSED_ON = frozenset({"_reason", "_doubts"})
"""Functions that take a code from elsewhere, where it is found."""


def given_codes() -> set[str]:
    """Codes of `Reason(...)`, of `_reason(...)`, and of pairs of a code and a sentence.

    Raises:
        AssertionError: a code is neither text nor a constant of its module.
    """
    found = set()
    for room in ROOMS:
        for path in (PACKAGE / room).rglob("*.py"):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            module = importlib.import_module(".".join(parts))
            found |= set(codes_of(module))
    return found


def codes_of(module: ModuleType) -> Iterator[str]:
    """The codes that one module gives."""
    yield from codes_in(ast.parse(inspect.getsource(module)), module)


def codes_in(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """The codes in the source of a module."""
    for where, node in _walk(tree, ""):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            if node.func.id in MAKERS and where not in PASSED_ON:
                yield _text(node.args[0], module)
        elif _is_doubt(node):
            assert isinstance(node, ast.Tuple)
            yield _text(node.elts[0], module)


def _walk(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node, with the name of the function that it stands in."""
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, ast.FunctionDef) else where
        yield inner, child
        yield from _walk(child, inner)


def _is_doubt(node: ast.AST) -> bool:
    """Whether it is a pair of a code and a sentence."""
    if not (isinstance(node, ast.Tuple) and len(node.elts) == 2):
        return False
    code, sentence = node.elts
    return (
        isinstance(code, ast.Constant)
        and isinstance(code.value, str)
        and code.value.replace("_", "").isalpha()
        and code.value.islower()
        and "_" in code.value
        and _is_sentence(sentence)
    )


def _is_sentence(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id in {"sentence", "message"}
    if isinstance(node, ast.JoinedStr):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value


def _text(node: ast.expr, module: ModuleType) -> str:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(node, ast.Name):
        value = getattr(module, node.id, None)
    assert isinstance(value, str), (
        f"{module.__name__}:{node.lineno} gives a reason whose code cannot be read"
    )
    return value
