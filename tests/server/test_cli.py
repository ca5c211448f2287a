from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from loragate_server import __version__
from loragate_server.cli.command import application
from loragate_server.config.schema import EMBEDDED_POLICY, Config
from loragate_server.config.sources import ignored_environment, load_config


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside, and nothing written outside."""
    for name in ignored_environment():
        monkeypatch.delenv(name)
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(application, [str(argument) for argument in arguments])


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").output == f"loragate-server {__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        ("serve",),
        ("concepts", "build"),
        ("concepts", "list"),
        ("concepts", "init"),
        ("concepts", "add"),
        ("concepts", "remove"),
        ("policy", "check"),
        ("config", "show"),
        ("intercept", "explain"),
        ("db", "upgrade"),
        ("db", "revision"),
        ("db", "downgrade"),
        ("log", "verify"),
        ("log", "reconcile"),
        ("retention", "plan"),
        ("retention", "prune"),
        ("retention", "hold", "place"),
        ("retention", "hold", "release"),
        ("retention", "hold", "list"),
        ("retention", "unseal"),
        ("calibrate",),
        ("evaluate",),
        ("base", "add"),
        ("base", "list"),
        ("concepts", "bank"),
        ("replay",),
        ("report",),
    ],
)
def test_every_command_shows_how_it_is_used(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"loragate-server {' '.join(command)}" in result.output


def test_a_command_that_needs_no_model_does_not_load_torch() -> None:
    script = (
        "import sys; from typer.testing import CliRunner\n"
        "from loragate_server.cli.command import *\n"
        "r = CliRunner().invoke(application, ['policy', 'check', sys.argv[1]]); "
        "sys.exit(r.exit_code or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, EMBEDDED_POLICY], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_valid_policy_is_called_valid() -> None:
    result = run("policy", "check", EMBEDDED_POLICY)
    assert result.exit_code == 0
    assert "valid, mode enforce, revision " in result.output


def test_a_rule_about_a_category_that_no_concept_has_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(EMBEDDED_POLICY.read_text().replace("[kind, style]", "[kindd]"))
    result = run("policy", "check", file)
    assert result.exit_code == 0
    assert f"warning: policy {file}: rule kinds and styles: " in result.stderr
    assert "category 'kindd'" in result.stderr


def test_a_policy_with_a_mistake_is_told_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(EMBEDDED_POLICY.read_text() + "\nthreshhold: 3\n")
    line = len(file.read_text().splitlines())
    result = run("policy", "check", file)
    assert result.exit_code == 1
    assert f"policy.yaml:{line}:1: threshhold: is not a known setting" in result.stderr


def test_a_policy_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    assert run("policy", "check", tmp_path / "missing.yaml").exit_code == 3


def test_the_configuration_shown_is_a_configuration_file_of_the_same(tmp_path: Path) -> None:
    file = tmp_path / "in.yaml"
    file.write_text("threads: 2\ngate: {queue_limit: 7}\n")
    shown = run("config", "show", "--config", file)
    assert shown.exit_code == 0
    again = tmp_path / "out.yaml"
    again.write_text(shown.stdout)
    assert load_config(again) == load_config(file)
    assert load_config(again).gate.queue_limit == 7


def test_sets_are_shown_in_the_order_of_the_alphabet(tmp_path: Path) -> None:
    (secret := tmp_path / "secret").write_text("whsec_" + "a" * 44)
    receiver = {"name": "sink", "url": "https://sink.example/", "secret_file": str(secret)}
    (file := tmp_path / "loragate.yaml").write_text(
        json.dumps({"events": {"receivers": [receiver]}})
    )
    shown = YAML(typ="safe").load(run("config", "show", "--config", file).stdout)
    kinds = shown["events"]["receivers"][0]["kinds"]
    assert len(kinds) == 6
    assert kinds == sorted(kinds)


def test_the_configuration_shown_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAGATE_DATABASE_URL", "postgresql://loragate:geheim@db/loragate")
    shown = run("config", "show").stdout
    assert "geheim" not in shown
    assert YAML(typ="safe").load(shown)["database_url"] == "postgresql://loragate:***@db/loragate"


def test_the_configuration_shown_holds_no_secret_of_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://loragate:geheim@db/loragate?sslmode=require&sslpassword=geheim"
    monkeypatch.setenv("LORAGATE_DATABASE_URL", url)
    receiver = {"name": "sink", "url": "https://sink.example/hook?key=geheim&geheim&a="}
    receiver |= {"secret_file": "secret"}
    witness = {"name": "w", "url": "https://geheim@witness.example/w", "public_key": "w.pub"}
    settings = {
        "events": {"receivers": [receiver]},
        "checkpoints": {"witnesses": [witness], "copies": ["s3://geheim:geheim@bucket/a", "/b?c"]},
    }
    (file := tmp_path / "loragate.yaml").write_text(json.dumps(settings))
    shown = run("config", "show", "--config", file).stdout
    assert "geheim" not in shown
    found = YAML(typ="safe").load(shown)
    assert found["database_url"] == (
        "postgresql://loragate:***@db/loragate?sslmode=require&sslpassword=***"
    )
    assert found["events"]["receivers"][0]["url"] == "https://sink.example/hook?key=***&***&a=***"
    assert found["checkpoints"]["witnesses"][0]["url"] == "https://***@witness.example/w"
    assert found["checkpoints"]["copies"] == ["s3://***@bucket/a", "/b?c"]


@pytest.mark.parametrize(("home", "code"), [("~", 0), ("~nobody-of-this-name", 1)])
def test_a_root_in_a_home_that_is_not_there_is_told_before_the_server_starts(
    tmp_path: Path, home: str, code: int
) -> None:
    file = tmp_path / "in.yaml"
    file.write_text(f"intake: {{roots: ['{home}/loras']}}\n")
    result = run("config", "check", "--config", file, "--state-dir", tmp_path)
    assert result.exit_code == code
    assert result.stderr.startswith("intake.roots: " if code else "warning: intake.roots: ~/loras")
    if not code:
        assert load_config(file).intake.folders == (Path.home() / "loras",)


def test_a_wrong_configuration_ends_a_command_with_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "in.yaml"
    file.write_text("thraeds: 2\n")
    for command in (("config", "show"), ("serve",), ("db", "upgrade"), ("concepts", "list")):
        result = run(*command, "--config", file)
        assert result.exit_code == 2, command
        assert f"{file}:1: thraeds: no such setting" in result.stderr


def test_the_database_can_be_made_and_made_again(tmp_path: Path) -> None:
    for _ in range(2):
        result = run("db", "upgrade")
        assert result.exit_code == 0
    assert (tmp_path / "state" / "loragate.sqlite3").stat().st_size > 0


def test_a_database_that_cannot_be_reached_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAGATE_DATABASE_URL", "postgresql://u:geheim@127.0.0.1:1/x")
    result = run("db", "upgrade")
    assert result.exit_code == 3
    assert "geheim" not in result.stderr


def test_a_changed_line_of_the_decision_log_is_found(tmp_path: Path) -> None:
    from loragate_server.record.log import DecisionLog

    file = tmp_path / "decisions.jsonl"
    log = DecisionLog(file)
    for number in range(3):
        log.append_note({"code": "test", "number": number})
    log.close()
    intact = run("log", "verify", file)
    assert intact.exit_code == 0
    assert "last digest " in intact.output

    file.write_text(file.read_text().replace('"number":1', '"number":9'))
    changed = run("log", "verify", file)
    assert changed.exit_code == 1
    assert ": does not follow the line before it" in changed.stderr


def test_a_decision_log_that_is_missing_is_a_failure() -> None:
    result = run("log", "verify")
    assert result.exit_code == 3
    assert "decisions.jsonl" in result.stderr


def test_the_embedded_library_is_listed() -> None:
    result = run("concepts", "list", "--json")
    assert result.exit_code == 0, result.stderr
    listed = [json.loads(line) for line in result.stdout.splitlines()]
    assert sum(one["role"] == "forbidden" for one in listed) >= 12
    assert sum(one["role"] == "neutral" for one in listed) >= 32
    assert all(one["pictures"] >= 1 for one in listed)


def test_a_concept_is_added_to_a_copy_of_the_embedded_library_and_removed(tmp_path: Path) -> None:
    config = Config(state_dir=tmp_path / "state")
    embedded = config.library_folder
    before = {path: path.stat().st_mtime_ns for path in embedded.rglob("*")}
    picture = next(embedded.rglob("*.png"))

    added = run("concepts", "add", "our-mascot", picture, "--name", "Our mascot")
    assert added.exit_code == 0, added.stderr
    assert config.library_folder == tmp_path / "state" / "library"
    again = run("concepts", "add", "our-mascot", picture)
    assert again.exit_code == 3
    assert "exists already" in again.stderr
    assert "Our mascot" in run("concepts", "list").stdout

    assert run("concepts", "remove", "our-mascot").exit_code == 0
    assert "our-mascot" not in run("concepts", "list").stdout
    assert run("concepts", "remove", "our-mascot").exit_code == 3
    assert before == {path: path.stat().st_mtime_ns for path in embedded.rglob("*")}


def test_a_folder_for_each_hand_is_kept_and_one_hand_alone_is_warned_of(tmp_path: Path) -> None:
    pictures = sorted(Config(state_dir=tmp_path / "other").library_folder.rglob("*.png"))[:3]
    for hand, picture in zip(("comic", "film", "film"), pictures, strict=True):
        folder = tmp_path / "mascot" / hand
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder)
    one = run("concepts", "add", "alone", tmp_path / "mascot" / "film")
    assert (one.exit_code, "alone is shown by one hand alone" in one.stderr) == (0, True)
    several = run("concepts", "add", "our-mascot", tmp_path / "mascot")
    assert (several.exit_code, "one hand alone" in several.stderr) == (0, False)
    listed = run("concepts", "list", "--json").stdout.splitlines()
    hands = {facts["id"]: facts["hands"] for facts in map(json.loads, listed)}
    assert (hands["alone"], hands["our-mascot"]) == (1, 2)


def test_a_library_of_ones_own_is_started_and_filled(tmp_path: Path) -> None:
    pictures = sorted(Config(state_dir=tmp_path / "other").library_folder.rglob("*.png"))
    own = tmp_path / "new" / "library"
    made = run("concepts", "init", own)
    assert made.exit_code == 0, made.stderr
    assert "lacks 1 forbidden concept before" in made.stderr
    refused = run("concepts", "build", "--library", own)
    assert refused.exit_code == 3
    assert f"The concept library {own} has 0 forbidden and " in refused.stderr
    added = run("concepts", "add", "our-mascot", "--library", own, pictures[0])
    assert added.exit_code == 0, added.stderr
    assert "lacks" not in added.stderr
    listed = run("concepts", "list", "--library", own, "--json")
    assert json.loads(listed.stdout.splitlines()[0])["id"] == "our-mascot"
    again = run("concepts", "init", own)
    assert (again.exit_code, "is not empty" in again.stderr) == (3, True)


def test_a_library_may_begin_without_a_bank_and_says_what_it_lacks(tmp_path: Path) -> None:
    picture = next(Config(state_dir=tmp_path / "other").library_folder.rglob("*.png"))
    own = tmp_path / "library"
    assert run("concepts", "init", own, "--no-bank").exit_code == 0
    for number in range(8):
        name = f"plain-{number}"
        added = run("concepts", "add", name, picture, "--library", own, "--role", "neutral")
        assert added.exit_code == 0, added.stderr
        left = 7 - number
        told = f"lacks 1 forbidden and {left} neutral" if left else "lacks 1 forbidden concept "
        assert told in added.stderr


def test_a_library_that_is_not_there_is_told_once_with_how_to_make_one(tmp_path: Path) -> None:
    picture = next(Config(state_dir=tmp_path / "other").library_folder.rglob("*.png"))
    refused = run("concepts", "add", "our-mascot", "--library", tmp_path / "new", picture)
    assert refused.exit_code == 3
    assert refused.stderr.count("concept library") == 1
    assert "library.yaml: No such file or directory. " in refused.stderr
    assert "`loragate-server concepts init FOLDER`" in refused.stderr


def test_a_changed_library_is_said_to_need_new_calibrations(tmp_path: Path) -> None:
    picture = next(Config(state_dir=tmp_path / "other").library_folder.rglob("*.png"))
    for words in (("add", "our-mascot", picture), ("remove", "our-mascot")):
        changed = run("concepts", *words)
        assert changed.exit_code == 0
        assert "`loragate-server calibrate --again FILE`" in changed.stderr


def test_a_concept_without_readable_pictures_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "picture.png"
    text.write_text("no picture")
    assert run("concepts", "add", "x", text).exit_code == 3
    missing = run("concepts", "add", "x", tmp_path / "missing.png")
    assert missing.exit_code == 3
    assert "missing.png: No such file" in missing.stderr


def test_a_calibration_from_a_folder_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    refused = run("calibrate", tmp_path / "nowhere")
    assert refused.exit_code == 1
    assert "nowhere is no folder; name one that holds harmless adapters" in refused.stderr


def test_a_file_that_is_no_log_is_told_in_few_lines(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("no log\n" * 134)
    found = run("log", "verify", file)
    assert found.exit_code == 1
    assert len(found.stderr.splitlines()) == 11
    assert "... and 124 more problems; is that a decision log?" in found.stderr


def test_a_report_without_a_database_names_the_file_and_the_options(tmp_path: Path) -> None:
    refused = run("report", "deadbeef", "--state-dir", tmp_path)
    assert refused.exit_code == 3
    assert f"{tmp_path}/loragate.sqlite3 does not exist" in refused.stderr
    assert "--config or --state-dir" in refused.stderr
