"""LocalAI: tags in the prompts of pictures and videos, and the many doors beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from loragate_server.intercept.base import ServerWithDoors
from loragate_server.intercept.reading.bodies import MULTIPART, JsonText, media_type, read_object
from loragate_server.intercept.reading.findings import Findings
from loragate_server.intercept.reading.forms import Field, is_form, read_form
from loragate_server.intercept.reading.go_json import Member, members
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.sets import settled
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    door_closed,
    place_of,
    unnamed,
    unreadable,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, query_of
from loragate_server.intercept.servers.localai_routes import DOORS, PASSED, ROUTES
from loragate_server.intercept.servers.localai_tags import (
    Mention,
    Prompt,
    holds_tag,
    mentions_in,
    sets_of,
)

_PROMPT, _NEGATIVE, _MODEL = "prompt", "negative_prompt", "model"
_ASSISTANT = "localai_assistant"
_OFF = ("", "0", "no", "false")
_NONE: tuple[object, ...] = (None, "", [], {}, False)
_MEMBER_REMEDY = "Write <lora:name:strength> in the prompt."


@dataclass(frozen=True, kw_only=True)
class LocalAI(ServerWithDoors):
    """Settings and extractor of LocalAI.

    A request names LoRAs in tags alone, which the server's own build of stable-diffusion.cpp
    reads. Those of a model's configuration (`lora_adapters`) are loaded with the model; a request
    does not tell them, and the routes that write configurations are doors.

    Attributes:
        lora_folder: the folder of LoRAs: what `lora_dir` in the options of a model names, below
            the folder of models, or that folder itself where there is no such option.
        base_names: what requests for pictures and videos may call the model. With it, requests
            that name another, or none, are refused. Without it, every model has to have the same
            folder of LoRAs, and names that the server could fetch from the hub are refused.
    """

    doors: ClassVar[tuple[str, ...]] = DOORS
    instead: ClassVar[str] = "Use the models that the server has"
    kind: ClassVar[str] = "localai"
    routes: ClassVar = ROUTES
    passed: ClassVar[tuple[str, ...]] = PASSED

    lora_folder: str
    base_names: tuple[str, ...] = ()

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if self.is_open_door(hit):
            return Findings()
        name = hit.route.name
        if name in ("inpainting", "upscale"):
            return self._in_form(request, prompts=name == "inpainting")
        if name in ("chat", "call") and "assistant" in self.allowed_doors:
            return Findings()
        document, body = self._read(request)
        given = members(body)
        if name in ("chat", "call"):
            _refuse_assistant(given)
            return Findings()
        self._check_model(request, _text(given, _MODEL))
        if name == "load":
            return Findings()
        prompts = list(_of_video(given) if name == "video" else _of_pictures(given))
        _refuse_elsewhere(body, {prompt.location for prompt in prompts})
        return self._found(prompts, document.text)

    def _read(self, request: HttpRequest) -> tuple[JsonText, dict[str, Any]]:
        """A body that the server takes for JSON; by its type it would read XML as well.

        In XML the same structures have other names, and a text can be both at once.
        """
        kind = request.header("content-type").lower()
        if "xml" in kind or is_form(request):
            raise unreadable("The body is not sent as JSON.", "Send it as application/json.")
        return read_object(request, self.limits)

    def _in_form(self, request: HttpRequest, *, prompts: bool) -> Findings:
        """A form with pictures, whose fields the server finds in these letters alone."""
        if media_type(request)[0] != MULTIPART:
            raise unreadable("The body is no multipart form.", "Send multipart/form-data.")
        form = read_form(request, self.limits)
        fields = {name: [one for one in form if one.name == name] for name in (_MODEL, _PROMPT)}
        if any(name == _PROMPT for name, _ in query_of(request)):
            raise ambiguous_adapter(
                f"query {_PROMPT}",
                "is what the server takes instead of the field.",
                "Send it in the form.",
            )
        for name, given in fields.items():
            if len(given) > 1:
                raise ambiguous_adapter(place_of(name), "comes more than once.", "Send it once.")
        self._check_model(request, "".join(one.text for one in fields[_MODEL]))
        read = [_of_field(one) for one in fields[_PROMPT]] if prompts else []
        return self._found(read, "", form)

    def _found(self, prompts: list[Prompt], text: str, form: tuple[Field, ...] = ()) -> Findings:
        files = LoraFiles(self.lora_folder)
        mentions: list[Mention] = []
        for one in prompts:
            place = place_of(*one.location) if one.location else place_of(one.form_field or "")
            mentions += mentions_in(one, files, place)
        found = settled([one.found for one in mentions], sets_of(mentions))
        return Findings(found, text, form)

    def _check_model(self, request: HttpRequest, named: str) -> None:
        """Refuses a model that is not the one that adapters are audited for, where one is named.

        Of a request without one the query, the key or the server's own choice decides.
        """
        others = [value for name, value in query_of(request) if name.lower() == _MODEL]
        for one in (named, *others):
            if one in self.base_names or (not one and (others or not self.base_names)):
                continue
            if self.base_names:
                raise ambiguous_adapter(
                    place_of(_MODEL),
                    "names another base model than the one that adapters are audited for, or none.",
                    "Name the model as base_names has it.",
                )
            if "/" in one:
                raise door_closed(
                    f"{place_of(_MODEL)} may be fetched from the hub without an audit.",
                    f"{self.instead}, or name it in base_names.",
                )

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """An error as the server sends it."""
        error = {"code": status, "message": message, "type": code, "decision_id": decision_id}
        return {"error": error}


def _text(given: Mapping[str, Member], name: str) -> str:
    """A member that has to be a text; the server answers with an error where it is another."""
    value = given[name].value if name in given else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise unreadable(f"{place_of(name)} is no text.", "Send a text.")
    return value


def _of_video(given: Mapping[str, Member]) -> Iterator[Prompt]:
    for name in (_PROMPT, _NEGATIVE):
        text = _text(given, name)
        if text:
            yield Prompt((given[name].name,), text, (0, len(text)), negative=name == _NEGATIVE)


def _of_pictures(given: Mapping[str, Member]) -> Iterator[Prompt]:
    """Every text draws pictures of its own: what is behind `|` is its negative prompt.

    The server makes nothing of what comes behind a second `|`.
    """
    if _PROMPT not in given:
        return
    name, value = given[_PROMPT].name, given[_PROMPT].value
    if value is None or value == []:
        return
    several = isinstance(value, list)
    for number, text in enumerate(value if several else [value]):
        location: Location = (name, number) if several else (name,)
        if not isinstance(text, str):
            raise unreadable(f"{place_of(*location)} is no text.", "Send texts.")
        first, second = _marks(text)
        yield Prompt(location, text, (0, first), number)
        yield Prompt(location, text, (first + 1, second), number, negative=True)
        if holds_tag(text, second):
            raise _unread(location)


def _marks(text: str) -> tuple[int, int]:
    """Where the first and the second `|` of a text stand; at its end where there is none."""
    positive, *others = text.split("|", 2)
    first = len(positive)
    return first, first + 1 + len(others[0]) if others else first


def _of_field(field: Field) -> Prompt:
    """The prompt of a form, which the server does not divide.

    A part whose file has an empty name is a plain field to Go.
    """
    text = field.text
    plain = field.file_name is None
    return Prompt((), text, (0, len(text)), form_field=field.name, editable=plain)


def _refuse_elsewhere(body: Mapping[str, Any], read: set[Location]) -> None:
    """Refuses tags, and names that speak of LoRAs, where the server reads none."""
    waiting: list[tuple[Location, Any]] = [((), body)]
    while waiting:
        location, value = waiting.pop()
        if isinstance(value, str):
            if location not in read and holds_tag(value):
                raise _unread(location)
        elif isinstance(value, list):
            waiting += [((*location, number), item) for number, item in enumerate(value)]
        elif isinstance(value, dict):
            for name, item in value.items():
                if speaks_of_lora(name) and item not in _NONE:
                    raise unnamed(
                        place_of(*location, name), "is no known way to name a LoRA.", _MEMBER_REMEDY
                    )
                waiting.append(((*location, name), item))


def _unread(location: Location) -> Exception:
    return unnamed(place_of(*location), "holds a tag where the server reads none.", _MEMBER_REMEDY)


def _refuse_assistant(given: Mapping[str, Member]) -> None:
    """Refuses a chat or a call whose model is given tools that install and change models."""
    holders = [given[_ASSISTANT].value] if _ASSISTANT in given else []
    metadata = given["metadata"].value if "metadata" in given else None
    if isinstance(metadata, dict) and _ASSISTANT in metadata:
        holders.append(metadata[_ASSISTANT])
    if any(value not in _NONE and str(value).strip().lower() not in _OFF for value in holders):
        raise door_closed(
            f"{_ASSISTANT} gives the model tools that bring in weights without an audit.",
            "Leave it out, or open the door assistant in allowed_doors.",
        )
