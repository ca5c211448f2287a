"""Addresses that the engine of a scan fetches from: a hub and a store, over real connections."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from testkit.engines import COLD
from tests.client.scans import HARMLESS, scan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = "style.safetensors"
ACCOUNT = {
    "aws_access_key_id": "anybody",
    "aws_secret_access_key": "anything",
    "region_name": "us-east-1",
}
MISSING = "/api/models/studio/gone"


class Hub(BaseHTTPRequestHandler):
    """One repository of a model hub, with one file, as far as its client asks for it."""

    content = HARMLESS.read_bytes()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(MISSING):
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/models/studio/ink/tree/"):
            self.answer_json([self.entry])
        elif path.startswith("/api/models/studio/ink"):
            self.answer_json({"id": "studio/ink", "sha": COMMIT, "siblings": []})
        elif (
            path == f"/studio/ink/resolve/{COMMIT}/{FILE}"
            or path == f"/studio/ink/resolve/main/{FILE}"
        ):
            self.answer_file()
        else:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer_json([self.entry] if FILE in asked else [])

    @property
    def entry(self) -> dict[str, Any]:
        digest = hashlib.sha1(self.content).hexdigest()
        return {"type": "file", "path": FILE, "size": len(self.content), "oid": digest}

    def answer_file(self) -> None:
        first, last = 0, len(self.content) - 1
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        data = self.content[first : last + 1]
        more = {"Content-Range": f"bytes {first}-{last}/{len(self.content)}"} if wanted else {}
        self.answer(206 if wanted else 200, data, more | {"ETag": '"x"', "X-Repo-Commit": COMMIT})

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"X-Repo-Commit": COMMIT})

    def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def store() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=address, **ACCOUNT)
    client.create_bucket(Bucket="loras")
    client.put_object(Bucket="loras", Key=FILE, Body=HARMLESS.read_bytes())
    client.close()
    yield address
    server.stop()


def test_the_engine_fetches_from_a_hub_and_a_store(tmp_path: Path, hub: str, store: str) -> None:
    variables = {
        "HF_ENDPOINT": hub,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": ACCOUNT["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": ACCOUNT["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": ACCOUNT["region_name"],
    }
    good = [f"hf://studio/ink/{FILE}", f"s3://loras/{FILE}"]
    gone = ["s3://loras/gone.safetensors"]
    words = ("--format", "json", "--output", "report.json")
    # Its own start: what fetches reads the address of the hub when it is loaded.
    done = scan(*good, *gone, *words, home=tmp_path, variables=variables, command=COLD)
    lines = map(json.loads, (tmp_path / "report.json").read_text().splitlines())
    said = {line["file"]: line for line in lines}
    assert done.returncode == 3, done.stderr
    digest = hashlib.sha256(HARMLESS.read_bytes()).hexdigest()
    for uri in good:
        assert said[uri]["verdict"] == "ALLOW", done.stderr
        assert [one["sha256"] for one in said[uri]["adapters"]] == [digest]
    assert said[gone[0]]["error"]["reason"] == "SOURCE_NOT_FOUND"
