"""`serve --console-demo`: the console for a first look, before anybody set up how to sign in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragate_server.cli.options import EXIT_USAGE, fail, load
from loragate_server.config.listen import is_loopback, split_address
from loragate_server.config.schema import Config

_GROUP = "demo"


def with_demo(file: Path | None, flags: Mapping[str, Any]) -> Config:
    """The configuration with a console that a link of the server's output opens once.

    Ends the command where the HTTP port can be reached from elsewhere, has no fixed number, or
    where the configuration has a console of its own.
    """
    wanted = load(file, flags)
    if wanted.console.enabled:
        fail(
            "--console-demo is for a first look, and the configuration enables the console with "
            f"console.auth {wanted.console.auth}; leave one of them out",
            EXIT_USAGE,
        )
    address = wanted.listen.http
    if not is_loopback(address) or split_address(address)[1] == 0:
        fail(
            f"--console-demo needs an HTTP port of this machine with a number, and listen.http is "
            f"{address}; give --http 127.0.0.1:9464",
            EXIT_USAGE,
        )
    demo = {
        "enabled": True,
        "auth": "demo",
        "public_url": f"http://{address}",
        "roles": {"admin": [_GROUP]},
    }
    return load(file, {**flags, "console": demo})
