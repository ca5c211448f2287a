"""Reads a request to A1111, Forge or SD.Next: every text and every member, at any depth."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.reading.bases import refuse_other_base
from loragate_server.intercept.reading.findings import Found, Spelling, Spot, as_path, below
from loragate_server.intercept.reading.lora_files import LoraFiles, as_it_stands
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.sets import used_at
from loragate_server.intercept.reading.tags import tags_in, without_tags
from loragate_server.intercept.refusals import Location, door_closed, place_of, unnamed
from loragate_server.intercept.servers.a1111_infotext import (
    further_readings,
    is_infotext,
    refuse_named_base,
)
from loragate_server.intercept.servers.a1111_names import files_named
from loragate_server.intercept.servers.a1111_sets import OPTION, Mention
from loragate_server.intercept.servers.a1111_text import (
    INSERTED,
    begins_for_all,
    refuse_insertion,
    refuse_undecidable,
)

# These change which file a name means, or where files are looked for.
_MEANING = frozenset(
    {
        "lora_preferred_name",
        "lora_in_memory_limit",
        "lora_dir",
        "lyco_dir",
        "hypernetwork_dir",
        "embeddings_dir",
        "models_dir",
        "styles_dir",
        "wildcards_dir",
    }
)
_LOADING = MappingProxyType(
    {"lora_apply_te": True, "lora_force_diffusers": False, "lora_apply_tags": False}
)
"""Options of SD.Next that change how a file is loaded, as the rules of loaders take them; and one
that puts words from the header of a LoRA into the prompt, which may be tags."""
_CODE = frozenset({"custom_diffusers_pipeline"})
"""Options of SD.Next that load code, which can load anything."""
_BASES = frozenset(
    {
        "sd_model_checkpoint",
        "sd_model_refiner",
        "refiner_checkpoint",
        "hr_checkpoint_name",
        "hr_additional_modules",
        "forge_additional_modules",
        "sd_unet",
        "sd_unet_secondary",
        "sd_text_encoder",
        "sd_model_dict",
        "ad_checkpoint",
    }
)
"""Members that name a base model, or a part of one that adapters change."""
_NO_NETWORK: tuple[object, ...] = ("", "None", "none", [], {})


@dataclass(frozen=True)
class Reader:
    """Finds the adapters of one request.

    Attributes:
        reference: the file that a name means, at a strength.
        lora_folder, base_names, allow_wildcards, allow_styles: as the server is set.
        files: in the folder of LoRAs.
        default: strength of a tag without one.
        prompts: the main ones, one after the other.
        of_bases: whether a member `model` names a base model.
    """

    reference: Callable[[Any, str, Strength], AdapterReference]
    lora_folder: str
    base_names: Collection[str]
    allow_wildcards: bool
    allow_styles: bool
    files: LoraFiles
    default: float
    prompts: str = ""
    of_bases: bool = True

    @cached_property
    def left_open(self) -> str:
        """Whether the main prompts hold what may be part of a tag, and of a wildcard."""
        return "<" * ("<" in without_tags(self.prompts)) + "_" * ("__" in self.prompts)

    def walk(self, value: Any, location: Location) -> Iterator[Mention]:
        """Adapters in every string and under every name, at any depth."""
        if isinstance(value, str):
            yield from self._in_prompt(value, location)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from self.walk(item, (*location, number))
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from self._member(name, item, (*location, name))

    def _member(self, name: str, item: Any, location: Location) -> Iterator[Mention]:
        lowered = name.casefold()
        if "<" in name and list(tags_in(name, place_of(*location))):
            raise unnamed(place_of(*location), "is a name with a tag.", "Use tags in prompts only.")
        if lowered == OPTION:
            if item not in (None, "", "None"):
                strengths = (Strength(self.default, self.default),)
                for reference, choice in self._meant(item, place_of(*location), strengths):
                    spot = Spot(location, item, spelling=_as_name(self.lora_folder))
                    found = Found(reference, place_of(*location), spot)
                    yield Mention(found, location, item, choice=choice)
        elif lowered in _MEANING:
            raise door_closed(
                f"{place_of(*location)} changes which file a name means.", "Leave it out."
            )
        elif lowered in _LOADING and not _loads_as_told(item, _LOADING[lowered], location):
            raise door_closed(
                f"{place_of(*location)} changes how the server loads LoRAs.",
                f"Leave it out, or send {str(_LOADING[lowered]).lower()}.",
            )
        elif lowered in _BASES or (lowered == "model" and len(location) == 1 and self.of_bases):
            refuse_other_base(item, place_of(*location), self.base_names)
            yield from self.walk(item, location)
        elif lowered in _CODE and item:
            raise door_closed(f"{place_of(*location)} loads code.", "Leave it out.")
        elif "hypernet" in lowered and isinstance(item, str | list | dict):
            if item not in _NO_NETWORK:
                raise unnamed(place_of(*location), "loads a hypernetwork.", "Leave it out.")
        elif speaks_of_lora(name) and isinstance(item, str | list | dict):
            if item not in ("", "None", [], {}):
                raise unnamed(
                    place_of(*location),
                    "is no known way to name a LoRA.",
                    "Use a tag in the prompt.",
                )
        else:
            yield from self.walk(item, location)

    def _in_prompt(self, text: str, location: Location) -> Iterator[Mention]:
        named = [part for part in location if isinstance(part, str)]
        name = named[-1] if named else ""
        if INSERTED.search(text):
            refuse_insertion(
                text, place_of(*location), self.left_open, wildcards=self.allow_wildcards
            )
        further = further_readings(text) if is_infotext(name) else ()
        for reading in (text, *further):
            if self.base_names and is_infotext(name):
                refuse_named_base(reading, place_of(*location))
            refuse_undecidable(
                reading,
                place_of(*location),
                name,
                wildcards=self.allow_wildcards,
                styles=self.allow_styles,
            )
        yield from self._tags(text, location, in_body=True)
        for reading in further:
            yield from self._tags(reading, location, in_body=False)

    def _tags(self, text: str, location: Location, *, in_body: bool) -> Iterator[Mention]:
        """The tags of a text; one that is not in the body as it stands cannot be rewritten."""
        place = place_of(*location)
        tags = list(tags_in(text, place))
        certain = begins_for_all(text) if tags else ()
        for tag in tags:
            spelling = as_path if tag.name.startswith("/") else _as_name(self.lora_folder)
            spot = Spot(location, text, tag.span, spelling=spelling) if in_body else None
            drawn = tag.begin not in certain
            for reference, choice in self._meant(tag.name, place, tag.in_web_uis(self.default)):
                found = Found(reference, place, spot)
                yield Mention(found, location, tag.name, tag, choice, drawn)

    def _meant(
        self, name: Any, place: str, strengths: Sequence[Strength]
    ) -> Iterator[tuple[AdapterReference, str]]:
        """Every file that a name may mean, and which of several it is."""
        given = used_at(self.reference(name, place, strengths[0]), strengths)
        resolvers = (files_named, as_it_stands) if _is_looked_up(name) else ()
        paths = self.files.meant_by(name, resolvers)
        if not paths:
            yield given, ""
        for path in paths:
            meant = replace(given, path=f"{self.lora_folder.rstrip('/')}/{path}")
            yield meant, path if len(paths) > 1 else ""


def _is_looked_up(name: str) -> bool:
    return not name.startswith("/")


def _as_name(folder: str) -> Spelling:
    """The server knows files by their names without suffix, wherever below the folder they are."""
    inside = below(folder)

    def spell(path: str) -> str | None:
        name = inside(path)
        stem = PurePosixPath(path).stem
        return stem if name and not re.search(r"[:<>=]", stem) else None

    return spell


def _loads_as_told(item: Any, wanted: bool, location: Location) -> bool:
    if item is None and len(location) == 1:  # beside the prompt, it says nothing
        return True
    return isinstance(item, int) and bool(item) is wanted
