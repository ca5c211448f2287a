"""The helper for multiplexed loaders, by Ray's protocol: an async function of one id."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loragate import AdapterBlocked, AsyncAuditClient, Verdict
from loragate.integrations.ray_serve import AuditedModel, audited
from loragate.testing import FakeAuditServer


class Replica:
    """A deployment's class: Ray calls the loader with the id, once for each that it holds."""

    def __init__(self, gate: Any) -> None:
        async def get_model(self: Any, model: AuditedModel) -> bytes:
            assert model.result.decided
            return model.path.read_bytes()

        self.get_model: Callable[[str], Any] = gate(get_model).__get__(self)


@pytest.fixture
def folder(tmp_path: Path, fake: FakeAuditServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAGATE_TARGET", fake.target)
    folder = tmp_path / "loras"
    folder.mkdir()
    (folder / "style.safetensors").write_bytes(b"style")
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    return folder


async def test_the_loader_gets_the_audited_bytes(folder: Path, fake: FakeAuditServer) -> None:
    replica = Replica(audited(folder=folder, base_model="tiny", strength=0.5))
    assert await replica.get_model("style") == b"style"
    assert await replica.get_model("style.safetensors") == b"style"
    request = fake.calls[0].request
    assert request.adapters[0].expected_sha256 == hashlib.sha256(b"style").hexdigest()
    assert (request.base_model, request.adapters[0].denoiser_strength) == ("tiny", 0.5)
    assert request.caller.service == "ray-serve"


async def test_a_file_exchanged_during_the_audit_is_not_what_the_loader_gets(
    folder: Path, fake: FakeAuditServer
) -> None:
    def client() -> AsyncAuditClient:
        def exchange() -> str:  # asked for after the file was read and before the verdict comes
            (folder / "style.safetensors").write_bytes(b"evil")
            return "token"

        return AsyncAuditClient(fake.target, token=exchange)

    replica = Replica(audited(folder=folder, client=client))
    assert await replica.get_model("style") == b"style"
    assert (folder / "style.safetensors").read_bytes() == b"evil"


@pytest.mark.parametrize("verdict", [Verdict.BLOCK, Verdict.REVIEW, Verdict.INCONCLUSIVE])
async def test_what_is_not_allowed_never_reaches_the_loader(
    folder: Path, fake: FakeAuditServer, verdict: Verdict
) -> None:
    fake.default = verdict
    with pytest.raises(AdapterBlocked) as caught:
        await Replica(audited(folder=folder)).get_model("style")
    again = pickle.loads(pickle.dumps(caught.value))  # as Ray hands it to the caller
    assert again.result == caught.value.result
    lenient = Replica(audited(folder=folder, on_review="allow"))
    if verdict is Verdict.REVIEW:
        assert await lenient.get_model("style") == b"style"
    else:
        with pytest.raises(AdapterBlocked):
            await lenient.get_model("style")


@pytest.mark.parametrize("model_id", ["../secret", "/etc/passwd", "a/../../secret", "link"])
async def test_an_id_leads_nowhere_else(folder: Path, fake: FakeAuditServer, model_id: str) -> None:
    (folder / "link.safetensors").symlink_to(folder.parent / "secret.safetensors")
    with pytest.raises(ValueError, match="leads out of"):
        await Replica(audited(folder=folder)).get_model(model_id)
    with pytest.raises(FileNotFoundError):
        await Replica(audited(folder=folder)).get_model("missing")
    assert not fake.calls


async def test_a_function_may_find_the_file(folder: Path) -> None:
    replica = Replica(audited(resolve=lambda model_id: folder / "style.safetensors"))
    assert await replica.get_model("anything") == b"style"


def test_what_cannot_work_is_said_at_once(folder: Path) -> None:
    for options in ({}, {"folder": folder, "resolve": str}):
        with pytest.raises(ValueError, match="either folder or resolve"):
            audited(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_review"):
        audited(folder=folder, on_review="perhaps")  # type: ignore[arg-type]


def test_the_decorated_loader_is_what_ray_looks_for(folder: Path) -> None:
    @audited(folder=folder)
    async def get_model(model: AuditedModel) -> None:
        """Loads."""

    assert inspect.iscoroutinefunction(get_model)
    assert list(inspect.signature(get_model).parameters) == ["model"]
    assert get_model.__doc__ == "Loads."


async def test_its_settings_travel_to_replicas_and_its_connections_do_not(folder: Path) -> None:
    gate: Any = audited(folder=folder)

    async def get_model(model: AuditedModel) -> bytes:
        return model.path.read_bytes()

    loader = gate(get_model)
    assert await loader("style") == b"style"
    inner = inspect.getclosurevars(loader).nonlocals["gate"]
    there = pickle.loads(pickle.dumps(inner))
    assert inner.client is not None
    assert (there.client, there.copies) == (None, None)
    assert (await there.admit("style")).path.read_bytes() == b"style"
