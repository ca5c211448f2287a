"""Arbitrary requests, for properties and fuzzing."""

from __future__ import annotations

import gzip
import json
import zlib

from hypothesis import strategies as st

from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import (
    BOUNDARY,
    ROUTES,
    framed,
    load_message,
    multipart,
)

NAME = "evil-lora"
PATH = f"/loras/{NAME}.safetensors"

WORDS = (
    "lora",
    "lora_path",
    "lora_name",
    "lora_nickname",
    "lora_weights",
    "loras",
    "path",
    "local_path",
    "name",
    "adapter",
    "scale",
    "strength",
    "strength_model",
    "strength_clip",
    "int_id",
    "prompt",
    "negative_prompt",
    "input",
    "inputs",
    "class_type",
    "parameters",
    "config",
    "file:1/a.safetensors",
    "styles",
    "alwayson_scripts",
    "override_settings",
    "sd_lora",
    "source",
    "location",
    "target",
    "on",
    "lora_1",
    "switch_1",
    "lora_name_1",
    "model_weight_1",
    "extra_body",
    "text",
)
VALUES = (
    PATH,
    NAME,
    f"{NAME}.safetensors",
    f"<lora:{NAME}:0.5>",
    "<lora:",
    "studio/ink",
    "None",
    "",
    "https://files.example.org/a.safetensors",
    "https://[::1",
    "hf://a/b",
    "urn:air:sdxl:lora:civitai:1@2",
    "data:;base64,AAAA",
    "On",
    "nan",
    "{a|b}",
    "\ud800",
    "\x00",
)

names = st.sampled_from(WORDS) | st.text(max_size=6)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(VALUES)
    | st.text(max_size=12)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=5)
nodes = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(
            ["LoraLoader", "KSampler", "Power Lora Loader (rgthree)", "CR LoRA Stack", "X"]
        ),
        "inputs": st.dictionaries(
            names, values | st.tuples(st.sampled_from("123"), st.integers(0, 2)), max_size=4
        ),
    }
)
graphs = st.fixed_dictionaries({"prompt": st.dictionaries(st.sampled_from("123"), nodes)})
json_bodies = (objects | graphs | values | st.fixed_dictionaries({"input": objects})).map(
    lambda value: json.dumps(value).encode()
)
form_parts = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(WORDS), "text": st.sampled_from(VALUES[:-2]) | st.just("{}")},
        optional={"file_name": st.just("a.png")},
    ),
    max_size=4,
)
messages = st.dictionaries(
    st.sampled_from(["file:1/a.safetensors", "file:model.py", "config", "x"]),
    st.binary(max_size=8),
    max_size=3,
).map(lambda files: framed(load_message("m", files)))
bodies = st.one_of(
    json_bodies,
    st.binary(max_size=64),
    form_parts.map(multipart),
    messages,
    json_bodies.map(gzip.compress),
    json_bodies.map(zlib.compress),
    st.tuples(json_bodies, st.binary(max_size=3)).map(lambda pair: pair[0][1:] + pair[1]),
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(
            [
                "application/json",
                f"multipart/form-data; boundary={BOUNDARY}",
                "application/x-www-form-urlencoded",
                "application/grpc",
                "application/json; charset=utf-7",
                ";;;",
            ]
        )
        | st.text(max_size=12),
        "content-encoding": st.sampled_from(["gzip", "deflate", "identity", "br", ""]),
        "content-length": st.sampled_from(["0", "5", "-1", "x", "\xb2", "9" * 30]),
        "inference-header-content-length": st.sampled_from(["0", "2", "999", "x"]),
        "grpc-encoding": st.sampled_from(["gzip", "identity"]),
    },
)
GUARDED = (
    *ROUTES.values(),
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/v1/images/edits",
    "/v1/videos",
    "/sdapi/v1/options",
    "/v2/repository/models/m/load",
    "/trainings",
    "/reload",
)
tails = st.sampled_from(["", "/", "//", "/.", ";a", "%00", "%2f", "/../x", "?", "%"])
paths = st.tuples(st.sampled_from(GUARDED), tails).map("".join) | st.text(max_size=12)
queries = st.sampled_from(["", "source=a/b", "source=", "source=%ff", "source=a:b:c", "_method=x"])
methods = st.sampled_from(["POST", "PUT", "PATCH", "GET", "DELETE", "X"])


def requests_to(paths: st.SearchStrategy[str]) -> st.SearchStrategy[HttpRequest]:
    return st.builds(
        HttpRequest,
        method=methods,
        path=paths,
        query=queries | st.text(max_size=8),
        headers=headers,
        body=bodies,
        body_complete=st.sampled_from([True, True, True, False]),
    )


requests = requests_to(paths)
"""Requests of all kinds, most of them nonsense."""
