"""Which tests run which lines, watched while they run: a plugin of pytest around coverage.py."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest


@dataclass(frozen=True)
class TestsOfLines:
    """Which tests run which lines of which file.

    Attributes:
        lines: by file and line, the tests.
        seconds: how long each test takes.
        loading: by file, the lines that ran before any test did, while files were loaded.
    """

    lines: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]
    loading: dict[str, set[int]]

    def of(self, file: str, tree: ast.AST, node: ast.AST) -> dict[str, float]:
        """The tests that run the statement in which a node of a file's tree is, with their seconds.

        A line that runs when its file is loaded belongs to every test that runs any of the file.
        """
        lines = self.lines.get(file, {})
        within = statement(tree, node)
        names = {name for line in within for name in lines.get(line, ())}
        names = names or {name for found in lines.values() for name in found}
        return {name: self.seconds[name] for name in names}

    def runs_while_loading(self, file: str, tree: ast.AST, node: ast.AST) -> bool:
        """Whether the statement in which a node is has run before any test."""
        return not self.loading.get(file, set()).isdisjoint(statement(tree, node))


def statement(tree: ast.AST, node: ast.AST) -> range:
    """The lines of the smallest statement around a node; of a compound one, of its head."""
    line = getattr(node, "lineno", 0)
    around = [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.stmt) and one.lineno <= line <= (one.end_lineno or one.lineno)
    ]
    smallest = min(around, key=lambda one: (one.end_lineno or one.lineno) - one.lineno)
    body = getattr(smallest, "body", None)
    end = body[0].lineno - 1 if body else smallest.end_lineno or smallest.lineno
    return range(smallest.lineno, max(end, smallest.lineno) + 1)


class Watched:
    """Notes which test runs which lines, and how long it takes in seconds."""

    def __init__(self, sources: Path) -> None:
        self.seconds: dict[str, float] = {}
        self._sources = sources
        self._lines = coverage.Coverage(data_file=None, source=[str(sources)])

    def pytest_sessionstart(self) -> None:
        """Begins to watch, before any test loads what it is about."""
        self._lines.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Lines that run from here on are this test's."""
        self._lines.switch_context(nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """Lines between tests are nobody's."""
        self._lines.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Adds the seconds of one part of a test."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def seen(self) -> TestsOfLines:
        """What was noted."""
        self._lines.stop()
        data = self._lines.get_data()
        by_line = {
            str(Path(file).relative_to(self._sources)): data.contexts_by_lineno(file)
            for file in data.measured_files()
        }
        lines = {
            file: {line: [name for name in names if name] for line, names in found.items()}
            for file, found in by_line.items()
        }
        loading = {
            file: {line for line, names in found.items() if "" in names}
            for file, found in by_line.items()
        }
        return TestsOfLines(lines, self.seconds, loading)
