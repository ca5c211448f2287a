"""`loragate doctor`: what is installed, what a scan would use, what is stale; a remedy for each."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Literal

from loragate import __version__
from loragate.cli import scan_settings
from loragate.cli.caches import described
from loragate.cli.engine import Engine, engine
from loragate.cli.engine_config import INSTALL, EngineError, make_state
from loragate.cli.exit_code import ExitCode
from loragate.cli.gating import STARTING, LiveLine
from loragate.cli.output import json_line, took_s
from loragate.cli.scan_engine import engine_settings
from loragate.cli.table import printable
from loragate.cli.told import told
from loragate.client import AuditClient

State = Literal["ok", "warning", "problem"]

_OPTIONAL = (
    ("s3fs", "s3:// addresses", "pip install 'loragate-server[s3]'"),
    ("jinja2", "--format html", INSTALL),
    ("argcomplete", "shell completion", INSTALL),
)
_CALIBRATION = re.compile(
    r'^loragate_calibration_state\{base_model="([^"]*)",state="([a-z_]+)"\} 1\.0$', re.MULTILINE
)
_METRICS_LIMIT_S = 10.0


@dataclass(frozen=True)
class Line:
    """What was found about one thing.

    Attributes:
        remedy: what to do; empty where nothing is to be done.
    """

    state: State
    about: str
    found: str
    remedy: str = ""


def doctor(options: argparse.Namespace) -> ExitCode:
    """Looks at everything that a scan with these options needs; 3 where a scan would fail."""
    lines = []
    for line in chain(_installed(), _used(options)):
        lines.append(line)
        print(json_line(vars(line)) if options.json else _told(line), flush=True)
    failed = any(line.state == "problem" for line in lines)
    return ExitCode.ERROR if failed else ExitCode.ALLOW


def _told(line: Line) -> str:
    """A line for people, and below it what to do."""
    said = printable(f"{line.state:9}{line.about:17}{line.found}")
    return f"{said}\n{'':9}{'do:':17}{printable(line.remedy)}" if line.remedy else said


def _installed() -> Iterator[Line]:
    yield Line("ok", "python", f"{platform.python_version()} at {sys.executable}")
    yield Line("ok", "loragate", __version__)
    server = _version("loragate-server")
    if server is None:
        yield Line("problem", "loragate-server", "not installed", INSTALL)
    elif server != __version__:
        remedy = f"pip install 'loragate-server=={__version__}'"
        yield Line("problem", "loragate-server", f"{server}, and loragate {__version__}", remedy)
    else:
        yield Line("ok", "loragate-server", server)
    torch = _version("torch")
    yield Line("ok", "torch", torch) if torch else Line("problem", "torch", "not there", INSTALL)
    for package, what, remedy in _OPTIONAL:
        if importlib.util.find_spec(package) is None:
            yield Line("warning", package, f"not installed; {what} need it", remedy)
        else:
            yield Line("ok", package, f"{_version(package) or 'installed'}, for {what}")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _used(options: argparse.Namespace) -> Iterator[Line]:
    """What a scan from here would use, tried by starting the engine with it."""
    try:
        used = scan_settings.apply(options, Path.cwd())
        settings = engine_settings(options, ())
    except (OSError, ValueError) as error:
        yield Line("problem", "settings", told(error), "mend it, or --no-settings")
        return
    yield Line("ok", "settings", str(used.file if used else "no .loragate.toml here or above"))
    for name in ("base", "library", "policy", "calibration"):
        yield Line("ok", name, str(getattr(settings, name) or "the one that ships"))
    for what, place in described(settings.state):
        yield Line("ok", what, place)
    line = LiveLine()
    line.announce(STARTING)
    try:
        with engine(settings.at(make_state(settings.state)), line.show) as running:
            line.clear()
            yield Line("ok", "engine", f"ready after {took_s(running.started_s)}")
            yield from _served(running)
    except EngineError as error:
        line.clear()
        yield Line("problem", "engine", str(error), "mend what it names")


def _served(running: Engine) -> Iterator[Line]:
    for warning in running.warnings():
        yield Line("warning", "engine", warning, "mend it, or know that it is so")
    with AuditClient(running.target, on_unavailable="raise") as client:
        concepts = client.concepts.list()
        yield Line("ok", "concepts", f"{sum(1 for _ in concepts)}; loragate-server concepts list")
    for base_model, state in _CALIBRATION.findall(_metrics(running.metrics)):
        yield _CALIBRATED[state](base_model)


_CALIBRATED: dict[str, Callable[[str], Line]] = {
    "in_force": lambda base: Line("ok", "calibration", f"in force for {base}"),
    "stale": lambda base: Line(
        "warning",
        "calibration",
        f"stale: made for another base model, library or version than {base} has now",
        "loragate-server calibrate, then --calibration FILE",
    ),
    "missing": lambda base: Line(
        "warning",
        "calibration",
        f"none for {base}: p-values are approximate, and no audit ends at the screen",
        "loragate-server calibrate, then --calibration FILE",
    ),
}


def _metrics(address: str) -> str:
    """The engine's metrics, which are on this machine: no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=_METRICS_LIMIT_S) as answer:
        text: bytes = answer.read()
    return text.decode()
