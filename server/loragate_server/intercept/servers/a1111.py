"""A1111, Forge and SD.Next: LoRA tags anywhere in a request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bases import refuse_other_base
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import (
    Findings,
    Found,
    Spelling,
    Spot,
    as_path,
    below,
)
from loragate_server.intercept.reading.forms import is_form, read_form
from loragate_server.intercept.reading.lora_files import LoraFiles, as_it_stands
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.references import anywhere, hub_file, in_folder
from loragate_server.intercept.reading.sets import used_at
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.reading.tags import tags_in, without_tags
from loragate_server.intercept.refusals import Location, door_closed, place_of, unnamed
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.servers.a1111_names import files_named
from loragate_server.intercept.servers.a1111_sets import OPTION, Mention, together
from loragate_server.intercept.servers.a1111_text import (
    INSERTED,
    decoded_infotext,
    refuse_insertion,
    refuse_named_base,
    refuse_undecidable,
)

_MULTIPLIER = "extra_networks_default_multiplier"
_HUB = "/huggingface.co/"
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
_NEEDS_BODY = frozenset({"generate", "pictures", "options"})
_REPEATABLE = frozenset({"image", "image[]", "mask"})


SCRIPTS = (
    "controlnet",
    "refiner",
    "sampler",
    "seed",
    "hypertile",
    "soft inpainting",
    # Its prompts are searched for tags too; without one of its own it takes the main one.
    "adetailer",
    "dynamic thresholding (cfg scale fix)",
    "dynamicthresholding (cfg-fix) integrated",
    "freeu integrated",
    "hypertile integrated",
    "kohya hrfix integrated",
    "selfattentionguidance integrated",
    "never oom integrated",
    "multidiffusion integrated",
    "tiled diffusion",
    "tiled vae",
)
"""Scripts of servers and widespread extensions that know no tags but those of the request."""


@dataclass(frozen=True, kw_only=True)
class A1111(ImageServer):
    """Settings and extractor of A1111, Forge and SD.Next.

    Attributes:
        lora_folder: the folder of LoRAs. The name in a tag is looked up among the files below it,
            by the names of the files and, where none fits, by the names in their headers.
        default_strength: of a tag without one, and of the option sd_lora.
        allow_styles: lets requests name styles, whose text on the server may hold tags.
        allow_wildcards: lets prompts hold `__name__`, for which extensions put in text from files.
        allow_web_ui: lets requests of the server's own page pass, which are then searched for
            tags, but whose styles and scripts cannot be told apart.
        allowed_scripts: scripts that put nothing into prompts but what the request says, in
            lower case.
        base_names: what requests may call the base model, its text encoders and its refiner, as
            `base.safetensors [31e35c80fc]`. With it, requests that name another are refused;
            without it, nobody looks.
    """

    kind: ClassVar[str] = "a1111"
    routes: ClassVar[tuple[Route, ...]] = (
        route("generate", "txt2img"),
        route("generate", "img2img"),
        route("generate", "sdapi/v1/control"),
        route("pictures", "images/*"),
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
    allowed_scripts: tuple[str, ...] = SCRIPTS
    base_names: tuple[str, ...] = ()

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
        files = LoraFiles(self.lora_folder)
        if hit.route.name == "pictures" and is_form(request):
            return self._in_form(request, files)
        document, body = read_object(request, self.limits)
        if hit.route.name == "options" and _MULTIPLIER in body:
            raise door_closed(
                f"{_MULTIPLIER} changes the strength of tags in later requests.",
                "Write strengths in the tags.",
            )
        self._check_styles_and_scripts(body)
        # elsewhere `model` is one that describes pictures, or cuts them out
        of_bases = hit.route.name in _NEEDS_BODY
        reader = _Reader(self, files, self._default(body), _prompts(body), of_bases)
        mentions = list(reader.walk(body, ()))
        return Findings(together(mentions, second_pass=bool(body.get("hr_prompt"))), document.text)

    def _in_form(self, request: HttpRequest, files: LoraFiles) -> Findings:
        """A form as OpenAI's clients send it with pictures."""
        form = read_form(request, self.limits, _REPEATABLE)
        reader = _Reader(self, files, self.default_strength)
        mentions = [
            replace(
                one,
                found=replace(
                    one.found,
                    spot=one.found.spot
                    and replace(one.found.spot, location=(), form_field=field.name),
                ),
            )
            for field in form
            if field.file_name is None
            for one in reader.walk({field.name: field.text}, ())
        ]
        return Findings(together(mentions, second_pass=False), "", form)

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
        for name, script in scripts.items() if isinstance(scripts, dict) else ():
            if name.casefold() == "refiner" and self.base_names:
                self._check_refiner(script, place_of("alwayson_scripts", name, "args"))

    def _check_refiner(self, script: Any, place: str) -> None:
        """Its arguments are whether it is on, a base model, and from which step on."""
        args = script.get("args") if isinstance(script, dict) else script
        if not isinstance(args, list):
            raise unnamed(place, "is no list of arguments.", "Send a list.")
        if args and args[0]:
            refuse_other_base(args[1:2], place, self.base_names)

    def reference(self, name: Any, place: str, strength: Strength) -> AdapterReference:
        """The file that a name means. SD.Next takes paths, and paths on the hub, as well."""
        if isinstance(name, str) and name.startswith(_HUB):
            parts = name.removeprefix(_HUB).split("/")
            return hub_file("/".join(parts[:2]), place, strength, file="/".join(parts[2:]) or None)
        if isinstance(name, str) and name.startswith("/"):
            return anywhere(name, place, strength)
        if isinstance(name, str) and "://" in name:
            raise unnamed(place, "is no name of a LoRA.", "Write <lora:name:strength>.")
        return in_folder(
            name, self.lora_folder, place, strength, suffix=".safetensors", windows=True
        )

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """An error as the servers' API sends it."""
        return {
            "error": code,
            "detail": message,
            "body": "",
            "errors": message,
            "decision_id": decision_id,
        }


