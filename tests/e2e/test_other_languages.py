"""Programs in other languages, made by the commands of their page, ask a real server."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from loragate_server.testing import ServerProcess
from testkit.servers import forked_server
from testkit.waiting import at_most
from tests.e2e.conftest import ADAPTERS
from tests.server.rpc.conftest import Authority

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
TOOLS = ROOT / "build" / "tools"
TOKEN = "of-a-client"
NEEDED = {
    "TypeScript": ("node", "npm"),
    "Go": ("go", "protoc-gen-go", "protoc-gen-go-grpc"),
    "Java": ("javac", "protoc", "grpc_java_plugin"),
}
HARMLESS, LEARNED = "harmless-watermelon.safetensors", "learned-jack-o-lantern.safetensors"

ENVIRONMENT = {
    "PATH": f"{TOOLS}/node_modules/@bufbuild/buf-linux-x64/bin:{os.environ['PATH']}",
    "HOME": os.environ.get("HOME", "/"),
    "GO111MODULE": "off",
}
DEBIAN_JARS = Path("/usr/share/java")
JARS = ("grpc-*", "netty-*", "guava*", "perfmark-api*", "protobuf*", "geronimo-annotation-*")


FROM_THE_NETWORK = ("npm install", "go mod tidy")
MADE = ("gen", "out", "dist", "node_modules", "loragate", "loragate-audit")

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Program:
    """The example of a language, built in a place of its own."""

    folder: Path
    command: str
    prefix: str

    def ask(self, address: str, file: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs the last command of its page with another address and file."""
        words = self.command.split()
        command = " ".join([*words[:-2], f"{self.prefix}{address}", str(file)])
        return run(command, self.folder, **more)


def run(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=ENVIRONMENT
        | {"GOPATH": f"{folder.parents[2]}:/usr/share/gocode", "JARS": str(folder / "jars")}
        | more,
        capture_output=True,
        text=True,
        timeout=at_most(60.0),
    )


def commands_of(language: str) -> list[str]:
    """The commands of a language's section, without that which enters the folder."""
    page = (CLIENTS / "README.md").read_text()
    found = re.search(rf"^## {language}\n.*?```sh\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    assert found, language
    first, *others = found[1].splitlines()
    assert first == f"cd {language.lower()}"
    return others


@pytest.fixture(scope="module", params=NEEDED)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    language = request.param
    for tool in NEEDED[language]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing; scripts/install_test_tools.sh installs it")
    top = tmp_path_factory.mktemp("top")
    (top / "proto").symlink_to(ROOT / "proto")
    folder = top / "src" / "loragate.dev" / language.lower()
    shutil.copytree(CLIENTS / language.lower(), folder, ignore=shutil.ignore_patterns(*MADE))
    if language == "Java":
        (folder / "jars").mkdir()
        for jar in (one for pattern in JARS for one in DEBIAN_JARS.glob(f"{pattern}.jar")):
            (folder / "jars" / jar.name).symlink_to(jar)
    *commands, ask = commands_of(language)
    for command in commands:
        if command == "npm install":  # it was installed with the other tools
            (folder / "node_modules").symlink_to(TOOLS / "clients" / "node_modules")
        if command in FROM_THE_NETWORK:
            continue
        made = run(command, folder)
        assert made.returncode == 0, made.stdout + made.stderr
    return Program(folder, ask, "http://" if language == "TypeScript" else "")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    token = f'[{{"name": "client", "sha256": "{hashlib.sha256(TOKEN.encode()).hexdigest()}"}}]'
    with forked_server(tmp_path_factory.mktemp("state"), {"LORAGATE_TOKENS": token}) as process:
        yield process


@pytest.mark.parametrize(
    ("name", "status", "kind"), [(HARMLESS, 0, "ALLOW"), (LEARNED, 1, "BLOCK")]
)
def test_it_says_whether_an_adapter_may_be_loaded(
    program: Program, guarded: ServerProcess, name: str, status: int, kind: str
) -> None:
    told = program.ask(guarded.grpc, ADAPTERS / name, LORAGATE_TOKEN=TOKEN)
    assert (told.returncode, told.stderr) == (status, "")
    first = next(line for line in told.stdout.splitlines() if kind in line)
    assert re.fullmatch(rf"(VERDICT_KIND_)?{kind} \S+", first)


def test_without_a_decision_it_says_no_and_why(
    program: Program, guarded: ServerProcess, tmp_path: Path, unused_tcp_port: int
) -> None:
    (broken := tmp_path / "broken.safetensors").write_bytes(b"no adapter at all")
    cases = {
        r"INVALID_?ARGUMENT.*safetensors": (guarded.grpc, broken, TOKEN),
        r"UNAUTHENTICATED.*token": (guarded.grpc, ADAPTERS / HARMLESS, ""),
        r"UNAVAILABLE": (f"127.0.0.1:{unused_tcp_port}", ADAPTERS / HARMLESS, TOKEN),
    }
    for pattern, (address, file, token) in cases.items():
        told = program.ask(address, file, **({"LORAGATE_TOKEN": token} if token else {}))
        assert told.returncode == 2, told
        assert re.search(rf"no decision: {pattern}", told.stderr, re.IGNORECASE), told.stderr
        assert "ALLOW" not in told.stdout


def test_over_tls_it_believes_the_authority_that_it_is_given_alone(
    program: Program, tmp_path: Path
) -> None:
    if program.folder.name == "java":
        pytest.skip("Debian's netty knows no ALPN of this Java")
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    cert, key = ours.issue("localhost")
    tls = {"LORAGATE_TLS__CERT": str(cert), "LORAGATE_TLS__KEY": str(key)}
    (state := tmp_path / "state").mkdir()
    with forked_server(state, tls) as server:
        secure = Program(program.folder, program.command, program.prefix.replace("http", "https"))
        file = ADAPTERS / HARMLESS
        assert secure.ask(server.grpc, file, LORAGATE_CA=str(ours.file)).returncode == 0
        for asked in (
            secure.ask(server.grpc, file, LORAGATE_CA=str(other.file)),
            program.ask(server.grpc, file),
            program.ask(server.grpc, file, LORAGATE_CA=str(other.file)),
        ):
            assert asked.returncode == 2, asked
            assert "no decision" in asked.stderr
