"""`loragate-server signing jwks` and what starts with keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from testkit.servers import forked_command
from testkit.signing import new_key, write_private


@pytest.fixture
def config(tmp_path: Path) -> Path:
    key = write_private(new_key("p256"), tmp_path / "key.pem")
    (file := tmp_path / "server.yaml").write_text(
        yaml.safe_dump({"signing": {"keys": [{"id": "2026-01", "file": str(key)}]}})
    )
    return file


def test_the_key_set_is_printed_and_holds_nothing_private(config: Path) -> None:
    done = forked_command(["signing", "jwks", "--config", str(config)], {})
    assert done.returncode == 0, done.stderr
    [key] = json.loads(done.stdout)["keys"]
    assert (key["kid"], key["crv"]) == ("2026-01", "P-256")
    assert "d" not in key


def test_without_a_usable_key_there_is_no_key_set(config: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").chmod(0o644)
    done = forked_command(["signing", "jwks", "--config", str(config)], {})
    assert done.returncode == 3
    assert "2026-01" in done.stderr
    assert "chmod 0400" in done.stderr
    (empty := tmp_path / "empty.yaml").write_text("{}")
    none = forked_command(["signing", "jwks", "--config", str(empty)], {})
    assert (none.returncode, none.stdout) == (3, "")
    assert "signing.keys is empty" in none.stderr
