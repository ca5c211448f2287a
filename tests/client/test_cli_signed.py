"""`--save-signed`, `--require-signature` and `loragate verify`: what they print and leave with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loragate import Verdict
from loragate.cli import main
from loragate.testing import FakeAuditServer
from loragate.v1 import audit_pb2
from testkit.signing import envelope_of, key_set, new_key, statement_of, write_public

KEY, STRANGER = new_key(), new_key()
WEIGHTS, OTHERS = b"weights", b"other weights"
Run = Callable[..., int]


def sign(verdict: audit_pb2.Verdict) -> None:
    verdict.dsse_envelope = envelope_of(statement_of(verdict), **{"2026-01": KEY})


@pytest.fixture
def signing(fake: FakeAuditServer, monkeypatch: pytest.MonkeyPatch) -> FakeAuditServer:
    """A service that signs."""
    monkeypatch.setenv("LORAGATE_TARGET", fake.target)
    fake.falsify = sign
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, in a folder with two adapters and the keys."""
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").write_bytes(WEIGHTS)
    Path("b.safetensors").write_bytes(OTHERS)
    Path("loras").mkdir()
    Path("loras", "c.safetensors").write_bytes(WEIGHTS)
    Path("keys.jwks").write_bytes(key_set({"2026-01": KEY}))
    write_public(STRANGER, Path("stranger.pem"))
    return lambda *words: main(list(words))


@pytest.fixture
def verdict(signing: FakeAuditServer, run: Run) -> str:
    """A signed verdict over the first adapter at 0.7, from a service that is gone since."""
    words = ["--strength", "0.7", "--base-model", "tiny", "--save-signed", "verdict.json"]
    assert run("audit", *words, "a.safetensors") == 0
    signing.stop()
    return "verdict.json"


def verify(run: Run, *words: str, verdict: str = "verdict.json", key: str = "keys.jwks") -> int:
    return run("verify", verdict, "--key", key, *words)


A = ("--file", "a.safetensors", "--strength", "0.7")


