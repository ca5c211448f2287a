"""An extractor from rules: routes, and JSONPath expressions for what stands in their bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from jsonpath_rfc9535 import JSONPathError, JSONPathQuery
from jsonpath_rfc9535 import compile as compile_path

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import read_json
from loragate_server.intercept.reading.findings import (
    Findings,
    Found,
    Spelling,
    Spot,
    as_path,
    below,
)
from loragate_server.intercept.reading.references import anywhere, in_folder
from loragate_server.intercept.reading.sets import by_source
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    door_closed,
    place_of,
    unreadable,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route

_METHODS = ("POST", "PUT", "PATCH", "GET", "DELETE")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What to read from the requests to one route.

    Attributes:
        path: the end of the path, with `*` for any one segment.
        method: the HTTP method; requests with other methods that change things follow the rule
            too, so that no other method is a way around it.
        reference: JSONPath of the references to adapters.
        strength: JSONPath of their strengths: none, one for all, or one for each.
        weight_name: JSONPath of the file in a repository: none, one for all, or one for each.
        base_model: JSONPath of the base model.
        door: refuses every request to the route.
    """

    path: str
    method: str = "POST"
    reference: str = ""
    strength: str = ""
    weight_name: str = ""
    base_model: str = ""
    door: bool = False
    queries: Mapping[str, JSONPathQuery] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or not self.path.strip("/") or "//" in self.path:
            raise ValueError(f"path: {self.path!r} is no path; write it as /v1/generate.")
        if self.method not in _METHODS:
            raise ValueError(f"method: {self.method!r} is none of {', '.join(_METHODS)}.")
        if self.door == bool(self.reference):
            raise ValueError("A rule has either a reference or door: true.")
        names = ("reference", "strength", "weight_name", "base_model")
        queries = {name: _query(name, getattr(self, name)) for name in names if getattr(self, name)}
        object.__setattr__(self, "queries", queries)

    def one_for_each(self, name: str, document: Any, places: Sequence[Location]) -> list[Any]:
        """What an expression finds, brought to one for each adapter; None where there is none.

        Values that stand beside references belong to these. Others are one for all, or as many
        as there are adapters.

        Raises:
            RefusedRequestError: ADAPTER_AMBIGUOUS when the numbers do not fit.
        """
        query = self.queries.get(name)
        found = [] if query is None else _found(query, document)
        if not found:
            return [None] * len(places)
        parents = {place[:-1] for place in places}
        beside = {location[:-1]: value for location, value in found if location[:-1] in parents}
        if len(beside) == len(found) and len(parents) == len(places):
            return [beside.get(place[:-1]) for place in places]
        if len(found) not in (1, len(places)):
            raise ambiguous_adapter(
                f"/{name}",
                f"is there {len(found)} times for {len(places)} adapters.",
                "Send one for each.",
            )
        return [value for _, value in found] * (len(places) // len(found))


@dataclass(frozen=True, kw_only=True)
class Declarative(ImageServer):
    """Settings and extractor for servers that no other extractor knows.

    Attributes:
        rules: as `Rule`s, or as mappings with the names of its attributes.
        lora_folder: where names are looked for; empty for servers that take paths.
        hub_ids: whether `owner/name` is a repository on the hub rather than a relative path.
    """

    kind: ClassVar[str] = "declarative"

    rules: Sequence[Rule | Mapping[str, Any]]
    lora_folder: str = ""
    hub_ids: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.rules, str | Mapping) or not self.rules:
            raise ValueError("rules must be a list with at least one rule.")
        made = tuple(_rule(rule, number) for number, rule in enumerate(self.rules))
        object.__setattr__(self, "rules", made)

    def guarded(self) -> tuple[Route, ...]:
        """The routes of all rules."""
        return tuple(
            route(str(number), rule.path, any_method=rule.method in ("GET", "DELETE"))
            for number, rule in enumerate(self._made())
        )

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        rule = self._made()[int(hit.route.name)]
        if rule.door:
            raise door_closed(
                "This route changes weights without an audit.", "Use a route that is audited."
            )
        document = read_json(request, self.limits)
        try:
            named = list(self._adapters(rule, document.value))
            bases = rule.one_for_each("base_model", document.value, ((),))
        except (JSONPathError, RecursionError) as error:
            raise unreadable("The rule cannot be applied to the body.", "Send less.") from error
        base_model = bases[0]
        if base_model is not None and not isinstance(base_model, str):
            raise ambiguous_adapter("/base_model", "is no text.", "Send its name.")
        # An expression may find more than the server reads, but it reads a list as a whole.
        found = by_source([one for one, _ in named], [source for _, source in named])
        return Findings(found, document.text, base_model=base_model or "")

    def _adapters(self, rule: Rule, document: Any) -> Iterator[tuple[Found, Location]]:
        references = _found(rule.queries["reference"], document)
        places = [location for location, _ in references]
        if not places:
            return
        strengths = rule.one_for_each("strength", document, places)
        names = rule.one_for_each("weight_name", document, places)
        spelling: Spelling = below(self.lora_folder) if self.lora_folder else as_path
        for (location, text), force, name in zip(references, strengths, names, strict=True):
            if text in (None, ""):
                continue
            place = place_of(*location)
            number = 1.0 if force is None else strength(force, place)
            reference = self._reference(text, place, Strength(number, number), name)
            source = tuple("*" if isinstance(part, int) else part for part in location)
            yield Found(reference, place, Spot(location, text, spelling=spelling)), source

    def _reference(
        self, text: Any, place: str, strength: Strength, weight_name: Any
    ) -> AdapterReference:
        if weight_name is not None and (
            not isinstance(weight_name, str) or "/" in weight_name or not weight_name
        ):
            raise ambiguous_adapter(place, "has no plain weight name.", "Send a file name.")
        if self.lora_folder:
            made = in_folder(text, self.lora_folder, place, strength, suffix=".safetensors")
        else:
            made = anywhere(text, place, strength, hub_ids=self.hub_ids)
        if weight_name is None:
            return made
        return replace(made, weight_name=weight_name)

    def _made(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if isinstance(rule, Rule))


def _query(name: str, expression: str) -> JSONPathQuery:
    try:
        return compile_path(expression)
    except JSONPathError as error:
        raise ValueError(f"{name}: {expression!r} is no JSONPath ({error}).") from error


def _found(query: JSONPathQuery, document: Any) -> list[tuple[Location, Any]]:
    """Values and where they stand; a list that is found counts as its items."""
    found: list[tuple[Location, Any]] = []
    for node in query.finditer(document):
        location = tuple(node.location)
        if isinstance(node.value, list):
            found += [((*location, number), item) for number, item in enumerate(node.value)]
        else:
            found.append((location, node.value))
    return found


def _rule(rule: Rule | Mapping[str, Any], number: int) -> Rule:
    if isinstance(rule, Rule):
        return rule
    if not isinstance(rule, Mapping):
        raise ValueError(f"rules[{number}] is no mapping.")
    known = {one.name: one.type for one in fields(Rule) if one.init}
    if unknown := [str(name) for name in rule if name not in known]:
        raise ValueError(f"rules[{number}]: {unknown[0]!r} is none of {', '.join(known)}.")
    for name, value in rule.items():
        if not isinstance(value, bool if name == "door" else str):
            raise ValueError(f"rules[{number}].{name} is of the wrong type.")
    try:
        return Rule(**rule)
    except (TypeError, ValueError) as error:
        raise ValueError(f"rules[{number}]: {error}") from error
