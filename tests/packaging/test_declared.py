"""Whatever a distribution imports, it demands."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"client": "loragate", "kernels": "loragate_kernels", "server": "loragate_server"}


def declared(folder: str) -> set[str]:
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    every = list(project["dependencies"])
    for extra in project.get("optional-dependencies", {}).values():
        every += extra
    return {re.split(r"[<>=~!\[; ]", one)[0].lower().replace("_", "-") for one in every}


def imported(folder: str) -> set[str]:
    """Top-level packages that are imported when a module is loaded, generated code left out."""
    found: set[str] = set()
    for path in (ROOT / folder / OURS[folder]).rglob("*.py"):
        if "_pb2" in path.name or "integrations" in path.parts:
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - set(OURS.values())


@pytest.mark.parametrize("folder", OURS)
def test_a_package_that_is_imported_is_demanded(folder: str) -> None:
    by_package = packages_distributions()
    demanded = declared(folder)
    come_along = {"pydantic-core", "ruamel.yaml", "protobuf", "googleapis-common-protos"}
    come_along |= {"yarl", "multidict"}  # in what aiohttp itself takes and gives
    for package in imported(folder):
        givers = {one.lower().replace("_", "-") for one in by_package.get(package, [package])}
        assert givers & (demanded | come_along), f"{folder} imports {package} and does not ask"


@pytest.mark.parametrize("part", OURS)
def test_what_windows_lacks_is_imported_where_it_is_used_or_may_be_missing(part: str) -> None:
    """Whoever installs it there can use what needs none of it."""
    found = [
        f"{file}: {alias.name}"
        for file in (ROOT / part).rglob("*.py")
        for statement in ast.parse(file.read_text("utf-8")).body  # at import, and in no `try`
        if isinstance(statement, ast.Import)
        for alias in statement.names
        if alias.name in ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
    ]
    assert found == []
