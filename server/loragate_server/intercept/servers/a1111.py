"""A1111, Forge and SD.Next: LoRA tags anywhere in a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bases import refuse_other_base
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import Findings
from loragate_server.intercept.reading.forms import is_form, read_form
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.reading.references import anywhere, hub_file, in_folder
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import Location, door_closed, place_of, unnamed, unreadable
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, query_of, route
from loragate_server.intercept.servers.a1111_reader import Reader
from loragate_server.intercept.servers.a1111_sets import Mention, together

_MULTIPLIER = "extra_networks_default_multiplier"
_HUB = "/huggingface.co/"
_EXTRA = "extra"
"""SD.Next sets each member of this object as if it stood beside it; or takes them as settings."""
_SETTINGS, _QUERY = "override_settings", "query"
_SCRIPTS_OF: Mapping[str, str] = MappingProxyType({"face": "face", "xyz": "xyz grid"})
_UNSET: tuple[object, ...] = (None, "", [], False)
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
        files = LoraFiles(self.lora_folder)
        asked = list(self._in_query(request, files))
        empty = not request.body.strip() and request.body_complete
        if empty and hit.route.name not in _NEEDS_BODY and not _announces_body(request):
            return Findings(together(asked, second_pass=False))
        if hit.route.name == "pictures" and is_form(request):
            return self._in_form(request, files, asked)
        document, body = read_object(request, self.limits)
        if hit.route.name == "options" and _MULTIPLIER in body:
            raise door_closed(
                f"{_MULTIPLIER} changes the strength of tags in later requests.",
                "Write strengths in the tags.",
            )
        draws = hit.route.name == "generate"
        extra = _object(body, _EXTRA, ()) if draws else {}
        self._check_styles_and_scripts(body, _members_for_scripts(body) if draws else ())
        self._check_styles_and_scripts(extra, (), _EXTRA)
        # elsewhere `model` is one that describes pictures, or cuts them out
        of_bases = hit.route.name in _NEEDS_BODY
        default = self._default(body, extra)
        reader = self._reader(files, default, _prompts(body, extra), of_bases=of_bases)
        mentions = [*reader.walk(body, ()), *asked]
        second_pass = any(one.get("hr_prompt") for one in (body, extra))
        return Findings(together(mentions, second_pass=second_pass), document.text)

    def _reader(
        self, files: LoraFiles, default: float, prompts: str = "", *, of_bases: bool = True
    ) -> Reader:
        return Reader(
            self.reference,
            self.lora_folder,
            self.base_names,
            self.allow_wildcards,
            self.allow_styles,
            files,
            default,
            prompts,
            of_bases,
        )

    def _in_query(self, request: HttpRequest, files: LoraFiles) -> Iterator[Mention]:
        """SD.Next takes a checkpoint by the query; nothing in it can be rewritten."""
        reader = self._reader(files, self.default_strength)
        for name, value in query_of(request):
            for one in reader.walk({name: value}, (_QUERY,)):
                yield replace(one, found=replace(one.found, spot=None))

    def _in_form(self, request: HttpRequest, files: LoraFiles, asked: list[Mention]) -> Findings:
        """A form as OpenAI's clients send it with pictures."""
        form = read_form(request, self.limits, _REPEATABLE)
        reader = self._reader(files, self.default_strength)
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
        return Findings(together([*mentions, *asked], second_pass=False), "", form)

    def _default(self, body: Mapping[str, Any], extra: Mapping[str, Any]) -> float:
        settings = _object(body, _SETTINGS, ())
        later = _object(extra, _SETTINGS, (_EXTRA,))
        if _MULTIPLIER in extra or _MULTIPLIER in later or (later and _MULTIPLIER in settings):
            # SD.Next takes these, or the others, depending on the route.
            raise door_closed(
                f"/{_EXTRA} changes the strength of tags.", "Write strengths in the tags."
            )
        value = settings.get(_MULTIPLIER)
        kept = (one.get("override_settings_restore_afterwards", True) for one in (body, extra))
        if value is not None and not all(kept):
            raise door_closed(
                f"{_MULTIPLIER} would stay and change the strength of tags in later requests.",
                "Leave override_settings_restore_afterwards out.",
            )
        return self.default_strength if value is None else strength(value, f"/{_MULTIPLIER}")

    def _check_styles_and_scripts(
        self, body: Mapping[str, Any], others: Iterable[str], *at: str
    ) -> None:
        """Refuses styles and scripts that may put tags into prompts.

        Args:
            body: the document, or an object in it whose members count like its own.
            others: scripts that other members stand for.
            at: where it stands in the document.
        """
        if body.get("styles") and not self.allow_styles:
            raise unnamed(
                place_of(*at, "styles"),
                "names styles, whose text on the server may hold tags.",
                "Write their text into the prompt, or set allow_styles.",
            )
        scripts = body.get("alwayson_scripts") or {}
        always = scripts if isinstance(scripts, dict) else ["?"]
        for name in (body.get("script_name"), *always, *others):
            if name and str(name).casefold() not in self.allowed_scripts:
                raise unnamed(
                    place_of(*at, "scripts", str(name)),
                    "may put tags into prompts.",
                    "Leave the script out, or name it in allowed_scripts.",
                )
        for name, script in scripts.items() if isinstance(scripts, dict) else ():
            if name.casefold() == "refiner" and self.base_names:
                self._check_refiner(script, place_of(*at, "alwayson_scripts", name, "args"))

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


def _object(body: Mapping[str, Any], name: str, at: Location) -> Mapping[str, Any]:
    """A member that servers take for an object. Some make one of a list of pairs, too."""
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise unreadable(f"{place_of(*at, name)} is no object.", "Send an object.")
    return value


def _members_for_scripts(body: Mapping[str, Any]) -> Iterator[str]:
    """The scripts that SD.Next runs for members that are called otherwise."""
    for name, script in _SCRIPTS_OF.items():
        if body.get(name) not in _UNSET:
            yield script


def _prompts(*bodies: Mapping[str, Any]) -> str:
    """The main prompts, of which other texts can be made."""
    names = ("prompt", "negative_prompt", "hr_prompt")
    given = (body.get(name) for body in bodies for name in names)
    return "\n".join(one for one in given if isinstance(one, str))


def _announces_body(request: HttpRequest) -> bool:
    return bool(request.header("content-length").strip() not in ("", "0"))
