"""Makes wrong changes in the extractors, one at a time, and counts those that a test notices.

    .venv/bin/python -m scripts.extractor_mutations --sample 120 --seed 1

A change turns a comparison, a condition, a number, a truth value, an `and` or the result of a
function. Sentences for people and types are left alone. Every change runs in a process of its own,
forked before any extractor is loaded, against the tests of the extractors until one fails. The
unchanged code has to pass. Prints each change that survived, with its line, and the share.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer

ROOT = Path(__file__).parents[1]
PACKAGE = "loragate_server.intercept"
FOLDER = "tests/server/intercept"
SOURCES = ROOT / "server" / "loragate_server" / "intercept"
QUICK = (
    *("golden", "grammars", "bodies", "limits", "tags", "paths", "registry", "lora_files"),
    *("comfyui_links", "comfyui_flow", "comfyui_numbers", "rewriting", "references_on_disk"),
    *("hidden_loras", "infer_messages", "localai", "stable_diffusion_cpp", "edges", "upgrades"),
)
"""They notice most changes; the others are only asked about those that are left."""
SLOW = ("active_sets", "unknown_routes", "properties", "grammar_properties")
LEFT_OUT = ("growth", "patterns", "comfyui_templates")
"""Of time alone, or of pages that load nothing."""
ALL = {one.stem.removeprefix("test_") for one in (ROOT / FOLDER).glob("test_*.py")}
ROUNDS = [
    [f"{FOLDER}/test_{name}.py" for name in names]
    for names in (
        [name for name in QUICK if name in ALL],
        [*sorted(ALL - {*QUICK, *SLOW, *LEFT_OUT}), *SLOW],
    )
]
LIMIT_S = 150
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


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every change that is made in a file."""
    tree = ast.parse(path.read_text())
    file = str(path.relative_to(SOURCES))
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
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            yield Mutant(file, line, number, "value")
        elif isinstance(node, ast.Return) and not _gives_nothing(node):
            yield Mutant(file, line, number, "result")


def _gives_nothing(node: ast.Return) -> bool:
    return node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)


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
    tree = ast.parse(path.read_text())
    node: Any = list(ast.walk(tree))[mutant.node]
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


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, name: str, *_: object) -> Any:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def create_module(self, _: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)  # noqa: S102


def survives(mutant: Mutant | None) -> bool:
    """Whether the tests pass with a change, in a child process."""
    child = multiprocessing.get_context("fork").Process(target=_end, args=(mutant,))
    child.start()
    child.join(LIMIT_S)
    if child.exitcode is None:
        child.kill()
        child.join()
    return child.exitcode == 0


def _end(mutant: Mutant | None) -> NoReturn:
    os._exit(_run(mutant))


def _run(mutant: Mutant | None) -> int:
    import pytest

    os.chdir(ROOT)
    if mutant is not None:
        path = SOURCES / mutant.file
        name = f"{PACKAGE}.{mutant.file.removesuffix('.py').replace('/', '.')}"
        sys.meta_path.insert(0, _Changed(name, path, changed(path, mutant)))
    sys.dont_write_bytecode = True
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        given = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=no", "-m", "not long"]
        try:
            return 0 if all(pytest.main([*given, *tests]) == 0 for tests in ROUNDS) else 1
        except BaseException:
            return 1


def tried(mutants: Sequence[Mutant], limit_s: float) -> tuple[int, list[Mutant], float]:
    """How many were tried until the time was over, those that survived, and the seconds."""
    began = time.monotonic()
    alive: list[Mutant] = []
    number = 0
    for number, mutant in enumerate(mutants, 1):
        if time.monotonic() - began > limit_s:
            return number - 1, alive, time.monotonic() - began
        if survives(mutant):
            alive.append(mutant)
            source = (SOURCES / mutant.file).read_text().splitlines()[mutant.line - 1].strip()
            print(f"SURVIVED {mutant.file}:{mutant.line} {mutant.what}: {source}", flush=True)
        if not number % 10:
            print(f"{number} of {len(mutants)}, {len(alive)} survived", flush=True)
    return number, alive, time.monotonic() - began


def main(
    sample: Annotated[int, typer.Option(help="How many changes; 0 for all.")] = 120,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 1,
    minutes: Annotated[float, typer.Option(help="No change is begun after this.")] = 120.0,
    only: Annotated[str, typer.Option(help="Files whose names hold this.")] = "",
    out: Annotated[Path | None, typer.Option(help="Where the figures are written.")] = None,
) -> None:
    """Tries the changes and reports."""
    files = [one for one in sorted(SOURCES.rglob("*.py")) if only in str(one)]
    every = [mutant for path in files for mutant in mutants_of(path)]
    chosen = random.Random(seed).sample(every, sample) if sample else every
    if not survives(None):
        print("the unchanged code does not pass its tests")
        raise typer.Exit(2)
    count, alive, seconds = tried(chosen, minutes * 60)
    figures = {
        "changes": len(every),
        "tried": count,
        "seed": seed,
        "noticed": count - len(alive),
        "share": round(1 - len(alive) / max(count, 1), 4),
        "survived": [asdict(one) for one in alive],
        "seconds": round(seconds),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            "pytest": version("pytest"),
            "hypothesis": version("hypothesis"),
        },
    }
    print(f"{figures['noticed']} of {count} noticed, of {len(every)} changes there are")
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
