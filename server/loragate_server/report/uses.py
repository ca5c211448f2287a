"""Which use of the adapters a sentence is about: which of them, at which strengths, for whom."""

from __future__ import annotations

from functools import reduce

from loragate_server.audit.evidence import Evidence, UsedAdapter, UseEvidence
from loragate_server.policy.sentences import own_loaders
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

MOST_USES = 12
"""More would hide what matters; the record holds all."""

_LONGEST_LIST = 300


def use_in_words(wording: Wording, evidence: Evidence, use: UseEvidence) -> str:
    """For example "adapter 1 alone, at strength 1, as comfyui read it"; numbers are the facts'."""
    if not use.adapters:
        return wording("use.none")
    if len(evidence.adapters) == 1:
        words = wording("use.only", strength=_strength(wording, use.adapters[0]))
    elif len(use.adapters) == 1:
        [one] = use.adapters
        strength = _strength(wording, one)
        words = wording("use.alone", number=one.adapter + 1, strength=strength)
    else:
        members = reduce(
            lambda first, second: wording("use.and", first=first, second=second),
            (
                wording("use.member", number=one.adapter + 1, strength=_strength(wording, one))
                for one in use.adapters
            ),
        )
        words = wording("use.together", members=members)
    loaders = own_loaders(evidence, use)
    return wording("use.read_by", use=words, loaders=_names(loaders)) if loaders else words


def every_use(wording: Wording, evidence: Evidence) -> str:
    """All uses that were judged, in one line; empty where the record does not tell them apart."""
    shown = [use_in_words(wording, evidence, use) for use in evidence.uses[:MOST_USES]]
    more = len(evidence.uses) - len(shown)
    return "; ".join([*shown, *([wording("use.more", count=more)] if more else [])])


def loaders_in_words(wording: Wording, evidence: Evidence) -> str:
    """The loaders that a verdict speaks for."""
    return _names(evidence.loaders) or wording("facts.not_said")


def where_found(wording: Wording, evidence: Evidence, use: UseEvidence | None) -> str:
    """The adapters that a headline is about: all of them, or those of a use."""
    count = len(evidence.adapters)
    if count == 1:
        return wording("where.one")
    if use is None or len(use.adapters) in (0, count):
        return wording("where.many", count=count)
    if len(use.adapters) == 1:
        return wording("where.member", number=use.adapters[0].adapter + 1, count=count)
    return wording("where.some", some=len(use.adapters), count=count)


def _strength(wording: Wording, used: UsedAdapter) -> str:
    if used.denoiser_strength == used.text_encoder_strength:
        return f"{used.denoiser_strength:g}"
    return wording(
        "use.strengths",
        denoiser=f"{used.denoiser_strength:g}",
        text=f"{used.text_encoder_strength:g}",
    )


def _names(loaders: tuple[str, ...]) -> str:
    return printable(", ".join(loaders), _LONGEST_LIST)
