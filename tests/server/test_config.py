from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from loragate_server.config.listen import Token, is_loopback, split_address
from loragate_server.config.schema import Config
from loragate_server.config.sources import ConfigError, ignored_environment, load_config


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ignored_environment(), "LORAGATE_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "loragate.yaml"
        path.write_text(text)
        return path

    return write


def test_the_defaults_listen_on_loopback_and_serve_the_embedded_model() -> None:
    config = load_config()
    assert is_loopback(config.listen.grpc)
    assert [entry.name for entry in config.base_models] == ["emoji-tiny"]
    assert (config.base_models[0].folder / "model_index.json").is_file()
    assert config.policy.is_file()


def test_flags_win_over_the_environment_which_wins_over_the_file(
    written, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("gate: {queue_limit: 1, byte_budget: 11, verdict_cache_size: 21}\nthreads: 1\n")
    monkeypatch.setenv("LORAGATE_GATE__BYTE_BUDGET", "12")
    monkeypatch.setenv("LORAGATE_GATE__VERDICT_CACHE_SIZE", "22")
    config = load_config(path, {"gate": {"verdict_cache_size": 23, "queue_limit": None}})
    assert config.gate.queue_limit == 1
    assert config.gate.byte_budget == 12
    assert config.gate.verdict_cache_size == 23
    assert config.threads == 1


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAGATE_INTAKE__ROOTS", '["/srv/loras"]')
    assert load_config().intake.roots == (Path("/srv/loras"),)


def test_every_problem_of_a_file_is_named_with_its_line(written) -> None:
    path = written(
        "listen:\n  gprc: 127.0.0.1:1\n"
        "gate:\n  queue_limit: 0\n"
        "base_models:\n  - name: a\n    folder: /x\n    dtype: float7\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert f"{path}:2: listen.gprc: no such setting" in lines
    assert any(line.startswith(f"{path}:4: gate.queue_limit:") for line in lines)
    assert any(line.startswith(f"{path}:8: base_models.0.dtype:") for line in lines)


def test_a_problem_of_the_environment_or_a_flag_is_blamed_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"^flags: threads: "):
        load_config(None, {"threads": -1})
    monkeypatch.setenv("LORAGATE_GATE__QUEUE_LIMIT", "many")
    with pytest.raises(ConfigError, match=r"^environment: gate\.queue_limit: "):
        load_config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threads: 1\nthreads: 2\n", ":2: found duplicate key"),
        ("listen: [\n", ": "),
        ("- a\n", ":1: has to be a mapping"),
        ("nothing: 1\n", ":1: nothing: no such setting"),
        ("base_models: []\n", "base_models is empty"),
        ("retention: {uploads: 90}\n", ":1: retention.uploads: "),
        ("retention: {uploads: 1s}\n", "'1s' is no span; write days like 90d, hours like 36h"),
        ("retention: {uploads: 0d}\n", "'0d' is no span"),
        ("retention: {decisions: 90}\n", "90 is no span; write days like 90d, hours like 36h"),
        ("drain_grace_s: .nan\n", ":1: drain_grace_s: "),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(written, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(text))
    assert said in str(caught.value)


def test_a_missing_file_is_refused_and_an_empty_one_gives_the_defaults(
    written, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.yaml")
    assert load_config(written("")) == load_config()


def test_a_misspelt_section_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAGATE_LISTN__GRPC", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="LORAGATE_LISTN__GRPC: no such setting"):
        load_config()


def test_variables_of_an_orchestrator_are_reported_and_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAGATE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("LORAGATE_THREADS", "2")
    assert load_config().threads == 2
    assert ignored_environment() == {"LORAGATE_SERVICE_HOST": ""}


TOKEN = Token(name="images", sha256="0" * 64)
TLS = {"cert": "/c", "key": "/k"}


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "example.org:50051"])
def test_off_loopback_needs_tls_and_authentication(address: str) -> None:
    for incomplete in ({}, {"tokens": [TOKEN]}, {"tls": TLS}):
        with pytest.raises(ValidationError, match="not on loopback"):
            Config(listen={"grpc": address}, **incomplete)
    Config(listen={"grpc": address}, tls=TLS, tokens=[TOKEN])
    Config(listen={"grpc": address}, tls={**TLS, "client_ca": "/ca"})
    Config(listen={"grpc": address}, insecure_off_loopback=True)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:0", "[::1]:50051", "unix:/run/x.sock"]
)
def test_loopback_and_unix_sockets_need_neither(address: str) -> None:
    assert Config(listen={"grpc": address}).listen.grpc == address


