"""Whatever a text says, nothing that a server loads for it passes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testkit.lanes import examples
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.grammar_models import NODES, PROMPTS
from tests.server.intercept.grammar_texts import lay_out, readers

thorough = settings(
    deadline=None,
    max_examples=examples(150, 400),
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("loras")
    lay_out(made)
    return made


@pytest.mark.parametrize(
    "name", sorted([*NODES, *PROMPTS, "infotext", "LocalAI", "LocalAI's videos"])
)
def test_what_a_server_or_a_pack_loads_for_a_text_is_found_or_refused(
    folder: Path, name: str
) -> None:
    texts, seen = readers(folder)[name]
    found = 0

    @thorough
    @given(text=texts)
    def check(text: str) -> None:
        nonlocal found
        found += seen(text)

    check()
    assert found >= 5


@given(text=st.lists(st.sampled_from(["<3", ">_<", "{a|b}", "{2$$x|y}", " cat", "(b:1.2)"])))
def test_choices_and_hearts_without_the_letters_of_a_tag_pass(text: list[str]) -> None:
    prompt = " ".join(text)
    for kind in ("CLIPTextEncode", "ImpactWildcardEncode", "PCLazyTextEncode"):
        node = {"class_type": kind, "inputs": {"text": prompt, "wildcard_text": prompt}}
        request = post("/prompt", {"prompt": {"7": node}})
        assert extractor("comfyui").extract(request).adapters == ()
    for kind in ("a1111", "localai"):
        assert extractor(kind).extract(post(ROUTES[kind], {"prompt": prompt})).adapters == ()
