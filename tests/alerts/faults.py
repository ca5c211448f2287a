"""What goes wrong with a real server, one fault at a time, each undone when its block ends."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from safetensors.numpy import save

from loragate import AuditClient, AuditError, Concept, Severity
from loragate.v1 import audit_pb2, audit_pb2_grpc
from loragate_server.config.schema import EMBEDDED_LIBRARY, EMBEDDED_POLICY
from testkit.load import ADAPTERS

POLICY = EMBEDDED_POLICY.read_text()
HARMLESS = ADAPTERS / "harmless-watermelon.safetensors"
BOMB = ADAPTERS / "learned-bomb.safetensors"
ROBOT = ADAPTERS / "learned-robot-face.safetensors"
NOT_UNDERSTOOD = save({"foo.weight": np.ones((3, 3), np.float32)})

SLACK_BYTES = 1 << 20
"""What a starved process has left for small things."""

STRICTER = POLICY.replace(
    "deny_sha256: []",
    "deny_sha256:\n"
    f'  - sha256: "{hashlib.sha256(HARMLESS.read_bytes()).hexdigest()}"\n'
    "    note: Taken down\n",
).replace(
    "rules:\n  - name: kinds",
    "rules:\n  - name: shown to a person\n"
    "    concepts: [robot-face]\n    on_block: review\n  - name: kinds",
)
"""Denies one adapter, and wants a person to look at what has learned the robot."""

_strengths = iter(np.arange(0.5, 1.0, 0.001).round(3).tolist())


def put_policy(file: Path, text: str) -> None:
    """Puts a policy in place as an operator should: in one step."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)


def ask(target: str, adapter: Path | bytes, timeout_s: float = 60.0) -> str:
    """A question that nobody has asked before; the verdict, or why there is none."""
    data = adapter if isinstance(adapter, bytes) else adapter.read_bytes()
    with AuditClient(target, on_unavailable="raise", timeout=timeout_s) as client:
        try:
            return client.audit(data, strength=next(_strengths)).verdict.value
        except AuditError as error:
            return error.reason or type(error).__name__


@contextmanager
def asking(target: str, adapter: Path, threads: int = 1) -> Iterator[list[str]]:
    """Asks again and again; gives the answers so far."""
    stop, answers = threading.Event(), list[str]()

    def run() -> None:
        while not stop.is_set():
            answers.append(ask(target, adapter, timeout_s=6))
            stop.wait(0.1)

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(run) for _ in range(threads)]
        try:
            yield answers
        finally:
            stop.set()
            for one in running:
                one.result()


@contextmanager
def blocked_path(file: Path) -> Iterator[None]:
    """Something else lies where the server writes."""
    aside = file.with_name(f"{file.name}.aside")
    file.rename(aside)
    file.mkdir()
    try:
        yield
    finally:
        file.rmdir()
        aside.rename(file)


def change_stored(state: Path, adapter: Path) -> None:
    """Somebody changes the server's copy of an adapter, by one byte."""
    sha256 = hashlib.sha256(adapter.read_bytes()).hexdigest()
    copy = state / "store" / sha256[:2] / f"{sha256}.safetensors"
    copy.chmod(0o644)
    with copy.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


@contextmanager
def lost_database(state: Path) -> Iterator[None]:
    """The database is gone."""
    aside = state / "aside"
    aside.mkdir()
    for file in list(state.glob("loragate.sqlite3*")):
        shutil.move(file, aside / file.name)
    try:
        yield
    finally:
        for file in list(aside.iterdir()):
            shutil.move(file, state / file.name)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of 8 MiB; None where it cannot be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """No byte is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def no_more_memory(pid: int) -> Iterator[None]:
    """A process can map no more memory than it has, and a little."""
    [size] = re.findall(r"^VmSize:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    limit = int(size) * 1024 + SLACK_BYTES
    before = resource.prlimit(pid, resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def create_concept(target: str) -> None:
    """Adds a concept to the library of one replica, which outdates its calibration."""
    pictures = sorted((EMBEDDED_LIBRARY / "pictures" / "ghost").glob("*.png"))
    with AuditClient(target, on_unavailable="raise", timeout=120) as client:
        concept = Concept("another-ghost", "Another ghost", "character", Severity.LOW)
        client.concepts.create(concept, [picture.read_bytes() for picture in pictures])


@contextmanager
def endless_upload(target: str) -> Iterator[None]:
    """An upload that never ends, so that a drain has to wait for it."""
    data, stop = HARMLESS.read_bytes(), threading.Event()

    def chunks() -> Iterator[audit_pb2.AuditUploadRequest]:
        header = audit_pb2.UploadHeader(
            declared_size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            adapter=audit_pb2.AdapterReference(denoiser_strength=0.999),
        )
        yield audit_pb2.AuditUploadRequest(header=header)
        stop.wait()

    with grpc.insecure_channel(target) as channel:
        call = audit_pb2_grpc.AuditServiceStub(channel).AuditUpload.future(chunks())
        time.sleep(0.5)
        try:
            yield
        finally:
            stop.set()
            call.cancel()
