"""The doors of a server that was started by its configuration alone."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from ruamel.yaml import YAML

from loragate_server.app.extractors import make_extractors
from loragate_server.checkpoint.result import Result
from loragate_server.config.intercept import InterceptSection
from loragate_server.config.listen import MESSAGE_BYTES, Permission
from loragate_server.config.schema import Config, StartError
from loragate_server.config.sources import ConfigError, load_config
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from loragate_server.metrics.metrics import Metrics
from loragate_server.rpc.envoy import ext_authz_pb2 as authz
from loragate_server.rpc.envoy import ext_proc_pb2 as proc
from loragate_server.testing import ServerProcess
from testkit.servers import forked_server
from testkit.waiting import busyness

ROOT = Path(__file__).parents[2]
ADAPTERS = ROOT / "examples" / "adapters"
DOCUMENT = ROOT / "docs" / "interception.md"


def load(name: str) -> bytes:
    return json.dumps(
        {"lora_nickname": "style", "lora_path": str(ADAPTERS / f"{name}.safetensors")}
    ).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("doors")
    with (config := folder / "loragate.yaml").open("w") as file:
        YAML().dump(
            {
                "intercept": {"http": True, "extractors": {"images": {"kind": "sglang"}}},
                "intake": {"roots": [str(ADAPTERS)]},
                "threads": 1,
            },
            file,
        )
    with forked_server(folder, config=config) as running:
        yield running


def test_every_door_blocks_and_allows_and_counts(server: ServerProcess) -> None:
    for name, status in (("harmless-watermelon", 200), ("learned-bomb", 403)):
        found, headers = ask(server, load(name))
        assert found == status
        with grpc.insecure_channel(server.grpc) as channel:
            checked = check(channel, load(name))
            assert (checked.denied_response.status.code or 200) == status
            told = checked.dynamic_metadata["decision_id"]
            assert told == headers["x-loragate-decision-id"]
            processed = process(channel, load(name))
    assert "bomb" in checked.denied_response.body
    assert processed.immediate_response.status.code == 403
    page = page_of(server)
    allowed = 'loragate_intercepted_requests_total{extractor="images",outcome="allow"} 3.0'
    denied = 'loragate_intercepted_requests_total{extractor="images",outcome="deny"} 3.0'
    assert allowed in page
    assert denied in page
    called = re.findall(r'grpc_server_handled_total\{grpc_code="OK",(.*?)\} 2\.0', page)
    assert any("ext_proc" in labels for labels in called)


def test_through_ext_proc_the_image_server_is_told_the_audited_copy(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        answer = process(channel, load("harmless-watermelon"))
    document = json.loads(answer.request_body.response.body_mutation.body)
    copy = Path(document["lora_path"])
    assert copy.read_bytes() == (ADAPTERS / "harmless-watermelon.safetensors").read_bytes()
    assert document["lora_nickname"] == "style"


def test_a_request_without_adapter_takes_less_than_a_millisecond(server: ServerProcess) -> None:
    body = json.dumps({"prompt": "a boat", "seed": 1}).encode()
    spent_s = []
    with grpc.insecure_channel(server.grpc) as channel:
        before = sums(server)
        for _ in range(500):
            began = time.perf_counter()
            assert check(channel, body, "/v1/images/generations").status.code == 0
            spent_s.append(time.perf_counter() - began)
    after = sums(server)
    mean_s = {name: (after[name] - before[name]) / 500 for name in after}
    spent_s.sort()
    print(
        f"mean in the checkpoint {mean_s['loragate_intercept_seconds_sum'] * 1e6:.1f} us, ", end=""
    )
    print(f"in the handler {mean_s['grpc_server_handling_seconds_sum'] * 1e6:.1f} us; ", end="")
    print(f"round trip: median {spent_s[250] * 1e6:.0f} us, p99 {spent_s[495] * 1e6:.0f} us")
    assert all(mean < 0.001 * busyness() for mean in mean_s.values())


def ask(server: ServerProcess, body: bytes) -> tuple[int, http.client.HTTPMessage]:
    """Status and headers of a check over HTTP."""
    connection = http.client.HTTPConnection(server.http, timeout=60)
    original = {"X-Original-Method": "POST", "X-Original-URI": "/v1/set_lora"}
    try:
        headers = {"Content-Type": "application/json", **original}
        connection.request("POST", "/v1/check", body, headers)
        response = connection.getresponse()
        return response.status, response.headers
    finally:
        connection.close()


def page_of(server: ServerProcess) -> str:
    """The page that Prometheus reads."""
    connection = http.client.HTTPConnection(server.http, timeout=60)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def sums(server: ServerProcess) -> dict[str, float]:
    """Seconds spent in checks, by the checkpoint's account and by the gRPC server's."""
    page = page_of(server)
    found = {}
    for line in page.splitlines():
        if re.match(r'loragate_intercept_seconds_sum\{extractor="images"\}', line) or (
            line.startswith("grpc_server_handling_seconds_sum")
            and '"Check"' in line
            and "envoy" in line
        ):
            found[line.partition("{")[0]] = float(line.rpartition(" ")[2])
    assert len(found) == 2
    return found


def check(channel: grpc.Channel, body: bytes, path: str = "/v1/set_lora") -> authz.CheckResponse:
    request = authz.CheckRequest()
    shown = request.attributes.request.http
    shown.method, shown.path, shown.raw_body = "POST", path, body
    shown.headers.update({"content-type": "application/json", "content-length": str(len(body))})
    return channel.unary_unary(
        "/envoy.service.auth.v3.Authorization/Check",
        request_serializer=authz.CheckRequest.SerializeToString,
        response_deserializer=authz.CheckResponse.FromString,
    )(request, timeout=60)


def process(channel: grpc.Channel, body: bytes) -> proc.ProcessingResponse:
    """The last answer to headers and body."""
    named = {":method": "POST", ":path": "/v1/set_lora", "content-type": "application/json"}
    headers = [
        proc.HeaderValue(key=key, raw_value=value.encode())
        for key, value in {**named, "content-length": str(len(body))}.items()
    ]
    messages = [
        proc.ProcessingRequest(
            request_headers=proc.HttpHeaders(headers=proc.HeaderMap(headers=headers)),
            protocol_config=proc.ProtocolConfiguration(request_body_mode=proc.BUFFERED),
        ),
        proc.ProcessingRequest(request_body=proc.HttpBody(body=body, end_of_stream=True)),
    ]
    answers = channel.stream_stream(
        "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
        request_serializer=proc.ProcessingRequest.SerializeToString,
        response_deserializer=proc.ProcessingResponse.FromString,
    )(iter(messages), timeout=60)
    return list(answers)[-1]


def test_metrics_know_the_extractors_from_the_start_and_no_others() -> None:
    metrics = Metrics()
    metrics.follow_extractors(["images"])
    metrics.intercepted("images", "deny", 0.5)
    metrics.intercepted("a name that a client made up", "refused", 0.1)
    counter = "loragate_intercepted_requests_total"

    def value(extractor: str, outcome: str) -> float | None:
        labels = {"extractor": extractor, "outcome": outcome}
        return metrics.registry.get_sample_value(counter, labels)

    assert {value("images", each.value) for each in Result} == {0.0, 1.0}
    assert (value("images", "deny"), value("none", "refused")) == (1.0, 1.0)
    assert value("a name that a client made up", "refused") is None


def test_the_configuration_in_the_guide_is_valid(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(# /etc.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]
    (file := tmp_path / "loragate.yaml").write_text(example)
    config = load_config(file)
    assert set(make_extractors(config.intercept)) == {"sglang", "comfyui"}
    assert config.intercept.chosen_extractor == "sglang"
    assert config.tokens[0].permissions == {Permission.CHECK}
    assert config.intercept.message_bytes > config.intercept.max_body_bytes
    assert Config().intercept.message_bytes == MESSAGE_BYTES


def test_the_rules_in_the_guide_read_what_the_guide_says_of_them(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    section = text[text.index("### A server that is on no list") :]
    (file := tmp_path / "loragate.yaml").write_text(section.split("```yaml\n")[1].split("```")[0])
    studio = make_extractors(load_config(file).intercept)["studio"]
    body = re.findall(r'`(\{"prompt".*?\})`', section)[0].encode()
    asked = studio.extract(HttpRequest("POST", "/v1/generate", body=body))
    assert asked.adapters[0].uri == "hf://studio/ink"
    assert asked.adapters[0].strength.denoiser == 0.8
    assert not studio.extract(HttpRequest("POST", "/v1/cancel/7")).adapters
    for path in ("/v1/weights", "/v1/other"):
        with pytest.raises(RefusedRequestError):
            studio.extract(HttpRequest("POST", path, body=body))


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{default_extractor: a}", "default_extractor 'a' is not one of extractors: none"),
        ("{http: true}", "http needs extractors"),
        ("{extractors: {none: {kind: sglang}}}", "no extractor can be named 'none'"),
        ("{extractors: {A b: {kind: sglang}}}", "should match pattern"),
        ("{audited_root: store}", "audited_root store is no absolute path"),
        ("{on_review: maybe}", "'deny' or 'allow'"),
        ("{extractors: {a: {kind: sglang, setings: {}}}}", "no such setting"),
    ],
)
def test_a_mistake_in_the_section_is_named(tmp_path: Path, section: str, problem: str) -> None:
    (file := tmp_path / "loragate.yaml").write_text(f"intercept: {section}\n")
    with pytest.raises(ConfigError, match=re.escape(problem)) as failed:
        load_config(file)
    assert "intercept" in str(failed.value)


def test_checks_off_loopback_need_tokens(tmp_path: Path) -> None:
    (file := tmp_path / "loragate.yaml").write_text(
        "listen: {http: '0.0.0.0:9464'}\nintercept: {http: true, extractors: {a: {kind: sglang}}}\n"
    )
    with pytest.raises(ConfigError, match="not on loopback, and needs tokens"):
        load_config(file)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"kind": "sglnag"}, "intercept.extractors.a: there is no kind 'sglnag'"),
        ({"kind": "sglang", "settings": {"hub_idz": True}}, "has no setting 'hub_idz'"),
    ],
)
def test_a_server_with_an_unknown_kind_or_setting_does_not_start(
    entry: dict[str, object], problem: str
) -> None:
    with pytest.raises(StartError, match=re.escape(problem)):
        make_extractors(InterceptSection.model_validate({"extractors": {"a": entry}}))
