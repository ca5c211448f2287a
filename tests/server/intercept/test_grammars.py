"""Texts, and the LoRAs that each server or pack of nodes loads for them, by its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import extractor, post

FOLDER = Path(__file__).parent / "grammars"


def grammars() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    cases = []
    for path in sorted(FOLDER.glob("*.yaml")):
        document = dict(YAML(typ="safe", pure=True).load(path.read_text()))
        assert document["source"]
        cases += [(path.stem, document, one) for one in document["cases"]]
    return cases


def request_of(document: dict[str, Any], case: dict[str, Any]) -> tuple[str, HttpRequest]:
    text = case.get("text")
    if "node" in document:
        node = {"class_type": document["node"], "inputs": {document["input"]: text}}
        return "comfyui", post("/prompt", {"prompt": {"7": node}})
    body = {"prompt": "a"} if text is None else {"prompt": text}
    if "infotext" in case:
        body["infotext"] = case["infotext"]
    return document.get("kind", "a1111"), post(case.get("path", document["path"]), body)


@pytest.mark.parametrize(
    ("grammar", "document", "case"),
    grammars(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_text_loads_what_its_server_reads_in_it(
    tmp_path: Path, grammar: str, document: dict[str, Any], case: dict[str, Any]
) -> None:
    for name in document["files"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    kind, request = request_of(document, case)
    server = extractor(kind, lora_folder=str(tmp_path))
    if "refused" in case:
        with pytest.raises(RefusedRequestError) as caught:
            server.extract(request)
        assert caught.value.code == case["refused"], grammar
        if kind == "comfyui":  # says where it stands
            for part in ("/7", document["input"], document["node"].replace("→", "?")):
                assert part in caught.value.message
        return
    adapters = server.extract(request).adapters
    loads = {
        str(Path(one.path or "").relative_to(tmp_path)): [
            [each.denoiser, each.text_encoder] for each in one.strengths
        ]
        for one in adapters
    }
    assert loads == case["loads"]
    certain = kind == "localai"  # whose every version reads tags alike
    assert certain or all(one.optional for one in adapters) or len(adapters) == 1
