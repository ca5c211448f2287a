"""Numbers of a report as people read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from loragate_server.audit.evidence import ConceptEvidence
from loragate_server.report.wording import Wording

NO_NUMBER = "–"
_SMALLEST_P = 1e-6


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


def decimal(value: float, digits: int = 1) -> str:
    """A number with so many digits behind the point, infinity as a sign, a dash for no number."""
    if math.isnan(value):
        return NO_NUMBER
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}".replace("-", "−")
    return text if text.strip("−0.") else text.removeprefix("−")


def p_text(p_value: float) -> str:
    """A p-value with two significant digits and no exponent, which laymen do not read."""
    if not 0 <= p_value <= 1:
        return NO_NUMBER
    if p_value < _SMALLEST_P:
        return "< 0.000001"
    return format(Decimal(f"{p_value:.2g}"), "f")


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
    text = p_text(p_value)
    if text == NO_NUMBER:
        return Sureness(wording("sure.none"), "", NO_NUMBER)
    if calibrated and harmless and p_value <= 1 / (harmless + 1):
        # counting ends here: a number of one in so many would claim more than was seen
        beyond = wording("sure.beyond", harmless=f"{harmless:,}")
        return Sureness(beyond, wording("sure.extrapolated", p=text), text)
    words = _in_words(wording, p_value)
    if calibrated:
        return Sureness(words, wording("sure.calibrated", p=text), text)
    basis = wording("sure.approximate", p=text, count=f"{count:,}")
    return Sureness(wording("sure.estimate", text=words), basis, f"≈ {text}")


def _in_words(wording: Wording, p_value: float) -> str:
    if p_value < _SMALLEST_P:
        return wording("sure.hardly_any")
    if p_value < 0.001:
        return wording("sure.few", one_in=f"{int(float(f'{1 / p_value:.2g}')):,}")
    if p_value >= 0.9995:
        return wording("sure.most")
    return wording("sure.some", count=f"{round(1000 * p_value):,}")
