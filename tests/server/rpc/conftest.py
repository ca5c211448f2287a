"""A gRPC front over real rooms that never loaded a model, and certificates to reach it with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loragate_server.config.gate import GateSection
from loragate_server.config.intake import IntakeSection
from loragate_server.config.listen import GrpcPort
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.gate.bases import BaseRegistry
from loragate_server.gate.gate import Gate
from loragate_server.gate.library import LibraryKeeper
from loragate_server.gate.lineage_book import LineageBook
from loragate_server.gate.observer import GateObserver
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.policy.store import PolicyStore
from loragate_server.record.known_book import KnownBook
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.weights_book import WeightsBook
from loragate_server.rpc.observer import CallObserver
from loragate_server.rpc.server import RpcServer
from testkit.libraries import embedded_library


@dataclass
class Calls(CallObserver):
    """Counts calls as (method, status name)."""

    handled: list[tuple[str, str]]

    def call_handled(self, method: str, code: str, seconds: float, request_id: str = "") -> None:
        self.handled.append((method, code))


@dataclass(frozen=True)
class Front:
    """A gRPC front that runs."""

    server: RpcServer
    address: str
    calls: Calls


Serve = Callable[..., Awaitable[Front]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(port: GrpcPort, **settings: Any) -> Front:
            recorder = Recorder(f"sqlite:///{tmp_path}/audits.db", tmp_path / "decisions.jsonl")
            stack.callback(recorder.close)
            bases = BaseRegistry("emoji-tiny")
            gate = Gate(
                settings=GateSection(),
                intake=Intake(IntakeSection(), tmp_path / "store"),
                bases=bases,
                policies=PolicyStore(EMBEDDED_POLICY),
                recorder=recorder,
                read=read_adapter,
                observer=GateObserver(),
                reviews=ReviewBook(recorder.database),
                known=(known := KnownBook(recorder.database)),
                lineage=LineageBook(recorder.database, known),
                weights=WeightsBook(recorder.database, frozenset),
            )
            stack.push_async_callback(gate.close)
            library = embedded_library()
            keeper = LibraryKeeper(library, bases, gate.worker, lambda *_: pytest.fail("built"))
            calls = Calls([])
            server = RpcServer(port, gate, keeper, recorder, calls, **settings)
            stack.push_async_callback(server.stop)
            return Front(server, await server.start(), calls)

        yield start


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._build(self._name, self._key).sign(self._key, hashes.SHA256())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, names: Sequence[x509.GeneralName] | None = None
    ) -> tuple[Path, Path]:
        """Writes a certificate and its key; returns the files, the same ones for the same name.

        Args:
            name: its common name.
            names: its alternative names; None for the name itself and this machine.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        if names is None:
            names = [x509.DNSName(name), x509.IPAddress(IPv4Address("127.0.0.1"))]
        builder = self._build(subject, key, leaf=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = name.replace("/", "_")
        files = self._folder / f"{stem}.crt", self._folder / f"{stem}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _build(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, leaf: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
