"""Signatures: by the reference implementation, by hand, and by none that is no secret."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from loragate_server.config.events import EventReceiver
from loragate_server.events.sending import Sender
from loragate_server.events.signing import (
    SecretUnusableError,
    read_signatures,
    signed_headers,
)
from loragate_server.record.outbox.rows import Event
from testkit.event_receiver import event_receiver, make_secret

BODY = '{"id": "1", "text": "\\u30ed\\u30e9"}'


def encoded(prefix: str, count: int) -> str:
    return prefix + base64.b64encode(secrets.token_bytes(count)).decode()


def test_a_shared_secret_signs_as_the_reference_implementation_checks(tmp_path: Path) -> None:
    file = make_secret(tmp_path / "secret")
    headers = signed_headers(read_signatures(file), "1", datetime.now(UTC), BODY)
    webhook = Webhook(file.read_text().strip())
    assert webhook.verify(BODY, headers)["id"] == "1"
    with pytest.raises(WebhookVerificationError):
        webhook.verify(BODY.replace("1", "2"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(encoded("whsec_", 32)).verify(BODY, headers)


@pytest.mark.parametrize("count", [32, 64])
def test_a_key_pair_signs_so_that_its_public_half_checks(tmp_path: Path, count: int) -> None:
    (file := tmp_path / "secret").write_text(encoded("whsk_", count))
    [signature] = read_signatures(file)
    headers = signed_headers([signature], "1", datetime.now(UTC), BODY)
    version, _, signed = headers["webhook-signature"].partition(",")
    assert version == "v1a"
    public = base64.b64decode(signature.public_key.removeprefix("whpk_"))
    key = Ed25519PublicKey.from_public_bytes(public)
    text = f"1.{headers['webhook-timestamp']}.{BODY}".encode()
    key.verify(base64.b64decode(signed), text)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signed), text + b" ")


def test_while_secrets_are_exchanged_every_event_is_signed_with_each(tmp_path: Path) -> None:
    old, new = encoded("whsec_", 32), encoded("whsec_", 24)
    (file := tmp_path / "secrets").write_text(f"{new}\n\n{old}\n{encoded('whsk_', 32)}\r\n")
    headers = signed_headers(read_signatures(file), "1", datetime.now(UTC), BODY)
    assert [one[:3] for one in headers["webhook-signature"].split(" ")] == ["v1,", "v1,", "v1a"]
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n \n",
        "secret",
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_not/base64!",
        encoded("whsec_", 65),
        encoded("whsk_", 31),
        encoded("whpk_", 32),
        "\n".join(encoded("whsec_", 32) for _ in range(9)),
        "ｗ",
        "whsec_" + "A" * 20_000,
    ],
    ids=range(12),  # some are made anew each time
)
def test_what_is_no_secret_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    (file := tmp_path / "secret").write_text(content)
    with pytest.raises(SecretUnusableError, match="openssl rand") as caught:
        read_signatures(file)
    assert str(file) in str(caught.value)
    assert len(content) < 7 or content[6:] not in str(caught.value)


@pytest.mark.parametrize("writer", [False, True])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path, writer: bool) -> None:
    os.mkfifo(pipe := tmp_path / "secret")
    held = os.open(pipe, os.O_RDWR) if writer else -1
    with pytest.raises(SecretUnusableError, match="has to hold 1 to 8 secrets"):
        read_signatures(pipe)
    if writer:
        os.close(held)


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretUnusableError, match=r"gone cannot be read: No such file"):
        read_signatures(tmp_path / "gone")


async def test_what_is_sent_can_be_checked_as_it_came(
    receiver: Callable[..., EventReceiver],
) -> None:
    with event_receiver() as server:
        told = receiver(server.url)
        async with Sender(told) as sender:
            sent = await sender.send(
                Event("1", "decision.block", datetime.now(UTC), BODY), datetime.now(UTC)
            )
        assert sent.error == ""
        [taken] = server.taken
    assert taken.headers["content-type"] == "application/cloudevents+json"
    assert taken.headers["user-agent"].startswith("loragate-server/")
    Webhook(told.secret_file.read_text().strip()).verify(taken.body, taken.headers)


async def test_an_address_with_a_token_is_in_no_error(
    receiver: Callable[..., EventReceiver],
) -> None:
    event = Event("1", "decision.block", datetime.now(UTC), BODY)
    for url in (
        "http://127.0.0.1:9/hook/TOKEN",
        "http://no-such-host.invalid/TOKEN",
        "https://127.0.0.1:9/?key=TOKEN",
    ):
        async with Sender(receiver(url)) as sender:
            failed = await sender.send(event, datetime.now(UTC))
        assert failed.error
        assert "TOKEN" not in failed.error
