"""Writes docs/extractors.md: what every extractor asks about, passes, refuses and can be told.

.venv/bin/python -m scripts.extractor_page            writes it
.venv/bin/python -m scripts.extractor_page --check    exit code 1 where it is not as written
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.passing import SAFE
from loragate_server.intercept.registry import EXTRACTORS
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Route
from loragate_server.intercept.servers.grpc_routes import SERVICE

DOCUMENT = Path(__file__).parents[1] / "docs" / "extractors.md"
NEEDED = {"lora_folder": "/loras", "rules": [{"path": "/generate", "reference": "$..lora"}]}
"""Settings without which an extractor cannot be made."""

RELAY = "interception.md#websockets-the-relay"
STREAMS = "interception.md#grpc-streams"

HEAD = f"""# Extractors: routes and settings

Made from the code by `python -m scripts.extractor_page`. What an extractor does with a request:

| | |
|---|---|
| asked | it is read; its adapters are audited, or it is refused where they cannot be told |
| refused | nobody could read what it loads; a setting may open it |
| read by ext_proc | a stream of gRPC, whose messages [Envoy shows one by one]({STREAMS}) |
| passed | it changes something and loads nothing; its body is not read |
| read by a relay | a WebSocket, whose messages are read by [the relay]({RELAY}) |
| everything else | {", ".join(sorted(SAFE))} pass; other methods are denied, see `unknown_routes` |

Asked and refused routes are known by the end of their paths, under any prefix; `*` is any one
segment. Passed ones have to fit from the first segment on, `**` is all that follows (what stands
in brackets may be missing), and UPGRADE stands for the opening of a WebSocket.
"""


def made(kind: type[ImageServer]) -> ImageServer:
    """An extractor with nothing set that need not be."""
    known = {one.name for one in fields(kind)}
    return kind(**{name: value for name, value in NEEDED.items() if name in known})


def is_closed(server: ImageServer, route: Route) -> bool:
    """Whether a route is refused whatever is sent, with the settings as they are."""
    path = example(route)
    headers = {"content-type": "application/json", "content-length": "2"}
    try:
        server.extract(HttpRequest("POST", path, headers=headers, body=b"{}"))
    except RefusedRequestError as refusal:
        return refusal.code is RefusalCode.DOOR_CLOSED
    return False


def is_stream(server: ImageServer, route: Route) -> bool:
    """Whether a route opens a stream of gRPC whose messages are read."""
    headers = {"content-type": "application/grpc"}
    return server.opens_stream(HttpRequest("POST", example(route), headers=headers))


def example(route: Route) -> str:
    """A path that a route takes."""
    methods = route.pattern[-1][:1].isupper()
    filler = SERVICE if methods else "x"
    return "/" + "/".join(filler if part == "*" else part for part in route.pattern)


def routes(server: ImageServer) -> Iterator[str]:
    """The rows of a table of routes."""
    streams = [one for one in server.guarded() if is_stream(server, one)]
    others = [one for one in server.guarded() if one not in streams]
    closed = [one for one in others if is_closed(server, one)]
    asked = [one for one in others if one not in closed]
    yield f"| asked | {_written(_path(one) for one in asked)} |"
    yield f"| refused | {_written(_path(one) for one in closed)} |"
    yield f"| passed | {_written(_lines(server))} |"
    if streams:
        yield f"| read by ext_proc | {_written(_path(one) for one in streams)} |"
    if server.sockets:
        yield f"| read by a relay | {_written(server.sockets)} |"
    if server.prefixes:
        yield f"| passed as well | under {_written(server.prefixes)} |"


def _path(one: Route) -> str:
    return f"{'any method ' if one.any_method else ''}/{'/'.join(one.pattern)}"


def _lines(server: ImageServer) -> Iterator[str]:
    """The passed routes, with the methods of one path together."""
    methods: dict[str, list[str]] = {}
    for line in server.passed:
        method, _, path = line.partition(" ")
        methods.setdefault(path, []).append(method)
    for path, found in methods.items():
        if methods.get(f"{path}/**") == found:
            continue
        if methods.get(path.removesuffix("/**")) == found and path.endswith("/**"):
            path = f"{path.removesuffix('/**')}[/**]"
        yield f"{' '.join(found)} {path}"


def _written(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def settings(kind: type[ImageServer], *, own: bool) -> Iterator[str]:
    """The rows of a table of settings: those of every extractor, or those of one alone."""
    common = {one.name for one in fields(ImageServer)}
    told = _told(kind)
    for one in fields(kind):
        if one.init and one.name != "label" and (one.name not in common) is own:
            yield f"| `{one.name}` | {_default(one)} | {told[one.name]} |"


def _told(kind: type[ImageServer]) -> dict[str, str]:
    """What the docstrings of a class and its bases say of its attributes."""
    told: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        _, _, listed = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")
        found = re.findall(r"^    (\w+): (.+(?:\n     +.+)*)", listed, re.MULTILINE)
        told |= {name: re.sub(r"\s+", " ", said) for name, said in found}
    return told


def _default(one: Field[Any]) -> str:
    if one.default is MISSING:
        return "**required**"
    if isinstance(one.default, tuple):
        return _written(one.default)
    if isinstance(one.default, str) and not one.default:
        return "none"
    word = str(one.default).lower() if isinstance(one.default, bool) else str(one.default)
    return f"`{word}`"


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## Settings of all\n", _table("setting", settings(ImageServer, own=False))]
    for name, kind in EXTRACTORS.items():
        parts.append(f"## {name}\n")
        said = (inspect.getdoc(sys.modules[kind.__module__]) or "").splitlines()[0]
        parts.append(f"{said}\n")
        parts.append("\n".join(["| | routes |", "|---|---|", *routes(made(kind))]) + "\n")
        rows = list(settings(kind, own=True))
        if rows:
            parts.append(_table("setting", rows))
    return "\n".join(parts)


def _table(first: str, rows: Iterable[str]) -> str:
    return "\n".join([f"| {first} | default | |", "|---|---|---|", *rows]) + "\n"


def main() -> int:
    """Writes the page, or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; compare")
    if parser.parse_args().check:
        return int(not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != page())
    DOCUMENT.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
