"""Makes wrong changes in the extractors, one at a time, and counts those that a test notices.

    .venv/bin/python -m scripts.extractor_mutations --sample 120 --seed 1

A change turns a comparison, a condition, a number, a truth value, an `and` or the result of a
function. Sentences for people and types are left alone. Every change runs in a process of its own,
forked before any extractor is loaded, against the tests that run its line, until one fails; no
other test can notice it. The unchanged code has to pass. Prints each change that survived, with its
line, and the share.
"""

from __future__ import annotations

import ast
import importlib
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn, cast

import pytest
import typer

from scripts.tests_of_lines import TestsOfLines, Watched

ROOT = Path(__file__).parents[1]
PACKAGE = "loragate_server.intercept"
FOLDER = "tests/server/intercept"
SOURCES = ROOT / "server" / "loragate_server" / "intercept"
LEFT_OUT = ("growth", "patterns", "comfyui_templates")
"""Of time alone, or of pages that load nothing."""
TIMED = "less_than_a_millisecond"
"""A test of time within another file; a machine that watches every line does not pass it."""
TESTS = [
    str(one.relative_to(ROOT))
    for one in sorted((ROOT / FOLDER).glob("test_*.py"))
    if one.stem.removeprefix("test_") not in LEFT_OUT
]
LIMIT_S = 60
SLOWER = 20
"""Times the seconds that its tests took before: a change may make an end never come."""
OUR_OWN = ("loragate", "tests", "testkit", "scripts", "kernels", "benchmarks", "__main__")
FORK = multiprocessing.get_context("fork")
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


class _Asked:
    """Of the tests collected, leaves these, quickest first."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._seconds]
        items.sort(key=lambda item: self._seconds[item.nodeid])


def mapped() -> TestsOfLines:
    """Runs the unchanged code once, and loads here what its tests load beside our own code.

    Raises:
        typer.Exit: it does not pass its tests.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    child = FORK.Process(target=_watch, args=(there,))
    child.start()
    there.close()
    try:
        seen, loaded = here.recv()
    except EOFError:
        print("the unchanged code does not pass its tests")
        raise typer.Exit(2) from None
    finally:
        child.join()
    for name in loaded:
        with suppress(Exception):  # what cannot be loaded alone is loaded by each change
            importlib.import_module(name)
    return cast(TestsOfLines, seen)


def _watch(answer: Any) -> NoReturn:
    watched = Watched(SOURCES)
    if _run(None, watched, TESTS) == 0:
        loaded = [name for name in sys.modules if not name.startswith(OUR_OWN)]
        answer.send((watched.seen(), loaded))
    answer.close()
    os._exit(0)


def require_sound(tests: TestsOfLines) -> None:
    """Sees that the unchanged code passes in the way in which a change is tried.

    Raises:
        typer.Exit: it does not, so that every change would seem to be noticed.
    """
    quickest: dict[str, str] = {}
    for name in sorted(tests.seconds, key=tests.seconds.__getitem__):
        quickest.setdefault(name.partition("::")[0], name)
    child = FORK.Process(target=_end, args=(None, dict.fromkeys(quickest.values(), 0.0)))
    child.start()
    child.join()
    if child.exitcode != 0:
        print("the unchanged code does not pass where a change is tried")
        raise typer.Exit(2)


def _end(mutant: Mutant | None, tests: Mapping[str, float]) -> NoReturn:
    files = sorted({name.partition("::")[0] for name in tests})
    os._exit(_run(mutant, _Asked(tests), files))


def _run(mutant: Mutant | None, plugin: object, files: Sequence[str]) -> int:
    os.chdir(ROOT)
    if mutant is not None:
        path = SOURCES / mutant.file
        name = f"{PACKAGE}.{mutant.file.removesuffix('.py').replace('/', '.')}"
        sys.meta_path.insert(0, _Changed(name, path, changed(path, mutant)))
    sys.dont_write_bytecode = True
    given = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=no", "-m", "not long"]
    given += [
        "-k",
        f"not {TIMED}",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]  # plugins are loaded already
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            return int(pytest.main([*given, *files], plugins=[plugin]))
        except BaseException:
            return 1


@dataclass
class Trial:
    """One change in a process of its own, before the tests that run it."""

    mutant: Mutant
    tests: Mapping[str, float]
    process: Any = None
    until: float = 0.0

    def begin(self) -> None:
        """Starts the process."""
        self.process = FORK.Process(target=_end, args=(self.mutant, self.tests))
        self.process.start()
        self.until = time.monotonic() + LIMIT_S + SLOWER * sum(self.tests.values())

    def survived(self) -> bool | None:
        """Whether the tests passed; None while they run. What takes too long was noticed."""
        if self.process.is_alive() and time.monotonic() < self.until:
            return None
        self.process.kill()
        self.process.join()
        return bool(self.process.exitcode in (0, pytest.ExitCode.NO_TESTS_COLLECTED))


def _asked_first(mutant: Mutant, tests: TestsOfLines) -> dict[str, float]:
    tree = ast.parse((SOURCES / mutant.file).read_text())
    return tests.of(mutant.file, tree, list(ast.walk(tree))[mutant.node])


def tried(
    mutants: Sequence[Mutant], tests: TestsOfLines, jobs: int, limit_s: float
) -> tuple[int, list[Mutant], float]:
    """How many were tried until the time was over, those that survived, and the seconds."""
    began = time.monotonic()
    alive: list[Mutant] = []
    waiting = [Trial(mutant, _asked_first(mutant, tests)) for mutant in reversed(mutants)]
    running: list[Trial] = []
    number = 0
    while running or (waiting and time.monotonic() - began < limit_s):
        while waiting and len(running) < jobs and time.monotonic() - began < limit_s:
            running.append(waiting.pop())
            running[-1].begin()
        for trial in list(running):
            survived = trial.survived()
            if survived is None:
                continue
            running.remove(trial)
            number += 1
            if survived:
                alive.append(trial.mutant)
                _tell(trial.mutant)
            if not number % 10:
                print(f"{number} of {len(mutants)}, {len(alive)} survived", flush=True)
        time.sleep(0.05)
    return number, alive, time.monotonic() - began


def _tell(mutant: Mutant) -> None:
    source = (SOURCES / mutant.file).read_text().splitlines()[mutant.line - 1].strip()
    print(f"SURVIVED {mutant.file}:{mutant.line} {mutant.what}: {source}", flush=True)


def main(
    sample: Annotated[int, typer.Option(help="How many changes; 0 for all.")] = 120,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 1,
    minutes: Annotated[float, typer.Option(help="No change is begun after this.")] = 120.0,
    jobs: Annotated[int, typer.Option(help="Changes tried at a time.")] = os.cpu_count() or 1,
    only: Annotated[str, typer.Option(help="Files whose names hold this.")] = "",
    again: Annotated[
        Path | None, typer.Option(help="Tries what survived there, instead of a sample.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the figures are written.")] = None,
) -> None:
    """Tries the changes and reports."""
    files = [one for one in sorted(SOURCES.rglob("*.py")) if only in str(one)]
    every = [mutant for path in files for mutant in mutants_of(path)]
    chosen = random.Random(seed).sample(every, sample) if sample else every
    if again is not None:
        chosen = [Mutant(**one) for one in json.loads(again.read_text())["survived"]]
    tests = mapped()
    require_sound(tests)
    print(f"{len(tests.seconds)} tests, {sum(tests.seconds.values()):.0f} s", flush=True)
    count, alive, seconds = tried(chosen, tests, jobs, minutes * 60)
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
