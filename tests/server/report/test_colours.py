"""Every text on a coloured ground can be read: WCAG asks for a contrast of 4.5 to 1."""

from __future__ import annotations

import re

import pytest

from loragate_server.report.render import TEMPLATES

LEAST_CONTRAST = 4.5
ROOTS = re.findall(r":root \{(.*?)\}", (TEMPLATES / "report.css").read_text(), re.DOTALL)
SCHEMES = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in ROOTS]
LIGHT, DARK, PRINT = SCHEMES[0], SCHEMES[0] | SCHEMES[1], SCHEMES[0] | SCHEMES[2]
PAIRS = [
    *(("pale-cell", f"h{shade}") for shade in range(4)),
    ("h4-ink", "h4"),
    ("dark-cell", "h5"),
    ("dark-cell", "h6"),
    *((kind, f"{kind}-pale") for kind in ("allow", "review", "block", "inconclusive")),
    *((kind, "sheet") for kind in ("allow", "review", "block", "inconclusive", "ink", "quiet")),
    ("ink", "paper"),
    ("quiet", "paper"),
    *(("quiet", f"{kind}-pale") for kind in ("allow", "review", "block", "inconclusive")),
    ("notice-ink", "notice"),
]


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK, PRINT], ids=["light", "dark", "print"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out_from_its_ground(text: str, ground: str, scheme: dict[str, str]) -> None:
    assert contrast(scheme[text], scheme[ground]) >= LEAST_CONTRAST
