"""URIs that the operator switched on, over real connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.numpy import save

from loragate_server.adapter.reference import AdapterReference
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.fetch import Intake
from loragate_server.progress import Leash
from testkit.waiting import at_most

LOOPBACK = ip_network("127.0.0.0/8")
GOOD = save({"lora_unet_a.lora_down.weight": np.ones((64, 300), np.float32)})


class Handler(BaseHTTPRequestHandler):
    """Serves the adapter, well or badly, by the path that is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/good/adapter.safetensors":
            self._send(200, GOOD)
        elif self.path == "/half":
            self._send(200, GOOD[: len(GOOD) // 2])
        elif self.path == "/login":
            self._send(200, b"<!doctype html><title>Please log in</title>" + bytes(500))
        elif self.path == "/stalls":
            self.send_response(200)
            self.send_header("Content-Length", str(len(GOOD)))
            self.end_headers()
            self.wfile.write(GOOD[:1000])
            self.wfile.flush()
            time.sleep(3)
        elif self.path == "/drips":
            self.send_response(200)
            self.send_header("Content-Length", str(len(GOOD)))
            self.end_headers()
            try:
                for at in range(100):
                    self.wfile.write(GOOD[at : at + 1])
                    time.sleep(0.1)
            except OSError:
                return
        elif self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", f"http://{self.path.removeprefix('/to/')}")
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                self.wfile.write(GOOD)
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        else:
            self._send(404 if self.path == "/missing" else 500, b"no")

    def do_HEAD(self) -> None:
        self.asked.append(f"HEAD {self.path}")
        self.send_response(200 if "good" in self.path else 405)
        self.send_header("Content-Length", str(len(GOOD)))
        self.end_headers()

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    Handler.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(
        IntakeSection(
            enabled_schemes=frozenset({"http"}),
            reachable_networks=(LOOPBACK,),
            max_file_bytes=1 << 20,
            fetch_timeout_s=0.5,
            fetch_total_s=2.0,
        ),
        tmp_path / "store",
    )


def refused(intake: Intake, uri: str, **options: str) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        intake.fetch(AdapterReference(uri=uri, **options), Leash())
    assert not [path for path in intake.store_dir.rglob("*") if path.is_file()]
    return caught.value


def test_an_adapter_is_read_from_the_web_once(intake: Intake, web: str) -> None:
    ref = AdapterReference(uri=f"{web}/good", weight_name="adapter.safetensors")
    stored = intake.fetch(ref, Leash())
    assert stored.path.read_bytes() == GOOD
    assert Handler.asked.count("/good/adapter.safetensors") == 1


def test_the_expected_digest_counts_for_the_web_too(intake: Intake, web: str) -> None:
    uri = f"{web}/good/adapter.safetensors"
    assert refused(intake, uri, expected_sha256="0" * 64).reason is ErrorReason.SHA256_MISMATCH
    stored = intake.fetch(AdapterReference(uri=uri), Leash())
    again = AdapterReference(uri=uri, expected_sha256=stored.sha256.upper())
    assert intake.fetch(again, Leash()).sha256 == stored.sha256


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", ErrorReason.SOURCE_NOT_FOUND),
        ("/broken", ErrorReason.SOURCE_UNREADABLE),
        ("/half", ErrorReason.FILE_TRUNCATED),
        ("/login", ErrorReason.NOT_SAFETENSORS),
        ("/endless", ErrorReason.FILE_TOO_LARGE),
    ],
)
def test_what_the_web_answers_instead_is_named(
    intake: Intake, web: str, path: str, reason: ErrorReason
) -> None:
    assert refused(intake, web + path).reason is reason


def test_a_server_that_stalls_is_given_up(intake: Intake, web: str) -> None:
    began = time.monotonic()
    error = refused(intake, f"{web}/stalls")
    assert error.reason is ErrorReason.SOURCE_UNREADABLE
    assert error.retry_after_s
    assert time.monotonic() - began < at_most(2.5)


