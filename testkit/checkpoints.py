"""Keys, trees and witnesses for tests of the decision log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from loragate_server.config.checkpoints import CheckpointsSection
from loragate_server.config.signing import SigningKey, SigningSection
from loragate_server.record.log import DecisionLog
from loragate_server.record.tree.keeper import CheckpointKeeper
from loragate_server.record.tree.signer import NoteSigner, read_note_key
from loragate_server.record.tree.witness import Witness


def make_key(folder: Path, name: str) -> tuple[SigningKey, Path]:
    """An Ed25519 key in files: as a setting, and its public half."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    if not private.exists():
        key = Ed25519PrivateKey.generate()
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        private.chmod(0o400)
        public.write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
    return SigningKey(id=name, file=private), public


def make_keeper(folder: Path, **settings: Any) -> CheckpointKeeper:
    """The keeper of the log `decisions.jsonl` in a folder, with a key there."""
    key, _ = make_key(folder, "log-key")
    section = CheckpointsSection(enabled=True, key=key, **settings)
    return CheckpointKeeper(section, SigningSection(), folder / "decisions.jsonl.tree")


def open_tree_log(folder: Path, **settings: Any) -> tuple[CheckpointKeeper, DecisionLog]:
    """The same with its log, open."""
    keeper = make_keeper(folder, **settings)
    return keeper, keeper.open_log(folder / "decisions.jsonl")


def make_witness(folder: Path, log_key: Path) -> tuple[Witness, Path]:
    """A witness with its memory in a folder, and its public key."""
    key, public = make_key(folder, "witness-key")
    signer = NoteSigner("witness.key", (key,))
    return Witness(folder / "memory", "witness", signer, [(read_note_key(log_key),)]), public
