"""Two files that one name may mean: what the server takes is audited, or the request refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.reading import given_names
from loragate_server.intercept.reading.given_names import given_name
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.verdicts import found, refusal

PICTURE = "/sdapi/v1/txt2img"
RULES = [{"path": "/generate", "reference": "$..lora"}]
UNLISTED = ("msgpack", "onnx", "npz", "v2", "PT2", "ptx", "safetensor")


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def written(path: Path, name: str) -> None:
    """A file whose trainer called it `name`."""
    save_file({"x": torch.zeros(1)}, path, metadata={"ss_output_name": name})


def graph(class_type: str, **inputs: Any) -> HttpRequest:
    return post("/prompt", {"prompt": {"7": {"class_type": class_type, "inputs": inputs}}})


def tag(name: str) -> HttpRequest:
    return post(PICTURE, {"prompt": f"a harbour <lora:{name}:1>"})


def loads(server: str, request: HttpRequest, folder: Path) -> set[str]:
    """The files that are audited before the request passes; "refused" where it does not."""
    settings: dict[str, Any] = {"rules": RULES} if server == "declarative" else {}
    try:
        paths = found(server, request, lora_folder=str(folder), **settings)
    except RefusedRequestError:
        return {"refused"}
    return {os.path.relpath(path or "", folder) for path in paths}


ASKING = [
    pytest.param("comfyui", lambda name: graph("LoraLoader", lora_name=name), id="comfyui-core"),
    pytest.param("comfyui", lambda name: graph("SomeLoader", lora=name), id="comfyui-other"),
    pytest.param(
        "comfyui", lambda name: graph("SomeTextToLora", text=f"<lora:{name}:1>"), id="tag"
    ),
    pytest.param("a1111", tag, id="a1111"),
    pytest.param("a1111", lambda name: post("/sdapi/v1/options", {"sd_lora": name}), id="option"),
    pytest.param("declarative", lambda name: post("/generate", {"lora": name}), id="declarative"),
]


@pytest.mark.parametrize(("server", "asking"), ASKING)
@pytest.mark.parametrize("suffix", ["pt2", "pt", "ckpt", "pth", "bin", "pkl", "gguf", *UNLISTED])
def test_the_file_beside_the_one_of_the_name_is_never_audited_for_it(
    tmp_path: Path, server: str, asking: Any, suffix: str
) -> None:
    put(tmp_path, f"style.{suffix}", f"style.{suffix}.safetensors")
    assert loads(server, asking(f"style.{suffix}"), tmp_path) & {f"style.{suffix}", "refused"}


@pytest.mark.parametrize(("server", "asking"), ASKING)
@pytest.mark.parametrize("suffix", ["pt2", *UNLISTED])
def test_a_file_that_has_the_name_as_it_stands_is_the_one_that_is_audited(
    tmp_path: Path, server: str, asking: Any, suffix: str
) -> None:
    put(tmp_path, f"style.{suffix}", "other.safetensors")
    assert loads(server, asking(f"style.{suffix}"), tmp_path) == {f"style.{suffix}"}


@pytest.mark.parametrize(("server", "asking"), ASKING)
def test_a_name_without_suffix_is_not_taken_for_the_file_that_has_one(
    tmp_path: Path, server: str, asking: Any
) -> None:
    put(tmp_path, "style", "style.sft", "style.SAFETENSORS")
    assert loads(server, asking("style"), tmp_path) == {"refused"}


@pytest.mark.parametrize(("server", "asking"), ASKING)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("style.safetensors", "style.safetensors"),
        ("style.pt2.safetensors", "style.pt2.safetensors"),
        ("ink_v1.5", "ink_v1.5.safetensors"),
        ("ink", "ink.safetensors"),
    ],
)
def test_a_name_that_means_one_file_passes_as_before(
    tmp_path: Path, server: str, asking: Any, name: str, file: str
) -> None:
    put(tmp_path, file, "style.pt2", "another.safetensors", "ink.png", "ink.json")
    (tmp_path / "ink").mkdir()
    assert loads(server, asking(name), tmp_path) == {file}


@pytest.mark.parametrize(("server", "asking"), ASKING)
@pytest.mark.parametrize(
    "name", ["style.pt2.", "style.pt2 ", "style.pt2. .", "style.", "sub./style"]
)
def test_a_name_that_some_systems_shorten_is_refused(
    tmp_path: Path, server: str, asking: Any, name: str
) -> None:
    put(tmp_path, f"{name}.safetensors", "style.pt2.safetensors")
    assert loads(server, asking(name), tmp_path) == {"refused"}


def test_of_localai_the_path_is_audited_beside_the_stem_that_a1111_knows(
    tmp_path: Path,
) -> None:
    put(tmp_path, "style.pt2", "sub/style.pt2.safetensors")
    assert loads("a1111", tag("style.pt2"), tmp_path) == {"style.pt2", "sub/style.pt2.safetensors"}


@pytest.mark.parametrize(
    ("files", "meant"),
    [
        (["style.gguf", "style.pt"], {"style.gguf", "style.pt"}),
        (["style.gguf", "style.safetensors", "style.pt"], {"style.gguf", "style.safetensors"}),
        (["style.SAFETENSORS", "style.pt"], {"style.SAFETENSORS", "style.pt"}),
        (["style.safetensors", "style.ckpt"], {"style.safetensors"}),
    ],
)
def test_a_file_hides_only_the_twin_that_no_web_ui_takes_instead(
    tmp_path: Path, files: list[str], meant: set[str]
) -> None:
    put(tmp_path, *files)
    assert loads("a1111", tag("style"), tmp_path) == meant


@pytest.mark.parametrize(
    "name", ["style.pt2", "style.PT2", "style.msgpack", "sub/style.xyz", "raw"]
)
@pytest.mark.parametrize("key", ["file", "path", "whatever"])
def test_a_file_in_the_folder_of_loras_is_one_whatever_names_it(
    tmp_path: Path, name: str, key: str
) -> None:
    put(tmp_path, name)
    assert loads("comfyui", graph("Foo", **{key: name}), tmp_path) == {name}
    absolute = graph("Foo", **{key: str(tmp_path / name)})
    assert loads("comfyui", absolute, tmp_path) == {"refused"}


def test_pictures_beside_loras_and_files_elsewhere_are_none(tmp_path: Path) -> None:
    put(tmp_path, "loras/style.png", "loras/base.safetensors", "elsewhere.xyz")
    (tmp_path / "loras" / "euler").mkdir()
    folder = tmp_path / "loras"
    elsewhere = str(tmp_path / "elsewhere.xyz")
    for inputs in (
        {"image": "style.png"},
        {"ckpt_name": "base.safetensors"},
        {"file": "../elsewhere.xyz"},
        {"file": elsewhere},
        {"text": "a harbour at night. " * 40},
        {"sampler_name": "euler"},
    ):
        assert loads("comfyui", graph("Foo", **inputs), folder) == set()


def test_the_name_in_a_file_is_what_a1111_asks_by_where_no_stem_fits(tmp_path: Path) -> None:
    written(tmp_path / "z.safetensors", "Harmless")
    put(tmp_path, "harmless.safetensors")
    # A path in other letters is that file on some systems; A1111 takes what its header calls so.
    meant = {"z.safetensors", "harmless.safetensors"}
    assert loads("a1111", tag("Harmless"), tmp_path) == meant
    assert loads("a1111", tag("harmless"), tmp_path) == {"harmless.safetensors"}


def test_a_name_with_an_underscore_for_a_dot_may_be_that_in_a_file_too(tmp_path: Path) -> None:
    written(tmp_path / "z.safetensors", "my_lora")
    put(tmp_path, "my.lora.safetensors")
    assert loads("a1111", tag("my_lora"), tmp_path) == {"z.safetensors", "my.lora.safetensors"}


def test_epochs_that_bear_one_name_are_told_apart_by_their_stems(tmp_path: Path) -> None:
    for stem in ("ink", "ink-000002", "ink-000004"):
        written(tmp_path / f"{stem}.safetensors", "ink")
    assert loads("a1111", tag("ink"), tmp_path) == {"ink.safetensors"}
    assert loads("a1111", tag("ink-000002"), tmp_path) == {"ink-000002.safetensors"}


def test_a_name_in_a_file_is_read_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"
    written(path, "first")
    assert given_name(str(path)) == "first"
    path.unlink()
    written(path, "second one")
    assert given_name(str(path)) == "second one"
    path.write_bytes(b"no header")
    assert given_name(str(path)) == ""
    assert given_name(str(tmp_path / "missing.safetensors")) == ""
    assert given_names._read.cache_info().maxsize


def test_a_folder_that_is_called_as_a_file_holds_the_weights_of_pefts_name(tmp_path: Path) -> None:
    folder = tmp_path / "style.safetensors"
    put(folder, "adapter_config.json", "good.safetensors")
    request = post("/v1/images/generations", {"lora": {"name": "x", "path": str(folder)}})
    (adapter,) = extractor("vllm_omni").extract(request).adapters
    assert adapter.weight_name == "adapter_model.safetensors"


@pytest.mark.parametrize("value", ["evil", "evil(0a1b2c)", ["evil"], {"name": "evil"}, " None"])
@pytest.mark.parametrize("name", ["sd_hypernetwork", "SD_Hypernetwork", "hypernetwork_name"])
def test_a_hypernetwork_is_refused_as_its_tag_is(name: str, value: Any) -> None:
    for body in ({name: value}, {"override_settings": {name: value}}):
        assert refusal("a1111", post(PICTURE, body)) == "adapter_unnamed"
        assert refusal("a1111", post("/sdapi/v1/options", body)) == "adapter_unnamed"


def test_options_that_load_no_hypernetwork_pass() -> None:
    options = {"sd_hypernetwork": "None", "print_hypernet_extra": True, "sd_vae": "Automatic"}
    assert found("a1111", post("/sdapi/v1/options", options)) == []
    body = {"prompt": "a", "override_settings": {"sd_hypernetwork": "", "CLIP_stop": 2}}
    assert found("a1111", post(PICTURE, body)) == []


@pytest.mark.parametrize(
    "option",
    ["lora_dir", "models_dir", "hypernetwork_dir", "wildcards_dir", "custom_diffusers_pipeline"],
)
def test_options_that_move_folders_or_load_code_are_refused(option: str) -> None:
    assert refusal("a1111", post("/sdapi/v1/options", {option: "/tmp/x"})) == "door_closed"
