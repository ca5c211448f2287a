"""What an event says, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from loragate_server.config.events import EventReceiver
from loragate_server.events.content import MAX_TEXT, MOST_NAMED, Content
from loragate_server.policy.decision import Decision
from testkit import evidence as made
from tests.server.events.conftest import CALLER, House, OpenHouse, suspected

MakeReceiver = Callable[..., EventReceiver]
URL = "http://127.0.0.1:9/events"


def said(house: House, decision: Decision | None = None) -> dict[str, Any]:
    house.record(decision or suspected())
    found: dict[str, Any] = json.loads(house.rows("events")[-1]["body"])
    return found


@pytest.fixture
def database_url(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path}/audits.db"


def test_a_block_is_said_with_who_asked_what_it_is_and_what_to_do(
    house: OpenHouse, receiver: MakeReceiver
) -> None:
    home = house(receiver(URL), console_url="https://loragate.example.com", source="urn:x:eu")
    event = said(home)
    data = event.pop("data")
    [decision] = home.rows("audits")
    name = decision["decision_id"]
    assert event.pop("time")
    assert event == {
        "specversion": "1.0",
        "type": "loragate.decision.block.v1",
        "source": "urn:x:eu",
        "id": name,
        "subject": name,
        "datacontenttype": "application/json",
    }
    assert data.pop("decided_at")
    assert data == {
        "decision_id": name,
        "verdict": "BLOCK",
        "remedy": "QUARANTINE",
        "reasons": [{"code": "concept_learned", "text": "It has learned 'Cat'."}],
        "adapters": [{"sha256": "a" * 64, "name": "style\N{REPLACEMENT CHARACTER}v1"}],
        "adapter_count": 1,
        "base_model": "emoji-tiny",
        "policy_digest": "d" * 64,
        "concepts": [
            {
                "id": "cat",
                "name": "Cat",
                "verdict": "BLOCK",
                "remedy": "WITHDRAW_AND_CALL_LEGAL",
            }
        ],
        "concept_count": 1,
        "caller": {"service": "images", "tenant": "tenant-7", "identity": "cn=gpu-1"},
        "url": f"https://loragate.example.com/console/audits/{name}",
    }


def test_no_measured_number_is_said_unless_a_setting_says_so(
    house: OpenHouse, receiver: MakeReceiver
) -> None:
    silent = json.dumps(said(house(receiver(URL))))
    assert "7.5" not in silent
    assert "61.5" not in silent
    told = said(house(receiver(URL), scores=True))["data"]
    assert told["concepts"][0]["score"] == 7.5
    assert told["concepts"][0]["p_value"] == 1e-8
    assert told["reasons"][0]["text"].endswith("score 7.50.")
    assert "url" not in told


def test_it_is_a_cloud_event_for_the_library_of_receivers(
    house: OpenHouse, receiver: MakeReceiver
) -> None:
    home = house(receiver(URL))
    said(home)
    body = home.rows("events")[0]["body"].encode()
    event = from_http_event(HTTPMessage({"content-type": "application/cloudevents+json"}, body))
    assert event.get_type() == "loragate.decision.block.v1"
    assert event.get_data()["verdict"] == "BLOCK"


def test_names_of_strangers_and_numbers_that_are_none_break_no_reader_of_json() -> None:
    concept = made.concept(float("nan"), float("inf"), degree=float("-inf"))
    odd = replace(suspected(), evidence=made.evidence(concept))
    odd = replace(odd, findings=(replace(odd.findings[0], evidence=concept),))
    names = ("\ud800\0\x1b[31m\u202e" + "x" * 10_000,)
    verdict = made.verdict(odd, caller=replace(CALLER, adapter_names=names))
    data = Content(scores=True).of_decision(verdict)
    text = json.dumps(data, allow_nan=False, ensure_ascii=False)
    text.encode("utf-8")
    assert data["concepts"][0]["score"] is None
    assert len(data["adapters"][0]["name"]) <= MAX_TEXT
    assert not set(data["adapters"][0]["name"]) & set("\ud800\0\x1b\u202e")


def test_an_event_about_very_much_names_some_of_it_and_counts_all() -> None:
    concepts = [made.concept(9.0, concept_id=f"c-{n}") for n in range(500)]
    [finding] = suspected().findings
    many = replace(
        suspected(),
        findings=tuple(replace(finding, evidence=one) for one in concepts),
        evidence=made.evidence(adapters=tuple(made.adapter(f"{n:064x}") for n in range(300))),
    )
    data = Content().of_decision(made.verdict(many))
    assert (len(data["concepts"]), data["concept_count"]) == (MOST_NAMED, 500)
    assert (len(data["adapters"]), data["adapter_count"]) == (MOST_NAMED, 300)
