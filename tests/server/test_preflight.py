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

from loragate_server.app.gpu import gpu_present
from loragate_server.app.preflight import problems, warnings
from loragate_server.config.schema import EMBEDDED_PIPELINE, EMBEDDED_POLICY
from loragate_server.config.sources import load_config
from testkit.waiting import busyness

HEAVY = ("torch", "diffusers", "transformers", "peft", "scipy", "numpy", "sqlalchemy")

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
        (
            {"listen": {"grpc": "127.0.0.1:19464", "http": "127.0.0.1:19464"}},
            "listen.grpc and listen.http are both 127.0.0.1:19464",
        ),
        ({"decision_log": "/nowhere/d.jsonl"}, "there is no folder /nowhere"),
        ({"base_models": [{"name": "sdxl", "folder": "/nowhere"}]}, "base model sdxl: /nowhere"),
        (
            {"base_models": [{"name": "sd", "folder": "/nowhere", "calibration": "/no.json"}]},
            "the calibration /no.json is no file",
        ),
        ({"state_dir": "/proc/version/state"}, "state_dir /proc/version/state"),
        ({"database_url": "sqlite:////no/such/dir/x.db"}, "there is no folder /no/such/dir; make"),
        ({"database_url": "mysql://root:secret@db/loragate"}, "database_url: "),
        (
            {"intercept": {"extractors": {"images": {"kind": "sgland"}}}},
            "intercept.extractors.images",
        ),
        ({"kernel_backend": "triton"}, "kernel_backend: 'triton' needs a GPU"),
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
            {"checkpoints": {"enabled": True}},
            "checkpoints: signing.keys: there is no Ed25519 key to sign with",
        ),
        (
            {"checkpoints": {"enabled": True, "key": {"id": "log", "file": "/no.pem"}}},
            "checkpoints.key: log: /no.pem cannot be read",
        ),
        (
            {"witness": {"key": {"id": "w", "file": "/no.pem"}, "logs": ["/no.pub"]}},
            "/no.pub cannot be read",
        ),
        (
            {"signing": {"keys": [{"id": "2026", "file": "/no.pem"}]}},
            "signing.keys: 2026: /no.pem cannot be read",
        ),
        (
            {
                "signing": {
                    "keys": [{"id": "2001", "file": "/x", "not_after": "2001-01-01T00:00:00Z"}]
                }
            },
            "signing.keys has no key for now",
        ),
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


def test_a_log_in_the_folder_that_the_server_makes_is_no_fault(
    given: Given, tmp_path: Path
) -> None:
    for folder in (tmp_path / "state", tmp_path):
        assert problems(load_config(given(decision_log=str(folder / "d.jsonl")))) == ()


def test_a_database_in_the_folder_that_the_server_makes_is_no_fault(
    given: Given, tmp_path: Path
) -> None:
    for folder in (tmp_path / "state", tmp_path):
        assert problems(load_config(given(database_url=f"sqlite:///{folder / 'd.db'}"))) == ()


def test_roots_below_which_nothing_can_be_found_are_warned_of(given: Given, tmp_path: Path) -> None:
    roots = [str(tmp_path), str(tmp_path / "gone"), "loras"]
    config = load_config(given(intake={"roots": roots}))
    gone, relative = (line for line in warnings(config) if "intake.roots" in line)
    assert f"{tmp_path / 'gone'} is no folder" in gone
    assert "loras is relative, and means" in relative
    assert problems(config) == ()


