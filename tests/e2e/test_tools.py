"""Tools that know nothing of loragate: buf over reflection, promtool and Prometheus, TLS peers."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from loragate_server.testing import ServerProcess

BUF = Path(__file__).parents[2] / "build/tools/node_modules/@bufbuild/buf-linux-x64/bin/buf"


def curl(server: ServerProcess, method: str, message: object) -> dict[str, object]:
    """Calls a method through reflection, and returns its answer."""
    done = subprocess.run(
        [
            *(str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge"),
            *("--data", json.dumps(message), f"http://{server.grpc}/{method}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.needs("buf")
@pytest.mark.skipif(not BUF.exists(), reason="scripts/install_test_tools.sh installs buf")
def test_buf_gets_a_verdict_through_reflection(server: ServerProcess, root: Path) -> None:
    path = str(root / "learned-jack-o-lantern.safetensors")
    answer = curl(server, "loragate.v1.AuditService/Audit", {"adapters": [{"path": path}]})
    verdict = answer["verdict"]
    assert isinstance(verdict, dict)
    assert verdict["verdict"] == "VERDICT_KIND_BLOCK"
    assert verdict["findings"][0]["conceptId"] == "jack-o-lantern"


@pytest.mark.needs("promtool")
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing")
def test_promtool_finds_nothing_to_mend_after_real_audits(server: ServerProcess) -> None:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        page = answer.read()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
