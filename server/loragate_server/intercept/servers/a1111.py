"""A1111, Forge and SD.Next: LoRA tags anywhere in a request, options, styles and scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import (
    Findings,
    Found,
    Spelling,
    Spot,
    as_path,
    below,
)
from loragate_server.intercept.reading.references import anywhere, hub_file, in_folder
from loragate_server.intercept.reading.sets import used_at
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.reading.tags import tags_in, without_tags
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    door_closed,
    place_of,
    unnamed,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.servers.a1111_sets import OPTION, Mention, together

_MULTIPLIER = "extra_networks_default_multiplier"
_HUB = "/huggingface.co/"
# These change which file a name means, or where files are looked for.
_MEANING = frozenset({"lora_preferred_name", "lora_dir", "lyco_dir", "lora_in_memory_limit"})
_WILDCARD = re.compile(r"__[^\s_][^\s]*?__")
_NEEDS_BODY = frozenset({"generate", "options"})


@dataclass(frozen=True, kw_only=True)
class A1111(ImageServer):
    """Settings and extractor of A1111, Forge and SD.Next.

    Attributes:
        lora_folder: the folder of LoRAs. The name in a tag is taken for the file of that name in
            it; the server must be set to know LoRAs by file name, not by the alias in the file.
        default_strength: of a tag without one, and of the option sd_lora.
        allow_styles: lets requests name styles, whose text on the server may hold tags.
        allow_wildcards: lets prompts hold `__name__`, for which extensions put in text from files.
        allow_web_ui: lets requests of the server's own page pass, which are then searched for
            tags, but whose styles and scripts cannot be told apart.
        allowed_scripts: scripts that put nothing into prompts, in lower case.
    """

    kind: ClassVar[str] = "a1111"
    routes: ClassVar[tuple[Route, ...]] = (
        route("generate", "txt2img"),
        route("generate", "img2img"),
        route("generate", "sdapi/v1/control"),
        route("options", "sdapi/v1/options"),
        route("other", "sdapi/v1/*"),
        route("web", "queue/join", any_method=True),
        route("web", "run/*"),
        # Each function of the page has a name of its own here, and all take `fn_index`.
        route("web", "api/*"),
        route("web", "call/*"),
    )
    passed: ClassVar[tuple[str, ...]] = (
        # Clients of SD.Next's gallery send the name of a folder, and get its files.
        "UPGRADE /sdapi/v1/browser/files",
        "DELETE /sdapi/v1/*",
        "POST /sdapi/v1/autocomplete/*/download",
        "DELETE /sdapi/v1/autocomplete/*",
        "POST /internal/progress",
        "POST /controlnet/detect",
        "POST /login",
        "POST /upload",
        "POST /reset",
    )
    prefixes: ClassVar[tuple[str, ...]] = ("/gradio_api",)

    lora_folder: str
    default_strength: float = 1.0
    allow_styles: bool = False
    allow_wildcards: bool = False
    allow_web_ui: bool = False
    allowed_scripts: tuple[str, ...] = ("controlnet", "refiner", "sampler", "seed", "hypertile")

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if hit.route.name == "web" and not self.allow_web_ui:
            raise door_closed(
                "The server's own page sends prompts in a form that is not fully read.",
                "Use /sdapi/v1, or set allow_web_ui.",
            )
        empty = not request.body.strip() and request.body_complete
        if empty and hit.route.name not in _NEEDS_BODY and not _announces_body(request):
            return Findings()
        document, body = read_object(request, self.limits)
        if hit.route.name == "options" and _MULTIPLIER in body:
            raise door_closed(
                f"{_MULTIPLIER} changes the strength of tags in later requests.",
                "Write strengths in the tags.",
            )
        self._check_styles_and_scripts(body)
        mentions = list(self._walk(body, (), self._default(body)))
        return Findings(together(mentions, second_pass=bool(body.get("hr_prompt"))), document.text)

    def _default(self, body: dict[str, Any]) -> float:
        settings = body.get("override_settings")
        value = settings.get(_MULTIPLIER) if isinstance(settings, dict) else None
        if value is not None and not body.get("override_settings_restore_afterwards", True):
            raise door_closed(
                f"{_MULTIPLIER} would stay and change the strength of tags in later requests.",
                "Leave override_settings_restore_afterwards out.",
            )
        return self.default_strength if value is None else strength(value, f"/{_MULTIPLIER}")

    def _check_styles_and_scripts(self, body: dict[str, Any]) -> None:
        if body.get("styles") and not self.allow_styles:
            raise unnamed(
                "/styles",
                "names styles, whose text on the server may hold tags.",
                "Write their text into the prompt, or set allow_styles.",
            )
        scripts = body.get("alwayson_scripts") or {}
        names = [body.get("script_name"), *(scripts if isinstance(scripts, dict) else ["?"])]
        for name in names:
            if name and str(name).casefold() not in self.allowed_scripts:
                raise unnamed(
                    place_of("scripts", str(name)),
                    "may put tags into prompts.",
                    "Leave the script out, or name it in allowed_scripts.",
                )

    def _walk(self, value: Any, location: Location, default: float) -> Iterator[Mention]:
        """Adapters in every string and under every name, at any depth."""
        if isinstance(value, str):
            yield from self._in_prompt(value, location, default)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from self._walk(item, (*location, number), default)
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from self._member(name, item, (*location, name), default)

    def _member(
        self, name: str, item: Any, location: Location, default: float
    ) -> Iterator[Mention]:
        lowered = name.casefold()
        if "<" in name and list(tags_in(name, place_of(*location))):
            raise unnamed(place_of(*location), "is a name with a tag.", "Use tags in prompts only.")
        if lowered == OPTION:
            if item not in (None, "", "None"):
                spelling = _as_name(self.lora_folder)
                place = place_of(*location)
                reference = self.reference(item, place, Strength(default, default))
                found = Found(reference, place, Spot(location, item, spelling=spelling))
                yield Mention(found, location, item)
        elif lowered in _MEANING:
            raise door_closed(
                f"{place_of(*location)} changes which file a name means.", "Leave it out."
            )
        elif ("lora" in lowered or "lyco" in lowered) and isinstance(item, str | list | dict):
            if item not in ("", "None", [], {}):
                raise unnamed(
                    place_of(*location),
                    "is no known way to name a LoRA.",
                    "Use a tag in the prompt.",
                )
        else:
            yield from self._walk(item, location, default)

    def _in_prompt(self, text: str, location: Location, default: float) -> Iterator[Mention]:
        place = place_of(*location)
        if not self.allow_wildcards and "__" in text and _WILDCARD.search(text):
            raise unnamed(
                place,
                "holds a wildcard, for which the server may put in tags.",
                "Write its text out, or set allow_wildcards.",
            )
        if "<" not in text:
            return
        if "{" in text and "<" in without_tags(text):
            raise ambiguous_adapter(
                place, "may become a tag when its variants are drawn.", "Write the tag out."
            )
        for tag in tags_in(text, place):
            strengths = tag.in_web_uis(default)
            reference = used_at(self.reference(tag.name, place, strengths[0]), strengths)
            spelling = as_path if tag.name.startswith("/") else _as_name(self.lora_folder)
            found = Found(reference, place, Spot(location, text, tag.span, spelling=spelling))
            yield Mention(found, location, tag.name, tag)

    def reference(self, name: Any, place: str, strength: Strength) -> AdapterReference:
        """The file that a name means. SD.Next takes paths, and paths on the hub, as well."""
        if isinstance(name, str) and name.startswith(_HUB):
            parts = name.removeprefix(_HUB).split("/")
            return hub_file("/".join(parts[:2]), place, strength, file="/".join(parts[2:]) or None)
        if isinstance(name, str) and name.startswith("/"):
            return anywhere(name, place, strength, hub_ids=False)
        if isinstance(name, str) and "://" in name:
            raise unnamed(place, "is no name of a LoRA.", "Write <lora:name:strength>.")
        return in_folder(name, self.lora_folder, place, strength, suffix=".safetensors")

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """An error as the servers' API sends it."""
        return {
            "error": code,
            "detail": message,
            "body": "",
            "errors": message,
            "decision_id": decision_id,
        }


def _as_name(folder: str) -> Spelling:
    """The server knows files by their names without suffix, wherever below the folder they are."""
    inside = below(folder)

    def spell(path: str) -> str | None:
        name = inside(path)
        stem = PurePosixPath(path).stem
        return stem if name and not re.search(r"[:<>=]", stem) else None

    return spell


def _announces_body(request: HttpRequest) -> bool:
    return bool(request.header("content-length").strip() not in ("", "0"))
