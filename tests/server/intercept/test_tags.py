"""How strongly the servers apply a LoRA that a tag in a prompt names."""

from __future__ import annotations

import pytest

from loragate_server.intercept.extraction import RefusalCode
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.verdicts import refusal

TXT2IMG = "/sdapi/v1/txt2img"


@pytest.mark.parametrize(
    ("tag", "strengths"),
    [
        ("<lora:evil>", [(1.0, 1.0)]),
        ("<lora:evil:0.5>", [(0.5, 0.5)]),
        ("<lora:evil:0.5:0.7>", [(0.7, 0.5), (0.5, 0.5)]),
        ("<lora:evil:te=0.5>", [(0.5, 0.5)]),
        ("<lora:evil:0.2:te=0.5:unet=-2>", [(-2.0, 0.5), (0.5, 0.5), (0.2, 0.2)]),
        ("<lora:evil:-2:in=-2:out=-2>", [(-2.0, -2.0)]),
    ],
)
def test_a_tag_has_the_strengths_that_the_servers_read(
    tag: str, strengths: list[tuple[float, float]]
) -> None:
    (adapter,) = extractor("a1111").extract(post(TXT2IMG, {"prompt": tag})).adapters
    assert [(one.denoiser, one.text_encoder) for one in adapter.strengths] == strengths


def test_a_tag_without_a_number_has_the_default_of_a_request_or_none() -> None:
    body = {
        "prompt": "<lora:evil>",
        "override_settings": {"extra_networks_default_multiplier": -3},
    }
    (adapter,) = extractor("a1111").extract(post(TXT2IMG, body)).adapters
    assert {one.denoiser for one in adapter.strengths} == {1.0, -3.0}


def test_strengths_of_parts_of_the_denoiser_are_refused_since_no_audit_can_follow_them() -> None:
    for tag in ("<lora:evil:1:out=0>", "<lora:evil:0.2:in=0.1:out=-3>", "<lora:evil:mid=1>"):
        code = refusal("a1111", post(TXT2IMG, {"prompt": tag}))
        assert code == RefusalCode.ADAPTER_AMBIGUOUS


def test_a_default_strength_that_would_outlive_its_request_is_refused() -> None:
    body = {
        "prompt": "a harbour",
        "override_settings": {"extra_networks_default_multiplier": 5},
        "override_settings_restore_afterwards": False,
    }
    assert refusal("a1111", post(TXT2IMG, body)) == RefusalCode.DOOR_CLOSED
