"""Style sheets, served under names that hold their digest, so that browsers may keep them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from loragate_server.report.render import TEMPLATES as REPORT_FOLDER

FOR_EVER = "private, max-age=31536000, immutable"
_FILES = (REPORT_FOLDER / "report.css", Path(__file__).parent / "static" / "console.css")


@dataclass(frozen=True)
class Assets:
    """The files in memory: `names` maps a file's own name to the one that it is served under."""

    names: dict[str, str]
    contents: dict[str, str]


ASSETS: Final = web.AppKey("assets", Assets)
OWN_HEADERS: Final = web.RequestKey("own_headers", dict[str, str])
"""Where a page leaves headers that differ from those that the access gives to every answer."""


def read_assets() -> Assets:
    """Reads the style sheets of the report and of the console."""
    names, contents = {}, {}
    for file in _FILES:
        text = file.read_text("utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        served = f"{file.stem}-{digest}{file.suffix}"
        names[file.name] = served
        contents[served] = text
    return Assets(names, contents)


async def asset(request: web.Request) -> web.Response:
    """One style sheet; 404 for the name of another version."""
    text = request.app[ASSETS].contents.get(request.match_info["name"])
    if text is None:
        raise web.HTTPNotFound
    request[OWN_HEADERS] = {"Cache-Control": FOR_EVER}
    return web.Response(text=text, content_type="text/css")
