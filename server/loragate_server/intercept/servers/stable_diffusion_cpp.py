"""stable-diffusion.cpp's own server: a list of LoRAs, in the body or in the prompt's arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import parse_json, read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spelling, Spot, below
from loragate_server.intercept.reading.forms import Field
from loragate_server.intercept.reading.json_spans import locate
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.references import (
    WEIGHT_SUFFIXES,
    anywhere,
    checked_text,
    in_folder,
    is_file,
    is_folder,
    with_slashes,
)
from loragate_server.intercept.reading.sets import MOST_ADAPTERS
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import Location, ambiguous_adapter, place_of, unnamed
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.servers.sd_cpp_form import plain_form
from loragate_server.intercept.servers.sd_cpp_sets import Mention, Source, together
from loragate_server.intercept.servers.sd_cpp_text import ARGUMENTS, Prompt, read_prompt, tags_of

_LIST, _PROMPT = "lora", "prompt"
_LISTED = (".gguf", ".pt", ".pth", ".safetensors")
"""What the server lists, in any letters."""
_TRIED = (".gguf", ".safetensors", ".pt", ".ckpt")
"""What sd-cli adds to a name that no file has."""
_LONGEST_REWRITTEN = 64 * 1024
"""Of arguments: to find many places in longer ones takes more time than they are worth."""

_Reader = Callable[[Any, str], tuple[AdapterReference, Spelling]]
"""From a path in a list to the file, and how another one is written there."""


@dataclass(frozen=True, kw_only=True)
class StableDiffusionCpp(ImageServer):
    """Settings and extractor of stable-diffusion.cpp's own server.

    Where a request has no list, the server takes the LoRAs of its own command line; with a
    PhotoMaker it applies that one's, too. A request does not tell them.

    Attributes:
        lora_folder: the server's `--lora-model-dir`.
        tags_in_prompts: whether tags are searched for LoRAs, as sd-cli does. The server itself
            takes them for words, so with false they pass; builds of others may read them.
    """

    kind: ClassVar[str] = "stable_diffusion_cpp"
    routes: ClassVar[tuple[Route, ...]] = (
        route("openai", "v1/images/generations"),
        route("edits", "v1/images/edits"),
        route("web_ui", "sdapi/v1/txt2img"),
        route("web_ui", "sdapi/v1/img2img"),
        route("native", "sdcpp/v1/img_gen"),
        route("native", "sdcpp/v1/vid_gen"),
    )
    passed: ClassVar[tuple[str, ...]] = ("POST /sdcpp/v1/jobs/*/cancel",)

    lora_folder: str
    tags_in_prompts: bool = True

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if hit.route.name == "edits":
            return self._in_form(plain_form(request, self.limits))
        document, body = read_object(request, self.limits)
        listed = hit.route.name != "openai"
        _refuse_other_names(body, (), (_LIST,) if listed else ())
        read = partial(self._listed, files=LoraFiles(self.lora_folder))
        mentions = list(self._in_list(body, (), Source.LIST, read)) if listed else []
        prompt = body.get(_PROMPT)
        if isinstance(prompt, str):
            spot = Spot((_PROMPT,), prompt)
            mentions += self._in_prompt(spot, takes_arguments=hit.route.name != "native")
        has_list = listed and isinstance(body.get(_LIST), list)
        return Findings(together(mentions, has_list=has_list), document.text)

    def _in_form(self, form: tuple[Field, ...]) -> Findings:
        """Pictures and a prompt. The server reads no list from a form."""
        plain = [one for one in form if one.file_name is None]
        _refuse_other_names({one.name: one.text for one in plain}, (), ())
        mentions = [
            mention
            for one in plain
            if one.name == _PROMPT
            for mention in self._in_prompt(
                Spot((), one.text, form_field=_PROMPT), takes_arguments=True
            )
        ]
        return Findings(together(mentions, has_list=False), "", form)

    def _in_prompt(self, spot: Spot, *, takes_arguments: bool) -> Iterator[Mention]:
        """LoRAs of the arguments, and of the tags in what is left of the prompt.

        Args:
            spot: where the prompt stands.
            takes_arguments: whether the route reads them.
        """
        place = place_of(_PROMPT)
        end = len(spot.text)
        prompt = read_prompt(spot.text, place) if takes_arguments else Prompt(spot.text, (end, end))
        text: str | None = None
        if prompt.arguments:
            inner = parse_json(prompt.arguments, self.limits, f"What {ARGUMENTS} hold").value
            if isinstance(inner, dict):
                location = (_PROMPT, ARGUMENTS)
                _refuse_other_names(inner, location, (_LIST,))
                named = list(self._in_list(inner, location, Source.ARGUMENTS, _whole_path))
                yield from _spotted(named, prompt, spot)
                given = inner.get(_PROMPT)
                text = given if isinstance(given, str) else None
        if not self.tags_in_prompts:
            return
        for tag in tags_of(prompt.text if text is None else text, place):
            reference = self._tagged(tag.name, place)
            sent = prompt.sent(tag.span) if text is None else None
            there = None if sent is None else replace(spot, within=sent, spelling=self._as_name)
            found = Found(reference, place, there)
            yield Mention(found, Source.TAG, tag.strength, tag.high_noise)

    def _in_list(
        self, holder: dict[str, Any], location: Location, source: Source, read: _Reader
    ) -> Iterator[Mention]:
        items = holder.get(_LIST)
        inner = (*location, _LIST)
        if items in (None, "", {}):
            return
        if not isinstance(items, list):
            raise unnamed(place_of(*inner), "is no list.", "Send lora: [{path, multiplier}].")
        for number, item in enumerate(items):
            place = place_of(*inner, number)
            if not isinstance(item, dict):
                raise unnamed(place, "is no LoRA.", "Send path and multiplier.")
            high_noise = item.get("is_high_noise", False)
            if not isinstance(high_noise, bool):
                raise ambiguous_adapter(
                    place, "has an is_high_noise that is none.", "Send true or false."
                )
            path, at = item.get("path"), (*inner, number, "path")
            reference, spelling = read(path, place_of(*at))
            spot = Spot(at, str(path), spelling=spelling)
            found = Found(reference, place_of(*at), spot)
            yield Mention(found, source, _multiplier(item, place), high_noise)

    def _listed(self, name: Any, place: str, files: LoraFiles) -> tuple[AdapterReference, Spelling]:
        """A file that the server lists below its folder: it takes no other spelling of it."""
        text = checked_text(name, place)
        if "://" in text or not text.lower().endswith(_LISTED):
            raise unnamed(
                place, "is no path that the server lists.", "Send one of GET /sdapi/v1/loras."
            )
        reference = in_folder(text, self.lora_folder, place)
        meant = files.meant(text, _listed_as)
        if len(meant) > 1:
            raise ambiguous_adapter(
                place, "is how the server lists several files.", "Rename the one with a backslash."
            )
        for path in meant:
            reference = replace(reference, path=f"{self.lora_folder.rstrip('/')}/{path}")
        return reference, below(self.lora_folder)

    def _tagged(self, name: str, place: str) -> AdapterReference:
        """The file of a tag: the path as it stands, or with a suffix where there is none."""
        if name.startswith("/"):
            path, reference = name, _absolute(name, place)
        else:
            reference = in_folder(name, self.lora_folder, place)
            path = reference.path or ""
        if is_file(path):
            return reference
        if is_folder(path):
            raise unnamed(place, "names a folder.", "Name a file.")
        tried = [path + suffix for suffix in _TRIED if is_file(path + suffix)]
        if len(tried) > 1:
            raise ambiguous_adapter(
                place, "is the name of several files.", "Write the whole name of the file."
            )
        known = path.lower().endswith(WEIGHT_SUFFIXES)
        return replace(reference, path=next(iter(tried), path if known else f"{path}.safetensors"))

    def _as_name(self, path: str) -> str | None:
        """A tag takes a name below the folder, and a whole path as well."""
        return None if re.search("[:>]", path) else below(self.lora_folder)(path) or path

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """An error as the server sends it."""
        return {"error": message, "message": message, "code": code, "decision_id": decision_id}


def _refuse_other_names(holder: dict[str, Any], location: Location, known: Sequence[str]) -> None:
    """Refuses members that speak of LoRAs, which this server passes over and another may not."""
    for name, item in holder.items():
        given = isinstance(item, str | list | dict) and item not in ("", [], {})
        if given and name not in known and speaks_of_lora(name):
            raise unnamed(
                place_of(*location, name),
                "is no known way to name a LoRA here.",
                f"Send lora: [{{path, multiplier}}] to /sdapi or /sdcpp, or in {ARGUMENTS}.",
            )


def _whole_path(name: Any, place: str) -> tuple[AdapterReference, Spelling]:
    """A path in arguments: the server opens it as it stands, wherever it leads."""
    text = checked_text(name, place)
    if not text.startswith("/"):
        raise unnamed(
            place,
            "is a path below the folder that the server runs in.",
            "Write the whole path, from the root on.",
        )
    if not text.lower().endswith(WEIGHT_SUFFIXES) or is_folder(text):
        # Of a folder the server loads a model, and of an index what that names.
        raise unnamed(place, "is no file of weights.", "Name a file, as style.safetensors.")
    return _absolute(text, place), lambda path: json.dumps(path)[1:-1]


def _absolute(name: str, place: str) -> AdapterReference:
    if {"", ".", ".."} & set(name.split("/")[1:]):
        raise unnamed(place, "goes back or nowhere on its way.", "Write the plain path.")
    return anywhere(name, place, hub_ids=False)


def _listed_as(name: str, files: LoraFiles) -> tuple[str, ...]:
    """The server lists a backslash in a name as a slash, and finds the first that is listed so."""
    return tuple(path for path in files.names if with_slashes(path) == name)


def _multiplier(item: dict[str, Any], place: str) -> float:
    value = item.get("multiplier", 1.0)
    if isinstance(value, bool):  # as the server's JSON library converts it
        return float(value)
    if isinstance(value, str):  # which it does not
        raise ambiguous_adapter(place, "has a text for a multiplier.", "Send a number.")
    return strength(value, place)


def _spotted(named: Sequence[Mention], prompt: Prompt, spot: Spot) -> Iterator[Mention]:
    """LoRAs of the arguments, with where their paths stand in the prompt."""
    if len(named) > MOST_ADAPTERS or len(prompt.arguments) > _LONGEST_REWRITTEN:
        yield from (replace(one, found=replace(one.found, spot=None)) for one in named)
        return
    for one in named:
        inner = one.found.spot
        assert inner is not None  # noqa: S101 - every LoRA of a list has one
        begin, end = locate(prompt.arguments, inner.location[2:])
        within = (prompt.begin + begin + 1, prompt.begin + end - 1)
        there = replace(spot, within=within, spelling=inner.spelling)
        yield replace(one, found=replace(one.found, spot=there))
