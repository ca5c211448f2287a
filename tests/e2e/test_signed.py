"""A real server signs, ends, and what it has signed is checked and accepted without it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from loragate import AuditClient
from loragate.cli import main
from loragate.signed import TrustedKeys, verify
from testkit.servers import forked_server
from testkit.signing import key_set, new_key, openssl_accepts, write_private, write_public

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
HARMLESS = ADAPTERS / "harmless-watermelon.safetensors"
LEARNED = ADAPTERS / "learned-jack-o-lantern.safetensors"
OLD, NEW = new_key(), new_key("p256")


@dataclass(frozen=True)
class Kept:
    """What is left of a server that has ended: a folder with keys and verdicts."""

    folder: Path
    base: str

    @property
    def keys(self) -> Path:
        return self.folder / "keys.jwks"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("signed")
    for name, key in (("old", OLD), ("new", NEW)):
        write_private(key, folder / f"{name}.pem")
        write_public(key, folder / f"{name}.pub")
    (folder / "keys.jwks").write_bytes(key_set({"old": OLD, "new": NEW}))
    (folder / "verdicts").mkdir()
    keys = [{"id": name, "file": str(folder / f"{name}.pem")} for name in ("old", "new")]
    settings = {"LORAGATE_SIGNING__KEYS": json.dumps(keys), "LORAGATE_THREADS": "1"}
    with forked_server(folder, settings) as server:
        trust = ["--target", server.grpc, "--require-signature", str(folder / "keys.jwks")]
        words = ["audit", *trust, "--strength", "0.8", "--save-signed"]
        assert main([*words, str(folder / "harmless.json"), str(HARMLESS)]) == 0
        assert main([*words, str(folder / "learned.json"), str(LEARNED)]) == 1
        with AuditClient(server.grpc, require_signature=folder / "old.pub") as client:
            answers = [
                client.audit_file(HARMLESS, strength=0.8),
                list(client.watch(HARMLESS.read_bytes(), strength=0.8))[-1],
                next(client.list()),
            ]
            answers.append(client.get(answers[0].decision_id))
            assert all(one.signed_by for one in answers)
            base = answers[0].digests.base_model
    return Kept(folder, base)


@pytest.mark.parametrize("key", ["old", "new"])
def test_every_way_of_checking_finds_the_signature_of_each_key(kept: Kept, key: str) -> None:
    envelope = (kept.folder / "harmless.json").read_bytes()
    trusted = TrustedKeys(kept.folder / f"{key}.pub")
    assert verify(envelope, HARMLESS.read_bytes(), trusted, strength=0.8).allowed
    public = (OLD if key == "old" else NEW).public_key()
    other = SSlibKey.from_crypto(public, key)
    assert Envelope.from_dict(json.loads(envelope)).verify([other], 1) == {key: other}


@pytest.mark.needs("openssl")
def test_openssl_finds_both_signatures(kept: Kept, tmp_path: Path) -> None:
    envelope = (kept.folder / "harmless.json").read_bytes()
    for number, key in enumerate(("old", "new")):
        public = kept.folder / f"{key}.pub"
        assert openssl_accepts(envelope, public, tmp_path, number)
        assert not openssl_accepts(envelope, public, tmp_path, 1 - number)


def _verify(kept: Kept, *words: str, verdict: str = "harmless.json") -> int:
    return main(["verify", str(kept.folder / verdict), "--key", str(kept.keys), *words])


def test_the_command_allows_what_was_allowed_and_nothing_else(kept: Kept) -> None:
    right = ["--file", str(HARMLESS), "--strength", "0.8", "--base-digest", kept.base]
    assert _verify(kept, *right) == 0
    assert _verify(kept, *right, "--loader", "diffusers") == 0
    assert _verify(kept, *right, "--loader", "comfyui") == 3  # which cannot load this file
    assert _verify(kept, "--file", str(LEARNED), "--strength", "0.8") == 3
    assert _verify(kept, "--file", str(HARMLESS), "--strength", "0.9") == 3
    assert _verify(kept, *right[:-1], "e" * 64) == 3
    assert _verify(kept, *right, "--revoked-key", "old") == 0
    assert _verify(kept, *right, "--revoked-key", "old", "--revoked-key", "new") == 3
    learned = ["--file", str(LEARNED), "--strength", "0.8"]
    assert _verify(kept, *learned, verdict="learned.json") == 1


def test_what_is_signed_is_told_to_those_who_know_nothing_of_loragate(kept: Kept) -> None:
    for name, result in (("harmless.json", "PASSED"), ("learned.json", "FAILED")):
        envelope = json.loads((kept.folder / name).read_bytes())
        statement = json.loads(base64.b64decode(envelope["payload"]))
        assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
        assert statement["predicate"]["verificationResult"] == result


def test_another_machine_starts_with_it(kept: Kept, tmp_path: Path) -> None:
    (loras := tmp_path / "loras").mkdir()
    shutil.copy(HARMLESS, loras)
    (verdicts := tmp_path / "verdicts").mkdir()
    shutil.copy(kept.folder / "harmless.json", verdicts)
    words = ["gate-dir", str(loras), "--target", "127.0.0.1:1", "--timeout", "0.5"]
    words += ["--require-signature", str(kept.keys), "--accept-signed", str(verdicts)]
    words += ["--base-digest", kept.base, "--strength", "0.8"]
    assert main(words) == 0
    shutil.copy(LEARNED, loras)
    assert main(words) == 3


def test_the_log_names_what_was_signed(kept: Kept) -> None:
    lines = (kept.folder / "decisions.jsonl").read_text().splitlines()
    logged = {json.loads(line)["verdict"]["envelope_sha256"] for line in lines}
    for name in ("harmless.json", "learned.json"):
        assert hashlib.sha256((kept.folder / name).read_bytes()).hexdigest() in logged
