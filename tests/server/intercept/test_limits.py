"""What is refused because to read it would cost too much, and what just passes below that."""

from __future__ import annotations

import gzip
import zlib

import pytest

from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.reading.inflating import FREE_BYTES, MAX_RATIO
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import BOUNDARY, extractor, framed, infer_message, post
from tests.server.intercept.verdicts import EVIL, SET, found, refusal


def packed(plain_bytes: int) -> bytes:
    """A request of so many bytes, nearly all of them blanks."""
    return gzip.compress(SET + b" " * (plain_bytes - len(SET)), mtime=0)


def test_a_body_may_grow_a_hundredfold_when_it_is_unpacked_or_to_a_megabyte() -> None:
    assert found("sglang", post("/v1/set_lora", packed(FREE_BYTES), content_encoding="gzip")) == [
        EVIL
    ]
    bomb = packed(FREE_BYTES + 1)
    assert len(bomb) * MAX_RATIO < FREE_BYTES
    code = refusal("sglang", post("/v1/set_lora", bomb, content_encoding="gzip"))
    assert code == RefusalCode.BODY_UNREADABLE


def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    """A quarter of a gigabyte of blanks, in a quarter of a megabyte."""
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * (1 << 24)) for _ in range(16)) + packer.flush()
    assert len(bomb) < 1 << 19
    code = refusal(
        "sglang", post("/v1/set_lora", bomb, content_encoding="gzip"), max_body_bytes=1 << 20
    )
    assert code == RefusalCode.BODY_UNREADABLE


def test_a_packed_grpc_message_has_the_same_limits() -> None:
    message = infer_message({"model_name": "m" * (FREE_BYTES + 1)})
    request = HttpRequest(
        "POST",
        "/inference.GRPCInferenceService/ModelInfer",
        "",
        {"content-type": "application/grpc", "grpc-encoding": "gzip"},
        framed(gzip.compress(message), 1),
    )
    assert refusal("triton", request) == RefusalCode.BODY_UNREADABLE


@pytest.mark.parametrize("place", ["class", "input", "member"])
def test_names_of_a_graph_have_at_most_256_letters(place: str) -> None:
    for length, refused in ((256, False), (257, True)):
        name = "n" * length
        node = {
            "class": {"class_type": name, "inputs": {}},
            "input": {"class_type": "A", "inputs": {name: "x"}},
            "member": {"class_type": "A", "inputs": {"rows": {name: "x"}}},
        }[place]
        request = post("/prompt", {"prompt": {"1": node}})
        if refused:
            assert refusal("comfyui", request) == RefusalCode.BODY_UNREADABLE
        else:
            assert found("comfyui", request) == []


def test_links_carry_at_most_sixteen_million_letters() -> None:
    def graph(readers: int) -> dict[str, object]:
        text = {"class_type": "PrimitiveString", "inputs": {"value": "a" * 400_000}}
        reader = {"class_type": "Lora Text", "inputs": {"text": ["t", 0]}}
        return {"t": text, **{str(n): reader for n in range(readers)}}

    assert found("comfyui", post("/prompt", {"prompt": graph(40)})) == []
    one = {"class_type": "PrimitiveString", "inputs": {"value": "a"}}
    reader = {"class_type": "Lora Text", "inputs": {"text": ["o", 0]}}
    more = graph(40) | {"o": one, "r": reader}
    assert refusal("comfyui", post("/prompt", {"prompt": more})) == RefusalCode.BODY_UNREADABLE


def test_one_lora_has_at_most_sixteen_strengths() -> None:
    def graph(count: int) -> dict[str, object]:
        given = {f"strength_{'0' * n}1": 1.0 for n in range(count)}
        return {"1": {"class_type": "Lora Stack", "inputs": {"lora_1": "evil", **given}}}

    assert len(found("comfyui", post("/prompt", {"prompt": graph(16)}))) == 1
    code = refusal("comfyui", post("/prompt", {"prompt": graph(17)}))
    assert code == RefusalCode.ADAPTER_AMBIGUOUS


