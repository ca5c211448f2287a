"""What speaks against a load keeps it out, however narrowly it is put and however it is hidden."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from loragate import AuditClient, Verdict
from loragate._signed import folder as folders
from loragate._signed.envelope import LARGEST_BYTES
from loragate._signed.statement import EXTENSION
from loragate.reference import AdapterReference
from loragate.testing import FakeAuditServer
from tests.client.accepting.asking import OTHERS, WEIGHTS, Keep, is_accepted
from tests.client.signed_lies import sign, stated


@pytest.mark.parametrize("verdict", [Verdict.BLOCK, Verdict.REVIEW, Verdict.INCONCLUSIVE])
@pytest.mark.parametrize("loaders", [[], ["comfyui"], ["diffusers"]])
@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_for_whatever_loader_and_strength_it_was_said(
    client: AuditClient,
    keep: Keep,
    base: str,
    service: FakeAuditServer,
    verdict: Verdict,
    loaders: list[str],
    strength: float,
) -> None:
    """The verdict over a file on the deny list names no loader."""
    asked = {"expected_base_digest": base, "loader": "diffusers", "strength": 0.7}
    keep(strength=0.7)
    assert is_accepted(client, **asked)
    service.default = verdict

    def narrowed(message: Any) -> None:
        message.loaders[:] = loaders
        sign(message)

    service.falsify = narrowed
    keep(strength=strength)
    assert not is_accepted(client, **asked)


def test_a_veto_of_one_adapter_holds_for_every_set_with_it(
    client: AuditClient, keep: Keep, base: str, service: FakeAuditServer
) -> None:
    both = [AdapterReference(data=WEIGHTS), AdapterReference(data=OTHERS)]
    keep(both)
    assert is_accepted(client, both, expected_base_digest=base)
    service.default = Verdict.BLOCK
    keep(OTHERS)
    assert not is_accepted(client, both, expected_base_digest=base)


def test_a_dry_run_forbids_nothing(
    client: AuditClient, keep: Keep, base: str, service: FakeAuditServer
) -> None:
    keep()
    service.default = Verdict.BLOCK
    keep(dry_run=True)
    assert is_accepted(client, expected_base_digest=base)


def test_while_a_file_cannot_be_read_nothing_is_accepted(
    client: AuditClient,
    keep: Keep,
    base: str,
    service: FakeAuditServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep()
    assert is_accepted(client, expected_base_digest=base)
    service.default = Verdict.BLOCK
    veto = keep()
    read = folders.read_head

    def failing(path: Path, **options: Any) -> bytes:
        if veto in str(path):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return read(path, **options)

    with monkeypatch.context() as for_now:
        for_now.setattr(folders, "read_head", failing)
        assert not is_accepted(client, expected_base_digest=base)
    assert not is_accepted(client, expected_base_digest=base)


def test_what_a_trusted_key_signs_and_nobody_understands_may_be_a_veto(
    client: AuditClient, keep: Keep, base: str, service: FakeAuditServer
) -> None:
    keep()
    service.falsify = stated(lambda said: said["predicate"][EXTENSION].update(condition="new"))
    keep(OTHERS)
    assert not is_accepted(client, expected_base_digest=base)


def test_a_file_without_an_end_costs_no_memory(
    client: AuditClient, keep: Keep, base: str, folder: Path
) -> None:
    keep()
    with (folder / "large.json").open("wb") as file:
        file.truncate(1 << 40)
    assert is_accepted(client, expected_base_digest=base)
    assert LARGEST_BYTES < 1 << 21
    assert json.loads(next(folder.glob("[!l]*.json")).read_bytes())["payloadType"]
