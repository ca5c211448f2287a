"""Settings that could not work are refused, each with what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from loragate_server.app.preflight import problems, warnings
from loragate_server.config.events import EventReceiver, EventsSection
from loragate_server.config.schema import Config
from loragate_server.config.sources import ConfigError, load_config
from loragate_server.metrics.metrics import Metrics
from testkit.event_receiver import make_secret

GOOD: dict[str, Any] = {"name": "tickets", "url": "https://x.example.com/a?b=c", "secret_file": "s"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "Tickets"}, "name"),
        ({"name": ""}, "name"),
        ({"url": "ftp://x.example.com"}, "no address"),
        ({"url": "https://"}, "no address"),
        ({"url": "https://x.example.com:99999/"}, "no address"),
        ({"url": "https://x.example.com/a b"}, "no address"),
        ({"url": "https://x.example.com/\r\nX: y"}, "no address"),
        ({"url": "https://me:secret@x.example.com/"}, "a name or a password"),
        ({"url": "https://x.example.com/#a"}, "fragment"),
        ({"kinds": []}, "never be told"),
        ({"kinds": ["decision.allow"]}, "decision.block"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": 121}, "timeout_s"),
        ({"give_up_after": "soon"}, "no span"),
        ({"headers": {}}, "headers"),
    ],
)
def test_a_receiver_that_could_not_work_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EventReceiver(**{**GOOD, **settings})


def test_two_receivers_of_one_name_are_refused() -> None:
    one = EventReceiver(**GOOD)
    with pytest.raises(ValidationError, match="a name twice: tickets, tickets"):
        EventsSection(receivers=(one, one))


def test_a_misspelt_kind_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "loragate.yaml"
    file.write_text(
        "events:\n  receivers:\n    - name: tickets\n      url: https://x.example.com\n"
        "      secret_file: s\n      kinds: [decision.blocked]\n"
    )
    with pytest.raises(ConfigError, match=r"loragate.yaml:6: events.receivers.0.kinds.*decision"):
        load_config(file)


def test_a_file_without_a_secret_keeps_the_server_from_starting(tmp_path: Path) -> None:
    secret = make_secret(tmp_path / "secret")
    settings = {**GOOD, "secret_file": secret}

    def config() -> Config:
        return Config(state_dir=tmp_path, events={"receivers": [settings]})  # type: ignore[arg-type]

    assert problems(config()) == ()
    secret.write_text("hush")
    [problem] = problems(config())
    assert problem.startswith("events.receivers: tickets: secret_file: ")
    assert "hush" not in problem


def test_what_is_not_installed_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate_server.app.preflight._installed", lambda _: False)
    config = Config(state_dir=tmp_path, events={"receivers": [GOOD]})  # type: ignore[arg-type]
    assert "pip install 'loragate-server[events]'" in problems(config)[0]


def test_an_address_that_others_can_listen_on_is_warned_of(tmp_path: Path) -> None:
    def told(url: str) -> bool:
        events = {"receivers": [{**GOOD, "url": url}]}
        config = Config(state_dir=tmp_path, events=events)  # type: ignore[arg-type]
        return any("can be read on the way" in line for line in warnings(config))

    assert told("http://receiver.example.com/")
    assert not told("https://receiver.example.com/")
    assert not told("http://localhost:8080/")


def test_receivers_can_be_set_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAGATE_EVENTS__RECEIVERS", json.dumps([GOOD]))
    [one] = load_config().events.receivers
    assert one.name == "tickets"


def test_metrics_have_every_receiver_from_the_start_and_count_the_others_together() -> None:
    metrics = Metrics()
    stands = {"tickets": (90.0, 3, 0), "gone": (5.0, 1, 2), "older": (9.0, 0, 1)}
    metrics.follow_events(
        {"tickets": ["decision.block"], "chat": ["decision.block"]}, lambda: stands
    )

    def sample(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"loragate_events_{name}", labels)

    kind = {"kind": "decision.block"}
    metrics.event_failed("tickets", "decision.block")
    assert sample("failed_total", receiver="tickets", **kind) == 1
    assert sample("delivered_total", receiver="chat", **kind) == 0
    assert sample("oldest_seconds", receiver="tickets") == 90
    assert sample("oldest_seconds", receiver="chat") == 0
    assert sample("waiting", receiver="tickets") == 3
    assert sample("dead_letters", receiver="not_configured") == 3
    assert sample("oldest_seconds", receiver="not_configured") == 9


def test_without_receivers_there_are_no_series() -> None:
    metrics = Metrics()
    assert (
        metrics.registry.get_sample_value(
            "loragate_events_dead_letters", {"receiver": "not_configured"}
        )
        is None
    )
