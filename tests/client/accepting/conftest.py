"""A folder of signed verdicts, a service that fills it, and a client that has no service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loragate import AuditClient
from loragate.testing import FakeAuditServer
from testkit.signing import key_set
from tests.client.accepting.asking import NOWHERE, WEIGHTS, Keep
from tests.client.signed_lies import KEY, KEY_ID, sign


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    (file := tmp_path / "keys.jwks").write_bytes(key_set({KEY_ID: KEY}))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (made := tmp_path / "verdicts").mkdir()
    return made


@pytest.fixture
def service() -> Iterator[FakeAuditServer]:
    with FakeAuditServer() as server:
        server.falsify = sign
        yield server


@pytest.fixture
def base(service: FakeAuditServer) -> str:
    with AuditClient(service.target) as client:
        return client.audit(WEIGHTS).digests.base_model


@pytest.fixture
def keep(service: FakeAuditServer, folder: Path) -> Keep:
    """Has the service judge, and keeps the signed verdict in the folder."""

    def kept(adapters: Any = WEIGHTS, **options: Any) -> str:
        with AuditClient(service.target) as client:
            made = client.audit(adapters, **options)
        (folder / f"{made.decision_id}.json").write_bytes(made.signed)
        return made.decision_id

    return kept


@pytest.fixture
def client(keys: Path, folder: Path) -> Iterator[AuditClient]:
    """One that has no service."""
    with AuditClient(
        NOWHERE, timeout=0.2, require_signature=keys, accept_signed=folder, on_unavailable="raise"
    ) as made:
        yield made