def test_an_output_that_is_no_number_makes_no_link() -> None:
    node = b'{"class_type": "KSampler", "inputs": {"model": ["1", 1e999], "a": ["1", -3]}}'
    body = b'{"prompt": {"1": {"class_type": "A", "inputs": {}}, "2": ' + node + b"}}"
    assert found("comfyui", post("/prompt", body)) == []


def test_a_number_in_other_digits_is_that_number() -> None:
    inputs = {"lora_1": "evil", "strength_\u0661": 0.5, "strength_2": 2.0}
    request = post("/prompt", {"prompt": {"1": {"class_type": "Lora Stack", "inputs": inputs}}})
    (adapter,) = extractor("comfyui").extract(request).adapters
    assert {one.denoiser for one in adapter.strengths} == {0.5}


@pytest.mark.parametrize("name", ["lora_\u00b2", "lora_" + "9" * 200, "strength_" + "1" * 200])
def test_a_name_with_a_number_that_python_does_not_take_breaks_nothing(name: str) -> None:
    inputs = {"lora_1": "evil", name: 1.0}
    request = post("/prompt", {"prompt": {"1": {"class_type": "Lora Stack", "inputs": inputs}}})
    assert found("comfyui", request) == ["/loras/evil.safetensors"]


def test_a_workflow_for_cog_is_looked_for_in_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.walk", lambda *_, **__: pytest.fail("looked through a disk"))
    graph = {"1": {"class_type": "LoraLoader", "inputs": {"lora_name": "evil"}}}
    request = post("/predictions", {"input": {"workflow_json": graph}})
    assert refusal("cog", request) == RefusalCode.ADAPTER_UNNAMED


def test_an_input_of_cog_may_not_be_nested_without_end() -> None:
    text = '{"a":' * 300 + "1" + "}" * 300
    code = refusal("cog", post("/predictions", {"input": {"settings": text}}))
    assert code == RefusalCode.ADAPTER_UNNAMED


@pytest.mark.parametrize(
    ("head", "parts", "refused"), [(10, 1000, False), (10, 1001, True), (17_000, 1, True)]
)
def test_a_form_has_at_most_a_thousand_parts_with_short_heads(
    head: int, parts: int, refused: bool
) -> None:
    part = (
        f'--{BOUNDARY}\r\nX-Note: {"a" * head}\r\nContent-Disposition: form-data; name="n{{}}"'
        "\r\n\r\nx\r\n"
    )
    body = "".join(part.format(number) for number in range(parts)) + f"--{BOUNDARY}--\r\n"
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    request = post("/v1/images/edits", body.encode(), content_type=kind)
    if refused:
        assert refusal("vllm_omni", request) == RefusalCode.BODY_UNREADABLE
    else:
        assert found("vllm_omni", request) == []


def test_a_boundary_has_at_most_seventy_letters() -> None:
    for length, codes in ((70, None), (71, RefusalCode.BODY_AMBIGUOUS)):
        boundary = "b" * length
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="a"'
        body = f"{head}\r\n\r\nx\r\n--{boundary}--\r\n"
        kind = f"multipart/form-data; boundary={boundary}"
        request = post("/v1/images/edits", body.encode(), content_type=kind)
        if codes is None:
            assert found("vllm_omni", request) == []
        else:
            assert refusal("vllm_omni", request) == codes


def test_a_huge_strength_of_another_name_is_no_number() -> None:
    body = {"parameters": {"lora_path": EVIL, "weight_scale": 10**400}}
    assert refusal("kserve", post("/v2/models/m/infer", body)) == RefusalCode.ADAPTER_AMBIGUOUS


def test_a_strength_for_the_text_encoder_alone_leaves_the_denoiser_at_one() -> None:
    inputs = {"lora_1": "evil", "clip_weight_1": 0.5}
    request = post("/prompt", {"prompt": {"1": {"class_type": "Lora Stack", "inputs": inputs}}})
    (adapter,) = extractor("comfyui").extract(request).adapters
    assert [(one.denoiser, one.text_encoder) for one in adapter.strengths] == [(1.0, 0.5)]
