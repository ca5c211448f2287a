"""The real server, run as its container would: rendered settings, folders, scripts of test pods.

There is no cluster. Folders of the container become folders of the test, and ports free ones.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from loragate_server.testing import SHARED_CACHE, ServerProcess
from testkit.servers import forked_server
from tests.helm.conftest import SCENARIOS, Rendering, render, scenario_on

pytestmark = pytest.mark.needs("helm")

POLICY = "version: 1\nmode: enforce\ndefaults: {{block_p_value: {}, review_p_value: 0.05}}\n"
PROGRAMS = Path(sys.executable).parent


def placed(rendering: Rendering, root: Path) -> Path:
    """Writes the rendered configuration, with every folder below `root`."""
    text = re.sub(r"(?<=[ :])/(etc|var|srv|run)/", rf"{root}/\1/", rendering.configuration())
    file = root / "etc/loragate/config/loragate.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (root / "var/lib/loragate").mkdir(parents=True)
    return file


class MountedConfigMap:
    """A folder that changes as the kubelet changes it: one link is turned to another folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)

    def update(self, name: str, text: str) -> None:
        version = self._folder / f"..{time.time_ns()}"
        version.mkdir()
        (version / name).write_text(text)
        (link := self._folder / "..data_tmp").symlink_to(version.name)
        link.rename(self._folder / "..data")
        if not (self._folder / name).is_symlink():
            (self._folder / name).symlink_to(f"..data/{name}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pod")


@pytest.fixture(scope="module")
def policy(root: Path) -> MountedConfigMap:
    mounted = MountedConfigMap(root / "etc/loragate/policy")
    mounted.update("policy.yaml", POLICY.format(0.01))
    return mounted


@pytest.fixture(scope="module")
def certificates(root: Path) -> Path:
    """The Secret of the release, as cert-manager writes it."""
    authority = trustme.CA()
    own = authority.issue_cert("localhost", "127.0.0.1")
    tls, client_ca = root / "etc/loragate/tls", root / "etc/loragate/client-ca"
    for folder in (tls, client_ca):
        folder.mkdir(parents=True)
        authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    own.private_key_pem.write_to_path(str(tls / "tls.key"))
    for pem in own.cert_chain_pems:
        pem.write_to_path(str(tls / "tls.crt"), append=True)
    return tls


@pytest.fixture(scope="module")
def rendering() -> Rendering:
    return render(SCENARIOS["default"], values={"policy": {"existingConfigMap": "policy"}})


@pytest.fixture(scope="module")
def server(
    root: Path, policy: MountedConfigMap, certificates: Path, rendering: Rendering
) -> Iterator[ServerProcess]:
    """The default scenario, with mutual TLS and a policy from a ConfigMap."""
    settings = {"LORAGATE_DRAIN_DELAY_S": "0"}
    config = placed(rendering, root)
    with forked_server(root / "var/lib/loragate", settings, config=config) as started:
        yield started


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("readiness", '"ready"'),
        ("metrics", "loragate_build_info is there"),
        ("grpc", "loragate.v1.AuditService: SERVING"),
    ],
)
def test_the_test_pods_find_a_server_at_work(
    test: str, says: str, server: ServerProcess, certificates: Path, rendering: Rendering
) -> None:
    [container] = rendering.one("Pod", f"-test-{test}")["spec"]["containers"]
    python, option, script = container["command"]
    assert (python, option) == ("python3", "-c")
    for here, there in (
        ("loragate:9464", server.http),
        ("loragate:50051", server.grpc),
        ('"/tls"', f'"{certificates}"'),
    ):
        script = script.replace(here, there)
    done = subprocess.run(
        [sys.executable, option, script], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.parametrize("test", ["readiness", "metrics", "grpc"])
def test_the_test_pods_fail_without_a_server(
    test: str, certificates: Path, rendering: Rendering
) -> None:
    [container] = rendering.one("Pod", f"-test-{test}")["spec"]["containers"]
    script = container["command"][2].replace('"/tls"', f'"{certificates}"')
    for name in ("loragate:9464", "loragate:50051"):
        script = script.replace(name, "127.0.0.1:1")
    script = script.replace("timeout=10", "timeout=0.5")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode != 0


def revision(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        found = re.search(r'loragate_policy_info\{revision="(\w+)"\} 1', answer.read().decode())
    assert found is not None
    return found[1]


def test_a_changed_config_map_is_a_changed_policy(
    server: ServerProcess, policy: MountedConfigMap
) -> None:
    before = revision(server)
    policy.update("policy.yaml", POLICY.format(0.02))
    deadline = time.monotonic() + 20
    while revision(server) == before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert revision(server) != before


def test_a_sidecar_can_be_asked_by_the_group_of_the_pod_only(tmp_path: Path) -> None:
    rendering = scenario_on("sidecar", "1.33")
    (tmp_path / "run/loragate").mkdir(parents=True)
    mounted = MountedConfigMap(tmp_path / "etc/loragate/policy")
    mounted.update("policy.yaml", POLICY.format(0.01))
    socket = tmp_path / "run/loragate/loragate.sock"
    environment = os.environ | {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "LORAGATE_CONFIG": str(placed(rendering, tmp_path)),
        "LORAGATE_LISTEN__HTTP": "127.0.0.1:0",
        "LORAGATE_DRAIN_DELAY_S": "0",
        "LORAGATE_CACHE_DIR": str(SHARED_CACHE),
        "LORAGATE_TARGET": f"unix:{socket}",
    }
    process = subprocess.Popen(
        rendering.server()["command"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith(f"loragate-server ready: grpc=unix:{socket} ")
        assert stat.S_IMODE(socket.stat().st_mode) == 0o770
        asked = subprocess.run(
            [PROGRAMS / "loragate", "concepts", "list"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert asked.returncode == 0, asked.stderr
        assert "jack-o-lantern" in asked.stdout
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        process.stdout.close()
