"""How the sources start other programs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "benchmarks",
    "client",
    "emoji_tiny",
    "examples",
    "kernels",
    "scripts",
    "server",
    "tests",
)
FORKING = {"preexec_fn", "user", "group", "extra_groups"}
"""Arguments for which Python runs itself between fork and exec: under live threads of gRPC, the
child may crash there. A program such as setpriv does the same without."""


def forking_calls(tree: ast.AST) -> list[int]:
    """Lines of calls of `subprocess` with such an argument, or of `os.fork`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            given = {keyword.arg for keyword in node.keywords}
            if (owner == "subprocess" and given & FORKING) or (
                owner == "os" and node.func.attr in ("fork", "forkpty")
            ):
                found.append(node.lineno)
    return found


def test_no_program_is_started_by_python_code_in_a_forked_child() -> None:
    sources = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 300
    found = {
        f"{file.relative_to(ROOT)}:{line}"
        for file in sources
        for line in forking_calls(ast.parse(file.read_text()))
    }
    assert found == set()


@pytest.mark.parametrize(
    "source",
    ["subprocess.run(a, user='postgres')", "subprocess.Popen(a, preexec_fn=f)", "os.fork()"],
)
def test_the_search_finds_what_a_change_would_add(source: str) -> None:
    assert forking_calls(ast.parse(source)) == [1]