def test_a_verdict_is_verified_without_the_service(
    run: Run, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert verify(run, *A, "--base-model", "tiny", "--loader", "comfyui") == 0
    printed = capsys.readouterr()
    assert "ALLOW" in printed.out
    assert "signed by the key 2026-01, valid until" in printed.err
    assert "not checked" not in printed.err


def test_without_a_base_model_it_says_what_was_not_checked(
    run: Run, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(run, *A) == 0
    assert "on which base model was not checked; it was decided on tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--file", "b.safetensors", "--strength", "0.7"), "asked about was"),
        (("--file", "a.safetensors"), "judged at 0.7"),
        ((*A, "--file", "b.safetensors"), "about 1 adapters"),
        ((*A, "--text-encoder-strength", "0"), "for the text encoders"),
        ((*A, "--base-digest", "e" * 64), "not the expected one"),
        ((*A, "--base-model", "sdxl"), "asked about was 'sdxl'"),
        ((*A, "--revoked-key", "2026-01"), "all are revoked"),
        ((*A, "--strength", "0.7"), "2 times for 1 files"),
        (("--file", "none.safetensors"), "No such file"),
    ],
)
def test_what_it_is_not_about_is_refused_with_the_cause(
    run: Run, verdict: str, words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(run, *words) == 3
    assert why in capsys.readouterr().err


def test_another_key_or_a_file_that_is_no_verdict_is_refused(
    run: Run, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(run, *A, key="stranger.pem") == 3
    assert "No key that is trusted here" in capsys.readouterr().err
    assert verify(run, *A, verdict="a.safetensors") == 3
    assert "no envelope of a verdict" in capsys.readouterr().err
    assert run("verify", verdict, *A) == 3
    assert "with --key" in capsys.readouterr().err


def test_a_configuration_beside_the_weights_is_refused(
    run: Run, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("adapter_config.json").write_text('{"lora_alpha": 32, "r": 4}')
    assert verify(run, *A) == 3
    assert "changes what the weights beside it do" in capsys.readouterr().err


def test_the_keys_may_come_from_the_environment(
    run: Run, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAGATE_REQUIRE_SIGNATURE", "stranger.pem:keys.jwks")
    assert run("verify", verdict, *A) == 0
    monkeypatch.setenv("LORAGATE_REVOKED_KEYS", "2025-07, 2026-01")
    assert run("verify", verdict, *A) == 3


@pytest.mark.parametrize(
    ("kind", "code"), [("BLOCK", 1), ("REVIEW", 2), ("INCONCLUSIVE", 2), ("ALLOW", 0)]
)
def test_it_leaves_as_audit_does(
    signing: FakeAuditServer, run: Run, kind: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    signing.default = Verdict(kind)
    assert run("audit", "--save-signed", "v.json", "a.safetensors") == code
    capsys.readouterr()
    assert verify(run, "--file", "a.safetensors", "--json", verdict="v.json") == code
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["signed_by"], told["exit_code"]) == (kind, "2026-01", code)


def test_a_pilot_and_what_has_run_out_allow_nothing(
    signing: FakeAuditServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def pilot(verdict: audit_pb2.Verdict) -> None:
        verdict.mode = audit_pb2.MODE_PILOT
        sign(verdict)

    def late(verdict: audit_pb2.Verdict) -> None:
        verdict.decided_at.seconds -= 7200
        verdict.expires_at.seconds -= 7200
        sign(verdict)

    assert run("audit", "a.safetensors") == 0
    for lie, shown, verified in ((pilot, 0, 4), (late, 4, 3)):
        signing.falsify = lie
        assert run("get", _newest(signing), "--save-signed", "v.json") == shown
        assert verify(run, "--file", "a.safetensors", verdict="v.json") == verified
    told = capsys.readouterr().err
    assert "it is of a pilot, so no load may rest on it" in told
    assert "It has run out" in told


def test_clocks_may_differ_by_what_is_configured(
    signing: FakeAuditServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(verdict: audit_pb2.Verdict) -> None:
        verdict.decided_at.seconds -= 3700
        verdict.expires_at.seconds -= 3700
        sign(verdict)

    assert run("audit", "a.safetensors") == 0
    signing.falsify = late
    assert run("get", _newest(signing), "--save-signed", "v.json") == 4
    assert verify(run, "--file", "a.safetensors", verdict="v.json") == 3
    monkeypatch.setenv("LORAGATE_CLOCK_SKEW_S", "600")
    assert verify(run, "--file", "a.safetensors", verdict="v.json") == 0


def _newest(server: FakeAuditServer) -> str:
    return list(server._decisions)[-1]


def test_a_set_is_verified_as_a_whole_each_at_its_strength(
    signing: FakeAuditServer, run: Run
) -> None:
    both = ("a.safetensors", "b.safetensors")
    words = ("--together", "--strength", "0.5", "--save-signed", "v.json")
    assert run("audit", *words, *both) == 0
    files = ("--file", both[1], "--file", both[0])
    assert verify(run, *files, "--strength", "0.5", verdict="v.json") == 0
    assert verify(run, *files, "--strength", "0.5", "--strength", "0.4", verdict="v.json") == 3
    assert verify(run, "--file", both[0], "--strength", "0.5", verdict="v.json") == 3


def test_several_verdicts_are_kept_in_a_folder(signing: FakeAuditServer, run: Run) -> None:
    both = ("a.safetensors", "b.safetensors")
    assert run("audit", "--save-signed", "v.json", *both) == 3
    Path("kept").mkdir()
    assert run("audit", "--save-signed", "kept", *both) == 0
    assert run("gate-dir", "loras", "--save-signed", "kept") == 0
    kept = sorted(Path("kept").iterdir())
    assert [one.stat().st_mode & 0o777 for one in kept] == [0o644] * 3
    for name, count in zip(both, (2, 1), strict=True):
        codes = [verify(run, "--file", name, verdict=str(one)) for one in kept]
        assert codes.count(0) == count


def test_nothing_is_kept_of_a_service_that_does_not_sign(
    signing: FakeAuditServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    signing.falsify = None
    assert run("audit", "--save-signed", "v.json", "a.safetensors") == 3
    assert "is not signed" in capsys.readouterr().err
    assert not Path("v.json").exists()
    assert run("audit", "--save-signed", "nowhere/v.json", "a.safetensors") == 3
    assert "cannot write to" in capsys.readouterr().err


def test_a_required_signature_holds_for_every_command(
    signing: FakeAuditServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    trust = ("--require-signature", "keys.jwks")
    stranger = ("--require-signature", "stranger.pem")
    assert run("audit", *trust, "a.safetensors") == 0
    newest = _newest(signing)
    for words in (["audit", "a.safetensors"], ["get", newest], ["list"], ["gate-dir", "loras"]):
        signing.falsify = sign
        assert run(*words, *trust) == 0
        assert run(*words, *stranger) == 3
        signing.falsify = None
        assert run(*words, *trust) == 3
    assert "A signature is required." in capsys.readouterr().err
    assert run("audit", "--require-signature", "none.pem", "a.safetensors") == 3
    assert "--require-signature: No such file or directory" in capsys.readouterr().err
