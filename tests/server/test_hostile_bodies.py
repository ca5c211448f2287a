"""While a body that costs much is read, the server answers everybody else."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ruamel.yaml import YAML

from loragate_server.intercept.request import HttpRequest
from loragate_server.testing import ServerProcess
from testkit.servers import forked_server
from testkit.waiting import busyness
from tests.server.intercept import hostile, hostile_graphs

BODY_BYTES = 8_000_000
MOST_S = 0.1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("hostile")
    (loras := folder / "loras").mkdir()
    kinds = {"comfyui": {"lora_folder": str(loras)}, "a1111": {"lora_folder": str(loras)}}
    with (config := folder / "loragate.yaml").open("w") as file:
        YAML().dump(
            {
                "intercept": {
                    "http": True,
                    "reading_s": 1.0,
                    "extractors": {
                        kind: {"kind": kind, "settings": settings}
                        for kind, settings in kinds.items()
                    },
                },
                "intake": {"roots": [str(loras)]},
                "threads": 1,
            },
            file,
        )
    with forked_server(folder, config=config) as running:
        yield running


SLOWER = ("tags", "texts")
"""Of many names, for each of which the disk is asked, and of many texts, which JSON's scanner reads
without a pause."""


BODIES: dict[str, tuple[str, Callable[[int], HttpRequest]]] = {
    "tags": ("a1111", dict(hostile.text_shapes("a1111"))["tags of every kind, 0"]),
    "choices": ("a1111", dict(hostile.text_shapes("a1111"))["choices of letters in order, 0"]),
    "texts": ("a1111", dict(hostile.value_shapes("a1111"))["many prompts, 0"]),
    "nodes": ("comfyui", dict(hostile_graphs.graph_shapes("comfyui"))["a graph of many nodes"]),
    "names": (
        "comfyui",
        dict(hostile_graphs.graph_shapes("comfyui"))["a graph of many wildcards"],
    ),
    "links": ("comfyui", dict(hostile_graphs.graph_shapes("comfyui"))["a graph of links in links"]),
    "numbers": ("a1111", dict(hostile.value_shapes("a1111"))["numbers, 1"]),
    "lists": ("a1111", dict(hostile.body_shapes("a1111"))["deep brackets"]),
    "escapes": ("a1111", dict(hostile.body_shapes("a1111"))["escaped pairs"]),
    "a bomb": ("a1111", dict(hostile.body_shapes("a1111"))["packed with gzip"]),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_probes_are_answered_while_a_body_is_read(server: ServerProcess, name: str) -> None:
    """Beside other tests, which take the cores away: what is looked for here takes seconds."""
    for door, (usual_s, worst_s) in waits_beside(server, name).items():
        assert usual_s < 5 * MOST_S * busyness(), door
        assert worst_s < 30 * MOST_S * busyness(), door


@pytest.mark.long
@pytest.mark.parametrize("name", BODIES)
def test_they_are_answered_at_once_where_the_cores_are_free(
    server: ServerProcess, name: str
) -> None:
    most_s = 3 * MOST_S if name in SLOWER else MOST_S
    for door, (usual_s, _) in waits_beside(server, name).items():
        assert usual_s < most_s, door


def waits_beside(server: ServerProcess, name: str) -> dict[str, tuple[float, float]]:
    """Seconds of a probe by each door while a body is read: of 99 in a hundred, and of all."""
    extractor, shape = BODIES[name]
    request = shape(BODY_BYTES)
    statuses: list[int] = []
    asking = threading.Thread(target=lambda: statuses.append(ask(server, extractor, request)))
    waits: dict[str, list[float]] = {"http": [], "grpc": []}
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest())
        asking.start()
        while asking.is_alive():
            waits["http"].append(timed(lambda: probe(server)))
            waits["grpc"].append(timed(lambda: health.Check(health_pb2.HealthCheckRequest())))
    asking.join()
    assert statuses[0] in (200, 400, 403, 413, 503)
    for door, each in waits.items():
        each.sort()
        usual = each[len(each) * 99 // 100 - 1]
        print(f"{door}: {usual * 1e3:.0f} ms, at most {each[-1] * 1e3:.0f} ms of {len(each)}")
    return {door: (each[len(each) * 99 // 100 - 1], each[-1]) for door, each in waits.items()}


def test_a_body_that_takes_too_long_is_refused_with_its_own_code(server: ServerProcess) -> None:
    _, shape = BODIES["names"]
    connection = http.client.HTTPConnection(server.http, timeout=60)
    request = shape(BODY_BYTES)
    try:
        connection.request("POST", "/v1/check/comfyui", request.body, head(request))
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 413
    assert "reading_too_long" in text
    assert "intercept.reading_s" in text


def head(request: HttpRequest) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        **request.headers,
        "X-Original-Method": "POST",
        "X-Original-URI": request.path,
    }


def ask(server: ServerProcess, extractor: str, request: HttpRequest) -> int:
    connection = http.client.HTTPConnection(server.http, timeout=60)
    try:
        connection.request("POST", f"/v1/check/{extractor}", request.body, head(request))
        return connection.getresponse().status
    finally:
        connection.close()


def probe(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(server.http, timeout=60)
    try:
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
    finally:
        connection.close()


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
