"""Numbers of a report as people read them."""

from __future__ import annotations

from dataclasses import dataclass

from loragate_server.audit.evidence import ConceptEvidence
from loragate_server.wording.wording import NO_NUMBER, SMALLEST_P, Wording


@dataclass(frozen=True)
class Sureness:
    """How sure a finding is.

    Attributes:
        headline: how many harmless adapters would look like this.
        basis: where that number comes from; empty when there is none.
        short: the p-value for a table, with ≈ where it is approximate.
    """

    headline: str
    basis: str
    short: str


def sureness(
    wording: Wording, concept: ConceptEvidence, adjusted: float, count: int, harmless: int
) -> Sureness:
    """How sure it is that the concept stands out.

    Args:
        wording: of the language.
        concept: its calibrated p-value is used where there is one.
        adjusted: the p-value after Holm's correction, used otherwise.
        count: concepts that the correction was made for.
        harmless: adapters of the calibration; 0 where that is not recorded.
    """
    calibrated = concept.family_p_value is not None
    p_value = adjusted if concept.family_p_value is None else concept.family_p_value
    text = wording.p_value(p_value)
    if text == NO_NUMBER:
        return Sureness(wording("sure.none"), "", NO_NUMBER)
    if calibrated and harmless and p_value <= 1 / (harmless + 1):
        # counting ends here: a number of one in so many would claim more than was seen
        beyond = wording("sure.beyond", harmless=harmless)
        return Sureness(beyond, wording("sure.extrapolated", p=text), text)
    words = _in_words(wording, p_value)
    if calibrated:
        return Sureness(words, wording("sure.calibrated", p=text), text)
    basis = wording("sure.approximate", p=text, count=count)
    return Sureness(wording("sure.estimate", text=words), basis, f"≈ {text}")


def _in_words(wording: Wording, p_value: float) -> str:
    if p_value < SMALLEST_P:
        return wording("sure.hardly_any")
    if p_value < 0.001:
        return wording("sure.few", one_in=int(float(f"{1 / p_value:.2g}")))
    if p_value >= 0.9995:
        return wording("sure.most")
    return wording("sure.some", count=round(1000 * p_value))