@pytest.mark.parametrize("address", ["", "50051", ":50051", "host:", "host:x", "h:65536", "h:-1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        split_address(address)


def test_two_base_models_of_one_name_are_refused() -> None:
    entry = {"name": "a", "folder": "/x"}
    with pytest.raises(ValidationError, match="twice"):
        Config(base_models=[entry, entry])


def test_files_of_the_server_lie_in_the_state_directory_unless_named(tmp_path: Path) -> None:
    config = Config(state_dir=tmp_path)
    assert config.decision_log_file == tmp_path / "decisions.jsonl"
    assert config.database == f"sqlite:///{tmp_path / 'loragate.sqlite3'}"
    assert Config(decision_log="/var/log/x").decision_log_file == Path("/var/log/x")
    assert Config(database_url="postgresql://h/d").database == "postgresql://h/d"


def relayed(**relay: object) -> dict[str, object]:
    entry = {"listen": "127.0.0.1:9470", "upstream": "http://127.0.0.1:8188", **relay}
    settings = {"lora_folder": "/loras"}
    extractors = {name: {"kind": "comfyui", "settings": settings} for name in ("comfyui", "other")}
    return {"extractors": extractors, "relays": {"comfyui": entry}}


@pytest.mark.parametrize("upstream", ["https://images:443", "http://[::1]:8188", "http://images/"])
def test_the_upstream_of_a_relay_is_an_address(upstream: str) -> None:
    relays = Config(intercept=relayed(upstream=upstream)).intercept.relays
    assert relays["comfyui"].upstream == upstream


@pytest.mark.parametrize(
    ("relay", "told"),
    [
        ({"upstream": "127.0.0.1:8188"}, "is not written as http://HOST:PORT"),
        ({"upstream": "ws://127.0.0.1:8188"}, "is not written as http://HOST:PORT"),
        ({"upstream": "http://user:pw@images"}, "is not written as http://HOST:PORT"),
        ({"upstream": "http://images/ws"}, "is not written as http://HOST:PORT"),
        ({"upstream": "http://images:99999"}, "Port out of range"),
        ({"listen": "9470"}, "is not an address like"),
        ({"listen": "0.0.0.0:9470"}, "which is not on loopback, and needs tokens"),
        ({"idle_timeout_s": 0}, "greater than 0"),
    ],
)
def test_a_relay_that_could_not_be_served_is_refused(relay: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Config(intercept=relayed(**relay))


def test_a_relay_reads_with_an_extractor_that_is_there_on_an_address_of_its_own() -> None:
    section = relayed()
    [entry] = section["relays"].values()  # type: ignore[attr-defined]
    with pytest.raises(ValidationError, match="relays names 'omni', which is not one of"):
        Config(intercept={**section, "relays": {"omni": entry}})
    with pytest.raises(ValidationError, match="two relays listen on the same address"):
        Config(intercept={**section, "relays": {"comfyui": entry, "other": entry}})


def test_a_section_that_is_no_json_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAGATE_INTAKE__ROOTS", "/srv/loras")
    with pytest.raises(ConfigError, match=r"^environment: LORAGATE_INTAKE__ROOTS: ") as refused:
        load_config()
    assert "Source" not in str(refused.value)


def test_a_file_that_is_not_there_is_told_without_words_of_python(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "gone.yaml")