def test_a_library_that_could_not_be_served_is_told(given: Given, tmp_path: Path) -> None:
    folder = tmp_path / "concepts"
    (folder / "pictures").mkdir(parents=True)
    entries = [
        {"id": f"n{number}", "name": "N", "category": "other", "severity": "low", "role": "neutral"}
        for number in range(8)
    ]
    entries.append({**entries[0], "id": "own", "role": "forbidden"})
    for entry in entries:
        entry["pictures"] = [f"pictures/{entry['id']}.png"]  # type: ignore[assignment]
        (folder / "pictures" / f"{entry['id']}.png").touch()

    def told(*kept: dict[str, str]) -> tuple[str, ...]:
        text = yaml.safe_dump({"version": 1, "concepts": list(kept)})
        (folder / "library.yaml").write_text(text)
        return problems(load_config(given(library=str(folder))))

    assert told(*entries) == ()
    [lacking] = told(*entries[3:])
    assert "1 forbidden and 5 neutral concepts, and so lacks 3 neutral" in lacking
    (folder / "pictures" / "n4.png").unlink()
    [missing] = told(*entries)
    assert "1 of 9 pictures are not there, pictures/n4.png the first" in missing


def test_everything_that_is_wrong_is_named_at_once(given: Given) -> None:
    found = problems(load_config(given(policy="/nowhere", library="/nowhere")))
    assert len(found) == 2


@pytest.mark.skipif(gpu_present(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_told_before_a_model_is_loaded(given: Given) -> None:
    models = [{"name": "sd", "folder": str(EMBEDDED_PIPELINE), "device": "cuda:0"}]
    [line] = problems(load_config(given(base_models=models)))
    assert line.startswith("base model sd: there is no CUDA device here; set device: cpu")


def test_every_extractor_that_is_wrong_is_named(given: Given) -> None:
    wrong = {"one": {"kind": "sgland"}, "two": {"kind": "comfy"}}
    lines = problems(load_config(given(intercept={"extractors": wrong})))
    assert [line.partition(": ")[0] for line in lines] == [
        "intercept.extractors.one",
        "intercept.extractors.two",
    ]


def test_every_fault_of_the_console_is_named(given: Given) -> None:
    console = {
        "enabled": True,
        "public_url": "https://gate.example",
        "auth": "oidc",
        "session_secret_file": "/no-secret",
        "roles": {"viewer": ["everyone"]},
        "oidc": {
            "issuer": "https://id.example",
            "client_id": "loragate",
            "client_secret_file": "/no-client-secret",
        },
    }
    found = [line for line in problems(load_config(given(console=console))) if "console" in line]
    assert any("/no-secret" in line for line in found), found
    assert any("/no-client-secret" in line for line in found), found


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LORAGATE_INTAKE_ROOTS", "; did you mean LORAGATE_INTAKE__ROOTS?"),
        ("LORAGATE_POLCY", "; did you mean LORAGATE_POLICY?"),
        ("LORAGATE_TLS_CERT", "; did you mean LORAGATE_TLS__CERT?"),
        ("LORAGATE_BASE_MODEL", "; did you mean LORAGATE_BASE_MODELS?"),
        ("LORAGATE_TARGET", ""),  # of the client, and no setting is called like it
        ("LORAGATE_SERVICE_HOST", ""),
    ],
)
def test_a_variable_that_is_no_setting_is_told_by_a_check(
    name: str, meant: str, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    lines = warnings(load_config(given()))
    assert f"{name} is no setting of the server and is ignored{meant}" in lines


def test_a_rule_about_nothing_in_the_library_is_a_warning(given: Given, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(EMBEDDED_POLICY.read_text().replace("[kind, style]", "[kind, stile]"))
    file = given(policy=str(policy))
    done = _command("config", "check", "--config", str(file))
    assert done.returncode == 0
    assert "no forbidden concept of the library has category 'stile'; there are " in done.stderr


def test_a_check_writes_nothing(given: Given) -> None:
    file = given()
    problems(load_config(file))
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("command", [("config", "check"), ("serve",)])
def test_a_wrong_setting_is_refused_in_a_second(command: tuple[str, ...], given: Given) -> None:
    file = given(policy="/nowhere/policy.yaml")
    began_s = time.monotonic()
    done = _command(*command, "--config", str(file))
    assert time.monotonic() - began_s < 1.0 + busyness()
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
