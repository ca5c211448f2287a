"""LoRA tags in the texts of ComfyUI's nodes: each pack that reads them has a grammar of its own.

Which pack reads a text, the class of the node tells. Where it does not, every pack may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.joining import may_become_a_tag
from loragate_server.intercept.reading.lora_files import LoraFiles, Resolver, as_it_stands
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.references import WEIGHT_SUFFIXES
from loragate_server.intercept.reading.tags import Tag, tags_in, without_tags
from loragate_server.intercept.refusals import ambiguous_adapter, unnamed
from loragate_server.intercept.servers import comfyui_names

Numbers = Callable[[Tag], tuple[Strength, ...]]

_MANAGER = "(loramanager)"
_TEXTS = re.compile(
    r"(.*_)?(text|prompt|string|syntax|positive|negative)(_?(\d+|g|l))?|(wildcard|populated).*",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"-?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_MACRO = re.compile(r"\b(?:DEF|SEG|SUB)\(")
_NODE = re.compile(r"\bNODE\s*\(([^,)]*)")
_ENCODERS = frozenset({"", "PCTextEncode", "CLIPTextEncode"})
_READERS = re.compile(
    r"PromptExtraNetworks|PromptPicker|PromptLoader|TomlPromptEncoder"
    r"|(?=\w+\Z)\w+?_PromptWith\w+|(easy|ttN) .*Loader.*",
    re.IGNORECASE | re.DOTALL,
)
"""Nodes of other packs that load the LoRAs of tags, though their class does not say so."""
_LINES = re.compile(r"MultiLoraLoader-\w+")
"""Nodes that take every line of their text for a LoRA, in a tag or not."""
_WILDCARD = re.compile(r"__[\w.\-+/*\\]+?__")


def _model_first(tag: Tag) -> tuple[Strength, ...]:
    """`<lora:name:model:clip>`, where the second number is the first one unless it is given."""
    first, second = (*tag.numbers, *tag.numbers, 1.0, 1.0)[:2]
    return (Strength(first, second),)


def _first_alone(tag: Tag) -> tuple[Strength, ...]:
    """`<lora:name:model>`: some nodes pass over the second number."""
    first = (*tag.numbers, 1.0)[0]
    return tuple(dict.fromkeys((*_model_first(tag), Strength(first, first))))


def _zero_as_one(tag: Tag) -> tuple[Strength, ...]:
    """`<lora:name:model:clip>`, where some take a zero for a one."""
    (given,) = _model_first(tag)
    return tuple(dict.fromkeys((given, given if given.denoiser else Strength(1.0, 1.0))))


def _plain_numbers(tag: Tag) -> tuple[Strength, ...]:
    """`<lora:name:model:clip>`, where what is not written as digits is passed over."""
    numbers = [float(one) for one in tag.written if _DIGITS.fullmatch(one)]
    first = (*numbers, 1.0)[0]
    return (Strength(first, numbers[1] if len(numbers) > 1 else first),)


def _any_order(tag: Tag) -> tuple[Strength, ...]:
    """As any pack, or a node that was made after A1111, may read it."""
    return tuple(dict.fromkeys((*_first_alone(tag), *_plain_numbers(tag), *tag.in_web_uis(1.0))))


@dataclass(frozen=True)
class Grammar:
    """How a pack of nodes reads LoRA tags.

    Attributes:
        name: of the pack.
        classes: of its nodes.
        resolvers: what a name may mean to it.
        numbers: what the numbers of a tag mean to it.
        draws: whether it draws choices and wildcards before it looks for tags.
        macros: whether it expands macros before that.
    """

    name: str
    classes: re.Pattern[str]
    resolvers: Sequence[Resolver]
    numbers: Numbers
    draws: bool = False
    macros: bool = False


PROMPT_CONTROL = Grammar(
    "Prompt Control",
    re.compile(
        r"PCLazy\w+|PCLoraHooks\w+|PCSplitLoras|PromptControl\w*|PromptToSchedule|LoRAScheduler"
    ),
    (comfyui_names.prompt_control,),
    _model_first,
    macros=True,
)
IMPACT = Grammar(
    "Impact Pack",
    re.compile(r"Impact\w*|.*Wildcard.*|.*Detailer.*|.* //Inspire", re.IGNORECASE | re.DOTALL),
    (comfyui_names.impact,),
    _plain_numbers,
    draws=True,
)
LORA_MANAGER = Grammar(
    "LoRA Manager",
    re.compile(r".*\(LoraManager\)", re.IGNORECASE),
    (comfyui_names.lora_manager,),
    _first_alone,
)
TAG_LOADER = Grammar(
    "LoraTagLoader",
    re.compile(r"LoraTagLoader"),
    # Another pack has a node of this class, which looks for the whole name first.
    (comfyui_names.tag_loader, comfyui_names.lora_manager),
    _zero_as_one,
)
RGTHREE = Grammar(
    "rgthree",
    re.compile(r".*Power (Prompt|Lora Loader).*", re.IGNORECASE | re.DOTALL),
    (comfyui_names.rgthree,),
    _first_alone,
)
COZINESS = Grammar(
    "Coziness",
    re.compile(r"(MultiLoraLoader|LoraTextExtractor|MultiLoraParser)-\w+"),
    (comfyui_names.coziness,),
    _model_first,
)
GRAMMARS = (PROMPT_CONTROL, LORA_MANAGER, TAG_LOADER, COZINESS, RGTHREE, IMPACT)
"""The packs whose grammar is known; the first whose class fits reads a text."""

ANY_PACK = Grammar(
    "any",
    re.compile(r""),
    (
        comfyui_names.as_file,
        *(one for each in GRAMMARS for one in each.resolvers),
        as_it_stands,
    ),
    _any_order,
)
"""Of a node whose pack is not known."""


@dataclass(frozen=True)
class Mentioned:
    """A LoRA that a text names.

    Attributes:
        name: as written.
        span: where it stands.
        strengths: at which it may be used.
        paths: the files below the folder that it may mean; empty where none is known.
    """

    name: str
    span: tuple[int, int]
    strengths: tuple[Strength, ...]
    paths: tuple[str, ...]


@lru_cache(maxsize=1024)
def grammar_of(class_type: str) -> Grammar:
    """The grammar of the pack that a node belongs to."""
    fitting = (one for one in GRAMMARS if one.classes.fullmatch(class_type))
    return next(fitting, ANY_PACK)


@lru_cache(maxsize=1024)
def is_lora_class(class_type: str) -> bool:
    """Whether a class of nodes deals with LoRAs; LoRA Manager has nodes that do not."""
    if class_type.casefold().endswith(_MANAGER):
        class_type = class_type[: -len(_MANAGER)]
    return speaks_of_lora(class_type)


def reads_tags(class_type: str, name: str) -> bool:
    """Whether a node loads the LoRAs of the tags that come in by an input."""
    if not _TEXTS.fullmatch(name):
        return False
    grammar = grammar_of(class_type)
    if grammar is IMPACT:
        return re.match(r"wildcard|populated", name, re.IGNORECASE) is not None
    if grammar in (ANY_PACK, LORA_MANAGER):
        return is_lora_class(class_type) or _READERS.fullmatch(class_type) is not None
    return True


def resolvers_of(class_type: str, name: str, *, managed: bool) -> tuple[Resolver, ...]:
    """How a name in an input is looked up, as it stands at last.

    Args:
        class_type: of the node.
        name: in its input.
        managed: whether LoRA Manager may look up anew what the node hands on.
    """
    grammar = grammar_of(class_type)
    if grammar in (LORA_MANAGER, RGTHREE):
        own: Resolver | None = grammar.resolvers[0]
    elif name.lower().endswith(WEIGHT_SUFFIXES):
        own = comfyui_names.as_file if managed else None
    else:
        own = comfyui_names.any_suffix
    then = (comfyui_names.lora_manager,) if managed and "stack" in class_type.casefold() else ()
    return tuple(one for one in (own, *then, as_it_stands) if one)


def mentioned_in(text: str, class_type: str, place: str, files: LoraFiles) -> Iterator[Mentioned]:
    """The LoRAs that the tags of a text name.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED or ADAPTER_AMBIGUOUS for a tag that cannot be read.
    """
    grammar = grammar_of(class_type)
    for tag in tags_in(text, place):
        paths = files.meant_by(tag.name, grammar.resolvers)
        yield Mentioned(tag.name, tag.span, grammar.numbers(tag), paths)


def refuse_undecidable(
    text: str, class_type: str, name: str, place: str, *, wildcards: bool = False
) -> None:
    """Refuses a text from which its node may make tags that are not there now.

    Args:
        text: of an input.
        class_type: of the node that reads it.
        name: of the input.
        place: of the node, its class and its input, for people.
        wildcards: lets wildcards pass.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED or ADAPTER_AMBIGUOUS.
    """
    grammar = grammar_of(class_type)
    if _LINES.fullmatch(class_type):
        _refuse_lines(text, place)
    if grammar.macros:
        _refuse_macros(text, place)
    elif may_become_a_tag(without_tags(text)):
        raise ambiguous_adapter(
            place, "may become a tag when its choices are drawn.", "Write the tag out."
        )
    elif grammar.draws and not wildcards and _fills_in(class_type, name) and _WILDCARD.search(text):
        raise unnamed(
            place,
            "holds a wildcard, for which the server may put in tags.",
            "Write its text out, or set allow_wildcards.",
        )


def _fills_in(class_type: str, name: str) -> bool:
    return reads_tags(class_type, name) or "wildcard" in class_type.casefold()


def _refuse_macros(text: str, place: str) -> None:
    """Prompt Control puts texts in the place of others, and makes nodes that a text names."""
    macros = _MACRO.search(text)
    rest = _MACRO.sub("", text)
    if macros and ("<" in text or "\\" in text or set("NODE") <= set(rest)):
        raise ambiguous_adapter(
            place, "has DEF, SEG or SUB beside what may become a tag.", "Write the text out."
        )
    for match in _NODE.finditer(text):
        if match[1].strip() not in _ENCODERS:
            raise unnamed(place, "makes a node of its own.", "Put the node into the graph.")


def _refuse_lines(text: str, place: str) -> None:
    """Coziness reads a LoRA in every line; those that are no tag are not read here."""
    lines = [line.strip() for line in text.splitlines()]
    if any(line and not re.fullmatch(r"<lora:[^<>#]+>", line) for line in lines):
        raise unnamed(place, "names a LoRA without a tag.", "Write <lora:name:strength> alone.")
