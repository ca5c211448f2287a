"""A configuration that cannot be served is refused before anything heavy is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from loragate_server.app.preflight import problems
from loragate_server.config.sources import load_config
from testkit.waiting import busyness

HEAVY = ("torch", "diffusers", "transformers", "peft", "scipy", "numpy")

Given = Callable[..., Path]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """Writes a configuration file with these settings."""

    def write(**settings: object) -> Path:
        file = tmp_path / "server.yaml"
        file.write_text(yaml.safe_dump({"state_dir": str(tmp_path / "state"), **settings}))
        return file

    return write


def test_the_configuration_that_ships_can_be_served(given: Given) -> None:
    assert problems(load_config(given())) == ()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"policy": "/nowhere/policy.yaml"}, "policy: /nowhere/policy.yaml cannot be read"),
        ({"library": "/nowhere/concepts"}, "concept library /nowhere/concepts"),
        ({"base_models": [{"name": "sdxl", "folder": "/nowhere"}]}, "base model sdxl: /nowhere"),
        (
            {"base_models": [{"name": "sd", "folder": "/nowhere", "calibration": "/no.json"}]},
            "the calibration /no.json is no file",
        ),
        ({"state_dir": "/proc/version/state"}, "state_dir /proc/version/state"),
        ({"database_url": "mysql://root:secret@db/loragate"}, "database_url: "),
        (
            {"intercept": {"extractors": {"images": {"kind": "sgland"}}}},
            "intercept.extractors.images",
        ),
        (
            {
                "intercept": {
                    "extractors": {"images": {"kind": "sglang"}},
                    "relays": {"images": {"listen": "127.0.0.1:1", "upstream": "http://a:1"}},
                }
            },
            "intercept.relays.images: the extractor knows no WebSocket that may open",
        ),
        ({"tls": {"cert": "/no.pem", "key": "/no.key"}}, "tls: /no.pem"),
        (
            {
                "console": {
                    "enabled": True,
                    "public_url": "http://127.0.0.1:1",
                    "auth": "proxy",
                    "session_secret_file": "/no-secret",
                    "roles": {"viewer": ["everyone"]},
                    "proxy": {"trusted_networks": ["127.0.0.1/32"]},
                }
            },
            "console: ",
        ),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, object], told: str, given: Given) -> None:
    found = problems(load_config(given(**settings)))
    assert any(told in line for line in found), found
    assert not any("secret@" in line for line in found)


def test_everything_that_is_wrong_is_named_at_once(given: Given) -> None:
    found = problems(load_config(given(policy="/nowhere", library="/nowhere")))
    assert len(found) == 2


def test_a_check_writes_nothing(given: Given) -> None:
    file = given()
    problems(load_config(file))
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("command", [("config", "check"), ("serve",)])
def test_a_wrong_setting_is_refused_in_a_second(command: tuple[str, ...], given: Given) -> None:
    file = given(policy="/nowhere/policy.yaml")
    began_s = time.monotonic()
    done = _command(*command, "--config", str(file))
    assert time.monotonic() - began_s < 1.0 * busyness() + 1.0
    assert done.returncode == {"config": 1, "serve": 3}[command[0]]
    assert "policy: /nowhere/policy.yaml cannot be read" in done.stderr


def test_a_check_says_that_all_is_well(given: Given) -> None:
    done = _command("config", "check", "--config", str(given()))
    assert (done.returncode, done.stdout) == (0, "The configuration can be served.\n")


def test_commands_without_a_model_load_nothing_heavy(given: Given) -> None:
    script = (
        "import sys; from loragate_server.cli.command import application\n"
        "try: application(sys.argv[1:])\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "config", "check", "--config", str(given())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LORAGATE_")}
    return subprocess.run(
        [sys.executable, "-m", "loragate_server", *words],
        capture_output=True,
        text=True,
        check=False,
        env=clean,
        timeout=60,
    )
