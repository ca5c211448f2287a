"""A manifest as people see it: with an explanation above, and with the comments that they wrote."""

from __future__ import annotations

import io
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from loragate_server.concepts.manifest import ConceptEntry, Manifest, dump_manifest

EXPLANATION = """\
# A library of concepts for loragate. `loragate-server concepts add`, `bank` and `remove` change
# this file and leave its comments alone; it may be written by hand as well. `concepts list` checks.
#
# version      always 1.
# concepts     forbidden ones, which adapters must not have learned, and neutral ones, with which
#              everything is compared: one or more of the former, eight or more of the latter; of
#              these 64 are used at most.
#
# Every concept has
#   id         a-z, 0-9 and hyphens; reports and rules of the policy name it.
#   name       for people.
#   names      the same in other languages, such as ja: ...; may be left out.
#   category   a word of your own, such as likeness, trademark or harm; rules may name it.
#   severity   low, medium, high or critical; graver ones get graver remedies.
#   role       forbidden or neutral.
#   prompts    what a user would write to see it. The first one counts; may be left out.
# and pictures (PNG, JPEG or WebP, 1 to 64, below this folder), either
#   hands      by who made them: an artist, a shoot, a source. With two or more, adapters that
#              learned the concept from pictures that you do not hold are found as well; or
#   pictures   a list, where nobody has sorted them; they count as one hand.
# The first 12 show the concept, hands taking turns. Further ones are kept back, for adapters that
# `calibrate --learned` and `evaluate` train.
#
# - id: our-mascot
#   name: Our mascot
#   category: trademark
#   severity: high
#   role: forbidden
#   prompts: [our mascot waving]
#   hands:
#     comic: [pictures/comic-1.png, pictures/comic-2.png]
#     film: [pictures/film-1.jpg]

"""


def explained(manifest: Manifest) -> str:
    """A new file, with what each key means above it."""
    return EXPLANATION + dump_manifest(manifest).decode()


def rewritten(text: str, manifest: Manifest) -> str:
    """The text of a manifest, changed to say `manifest`, with the comments of what stays.

    Whatever cannot be kept so is given up for the content, which counts alone.
    """
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 4096
    try:
        content = yaml.load(text)
        _change(content["concepts"], manifest)
        stream = io.StringIO()
        yaml.dump(content, stream)
        changed = stream.getvalue()
        read = YAML(typ="safe", pure=True).load(changed)
        if Manifest.model_validate(read) == manifest:
            return changed
    except (YAMLError, ValidationError, KeyError, TypeError, AttributeError, NotImplementedError):
        pass  # aliases, tags and the like
    return dump_manifest(manifest).decode()


def _change(entries: Any, manifest: Manifest) -> None:
    wanted = {entry.id: entry for entry in manifest.concepts}
    for index in reversed(range(len(entries))):
        entry = wanted.get(entries[index]["id"])
        if entry is None:
            del entries[index]
        elif ConceptEntry.model_validate(entries[index]) != entry:
            entries[index] = entry.model_dump(mode="json", exclude_none=True)
    known = {entry["id"] for entry in entries}
    if not entries:
        entries.fa.set_block_style()
    entries.extend(
        entry.model_dump(mode="json", exclude_none=True)
        for entry in manifest.concepts
        if entry.id not in known
    )
