"""The configured extractors. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping

from loragate_server.config.intercept import InterceptSection
from loragate_server.config.schema import StartError
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.registry import make_extractor


def make_extractors(section: InterceptSection) -> Mapping[str, ImageServer]:
    """The configured extractors, by name.

    Raises:
        StartError: there is no such kind, or it cannot be told such settings; a line for each.
    """
    made: dict[str, ImageServer] = {}
    wrong: list[str] = []
    for name, entry in section.extractors.items():
        try:
            made[name] = make_extractor(name, entry.kind, entry.settings)
        except ValueError as error:
            wrong.append(f"intercept.extractors.{name}: {error}")
    if wrong:
        raise StartError("\n".join(wrong))
    return made
