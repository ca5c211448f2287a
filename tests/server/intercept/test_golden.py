"""Requests as the documentation of image servers shows them, and what they load."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.registry import EXTRACTORS
from tests.server.intercept.bodies import extractor, from_golden, golden_files, read_golden

FILES = golden_files()


def expected(entry: dict[str, Any]) -> AdapterReference:
    denoiser, text_encoder = entry["strengths"]
    inline = entry.get("inline")
    return AdapterReference(
        path=entry.get("path"),
        uri=entry.get("uri"),
        inline_bytes=None if inline is None else inline.encode(),
        weight_name=entry.get("weight_name"),
        revision=entry.get("revision"),
        strength=Strength(denoiser, text_encoder),
        also=tuple(Strength(*pair) for pair in entry.get("also", ())),
        optional=entry.get("optional", False),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_documented_request_loads_what_its_file_says(path: Path) -> None:
    document = read_golden(path)
    server = extractor(path.parent.name, **document.get("settings", {}))
    request = from_golden(document)
    if "refused" in document:
        with pytest.raises(RefusedRequestError) as caught:
            server.extract(request)
        assert caught.value.code == document["refused"]
        assert caught.value.remedy
        return
    extraction = server.extract(request)
    assert list(extraction.adapters) == [expected(entry) for entry in document["adapters"]]
    assert list(extraction.places) == [entry["place"] for entry in document["adapters"]]
    assert extraction.base_model == document.get("base_model", "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_secret_is_said_in_a_refusal_or_kept_in_an_extraction(path: Path) -> None:
    document = read_golden(path)
    server = extractor(path.parent.name, **document.get("settings", {}))
    try:
        said = repr(server.extract(from_golden(document)))
    except RefusedRequestError as refusal:
        said = repr((str(refusal), refusal.message, refusal.remedy))
    assert "hunter2" not in said


def test_every_server_has_at_least_five_documented_requests_with_their_source() -> None:
    counts = Counter(path.parent.name for path in FILES)
    assert set(counts) == set(EXTRACTORS)
    assert min(counts.values()) >= 5
    assert all(read_golden(path)["source"] for path in FILES)


@pytest.mark.parametrize("server", sorted(EXTRACTORS))
def test_a_denial_names_the_decision_in_body_and_header(server: str) -> None:
    denial = extractor(server).deny(403, "concept_learned", "It has learned a bomb.", "d-17")
    body = json.loads(denial.body)
    assert denial.status == 403
    assert denial.content_type == "application/json"
    assert ("x-loragate-decision-id", "d-17") in denial.headers
    assert "d-17" in json.dumps(body)
    assert "It has learned a bomb." in json.dumps(body)


@pytest.mark.parametrize(
    ("server", "where"),
    [
        ("sglang", ("detail",)),
        ("vllm_omni", ("error", "message")),
        ("comfyui", ("error", "message")),
        ("a1111", ("detail",)),
        ("stable_diffusion_cpp", ("error",)),
        ("localai", ("error", "message")),
        ("swarmui", ("error",)),
        ("fooocus", ("detail",)),
        ("xinference", ("detail",)),
        ("invokeai", ("detail",)),
        ("triton", ("error",)),
        ("kserve", ("error",)),
        ("cog", ("detail",)),
    ],
)
def test_a_denial_has_its_sentence_where_the_clients_of_the_server_look(
    server: str, where: tuple[str, ...]
) -> None:
    value = json.loads(extractor(server).deny(403, "code", "sentence", "d").body)
    for name in where:
        value = value[name]
    assert value == "sentence"
