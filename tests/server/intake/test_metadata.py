"""What an uploader wrote about an adapter is read as a loader reads it, or refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.metadata import (
    MAX_DEPTH,
    MAX_LETTERS,
    parse_adapter_config,
    parse_lora_adapter_metadata,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "is a JSON list, not an object"),
        ("null", "is a JSON NoneType, not an object"),
        ('{"r": 4, "r": 8}', "holds 'r' twice"),
        ('{"rank_pattern": {"to_q": 4, "to_\\u0071": 8}}', "holds 'to_q' twice"),
        ('{"lora_alpha": NaN}', "holds NaN"),
        ('{"lora_alpha": -Infinity}', "holds -Infinity"),
        ('{"a": ' * 20 + "1" + "}" * 20, f"nested more than {MAX_DEPTH} levels"),
        ("[" * 100_000, "is not JSON"),
        ('{"a": "' + "x" * MAX_LETTERS + '"}', "letters, more than"),
    ],
)
def test_what_two_loaders_could_read_differently_is_refused(text: str, said: str) -> None:
    with pytest.raises(NoDecisionError) as caught:
        parse_adapter_config(text)
    assert caught.value.reason is ErrorReason.ADAPTER_METADATA_INVALID
    assert said in caught.value.message
    assert caught.value.metadata == {"field": "adapter_config.json"}
    assert caught.value.remedy


def test_a_header_without_the_entry_has_none() -> None:
    assert parse_lora_adapter_metadata({"format": "pt"}) is None
    assert parse_lora_adapter_metadata({"lora_adapter_metadata": '{"unet.r": 4}'}) == {"unet.r": 4}
    with pytest.raises(NoDecisionError) as caught:
        parse_lora_adapter_metadata({"lora_adapter_metadata": "4"})
    assert caught.value.metadata == {"field": "lora_adapter_metadata"}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), values, max_size=5))
def test_everything_that_json_can_write_is_read_back(value: dict[str, object]) -> None:
    assert parse_adapter_config(json.dumps(value)) == value