@dataclass(frozen=True)
class _Reader:
    """Finds the adapters of one request."""

    server: A1111
    files: LoraFiles
    default: float
    prompts: str = ""
    of_bases: bool = True

    @cached_property
    def open_prompt(self) -> bool:
        """Whether the main prompts hold what may be part of a tag."""
        return "<" in without_tags(self.prompts)

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
                    spot = Spot(location, item, spelling=_as_name(self.server.lora_folder))
                    found = Found(reference, place_of(*location), spot)
                    yield Mention(found, location, item, choice=choice)
        elif lowered in _MEANING:
            raise door_closed(
                f"{place_of(*location)} changes which file a name means.", "Leave it out."
            )
        elif lowered in _BASES or (lowered == "model" and len(location) == 1 and self.of_bases):
            refuse_other_base(item, place_of(*location), self.server.base_names)
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
        if INSERTED in text:
            refuse_insertion(text, place_of(*location), open_prompt=self.open_prompt)
        if self.server.base_names:
            refuse_named_base(text, place_of(*location), name)
        decoded = decoded_infotext(text, name)
        for reading in (text,) if decoded is None else (text, decoded):
            refuse_undecidable(
                reading,
                place_of(*location),
                name,
                wildcards=self.server.allow_wildcards,
                styles=self.server.allow_styles,
            )
        yield from self._tags(text, location, in_body=True)
        if decoded is not None:
            yield from self._tags(decoded, location, in_body=False)

    def _tags(self, text: str, location: Location, *, in_body: bool) -> Iterator[Mention]:
        """The tags of a text; one that is not in the body as it stands cannot be rewritten."""
        place = place_of(*location)
        for tag in tags_in(text, place):
            spelling = as_path if tag.name.startswith("/") else _as_name(self.server.lora_folder)
            spot = Spot(location, text, tag.span, spelling=spelling) if in_body else None
            for reference, choice in self._meant(tag.name, place, tag.in_web_uis(self.default)):
                yield Mention(Found(reference, place, spot), location, tag.name, tag, choice)

    def _meant(
        self, name: Any, place: str, strengths: Sequence[Strength]
    ) -> Iterator[tuple[AdapterReference, str]]:
        """Every file that a name may mean, and which of several it is."""
        given = used_at(self.server.reference(name, place, strengths[0]), strengths)
        resolvers = (files_named, as_it_stands) if _is_looked_up(name) else ()
        paths = self.files.meant_by(name, resolvers)
        if not paths:
            yield given, ""
        for path in paths:
            meant = replace(given, path=f"{self.server.lora_folder.rstrip('/')}/{path}")
            yield meant, path if len(paths) > 1 else ""


def _prompts(body: dict[str, Any]) -> str:
    """The main prompts, of which other texts can be made."""
    given = (body.get(name) for name in ("prompt", "negative_prompt", "hr_prompt"))
    return "\n".join(one for one in given if isinstance(one, str))


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


def _announces_body(request: HttpRequest) -> bool:
    return bool(request.header("content-length").strip() not in ("", "0"))
