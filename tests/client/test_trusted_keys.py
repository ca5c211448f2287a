"""Which keys are trusted: as files have them now, less those that are revoked."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from loragate import AuditClient
from loragate.signed import SignatureRefused, TrustedKeys
from testkit.signing import key_set, new_key, write_private, write_public

OLD, NEW = new_key(), new_key("p256")


@pytest.fixture
def both(tmp_path: Path) -> Path:
    (path := tmp_path / "keys.jwks").write_bytes(key_set({"old": OLD, "new": NEW}))
    return path


def ids(keys: TrustedKeys) -> list[str]:
    return [key.id for key in keys.current()]


def test_a_key_set_names_its_keys_and_a_pem_file_does_not(both: Path, tmp_path: Path) -> None:
    assert ids(TrustedKeys(both)) == ["old", "new"]
    (pem := tmp_path / "two.pem").write_bytes(
        write_public(OLD, tmp_path / "1").read_bytes()
        + write_public(NEW, tmp_path / "2").read_bytes()
    )
    assert ids(TrustedKeys(pem)) == [key.fingerprint for key in TrustedKeys(both).current()]


@pytest.mark.needs("openssl")
def test_the_fingerprint_is_that_of_openssl(tmp_path: Path) -> None:
    pem = write_public(NEW, tmp_path / "key.pem")
    words = ["openssl", "pkey", "-pubin", "-in", str(pem), "-outform", "DER"]
    der = subprocess.run(words, capture_output=True, check=True).stdout
    summed = subprocess.run(["openssl", "sha256", "-r"], input=der, capture_output=True, check=True)
    assert summed.stdout.split()[0].decode() == ids(TrustedKeys(pem))[0]


def test_a_revoked_key_is_not_trusted_under_any_name(both: Path, tmp_path: Path) -> None:
    assert ids(TrustedKeys(both, revoked=["old"])) == ["new"]
    pem = write_public(OLD, tmp_path / "old.pem")
    assert ids(TrustedKeys(both, pem, revoked=["old"])) == ["new"]
    fingerprint = TrustedKeys(pem).current()[0].fingerprint
    assert ids(TrustedKeys(both, pem, revoked=[fingerprint])) == ["new"]
    with pytest.raises(ValueError, match="all are revoked"):
        TrustedKeys(both, revoked=["old", "new"])


@pytest.mark.parametrize("spell", [str.upper, "SHA256:{}".format, " {}\n".format])
def test_a_fingerprint_is_known_however_it_is_written(
    both: Path, tmp_path: Path, spell: Callable[[str], str]
) -> None:
    [key] = TrustedKeys(write_public(OLD, tmp_path / "old.pem")).current()
    assert ids(TrustedKeys(both, revoked=[spell(key.fingerprint)])) == ["new"]
    assert ids(TrustedKeys(both, revoked=[" old "])) == ["new"]


def test_an_id_that_may_be_of_a_key_without_one_is_no_revocation(tmp_path: Path) -> None:
    pem = write_public(OLD, tmp_path / "old.pem")
    with pytest.raises(ValueError, match="Revoke it by its fingerprint"):
        TrustedKeys(pem, revoked=["2026-01"])


@pytest.mark.parametrize("y", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 1 | 1 << 255])
def test_a_key_with_which_everybody_can_sign_is_refused(tmp_path: Path, y: int) -> None:
    x = base64.urlsafe_b64encode(y.to_bytes(32, "little")).rstrip(b"=").decode()
    entry = {"kid": "all", "kty": "OKP", "crv": "Ed25519", "x": x}
    (file := tmp_path / "keys.jwks").write_text(json.dumps({"keys": [entry]}))
    with pytest.raises(ValueError, match="everybody can sign"):
        TrustedKeys(file)


def test_files_are_read_again_when_they_change(both: Path) -> None:
    keys = TrustedKeys(both)
    both.write_bytes(key_set({"new": NEW}))
    assert ids(keys) == ["new"]
    both.write_bytes(key_set({}))
    with pytest.raises(SignatureRefused, match="No trusted key is left"):
        keys.current()
    both.unlink()
    with pytest.raises(SignatureRefused, match="cannot be read any more"):
        keys.current()
    both.write_bytes(key_set({"old": OLD}))
    assert ids(keys) == ["old"]


def _pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _changed(**fields: Any) -> bytes:
    [entry] = json.loads(key_set({"old": OLD}))["keys"]
    kept = {name: value for name, value in {**entry, **fields}.items() if value is not None}
    return json.dumps({"keys": [kept]}).encode()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "neither PEM nor a key set"),
        (b'{"keys": []}', "there is none"),
        (b'{"keys": [], "keys": []}', "a name twice"),
        (b'{"keys": ["a"]}', "neither Ed25519 nor ECDSA P-256"),
        (_changed(kty="RSA"), "neither Ed25519 nor ECDSA P-256"),
        (_changed(crv="Ed448"), "neither Ed25519 nor ECDSA P-256"),
        (_changed(kid=None), "without a kid"),
        (_changed(kid=""), "without a kid"),
        (_changed(use="enc"), "not for signatures"),
        (_changed(x="AAAA"), "its key 'old' is none"),
        (_changed(x=None), "its key 'old' is none"),
        (_changed(d="AAAA"), "a private key"),
        (_pem(rsa.generate_private_key(65537, 2048)), "neither Ed25519 nor ECDSA P-256"),
        (_pem(ec.generate_private_key(ec.SECP384R1())), "neither Ed25519 nor ECDSA P-256"),
        (_pem(OLD)[:60], "something else than public keys"),
        (_pem(OLD) + b"and more", "something else than public keys"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is no public key"),
        (_pem(OLD) * 2, "a key twice"),
        (b" " * (1024 * 1024 + 1), "larger than any set of keys"),
    ],
    ids=itertools.count(),  # keys are made anew in each process
)
def test_a_file_that_holds_something_else_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    (path := tmp_path / "keys").write_bytes(content)
    with pytest.raises(ValueError, match=f"(?i){why}"):
        TrustedKeys(path)


def test_a_private_key_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a private key, which belongs to the service"):
        TrustedKeys(write_private(OLD, tmp_path / "key.pem"))


def test_one_name_for_two_keys_is_refused(tmp_path: Path, both: Path) -> None:
    (other := tmp_path / "other.jwks").write_bytes(key_set({"old": new_key()}))
    with pytest.raises(ValueError, match="Two different keys are called 'old'"):
        TrustedKeys(both, other)


def test_arguments_that_trust_nobody_or_by_mistake_are_refused(both: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        TrustedKeys()
    with pytest.raises(ValueError, match="a list of key ids"):
        TrustedKeys(both, revoked="old")
    with pytest.raises(FileNotFoundError):
        TrustedKeys("/nowhere.jwks")


def test_a_client_takes_a_file_several_files_or_keys(both: Path, tmp_path: Path) -> None:
    pem = write_public(OLD, tmp_path / "old.pem")
    for given in (both, str(both), [both, pem], TrustedKeys(both)):
        AuditClient(require_signature=given).close()


def test_a_client_does_not_require_a_signature_and_do_without_a_decision(both: Path) -> None:
    with pytest.raises(ValueError, match="on_unavailable='allow' lets in without a decision"):
        AuditClient(require_signature=both, on_unavailable="allow")


WITHOUT = """
import sys
sys.modules["joserfc"] = None
from loragate import AuditClient
AuditClient().close()
try:
    AuditClient(require_signature=sys.argv[1])
except ImportError as error:
    print(error)
"""


def test_without_the_extra_it_says_so_and_everything_else_works(both: Path) -> None:
    words = [sys.executable, "-c", WITHOUT, str(both)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "pip install 'loragate[signed]'" in done.stdout
