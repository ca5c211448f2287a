"""`loragate-server policy check` warns of entries of the lists that count for nothing."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from loragate_server.cli.command import application
from loragate_server.config.schema import EMBEDDED_POLICY


def check(tmp_path: Path, lists: str) -> Result:
    kept = [
        line
        for line in EMBEDDED_POLICY.read_text().splitlines()
        if not line.startswith(("allow_sha256", "deny_sha256"))
    ]
    (file := tmp_path / "policy.yaml").write_text("\n".join(kept) + "\n" + lists)
    done = CliRunner().invoke(
        application, ["policy", "check", str(file), "--state-dir", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    return done


def entry(sha256: str, rest: str = "") -> str:
    return f"  - {{sha256: {sha256}, note: reviewed{rest}}}\n"


def test_an_adapter_on_both_lists_is_warned_of(tmp_path: Path) -> None:
    a, b = "a" * 64, "b" * 64
    lists = f"allow_sha256:\n{entry(a)}{entry(b)}deny_sha256:\n{entry(a)}"
    done = check(tmp_path, lists)
    assert "aaaaaaaaaaaa is on both lists, and is denied; take it out" in done.stderr
    assert "bbbb" not in done.stderr


def test_an_entry_that_has_lapsed_is_warned_of_and_is_on_no_list(tmp_path: Path) -> None:
    a, b = "a" * 64, "b" * 64
    lapsed, later = ", expires: 2001-01-31", ", expires: 9999-12-31"
    lists = f"allow_sha256:\n{entry(a, later)}deny_sha256:\n{entry(a, lapsed)}{entry(b, later)}"
    done = check(tmp_path, lists)
    [line] = (line for line in done.stderr.splitlines() if "sha256" in line)
    assert "both lists" not in done.stderr
    assert f"warning: policy {tmp_path / 'policy.yaml'}: deny_sha256: aaaaaaaaaaaa" in line
    assert "(reviewed) lapsed after 2001-01-31; take it out" in line


def test_a_library_that_is_not_there_is_not_taken_for_one_that_has_all(tmp_path: Path) -> None:
    command = ["policy", "check", str(EMBEDDED_POLICY), "--state-dir", str(tmp_path)]
    refused = CliRunner().invoke(application, [*command, "--library", str(tmp_path / "gone")])
    assert (refused.exit_code, "cannot be read" in refused.stderr) == (3, True)
    (file := tmp_path / "loragate.yaml").write_text(f"library: {tmp_path / 'gone'}\n")
    warned = CliRunner().invoke(application, [*command, "--config", str(file)])
    assert (warned.exit_code, "no rule was held against it" in warned.stderr) == (0, True)
