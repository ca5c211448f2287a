"""Numbers that come to a node of ComfyUI by a link, where constants alone make them.

Of a node that computes, the number that comes out whole is taken; where it would be rounded, packs
differ in how, and nothing is said.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import place_of, unnamed
from loragate_server.intercept.servers.comfyui_graph import CONSTANTS, Node, is_link

Number = int | float

_MOST_HOPS = 16
_MOST_CHARS = 500
_MOST_POWER = 64
_LARGEST = 1e12
_MOST_DIGITS = 15
_NO_OUTPUT = -1
"""Stands for all outputs from which nothing is taken."""
_FORMULAS: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "ComfyMathExpression": ("expression", (0,)),
        "MathExpression|pysssss": ("expression", (1,)),
        "SimpleMath+": ("value", (1,)),
        "SimpleMathDebug+": ("value", (1,)),
    }
)
"""Classes that compute a formula: the input that holds it, and the outputs that are not rounded."""

_OPERATIONS: Mapping[str, str] = MappingProxyType(
    {
        "easy mathFloat": "operation",
        "easy mathInt": "operation",
        "CM_FloatBinaryOperation": "op",
        "CM_IntBinaryOperation": "op",
    }
)
"""Classes that do to `a` and `b` what an input says."""

_BY_NAME: Mapping[str, Callable[[Any, Any], Number]] = MappingProxyType(
    {
        "add": operator.add,
        "subtract": operator.sub,
        "sub": operator.sub,
        "multiply": operator.mul,
        "mul": operator.mul,
        "divide": operator.truediv,
        "div": operator.truediv,
    }
)
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Number]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: operator.pow,
    }
)


def _rounded(number: Any, *digits: Any) -> Number:
    if any(abs(one) > _MOST_DIGITS for one in digits):  # of many, Python makes a number as long
        raise ValueError("the digits are too many")
    made: Number = round(number, *digits)
    return made


_FUNCTIONS: Mapping[str, Callable[..., Number]] = MappingProxyType(
    {
        "min": min,
        "max": max,
        "abs": abs,
        "round": _rounded,
        "sqrt": math.sqrt,
        "ceil": math.ceil,
        "floor": math.floor,
        "int": int,
        "float": float,
    }
)


class Numbers:
    """The numbers that links of one graph bring, each found out once however many take it."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._known: dict[tuple[str, int, int], Number | None] = {}

    def behind(self, link: list[Any], place: str) -> float:
        """The number that a link brings.

        Args:
            link: to the node that makes it.
            place: of the node that takes it, its class and its input, for people.

        Raises:
            RefusedRequestError: ADAPTER_UNNAMED when only the running graph can tell.
        """
        number = self._number(link, 0)
        if number is None:
            source = self._nodes.get(link[0])
            kind = f" ({place_of(source.class_type).removeprefix('/')})" if source else ""
            raise unnamed(
                place,
                f"takes a strength that node {place_of(link[0])}{kind} makes while the graph runs.",
                "Write the number into the node.",
            )
        return strength(number, place)

    def _number(self, value: Any, hops: int) -> Number | None:
        """A value, or what a link brings, as a number; None where that is not certain."""
        if not is_link(value):
            return _plain(value)
        node = self._nodes.get(value[0])
        if node is None or hops > _MOST_HOPS:
            return None
        output = int(value[1]) if value[1] in (0, 1) else _NO_OUTPUT
        key = node.key, output, hops
        if key not in self._known:
            self._known[key] = self._made(node, output, hops)
        return self._known[key]

    def _made(self, node: Node, output: int, hops: int) -> Number | None:
        def given(name: str) -> Number | None:
            return self._number(node.inputs.get(name), hops + 1)

        if node.class_type in CONSTANTS and len(node.inputs) == 1:
            return given(next(iter(node.inputs)))
        if name := _OPERATIONS.get(node.class_type):
            return _operated(node.inputs.get(name), given("a"), given("b"), node.class_type)
        name, whole = _FORMULAS.get(node.class_type, ("", ()))
        text = node.inputs.get(name)
        if output == _NO_OUTPUT or not isinstance(text, str) or len(text) > _MOST_CHARS:
            return None
        names = {key.removeprefix("values."): given(key) for key in node.inputs if key != name}
        made = computed(text, names)
        return made if made is None or output in whole or made == int(made) else None


def _plain(value: Any) -> Number | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return float(value) if re.fullmatch(r"[+-]?\d{1,15}(\.\d{1,15})?", value, re.A) else None
    return value if isinstance(value, int | float) else None


def _operated(name: Any, a: Number | None, b: Number | None, class_type: str) -> Number | None:
    operation = _BY_NAME.get(str(name).casefold())
    if operation is None or a is None or b is None:
        return None
    try:
        made = operation(a, b)
    except ArithmeticError:
        return None
    if not abs(made) <= _LARGEST:  # NaN is not, either
        return None
    return None if "Int" in class_type and made != int(made) else made


def computed(text: str, names: Mapping[str, Number | None]) -> Number | None:
    """What a formula of numbers comes to; None where it has anything else in it.

    Args:
        text: the formula, as Python writes it.
        names: what stands for its letters.
    """
    try:
        made = _Formula(names).value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, KeyError):
        return None
    return made if math.isfinite(made) else None


class _Formula:
    def __init__(self, names: Mapping[str, Number | None]) -> None:
        self._names = names

    def value(self, node: ast.expr) -> Number:
        """Raises KeyError for what is no arithmetic, besides what arithmetic raises."""
        made = self._made(node)
        if abs(made) > _LARGEST:
            raise ValueError("the number is too large")
        return made

    def _made(self, node: ast.expr) -> Number:
        if isinstance(node, ast.Constant):
            return _certain(_plain(node.value) if not isinstance(node.value, str) else None)
        if isinstance(node, ast.Name):
            return _certain(self._names[node.id])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner = self.value(node.operand)
            return -inner if isinstance(node.op, ast.USub) else inner
        if isinstance(node, ast.BinOp):
            left, right = self.value(node.left), self.value(node.right)
            if isinstance(node.op, ast.Pow) and abs(right) > _MOST_POWER:
                raise ValueError("the power is too large")
            return _real(_BINARY[type(node.op)](left, right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return _real(_FUNCTIONS[node.func.id](*map(self.value, node.args)))
        raise KeyError("no arithmetic")


def _certain(value: Number | None) -> Number:
    if value is None:
        raise ValueError("the number is not known")
    return value


def _real(value: Any) -> Number:
    if not isinstance(value, int | float):
        raise ValueError("the number is not real")
    return value
