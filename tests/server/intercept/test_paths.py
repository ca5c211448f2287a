"""Paths and methods that lead around a check."""

from __future__ import annotations

import pytest

from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import (
    post,
)
from tests.server.intercept.verdicts import EVIL, SET, found, refusal


@pytest.mark.parametrize(
    "path",
    [
        "/v1/set_lora",
        "/v1/set_lora/",
        "/v1/%73et_lora",
        "/V1/set_lora",
        "/behind/a/prefix/v1/set_lora",
    ],
)
def test_a_path_that_every_server_reads_alike_is_read(path: str) -> None:
    assert found("sglang", post(path, SET)) == [EVIL]


@pytest.mark.parametrize(
    "path",
    [
        "/v1//set_lora//",
        "/v1/./set_lora",
        "/v1/set_lora/.",
        "/v1/x/../set_lora",
        "/v1/set_lora/x/..",
        "/v1/set_lora;v=1",
        "/v1/set_lora;/../models",
        "/v1/SET_LORA",
        "/v1/%2e/set_lora",
        "/v1%2fset_lora",
        "/v1%5cset_lora",
        "/v1\\set_lora",
        "/v1/%2573et_lora",
        "/v1/set_lora%00",
        "/v1/set_lora%20",
        "/v1/set_lora%3fx",
        "/v1/set_lora%23x",
        "/v1/set%0a_lora",
        "http://host/v1/set_lora",
        "*",
        "/v1/%" + "25" * 30 + "73et_lora",
        "/v1/" + "%2525/..;/" * 60 + "set_lora",
    ],
)
def test_a_path_that_servers_could_read_differently_is_refused(path: str) -> None:
    request = HttpRequest("POST", path, "", {}, SET)
    assert refusal("sglang", request) == RefusalCode.ROUTE_UNKNOWN


@pytest.mark.parametrize(
    "request_",
    [
        post("/v1/images/generations", {"prompt": "set_lora"}),
        post("/v1/set_lora", b"", method="GET"),
        post("/v1/set_lora", b"", method="OPTIONS"),
        post("/", b"", method="GET"),
    ],
    ids=lambda request: f"{request.method} {request.path}",
)
def test_what_loads_nothing_passes(request_: HttpRequest) -> None:
    assert found("sglang", request_) == []


@pytest.mark.parametrize(
    "request_",
    [
        post("/v1/set_lora", SET, method="GET", x_http_method_override="POST"),
        post("/anything", SET, x_method_override="PUT"),
        post("/v1/set_lora?_method=POST", SET, method="GET"),
    ],
)
def test_a_method_that_is_overridden_is_refused(request_: HttpRequest) -> None:
    assert refusal("sglang", request_) == RefusalCode.ROUTE_UNKNOWN


@pytest.mark.parametrize("method", ["PUT", "PATCH", "post", "QUERY"])
def test_another_method_on_a_guarded_route_is_no_way_around(method: str) -> None:
    assert found("sglang", post("/v1/set_lora", SET, method=method)) == [EVIL]


@pytest.mark.parametrize(
    "path", ["/sdapi;x/v1/options", "/sdapi;x/v1;y=/options", "/sdapi%3bx/v1/options"]
)
def test_parameters_of_a_segment_hide_no_route(path: str) -> None:
    request = post(path, {"sd_lora": "evil"})
    assert refusal("a1111", request) == RefusalCode.ROUTE_UNKNOWN
