"""Blocks of a model in words, and what would change a verdict."""

from __future__ import annotations

import math

import pytest

from loragate_server.policy.decision import Finding, Measured, MeasureKind, Remedy, VerdictKind
from loragate_server.report.blocks import block_in_words
from loragate_server.report.change import what_would_change
from loragate_server.report.wording import REPORT, report_wording
from testkit import evidence as made


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("down_blocks.0", "Block 1"),
        ("mid_block", "Middle block"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2",
         "Middle block: words of the prompt 1-1"),
        ("up_blocks.2.resnets.1", "Block 3: shapes and textures 2"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
         "Block 2: places of the picture among each other 1-1"),
        ("transformer_blocks.4 – 7", "Blocks 5 to 8"),
        ("single_transformer_blocks.3.attn.to_q", "Block 4: picture and words"),
        ("unet.down_blocks.1", "Block 2"),
        ("conv_in", ""),
        ("", ""),
        ("my_down_blocks.x", ""),
    ],
)  # fmt: skip
def test_a_block_is_told_in_words(layer: str, words: str) -> None:
    assert block_in_words(report_wording("en"), layer) == words


def finding(verdict: VerdictKind, by: Measured | None) -> Finding:
    return Finding(made.concept(), verdict, Remedy.NONE, by)


@pytest.mark.parametrize("language", REPORT.languages)
@pytest.mark.parametrize("kind", list(MeasureKind))
@pytest.mark.parametrize("verdict", [VerdictKind.ALLOW, VerdictKind.REVIEW, VerdictKind.BLOCK])
def test_every_measure_has_a_sentence_with_both_numbers(
    kind: MeasureKind, verdict: VerdictKind, language: str
) -> None:
    by = Measured(kind, 0.25, 0.5)
    sentence = what_would_change(report_wording(language), finding(verdict, by))
    shown = {MeasureKind.DEGREE: "0", MeasureKind.SCORE: "0.2"}.get(kind, "0.25")
    assert shown in sentence
    assert report_wording(language)(f"change.{kind.value}") in sentence


@pytest.mark.parametrize("by", [None, Measured(MeasureKind.SCORE, math.nan, 4.0)])
def test_without_a_number_nothing_is_said(by: Measured | None) -> None:
    assert what_would_change(report_wording("en"), finding(VerdictKind.BLOCK, by)) == ""