def test_a_server_that_is_not_there_is_unreadable_and_its_secrets_stay_out(
    intake: Intake,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    error = refused(intake, f"http://user:geheim@127.0.0.1:{port}/a")
    assert error.reason is ErrorReason.SOURCE_UNREADABLE
    assert "geheim" not in str(error) + str(error.metadata)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[tuple[Intake, MemoryFileSystem]]:
    """A store of objects, which has folders, and an intake that may read it."""
    files = MemoryFileSystem()
    files.pipe("/shelf/one/w.safetensors", GOOD)
    # No configuration can enable this scheme, which lets the test stand in for s3.
    section = IntakeSection().model_copy(update={"enabled_schemes": frozenset({"memory"})})
    yield Intake(section, tmp_path / "s"), files
    files.rm("/shelf", recursive=True)


@pytest.mark.parametrize(
    "source",
    [
        {"uri": "memory://shelf/one/w.safetensors"},
        {"uri": "memory://shelf/one", "weight_name": "w.safetensors"},
        {"uri": "memory://shelf/one/", "weight_name": "w.safetensors"},
    ],
)
def test_the_configuration_beside_the_weights_is_read_from_a_store_of_objects_too(
    bucket: tuple[Intake, MemoryFileSystem], source: dict[str, Any]
) -> None:
    intake, files = bucket
    ref = AdapterReference(**source)
    assert intake.fetch(ref, Leash()).config_json is None
    files.pipe("/shelf/one/adapter_config.json", b'{"r": 4}')
    assert intake.fetch(ref, Leash()).config_json == '{"r": 4}'
    for bad in (b" " * (intake.settings.max_metadata_bytes + 1), b"\xff"):
        files.pipe("/shelf/one/adapter_config.json", bad)
        with pytest.raises(NoDecisionError) as caught:
            intake.fetch(ref, Leash())
        assert caught.value.reason is ErrorReason.ADAPTER_METADATA_INVALID


@pytest.mark.parametrize("uri", ["http://x/a::file:///etc/passwd", "http::http://x/a"])
def test_chained_addresses_are_refused(intake: Intake, uri: str) -> None:
    assert refused(intake, uri).reason is ErrorReason.SOURCE_NOT_ENABLED


@pytest.mark.parametrize(
    "uri", ["https://x/a", "s3://b/a", "hf://o/n", "file:///etc/passwd", "memory://a", "plain", ""]
)
def test_a_kind_that_is_not_switched_on_is_refused(intake: Intake, uri: str) -> None:
    error = refused(intake, uri)
    assert error.reason is ErrorReason.SOURCE_NOT_ENABLED
    assert "enabled_schemes" in error.remedy


@pytest.mark.parametrize(
    "source",
    [
        {"uri": "https://["},
        {"uri": "http://[::1"},
        {"uri": "http://127.0.0.1:99999/a"},
        {"uri": "http://user:secret/a"},
        {"uri": "http:"},
        {"uri": "http:///a"},
        {"uri": "http://127.0.0.1:1/" + "n" * 9000},
        {"uri": "http://127.0.0.1:1/a\0"},
        {"uri": "http://\ud800/a"},
        {"uri": "http://127.0.0.1:1/a", "weight_name": "w\0"},
        {"uri": "http://127.0.0.1:1/a", "weight_name": "n" * 9000},
        {"uri": "http://127.0.0.1:1/a", "revision": "\udc80"},
    ],
)
def test_what_is_no_address_is_the_callers_fault(intake: Intake, source: dict[str, str]) -> None:
    with pytest.raises(NoDecisionError) as caught:
        intake.fetch(AdapterReference(**source), Leash())
    assert caught.value.reason is ErrorReason.REQUEST_INVALID
    assert caught.value.metadata["field"] == f"adapters.{list(source)[-1]}"
    assert caught.value.retry_after_s is None
    assert "secret" not in str(caught.value)
    str(caught.value).encode()
