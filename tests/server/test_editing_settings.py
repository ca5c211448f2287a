"""A console that changes concepts needs people who may, and a library of the operator's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from loragate_server.config.schema import Config

CONSOLE: dict[str, Any] = {
    "enabled": True,
    "public_url": "https://loragate.example.com",
    "auth": "proxy",
    "proxy": {"secret_header": "X-Proxy-Secret", "secret_file": "/etc/secret"},
    "session_secret_file": "/etc/session",
    "roles": {"viewer": ["all"], "concept_editor": ["leads"]},
    "edit_concepts": True,
}


def test_it_can_be_configured(tmp_path: Path) -> None:
    config = Config(console=CONSOLE, library=tmp_path)
    assert config.console.edit_concepts
    assert not Config().console.edit_concepts


@pytest.mark.parametrize(
    ("change", "library", "said"),
    [
        ({"roles": {"viewer": ["all"]}}, Path("/srv/concepts"), "concept_editor names no group"),
        ({}, None, "never the one that ships"),
        ({"proxy": {}}, Path("/srv/concepts"), "concept_editors, and whatever reaches the port"),
        ({"roles": {"concept_editor": ["leads"]}}, Path("/srv/concepts"), "nobody could enter"),
    ],
)
def test_what_it_lacks_is_named(change: dict[str, Any], library: Path | None, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config(console={**CONSOLE, **change}, library=library)
