"""Tries changes within functions in forks of a process that has collected the tests already.

Loading the tests takes seconds, a test that notices a change most often some milliseconds. What a
function does can be changed after it was loaded, as long as it has not run: its code is put in the
place of the old.
"""

from __future__ import annotations

import ast
import gc
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NoReturn

import pytest

from scripts.wrong_changes import Mutant

FORK = multiprocessing.get_context("fork")
CANNOT, BROKEN = 3, 4


class CannotChangeError(Exception):
    """The code in a function's place would need other names from around it."""


def put_in_place(path: Path, tree: ast.Module, functions: Sequence[FunctionType]) -> None:
    """Gives every function that came from a file its code from a changed tree.

    Raises:
        CannotChangeError: one of them cannot have it.
    """
    changed = {
        (one.co_qualname, one.co_firstlineno): one
        for one in _codes(compile(tree, str(path), "exec"))
    }
    for function in functions:
        old = function.__code__
        code = changed.get((old.co_qualname, old.co_firstlineno))
        if code is not None and old.co_filename == str(path):
            try:
                function.__code__ = code
            except ValueError as error:
                raise CannotChangeError(str(error)) from error


def functions_from(folder: Path) -> list[FunctionType]:
    """The functions that were loaded from the files of a folder."""
    # By its exact type: to ask others for their class may run code.
    loaded = [one for one in gc.get_objects() if type(one) is FunctionType]
    return [one for one in loaded if one.__code__.co_filename.startswith(f"{folder}/")]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


@dataclass
class Question:
    """One change, its tests, and how long they may take in seconds."""

    change: Mutant
    tests: Sequence[str]
    within_s: float


@dataclass
class _Running:
    question: Question
    process: Any
    failed: Any
    until: float


class InForks:
    """A plugin of pytest that does not run the tests: it runs those of each change in a fork.

    Tests that noticed another change of the same file are asked first.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        change: Callable[[Mutant, Sequence[FunctionType]], None],
        sources: Path,
        tell: Callable[[Mutant, str], None],
        *,
        jobs: int,
        limit_s: float,
    ) -> None:
        """Prepares.

        Args:
            questions: what is tried, in this order.
            change: makes a change in these functions, in the process in which it runs; may
                raise `CannotChangeError`.
            sources: the folder of the files that are changed.
            tell: hears "noticed", "survived" or "cannot" of each.
            jobs: how many at a time.
            limit_s: no change is begun after so many seconds.
        """
        self._waiting = list(reversed(questions))
        self._change, self._tell, self._sources = change, tell, sources
        self._functions: list[FunctionType] = []
        self._jobs, self._until = jobs, time.monotonic() + limit_s
        self._asked: dict[str, Counter[str]] = {}
        self._items: Mapping[str, pytest.Item] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Takes the place of the loop over all tests."""
        self._items = {item.nodeid: item for item in session.items}
        self._functions = functions_from(self._sources)
        gc.freeze()  # what was loaded stays shared with the forks
        running: list[_Running] = []
        while running or self._more():
            while len(running) < self._jobs and self._more():
                running.append(self._begin(self._waiting.pop()))
            for one in list(running):
                if not one.process.is_alive() or time.monotonic() > one.until:
                    running.remove(one)
                    self._end(one)
            time.sleep(0.005)
        return True

    def _more(self) -> bool:
        return bool(self._waiting) and time.monotonic() < self._until

    def _begin(self, question: Question) -> _Running:
        before = self._asked.get(question.change.file, Counter())
        order = sorted(question.tests, key=lambda name: -before[name])
        here, there = FORK.Pipe(duplex=False)
        process = FORK.Process(target=self._try, args=(question.change, order, there))
        process.start()
        there.close()
        return _Running(question, process, here, time.monotonic() + question.within_s)

    def _try(self, change: Mutant, names: Sequence[str], failed: Any) -> NoReturn:
        try:
            self._change(change, self._functions)
        except CannotChangeError:
            os._exit(CANNOT)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(BROKEN)
        items = [self._items[name] for name in names if name in self._items]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if item.session.testsfailed:
                failed.send(item.nodeid)
                os._exit(1)
        os._exit(0)

    def _end(self, one: _Running) -> None:
        change = one.question.change
        ended = not one.process.is_alive()
        one.process.kill()
        one.process.join()
        with suppress(EOFError):
            if one.failed.poll():
                self._asked.setdefault(change.file, Counter())[one.failed.recv()] += 1
        one.failed.close()
        if one.process.exitcode == BROKEN:
            raise RuntimeError(f"{change} could not be made")
        what = {0: "survived", CANNOT: "cannot"}.get(one.process.exitcode, "noticed")
        self._tell(change, what if ended else "noticed")
