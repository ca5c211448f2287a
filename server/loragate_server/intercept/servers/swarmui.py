"""SwarmUI: lists of LoRAs among a request's parameters, and tags in its prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bases import refuse_other_base
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spot, below
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.reading.references import checked_text, in_folder
from loragate_server.intercept.reading.sets import settled, used_at
from loragate_server.intercept.reading.strengths import strength, strength_in_text
from loragate_server.intercept.refusals import Location, ambiguous_adapter, place_of, unnamed
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.servers.swarmui_names import (
    SUFFIX,
    SwarmNames,
    clean,
    in_list,
    in_tag,
    small,
    without_suffix,
)
from loragate_server.intercept.servers.swarmui_tags import Tag, holds_tag, tags_in

_LORAS, _WEIGHTS, _ENCODER = "loras", "loraweights", "loratencweights"
_CONFINED = "lorasectionconfinement"
_PROMPTS = ("prompt", "negativeprompt")
_PRESETS = "presets"
_BASES = frozenset({"model", "refinermodel", "videomodel", "videoswapmodel", "segmentmodel"})
_BETWEEN = "\n|||\n"
"""Between the items of a list that the server has made a text of."""
_IN_LISTS = (_LORAS, _WEIGHTS, _ENCODER, _CONFINED)
_INCLUDED = "negativemodelincludeloras"
"""Says whether the LoRAs count for a second model too; it names none."""
_METADATA = "extra_metadata"
"""What the server writes beside a picture, and reads for nothing else."""
_IP_ADAPTER = "useipadapter"
_FACELESS = ("none", "light", "standard", "vit-g", "plus(", "plusface", "fullface", "file:")
"""How the presets begin that come without a LoRA; a part of a name may mean one that has it."""
_MOST = 3.4028234663852886e38
"""Beyond this a strength is infinite to the server, which keeps it in 32 bits."""
_NONE: tuple[object, ...] = (None, "", [], {}, False)
_PASSED = (
    *("GetNewSession", "Login", "Logout", "GetMyUserData", "GetUserSettings", "ChangeUserSettings"),
    *("GetLanguage", "GetCurrentStatus", "GetGlobalStatus", "GetServerResourceInfo"),
    *("ListModels", "ListLoadedModels", "ListT2IParams", "ListImages", "ListBackends"),
    *("ListBackendTypes", "ListServerSettings", "ListConnectedUsers", "ListLogTypes"),
    *("ListRecentLogMessages", "ListMyAuthTokens", "DescribeModel", "GetModelHash"),
    *("GetModelHeaders", "SelectModel", "FreeBackendMemory", "TriggerRefresh", "InterruptAll"),
    *("ToggleImageStarred", "DeleteImage", "OpenImageFolder", "AddImageToHistory"),
    *("ExtractVideoAudio", "CountTokens", "TokenizeInDetail", "TestPromptFill", "SetStarredModels"),
    *("ComfyListWorkflows", "ComfyReadWorkflow", "ComfyGetNodeTypesForBackend"),
    *("GridGenDoesExist", "GridGenListData", "GridGenGetData", "GetAPIKeyStatus"),
    *("ExportUserPresets", "DeletePreset", "DeleteWildcard"),
)
"""Calls that load no LoRA, and change nothing that one is found by."""


@dataclass(frozen=True)
class Mention:
    """A LoRA of a request.

    Attributes:
        confined: whether it may act in a part of the picture alone.
        tagged: whether a tag names it. Where a user has turned stacking off, the server leaves out
            tags of a LoRA that it has already.
    """

    found: Found
    confined: bool
    tagged: bool


@dataclass(frozen=True, kw_only=True)
class SwarmUI(ImageServer):
    """Settings and extractor of SwarmUI.

    Names of parameters count by their letters alone, as the server takes them. A LoRA has to be
    named in full, as its path below the folder: of a part of a name the server takes the shortest
    that holds it, which a request does not tell.

    Attributes:
        lora_folder: the server's folder of LoRAs; where it has several, all of them have to be in
            this one.
        base_names: what requests may call the model. With it, requests that name another are
            refused; without it, nobody looks.
        allow_presets: lets requests name presets, whose text on the server may hold LoRAs.
        allow_wildcards: lets prompts hold `<wildcard:name>`, for which the server puts in text
            from its files.
    """

    kind: ClassVar[str] = "swarmui"
    routes: ClassVar[tuple[Route, ...]] = (route("generate", "API/GenerateText2Image"),)
    passed: ClassVar[tuple[str, ...]] = (
        *(f"POST /API/{name}" for name in _PASSED),
        "UPGRADE /API/SelectModelWS",
    )
    sockets: ClassVar[tuple[str, ...]] = ("/API/GenerateText2ImageWS",)

    lora_folder: str
    base_names: tuple[str, ...] = ()
    allow_presets: bool = False
    allow_wildcards: bool = False

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        del hit
        document, body = read_object(request, self.limits)
        mentions = list(_Reader(self, LoraFiles(self.lora_folder)).read(body))
        found = [one.found for one in mentions]
        every: list[Sequence[int]] = [range(len(found))]
        if any(one.confined for one in mentions):
            every += [range(number, number + 1) for number in range(len(found))]
        once = _without_repeats(mentions)
        if len(once) < len(found):
            every.append(once)
        return Findings(settled(found, every), document.text)

    def find_message(self, request: HttpRequest) -> Findings:
        """See `ImageServer.find_message`: each message asks for pictures as a request does."""
        return self.find(Hit(self.routes[0], ()), request)

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """An error as the server sends it."""
        return {"error": message, "error_id": code, "decision_id": decision_id}


@dataclass(frozen=True)
class _Reader:
    """Finds the LoRAs of one request."""

    server: SwarmUI
    files: LoraFiles

    def read(self, body: Mapping[str, Any]) -> Iterator[Mention]:
        """Those of the lists, then those of the tags, which the server adds to them."""
        given = self._parameters(body)
        names = {one: name for name in given if (one := _letters(name))}
        tags = [
            (names[one], tag)
            for one in _PROMPTS
            if one in names and isinstance(given[names[one]], str)
            for tag in tags_in(
                given[names[one]], place_of(names[one]), wildcards=self.server.allow_wildcards
            )
        ]
        sections = any(tag.parts for _, tag in tags)
        confined = sections or names.get(_CONFINED) is not None
        listed = list(self._listed(given, names))
        for found in listed:
            yield Mention(found, confined, tagged=False)
        for name, tag in tags:
            if tag.lora:
                if not listed:
                    self._refuse_weights_alone(names)
                found = self._tagged(name, str(given[name]), tag)
                yield Mention(found, confined, tagged=True)

    def _refuse_weights_alone(self, names: Mapping[str, str]) -> None:
        """The server adds the strengths of tags behind those of a list that has no LoRAs."""
        for one in (_WEIGHTS, _ENCODER):
            if one in names:
                raise ambiguous_adapter(
                    place_of(names[one]),
                    "comes without loras, so that it counts for the LoRAs of tags.",
                    "Leave it out, and write the strengths in the tags.",
                )

    def _parameters(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The members that the server may read as parameters; refuses what nobody can follow."""
        seen: set[str] = set()
        given: dict[str, Any] = {}
        for name, item in body.items():
            letters, place = _letters(name), place_of(name)
            known = letters in _IN_LISTS or letters in _PROMPTS
            if letters in seen and known:
                raise ambiguous_adapter(place, "comes twice, written in two ways.", "Send it once.")
            seen.add(letters)
            # To the server 0 and false are texts, by which it looks for a LoRA too.
            if _is_empty(item) if known else item in _NONE:
                continue
            if name == _METADATA:
                continue
            given[name] = item
            if letters == _PRESETS and not self.server.allow_presets:
                raise unnamed(
                    place,
                    "names presets, whose text on the server may hold LoRAs.",
                    "Write their parameters out, or set allow_presets.",
                )
            if "comfy" in letters and "workflow" in letters:
                raise unnamed(place, "is a graph that may load anything.", "Leave it out.")
            if letters in _BASES:
                refuse_other_base(item, place, self.server.base_names)
            if letters == _IP_ADAPTER:
                _refuse_face_id(item, place)
            if letters == _INCLUDED and (item is True or item in ("true", "false")):
                continue
            if "lora" in letters and letters not in _IN_LISTS:
                raise unnamed(place, "is no known way to name a LoRA.", "Send loras.")
            if letters in _PROMPTS:
                if not isinstance(item, str):
                    raise ambiguous_adapter(place, "is no text.", "Send a text.")
            elif holds_tag(item):
                raise unnamed(
                    place, "holds a tag where the server reads none.", "Write it in the prompt."
                )
        return given

    def _listed(self, given: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Found]:
        if _LORAS not in names:
            return
        name = names[_LORAS]
        items = list(_items(given[name], (name,)))
        weights = self._numbers(given, names, _WEIGHTS)[: len(items)]
        weights += [1.0] * (len(items) - len(weights))
        encoder = self._numbers(given, names, _ENCODER)[: len(items)] or weights
        encoder += weights[len(encoder) :]
        for (text, spot), weight, other in zip(items, weights, encoder, strict=True):
            place = place_of(*spot.location)
            file = self._file(text, place, in_list(text))
            reference = used_at(file, [Strength(weight, other)])
            yield Found(reference, place, replace(spot, spelling=self._spell))

    def _numbers(
        self, given: Mapping[str, Any], names: Mapping[str, str], which: str
    ) -> list[float]:
        if which not in names:
            return []
        name = names[which]
        value = given[name]
        if isinstance(value, str):
            texts = _items(value, (name,))
            return [_within(strength_in_text(one, place_of(name)), name) for one, _ in texts]
        values = value if isinstance(value, list) else [value]
        return [
            _within(strength(one, place_of(name, number)), name)
            for number, one in enumerate(values)
        ]

    def _tagged(self, name: str, text: str, tag: Tag) -> Found:
        place = place_of(name)
        numbers = [_within(strength_in_text(one, place), name) for one in tag.numbers]
        weight = numbers[0] if numbers else 1.0
        encoder = numbers[1] if len(numbers) > 1 else weight
        file = self._file(tag.name, place, in_tag(tag.name))
        reference = used_at(file, [Strength(weight, encoder)])
        return Found(reference, place, Spot((name,), text, tag.span, spelling=self._spell))

    def _file(self, name: str, place: str, compared: Sequence[str]) -> AdapterReference:
        """The one file whose whole name it is; `compared` is what the server looks for."""
        checked_text(name, place)
        if not self.files.names:  # loragate does not see the folder, and will find no file in it
            folder = self.server.lora_folder
            return in_folder(name, folder, place, suffix=SUFFIX, windows=True)
        path = self._names.whole(compared, place)
        return in_folder(path, self.server.lora_folder, place)

    @cached_property
    def _names(self) -> SwarmNames:
        return SwarmNames(self.files)

    def _spell(self, path: str) -> str | None:
        """As the server lists it, once it has looked into its folder again."""
        name = below(self.server.lora_folder)(path)
        plain = name is not None and name.endswith(SUFFIX)
        return without_suffix(name or "") if plain and not set(name or "") & set(",<>:|") else None


