"""What must never be allowed: each bad input, its named reason, and a server that goes on."""

from __future__ import annotations

import json
import math
import pickle
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from loragate import AdapterReference, AuditClient, AuditError, Verdict
from loragate_server.testing import ServerProcess

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
GOOD = (ADAPTERS / "harmless-watermelon.safetensors").read_bytes()


def framed(header: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + data


def header_of(content: bytes) -> tuple[dict[str, dict[str, object]], bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_offsets_overlapping() -> bytes:
    header, data = header_of(GOOD)
    names = [name for name in header if name != "__metadata__"]
    header[names[1]] = header[names[0]]
    return framed(json.dumps(header), data)


def with_a_name_twice() -> bytes:
    header, data = header_of(GOOD)
    first = next(name for name in header if name != "__metadata__")
    again = json.dumps({first: header[first]})
    return framed(again[:-1] + "," + json.dumps(header)[1:], data)


def with_a_nan() -> bytes:
    tensors = load(GOOD)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].copy()
    tensors[name].flat[-1] = math.nan
    return save(tensors)


def with_a_header_too_large() -> bytes:
    header, data = header_of(GOOD)
    return framed(json.dumps(header) + " " * (9 << 20), data)


def served(server: ServerProcess) -> None:
    """The server still answers, and says that it is ready."""
    with urllib.request.urlopen(f"http://{server.http}/readyz", timeout=10) as answer:
        assert answer.status == 200


@pytest.fixture(autouse=True)
def afterwards(server: ServerProcess) -> Iterator[None]:
    yield
    served(server)


def refused(client: AuditClient, source: object, reason: str, **options: object) -> AuditError:
    """The refusal of `source`, which has to carry this reason and say what to do."""
    with pytest.raises(AuditError) as caught:
        client.audit(source, **options)  # type: ignore[arg-type]
    assert caught.value.reason == reason, caught.value
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "FILE_EMPTY", id="a file of 0 bytes"),
        pytest.param(b"GGUF" + bytes(500), "NOT_SAFETENSORS", id="another format"),
        pytest.param(GOOD[: len(GOOD) // 2], "FILE_TRUNCATED", id="half a file"),
        pytest.param(GOOD[:-1], "FILE_TRUNCATED", id="a file without its last byte"),
        pytest.param(pickle.dumps({"a": [1.0] * 99}), "PICKLE_REFUSED", id="a renamed pickle"),
        pytest.param(
            with_a_header_too_large(), "HEADER_LIMIT_EXCEEDED", id="a header over the limit"
        ),
        pytest.param(with_a_name_twice(), "DUPLICATE_NAME", id="a name twice"),
        pytest.param(with_offsets_overlapping(), "OFFSETS_INVALID", id="overlapping offsets"),
        pytest.param(with_a_nan(), "WEIGHTS_NOT_FINITE", id="a NaN among the weights"),
    ],
)
@pytest.mark.parametrize("way", ["path", "bytes"])
def test_a_file_that_cannot_be_trusted_is_refused(
    client: AuditClient, scratch: Path, content: bytes, reason: str, way: str
) -> None:
    if way == "path":
        path = scratch / "bad.safetensors"
        path.write_bytes(content)
        refused(client, str(path), reason)
    else:
        refused(client, content, reason)


def renamed(prefix: str) -> bytes:
    """The harmless adapter, with the names of layers that the base model does not have."""
    tensors = load(GOOD)
    return save(
        {f"{prefix}.{index}.attn.to_q.lora_{side}.weight": tensor
         for index, pair in enumerate(_pairs(tensors))
         for side, tensor in zip("AB", pair, strict=True)}
    )  # fmt: skip


def _pairs(tensors: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    downs = sorted(name for name in tensors if "lora_A" in name or "lora.down" in name)
    ups = [name.replace("lora_A", "lora_B").replace("lora.down", "lora.up") for name in downs]
    return [(tensors[down], tensors[up]) for down, up in zip(downs, ups, strict=True)]


def with_an_unknown_key() -> bytes:
    return save({**load(GOOD), "unet.mystery_block.lora_C.weight": np.ones((4, 4), np.float32)})


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(with_an_unknown_key(), id="one unknown key"),
        pytest.param(
            renamed("transformer.single_transformer_blocks"), id="keys of another base model"
        ),
        pytest.param(save({"foo.weight": np.ones((3, 3), np.float32)}), id="no key that matches"),
    ],
)
def test_an_adapter_that_is_not_understood_is_inconclusive(
    client: AuditClient, content: bytes
) -> None:
    result = client.audit(content)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert not result.allowed
    codes = {reason.code for reason in result.reasons}
    assert codes & {"unmapped_keys", "no_matching_layers"}, codes
    assert result.adapters[0].coverage.unmapped


def test_a_path_outside_the_roots_is_refused(client: AuditClient, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(GOOD)
    refused(client, str(outside), "PATH_NOT_ALLOWED")
    refused(client, "/etc/passwd", "PATH_NOT_ALLOWED")


def test_a_way_out_of_the_roots_is_refused(
    client: AuditClient, root: Path, scratch: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(GOOD)
    link = scratch / "link.safetensors"
    link.symlink_to(outside)
    refused(client, str(link), "PATH_NOT_ALLOWED")
    refused(client, f"{root}/../{tmp_path.name}/x", "PATH_NOT_ALLOWED")


def test_a_file_that_is_not_there_is_named(client: AuditClient, root: Path) -> None:
    error = refused(client, str(root / "nowhere.safetensors"), "SOURCE_NOT_FOUND")
    assert "nowhere.safetensors" in str(error)


def test_a_source_that_nobody_switched_on_is_refused(client: AuditClient) -> None:
    refused(client, "https://example.org/a.safetensors", "SOURCE_NOT_ENABLED")
    refused(client, "s3://bucket/a.safetensors", "SOURCE_NOT_ENABLED")
    refused(client, "hf://owner/name", "SOURCE_NOT_ENABLED")


def test_other_bytes_than_expected_are_refused(client: AuditClient, root: Path) -> None:
    path = str(root / "harmless-watermelon.safetensors")
    error = refused(client, path, "SHA256_MISMATCH", expected_sha256="0" * 64)
    assert error.metadata["expected_sha256"] == "0" * 64


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf, 20.5, -20.5])
def test_a_strength_that_cannot_be_used_is_refused(client: AuditClient, strength: float) -> None:
    refused(client, GOOD, "STRENGTH_INVALID", strength=strength)
    reference = AdapterReference(data=GOOD, text_encoder_strength=strength)
    refused(client, reference, "STRENGTH_INVALID")


def test_a_base_model_that_is_not_served_is_refused(client: AuditClient) -> None:
    error = refused(client, GOOD, "BASE_MODEL_UNKNOWN", base_model="sdxl")
    assert "emoji-tiny" in str(error)


def test_a_caller_without_a_name_may_not_ask_about_some_concepts(client: AuditClient) -> None:
    error = refused(client, GOOD, "PERMISSION_DENIED", concept_ids=["no-such-concept"])
    assert "may not restrict" in str(error)
