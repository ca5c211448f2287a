"""docs/events.md: its examples are shaped as events are, and its code checks real ones."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from ruamel.yaml import YAML
from standardwebhooks import WebhookVerificationError

from loragate_server.config.events import EventKind, EventReceiver, EventsSection
from loragate_server.events.announcing import TYPE
from loragate_server.events.sending import Sender
from loragate_server.events.signing import read_signatures
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.outbox.rows import Event
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from testkit.event_receiver import event_receiver
from tests.server.events.conftest import Clock, OpenHouse, suspected

DOCUMENT = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
MakeReceiver = Callable[..., EventReceiver]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/audits.db"


def shape(value: Any) -> Any:
    """What stays when values are left out: keys, and kinds of values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])]
    return type(value).__name__


def test_the_documented_events_are_shaped_as_those_that_are_sent(
    house: OpenHouse, receiver: MakeReceiver
) -> None:
    home = house(receiver("http://127.0.0.1:9/"), console_url="https://loragate.example.com")
    home.record(suspected())
    verdict = home.record(suspected(VerdictKind.REVIEW))
    rules = ReviewRules(frozenset(), timedelta(days=300))
    Reviews(home.recorder, rules, told=lambda _: None).act(
        verdict.decision_id,
        ReviewAction.APPROVE,
        reviewer="alice",
        reason="fine",
        position=0,
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )
    with home.database.writing() as connection:
        assert home.announcer.uncalibrated(connection, "sdxl", ("mascot",), datetime.now(UTC))
    sent = {one["type"]: one for one in (json.loads(r["body"]) for r in home.rows("events"))}
    documented = [json.loads(one) for one in blocks("json")]
    assert len(documented) == 3
    for example in documented:
        assert shape(example) == shape(sent[example["type"]]), example["type"]


def test_every_kind_is_documented() -> None:
    headings = " ".join(re.findall(r"^### (.+)$", DOCUMENT, re.MULTILINE))
    assert set(re.findall(r"`([a-z.]+)`", headings)) == {kind.value for kind in EventKind}
    types = {TYPE.format(kind=kind.value) for kind in EventKind}
    assert {json.loads(one)["type"] for one in blocks("json")} <= types


def test_the_documented_settings_are_valid() -> None:
    settings = [EventsSection(**YAML(typ="safe").load(one)["events"]) for one in blocks("yaml")]
    first, here = (one.receivers[0] for one in settings)
    assert first.kinds == {EventKind.BLOCK, EventKind.REVIEW}
    assert here.kinds == frozenset(EventKind)


async def test_the_documented_code_takes_real_events_once_and_no_forged_ones(
    receiver: MakeReceiver, clock: Clock
) -> None:
    codes = blocks("python")[1:]  # the first is a program, played with a real server
    spaces: list[dict[str, Any]] = [{} for _ in codes]
    for code, space in zip(codes, spaces, strict=True):
        exec(code, space)  # what a reader would copy
    take, require_signed = spaces[0]["take"], spaces[1]["require_signed"]
    content = json.dumps({"id": "1", "data": {}})
    with event_receiver() as server:
        told = receiver(server.url)
        secret = told.secret_file.read_text().strip()
        # While keys are exchanged: whoever has one public half meets a signature of the other too.
        told.secret_file.write_text(f"whsk_{'A' * 43}=\n{secret}\nwhsk_{'B' * 43}=\n")
        public_keys = [one.public_key for one in read_signatures(told.secret_file)[::2]]
        async with Sender(told) as sender:
            sent = await sender.send(Event("1", "decision.block", clock(), content), clock())
        assert sent.error == ""
        [one] = server.taken
    seen: set[str] = set()
    assert take(one.body, one.headers, secret, seen)["id"] == "1"
    assert take(one.body, one.headers, secret, seen) is None
    for public_key in public_keys:
        require_signed(one.body, one.headers, public_key)
    forged = one.body.replace(b"1", b"2")
    with pytest.raises(WebhookVerificationError):
        take(forged, one.headers, secret, seen)
    for body, headers in (
        (forged, one.headers),
        (one.body, {**one.headers, "webhook-signature": "v1,AAAA"}),
    ):
        with pytest.raises(InvalidSignature):
            require_signed(body, headers, public_key)
    late = {**one.headers, "webhook-timestamp": str(int(time.time()) - 400)}
    with pytest.raises(ValueError, match="too old"):
        require_signed(one.body, late, public_key)