def _letters(name: str) -> str:
    """What the server knows a parameter by: the small letters of its name, and nothing else."""
    return "".join(one for one in small(name) if "a" <= one <= "z")


def _is_empty(item: Any) -> bool:
    """Whether the server makes an empty text of a value, by which it takes a parameter out."""
    return item is None or (isinstance(item, str | list) and not item)


def _without_repeats(mentions: Sequence[Mention]) -> list[int]:
    """The LoRAs that stay where the server leaves out tags of those that it has already."""
    seen: set[str | None] = set()
    kept = []
    for number, one in enumerate(mentions):
        path = one.found.reference.path
        if not one.tagged or path not in seen:
            kept.append(number)
        seen.add(path)
    return kept


def _within(value: float, name: str) -> float:
    if abs(value) > _MOST:
        raise ambiguous_adapter(
            place_of(name), "has a strength beyond all that count.", "Send a smaller one."
        )
    return value


def _refuse_face_id(item: Any, place: str) -> None:
    """Some IP-Adapters come with a LoRA of their own, which the server loads from its folder."""
    if not isinstance(item, str) or not clean(item).startswith(_FACELESS):
        raise unnamed(
            place,
            "is an IP-Adapter that may come with a LoRA of its own.",
            "Send the whole name of one that is not FaceID.",
        )


def _items(value: Any, location: Location) -> Sequence[tuple[str, Spot]]:
    """The names of a list, which the server makes a text of and divides again."""
    if isinstance(value, list) and not all(isinstance(one, str) for one in value):
        raise ambiguous_adapter(place_of(*location), "holds more than texts.", "Send texts.")
    if isinstance(value, list):
        odd = len(value) == 1 and "," in value[0]
        if odd or any(_BETWEEN in one for one in value):
            raise ambiguous_adapter(
                place_of(*location), "holds several names in one item.", "Send an item for each."
            )
        return [
            (one.strip(), Spot((*location, number), one))
            for number, one in enumerate(value)
            if one.strip()
        ]
    if not isinstance(value, str):
        raise ambiguous_adapter(place_of(*location), "is no list of names.", "Send a list.")
    divider = _BETWEEN if _BETWEEN in value else ","
    found, at = [], 0
    for part in value.split(divider):
        begin = at + len(part) - len(part.lstrip())
        if part.strip():
            end = begin + len(part.strip())
            found.append((part.strip(), Spot(location, value, (begin, end))))
        at += len(part) + len(divider)
    return found
