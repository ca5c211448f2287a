"""The screen: what the adapters' weights alone say about every concept. No forward pass.

Per layer, concept and stratum: minus <unit gradient of the concept's log loss, dW>, the first-order
gain. All adapters that will be active together count as one, so their products are added before
anything is compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from loragate_server.adapter import algebra
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.reference import Strength
from loragate_server.audit.effects import (
    LayerEffects,
    effects_of,
    loudness,
    relative_effects,
    usual_layers,
)
from loragate_server.audit.evidence import HeatMap
from loragate_server.audit.likeness import Profile, profile_of
from loragate_server.audit.naming import NameShares, name_shares
from loragate_server.audit.products import Fill, Products, products
from loragate_server.audit.profile import Backend
from loragate_server.audit.score import Scores, above_bank, degree_of, highest_of
from loragate_server.audit.weights import NO_SCALES, Scales, weights_of
from loragate_server.concepts.gradients import ConceptGradients
from loragate_server.models.base import BaseModel

_BLOCK = re.compile(
    r".+?\.(?:attentions|resnets|transformer_blocks|single_transformer_blocks|layers)\.\d+"
)


@dataclass(frozen=True)
class Screen:
    """What the screen found.

    Attributes:
        layers: the layers that the adapters change, in the model's order.
        gain: float64 [layers, concepts, strata], first-order gain; 0 without an adapter.
        complete: whether the gains cover everything that the adapters change. Biases have no
            gradients here, so adapters that change those must not end here.
        shares: how much of the change lies where the concepts' names act.
    """

    layers: tuple[ModuleRef, ...]
    gain: Tensor
    complete: bool
    shares: NameShares = field(default_factory=NameShares)


def screen(
    base: BaseModel,
    gradients: ConceptGradients,
    adaptation: Sequence[tuple[Adapter, Strength]],
    backend: Backend,
) -> Screen:
    """Compares adapters with every concept gradient, in one call of `inner_products`.

    Args:
        base: the base model that the gradients are of.
        gradients: the concept gradients.
        adaptation: adapters that will be active together, each with its strength.
        backend: of `lora_response`.
    """
    pieces = []
    for found in products(base, gradients, adaptation, backend):
        shares = name_shares(gradients.spans, found.refs, found.changes)
        gain = (-found.values.sum(1)).cpu()
        pieces.append(Screen(found.refs, gain, complete=False, shares=shares))
    return _joined(pieces, [adapter for adapter, _ in adaptation])


def screen_each(
    base: BaseModel,
    gradients: ConceptGradients,
    adapters: Sequence[Adapter],
    backend: Backend,
) -> list[Screen]:
    """As `screen` of each adapter alone, at full strength, in one call for all of them."""
    return side_by_side(base, gradients, [(each, Strength()) for each in adapters], backend)


def side_by_side(
    base: BaseModel,
    gradients: ConceptGradients,
    adaptation: Sequence[tuple[Adapter, Strength]],
    backend: Backend,
    fill: Fill | None = None,
) -> list[Screen]:
    """The screens of adapters that are used one at a time; see `products`."""
    pieces: list[list[Screen]] = [[] for _ in adaptation]
    for found in products(base, gradients, adaptation, backend, fill):
        for number, (adapter, _) in enumerate(adaptation):
            pieces[number].append(_screen_of(found, number, adapter, gradients))
    return [_joined(own, [one]) for own, (one, _) in zip(pieces, adaptation, strict=True)]


def _screen_of(
    found: Products, number: int, adapter: Adapter, gradients: ConceptGradients
) -> Screen:
    """As `screen` of one of the adapters alone, as far as these layers go."""
    rows = [row for row, ref in enumerate(found.refs) if ref in adapter.deltas]
    own = tuple(found.refs[row] for row in rows)
    # summed over the one adapter, as alone, because that decides on the sign of zeros
    gain = (-found.values[rows, number : number + 1].sum(1)).cpu()
    changes = [found.changes[row][number : number + 1] for row in rows]
    shares = name_shares(gradients.spans, own, changes)
    return Screen(own, gain, complete=False, shares=shares)  # others may follow


def _joined(pieces: Sequence[Screen], adapters: Sequence[Adapter]) -> Screen:
    """What was found layer group by layer group, as if it had been in one go."""
    layers = tuple(ref for one in pieces for ref in one.layers)
    complete = all(covers(adapter, layers) for adapter in adapters)
    if len(pieces) == 1:
        return replace(pieces[0], complete=complete)
    rows: list[int] = []
    for number, one in enumerate(pieces):
        before = sum(len(each.layers) for each in pieces[:number])
        rows += [before + row for row in one.shares.rows]
    logs = [one.shares.log_share for one in pieces if one.shares.rows]
    shares = NameShares(tuple(rows), torch.cat(logs)) if logs else NameShares()
    return Screen(layers, torch.cat([one.gain for one in pieces]), complete, shares)


def covers(adapter: Adapter, refs: Sequence[ModuleRef]) -> bool:
    """Whether gains in these layers cover everything that an adapter changes."""
    known = set(refs)
    return all(
        ref in known and algebra.changed_bias(delta) is None
        for ref, delta in adapter.deltas.items()
    )


def standardised(gain: Tensor, bank: slice) -> Tensor:
    """Gains in standard deviations of the neutral bank on the same adapter, layer by layer.

    Args:
        gain: float64 [layers, concepts, strata].
        bank: the neutral concepts.

    Returns:
        float64 [layers, concepts, strata]; 0 in a layer that tells no concept from another.
    """
    neutral = gain[:, bank]
    spread = neutral.std(1, keepdim=True)
    centred = gain - neutral.mean(1, keepdim=True)
    return torch.where(spread > 0, centred / spread.clamp_min(1e-300), 0.0)


@dataclass(frozen=True)
class Heard:
    """What the votes of all layers say together.

    Attributes:
        scores: of the wanted concepts, over all strata.
        named: float64 [wanted, 2], what is heard under the concept's name, in standard deviations
            above the bank: the score where rows were told it (of all strata where none was), and
            the mean logarithm of the share that lies where the name acts.
        bank: float64 [neutral concepts, 2], the same of the bank itself.
    """

    scores: Scores
    named: Tensor
    bank: Tensor


def hear(
    found: Screen,
    gradients: ConceptGradients,
    wanted: Sequence[int],
    scales: Scales = NO_SCALES,
) -> Heard:
    """The scores of the forbidden concepts in `wanted`: every layer votes, with its weight.

    Layers are standardised one by one before they are added, so that neither large layers nor
    large gradients decide alone. A vote weighs what its kind of layer says (`weights`) times how
    much the layer does (`effects`).
    """
    index = [*wanted, *range(gradients.forbidden_count, len(gradients.concepts))]
    gain, bank = found.gain[:, index], slice(len(wanted), None)
    roles = weights_of(found.layers, len(gradients.strata), scales.roles)
    votes = standardised(gain, bank) * roles.unsqueeze(1)
    relative = relative_effects(found.layers, effects_of(gain, bank), scales.effects)
    # a kind of layer that says nothing is not among the loud ones either
    relative = relative * (roles.amax(1) > 0)
    views = loudness(relative, scales.effects)
    usual = usual_layers(found.layers, scales.effects)
    if not bool(usual.all()):
        # layers that no harmless adapter changes may speak, but not drown those that they all do
        views += loudness(relative * usual, scales.effects)
    # float64 [views, concepts, strata]
    totals = torch.stack([(votes * view.reshape(-1, 1, 1)).sum(0) for view in views])
    told = [row for row, stratum in enumerate(gradients.strata) if stratum.named]
    named = totals[:, :, told] if told else totals
    gained = torch.stack([above_bank(total, len(wanted)) for total in named.sum(2)]).amax(0)
    # in the last view layers that no harmless adapter changes say nothing, and no layer drowns all
    shared = above_bank(found.shares.mean(views[-1], index), len(wanted))
    above = torch.stack([gained, shared], dim=1)
    scores = highest_of(list(totals.sum(2)), len(wanted))
    return Heard(scores, above[: len(wanted)], above[len(wanted) :])


def votes_for(found: Screen, gradients: ConceptGradients, concept: int) -> Tensor:
    """How far one concept stands above the bank in each layer, float64 [layers, strata]."""
    return standardised(found.gain, slice(gradients.forbidden_count, None))[:, concept]


def degrees(found: Screen, gradients: ConceptGradients, wanted: Sequence[int]) -> Tensor:
    """Degrees of penetration of the concepts in `wanted`, float64; see `score.degree_of`.

    The excess is how much further the weights go along a concept's gradients than along those of
    the bank, all layers alike, times the average steepness of the bank's gradients (nats per unit
    of weight). Steepness by layer would be exact to first order, and drowns what most layers say
    in what a few steep ones do.
    """
    total = found.gain.sum(0)
    excess = total[list(wanted)] - total[gradients.forbidden_count :].mean(0)
    return degree_of(excess.mean(1) * gradients.steepness)


def aims(found: Screen, gradients: ConceptGradients, wanted: Sequence[int]) -> Tensor:
    """Share of what the weights do that goes towards each concept in `wanted`, float64.

    The excess that the degree is made of, over the sum of all layers' effects: the same at any
    strength. No layer votes here, so layers without effect count for nothing.
    """
    bank = slice(gradients.forbidden_count, None)
    total = found.gain.sum(0).mean(1)
    done = float(effects_of(found.gain, bank).sum())
    excess = total[list(wanted)] - total[bank].mean()
    return excess / done if done > 0 else torch.zeros_like(excess)


def profile(
    found: Screen,
    gradients: ConceptGradients,
    typical: LayerEffects,
    known: Sequence[int] | None = None,
) -> Profile:
    """The profile of the changed layers; see `likeness.profile_of`.

    Args:
        found: the gains.
        gradients: that they are of.
        typical: what harmless adapters do in each layer.
        known: the forbidden concepts about which layers may agree; all when None.
    """
    first, gain = gradients.forbidden_count, found.gain
    if known is not None:
        gain = gain[:, [*known, *range(first, gain.shape[1])]]
        first = len(known)
    bank = slice(first, None)
    return profile_of(found.layers, gain, standardised(gain, bank), bank, typical)


def heat_map(found: Screen, gradients: ConceptGradients, concept: int) -> HeatMap | None:
    """Where in the model one concept sits; None where no layer is changed."""
    if not found.layers:
        return None
    z = votes_for(found, gradients, concept)
    blocks: dict[str, list[int]] = {}
    for row, ref in enumerate(found.layers):
        match = _BLOCK.match(ref.module)
        name = match.group() if match else ref.module
        blocks.setdefault(f"{ref.component}.{name}", []).append(row)
    return HeatMap(
        gradients.concepts[concept].concept_id,
        tuple(blocks),
        tuple(
            f"{stratum.time:.2f}{', named' if stratum.named else ''}"
            for stratum in gradients.strata
        ),
        tuple(tuple(z[rows].mean(0).tolist()) for rows in blocks.values()),
    )
