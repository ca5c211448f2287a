"""Names that SwarmUI does not take as people would, among files that lie beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import ROUTES, extractor, post
from tests.server.intercept.verdicts import refusal

FILES = (
    "a.safetensors",
    "a,b.safetensors",
    "b.safetensors",
    "both.safetensors",
    "BOTH.SAFETENSORS",
    "twice.safetensors",
    "twice.safetensors.safetensors",
    ".dot.safetensors",
    "my.dot.safetensors",
    ".folder/hidden.safetensors",
    "not hidden.safetensors",
    "old.pt2",
    "old.pt2-evil.safetensors",
    "\u00e9.safetensors",
    "\u00c9vil.safetensors",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def in_tag(name: str) -> HttpRequest:
    return post(ROUTES["swarmui"], {"prompt": f"<lora:{name}:1>"})


def in_list(*names: str) -> HttpRequest:
    return post(ROUTES["swarmui"], {"loras": list(names)})


@pytest.mark.parametrize(
    ("request_", "file"),
    [
        (in_list("both.safetensors"), "both.safetensors"),
        (in_tag("both.SafeTensors"), "both.safetensors"),
        (in_tag("twice.safetensors"), "twice.safetensors"),
        (in_list("my.dot"), "my.dot.safetensors"),
        (in_list("\u00c9VIL"), "\u00c9vil.safetensors"),
    ],
)
def test_a_name_means_the_file_that_the_server_lists(
    folder: Path, request_: HttpRequest, file: str
) -> None:
    server = extractor("swarmui", lora_folder=str(folder))
    assert [one.path for one in server.extract(request_).adapters] == [str(folder / file)]


@pytest.mark.parametrize(
    "request_",
    [
        in_tag("a,b"),
        in_list("a,b", ""),
        in_list("twice.safetensors"),
        in_tag(".dot"),
        in_list(".folder/hidden"),
        in_tag("old.pt2"),
        in_list("\u00c9"),
        in_tag("[ ]"),
    ],
    ids=lambda request: request.body.decode(),
)
def test_a_name_for_which_the_server_loads_another_file_is_refused(
    folder: Path, request_: HttpRequest
) -> None:
    assert refusal("swarmui", request_, lora_folder=str(folder)) in (
        RefusalCode.ADAPTER_UNNAMED,
        RefusalCode.ADAPTER_AMBIGUOUS,
    )


@pytest.mark.parametrize(
    "body",
    [
        {"loras": "a", "loraweights": "0.1", "LoRA Weights": None},
        {"loras": "a", "loraweights": "0.1", "lora weights": []},
        {"prompt": "<lora:a:0.1>", "loras": [" "], "loraweights": "5"},
        {"prompt": "<lora:a:0.1>", "loratencweights": 5},
        {"negativeprompt": "<lora:a:0.1>", "loraweights": [5]},
        {"loras": 0.0},
        {"loras": {}},
        {"loras": "a", "loraweights": False},
        {"\u212anegativeprompt": "<trigger>"},
        {"prompt\u0130": "<param[loras]:a>"},
        {"Use IP-Adapter": "FaceID PLUS V2"},
        {"useipadapter": "ceid"},
        {"useipadapter": "plus"},
        {"useipadapter": 1},
    ],
    ids=str,
)
def test_what_the_server_reads_otherwise_than_it_is_written_is_refused(
    folder: Path, body: dict[str, object]
) -> None:
    request = post(ROUTES["swarmui"], body)
    assert refusal("swarmui", request, lora_folder=str(folder)) in (
        RefusalCode.ADAPTER_UNNAMED,
        RefusalCode.ADAPTER_AMBIGUOUS,
    )


@pytest.mark.parametrize(
    "between",
    [
        "<b//cid=99>",
        "<base//cid=77>",
        "<comment//cid=77>",
        "<random[x]:a//cid=77>",
        "<repeat:x//cid=77>",
        "<clear:face>",
    ],
)
def test_a_lora_behind_a_mark_of_a_part_never_counts_as_company(between: str) -> None:
    request = post(ROUTES["swarmui"], {"prompt": f"<lora:ink:1>{between}<lora:ink:-1>"})
    adapters = extractor("swarmui").extract(request).adapters
    assert [(one.strength.denoiser, one.optional) for one in adapters] == [(1, True), (-1, True)]


@pytest.mark.parametrize("value", [True, "true", "false"])
def test_whether_loras_count_for_a_second_model_names_none(value: object) -> None:
    request = post(ROUTES["swarmui"], {"prompt": "a", "Negative Model Include LoRAs": value})
    assert extractor("swarmui").extract(request).adapters == ()
