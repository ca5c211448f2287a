"""Scans as an operator starts them, on one cluster of Ray for many of them."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from loragate import AuditClient
from loragate_server.catalogue.results import read_parts
from loragate_server.record.codec import parse_verdict
from loragate_server.record.database import Database, Span
from loragate_server.record.verdict import Verdict
from loragate_server.replay import stored_decisions
from loragate_server.testing import environment
from testkit.servers import forked_program, forked_server
from testkit.waiting import at_most, eventually


@dataclass(frozen=True)
class Cluster:
    """A cluster of one machine; scans start on it without the seconds that its start takes."""

    address: str
    variables: dict[str, str]
    folder: Path

    def left_over(self) -> list[psutil.Process]:
        """Processes that hold a base model, a book of claims, or files, of whatever scan here."""
        found = []
        for one in psutil.process_iter(["cmdline"]):
            words = " ".join(one.info["cmdline"] or ())
            works = words.startswith("ray::") and any(name in words for name in _OF_A_SCAN)
            if works and str(self.folder) in _environment(one):
                found.append(one)
        return found


_OF_A_SCAN = ("_Audit", "read_table", "Claims")


def _environment(process: psutil.Process) -> str:
    try:
        return str(process.environ())
    except psutil.Error:
        return ""


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """Ray on this machine, behind a token, for as long as the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="lgt-", dir="/tmp"))  # paths of sockets are short
    port = _free_port()
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        # At Ray's 15 an auditor gets a thirtieth of what the tests in other processes get.
        "RAY_worker_niceness": "0",
    }
    words = ["start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--num-gpus=0"]
    words += ["--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats"]
    words += [f"--object-store-memory={128 << 20}"]
    # Another cluster beside this one has the usual ports.
    words += [f"--ray-client-server-port={_free_port()}"]
    words += [f"--dashboard-agent-listen-port={_free_port()}"]
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), *words],
            env=os.environ | variables,
            stdout=log,
            stderr=log,
        )
    try:
        said = folder / "head.log"
        assert eventually(lambda: "Ray runtime started" in said.read_text(), 60), said.read_text()
        yield Cluster(f"127.0.0.1:{port}", variables, folder)
    finally:
        for one in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
            one.kill()
        head.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found: int = one.getsockname()[1]
        return found


class Scan:
    """The command at work."""

    def __init__(self, process: Any, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def ended(self) -> bool:
        """Whether the command has ended by itself."""
        return self.process.exitcode is not None

    def until(self, holds: Any, limit_s: float = 120.0) -> None:
        """Waits until something holds; the scan must not end before."""
        assert eventually(lambda: holds() or self.ended, limit_s), self.said
        assert holds(), self.said

    def wait(self) -> int:
        self.process.join(at_most(30))
        assert self.process.exitcode is not None, self.said
        code: int = self.process.exitcode
        return code


@contextmanager
def scanning(
    cluster: Cluster,
    kind: str,
    source: Path,
    state: Path,
    *words: str,
    variables: dict[str, str] | None = None,
) -> Iterator[Scan]:
    """`catalogue KIND SOURCE`, as a process of its own, killed after the block."""
    log = state / "scan.log"
    log.unlink(missing_ok=True)
    log.touch()
    told = ["catalogue", kind, str(source), "--address", cluster.address, *words]
    settings = {"LORAGATE_THREADS": "1", **cluster.variables, **(variables or {})}
    with forked_program(told, environment(state, settings), log) as process:
        yield Scan(process, log)


def decisions(state: Path) -> list[Verdict]:
    """Everything on record."""
    with closing(Database(f"sqlite:///{state / 'loragate.sqlite3'}", 10)) as database:
        return [parse_verdict(one.payload) for one in stored_decisions(database, Span())]


def logged(state: Path) -> int:
    """Lines of the decision log."""
    file = state / "decisions.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def rows(state: Path) -> list[dict[str, Any]]:
    """Rows of the results of all scans, oldest first."""
    folders = sorted({part.parent for part in (state / "catalogue").glob("*/part-*.parquet")})
    return [row for one in folders for batch in read_parts(one) for row in batch.to_pylist()]


def by_digest(verdicts: Sequence[Verdict]) -> dict[str, Verdict]:
    """The verdicts by the digest of the file."""
    return {one.decision.evidence.adapters[0].sha256: one for one in verdicts}


def live(files: Sequence[Path], state: Path) -> dict[str, Verdict]:
    """What a live server decides about files, by digest."""
    state.mkdir()
    with (
        forked_server(state, {"LORAGATE_THREADS": "1"}) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        for file in files:
            client.audit_file(file)
    return by_digest(decisions(state))


def plain(verdict: Verdict) -> str:
    """All of a decision but how long it took."""
    evidence = replace(verdict.decision.evidence, stage_times_s={})
    return repr(replace(verdict.decision, evidence=evidence))
