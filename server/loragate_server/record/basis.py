"""`Basis`: what a decision was made from beside evidence and policy, so that it can be made again.

The digests of everything else are in the evidence and in the decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from loragate_server.policy.known import KnownUse
from loragate_server.policy.lineage import Kin
from loragate_server.policy.review import Ruling


@dataclass(frozen=True)
class AskedStrength:
    """How strongly the image server may apply an adapter."""

    denoiser: float
    text_encoder: float


@dataclass(frozen=True)
class AskedAdapter:
    """What the question said of an adapter; the bytes lie in the store under their digest.

    Attributes:
        strengths: every one at which it may be used, the first one first.
        config_json: text of the `adapter_config.json` beside the weights; None without one.
    """

    strengths: tuple[AskedStrength, ...]
    config_json: str | None = None


@dataclass(frozen=True)
class Basis:
    """What a decision was made from.

    Attributes:
        adapters: in the order of the question.
        loaders: those whose reading was judged, in order.
        judged_at: the moment at which the policy was applied; its lists lapse by it.
        known, kin, rulings: what was on record about the files, and what people had said.
    """

    adapters: tuple[AskedAdapter, ...]
    loaders: tuple[str, ...]
    judged_at: datetime
    known: tuple[KnownUse, ...] = ()
    kin: tuple[Kin, ...] = ()
    rulings: tuple[Ruling, ...] = ()
