"""Makes wrong changes in the extractors, one at a time, and counts those that a test notices.

    .venv/bin/python -m scripts.extractor_mutations --sample 120 --seed 1

A change turns a comparison, a condition, a number, a truth value, an `and` or the result of a
function. Sentences for people and types are left alone. Every change runs in a process of its own
against the tests that run its line, until one fails; no other test can notice it. A change within a
function that runs in tests alone is made after the tests are loaded; any other in a process that
has loaded no extractor yet. The unchanged code has to pass. Prints each change that survived, with
its line, and the share.
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
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Annotated, Any, NoReturn, cast

import pytest
import typer

from scripts.changed_functions import InForks, Question, put_in_place
from scripts.tests_of_lines import TestsOfLines, Watched
from scripts.wrong_changes import Mutant, changed, mutants_of, place_of

ROOT = Path(__file__).parents[1]
PACKAGE = "loragate_server.intercept"
FOLDER = "tests/server/intercept"
SOURCES = ROOT / "server" / "loragate_server" / "intercept"
LEFT_OUT = ("growth", "patterns", "comfyui_templates")
"""Of time alone, or of pages that load nothing."""
TIMED = "less_than_a_millisecond"
"""A test of time within another file; a machine that watches every line does not pass it."""
TESTS = [
    *(
        str(one.relative_to(ROOT))
        for one in sorted((ROOT / FOLDER).glob("test_*.py"))
        if one.stem.removeprefix("test_") not in LEFT_OUT
    ),
    "tests/server/test_cli_intercept.py",
]
LIMIT_S = 60
SLOWER = 20
"""Times the seconds that its tests took before: a change may make an end never come."""
OUR_OWN = ("loragate", "tests", "testkit", "scripts", "kernels", "benchmarks", "__main__")
FORK = multiprocessing.get_context("fork")


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
    given += ["-k", f"not {TIMED}"]
    given += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are loaded already
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
        self.until = time.monotonic() + _within_s(self.tests)

    def survived(self) -> bool | None:
        """Whether the tests passed; None while they run. What takes too long was noticed."""
        if self.process.is_alive() and time.monotonic() < self.until:
            return None
        self.process.kill()
        self.process.join()
        return bool(self.process.exitcode in (0, pytest.ExitCode.NO_TESTS_COLLECTED))


@dataclass
class Tally:
    """What became of the changes that were tried so far."""

    tests: TestsOfLines
    jobs: int
    until: float
    longest_s: float
    of: int
    noticed: int = 0
    survived: list[Mutant] = field(default_factory=list)

    def left_s(self) -> float:
        """Seconds until no change is begun any more."""
        return max(0.0, self.until - time.monotonic())

    def add(self, mutant: Mutant, what: str) -> None:
        """Counts one, and tells of it."""
        self.noticed += what == "noticed"
        if what == "survived":
            self.survived.append(mutant)
            source = (SOURCES / mutant.file).read_text().splitlines()[mutant.line - 1].strip()
            print(f"SURVIVED {mutant.file}:{mutant.line} {mutant.what}: {source}", flush=True)
        if not (self.noticed + len(self.survived)) % 25:
            count = self.noticed + len(self.survived)
            print(f"{count} of {self.of}, {len(self.survived)} survived", flush=True)

    def asked(self, mutant: Mutant) -> dict[str, float]:
        """The tests of a change, quickest first, and their seconds."""
        tree, node = place_of(SOURCES / mutant.file, mutant)
        found = self.tests.of(mutant.file, tree, node)
        quickest = sorted(found, key=found.__getitem__)
        return {name: found[name] for name in quickest if found[name] <= self.longest_s}

    def runs_while_loading(self, mutant: Mutant) -> bool:
        """Whether the changed statement runs before any test."""
        tree, node = place_of(SOURCES / mutant.file, mutant)
        return self.tests.runs_while_loading(mutant.file, tree, node)


def _within_s(tests: Mapping[str, float]) -> float:
    return LIMIT_S + SLOWER * sum(tests.values())


def try_functions(mutants: Sequence[Mutant], tally: Tally) -> list[Mutant]:
    """Tries changes in forks of one process; returns those for which that is not possible."""
    here, there = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_try_functions, args=(mutants, tally, there))
    child.start()
    there.close()
    cannot = []
    with suppress(EOFError):
        while True:
            mutant, what = here.recv()
            if what == "cannot":
                cannot.append(mutant)
            else:
                tally.add(mutant, what)
    child.join()
    if child.exitcode:
        raise typer.Exit(2)
    return cannot


def _try_functions(mutants: Sequence[Mutant], tally: Tally, answer: Any) -> NoReturn:
    def change(mutant: Mutant, functions: Sequence[FunctionType]) -> None:
        path = SOURCES / mutant.file
        put_in_place(path, changed(path, mutant), functions)

    questions = []
    for mutant in mutants:
        tests = tally.asked(mutant)
        questions.append(Question(mutant, list(tests), _within_s(tests)))
    forks = InForks(
        questions,
        change,
        SOURCES,
        lambda mutant, what: answer.send((mutant, what)),
        jobs=tally.jobs,
        limit_s=tally.left_s(),
    )
    code = _run(None, forks, TESTS)
    answer.close()
    os._exit(int(code not in (0, pytest.ExitCode.NO_TESTS_COLLECTED)))


def try_files(mutants: Sequence[Mutant], tally: Tally) -> None:
    """Tries changes in processes that have loaded no extractor yet."""
    waiting = [Trial(mutant, tally.asked(mutant)) for mutant in reversed(mutants)]
    running: list[Trial] = []
    while running or (waiting and tally.left_s()):
        while waiting and len(running) < tally.jobs and tally.left_s():
            running.append(waiting.pop())
            running[-1].begin()
        for trial in list(running):
            survived = trial.survived()
            if survived is not None:
                running.remove(trial)
                tally.add(trial.mutant, "survived" if survived else "noticed")
        time.sleep(0.05)


def main(
    sample: Annotated[int, typer.Option(help="How many changes; 0 for all.")] = 120,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 1,
    minutes: Annotated[float, typer.Option(help="No change is begun after this.")] = 120.0,
    jobs: Annotated[int, typer.Option(help="Changes tried at a time.")] = os.cpu_count() or 1,
    only: Annotated[str, typer.Option(help="Files whose names hold this.")] = "",
    again: Annotated[
        Path | None, typer.Option(help="Tries what survived there, instead of a sample.")
    ] = None,
    longest_s: Annotated[
        float, typer.Option(help="Tests that take longer are not asked, which notices less.")
    ] = 1000.0,
    out: Annotated[Path | None, typer.Option(help="Where the figures are written.")] = None,
) -> None:
    """Tries the changes and reports."""
    files = [one for one in sorted(SOURCES.rglob("*.py")) if only in str(one)]
    every = [mutant for path in files for mutant in mutants_of(path, SOURCES)]
    chosen = random.Random(seed).sample(every, sample) if sample else every
    if again is not None:
        chosen = [Mutant(**one) for one in json.loads(again.read_text())["survived"]]
    tests = mapped()
    require_sound(tests)
    print(f"{len(tests.seconds)} tests, {sum(tests.seconds.values()):.0f} s", flush=True)
    began = time.monotonic()
    tally = Tally(tests, jobs, began + minutes * 60, longest_s, len(chosen))
    # Those whose tests are quick come first: what the time does not suffice for is less.
    chosen = sorted(chosen, key=lambda one: sum(tally.asked(one).values()))
    loading = [one for one in chosen if tally.runs_while_loading(one)]
    within = [one for one in chosen if one not in set(loading)]
    print(f"{len(within)} in functions that run in tests alone", flush=True)
    try_files([*try_functions(within, tally), *loading], tally)
    count = tally.noticed + len(tally.survived)
    figures = {
        "changes": len(every),
        "tried": count,
        "seed": seed,
        "longest_s": longest_s,
        "noticed": tally.noticed,
        "share": round(tally.noticed / max(count, 1), 4),
        "survived": [asdict(one) for one in tally.survived],
        "seconds": round(time.monotonic() - began),
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
