"""Deadlines and retries of each method, from the service config that ships with the SDK."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from loragate.retries import RetryPolicy as Chosen

FILE = "audit_grpc_service_config.json"
STREAMS = ("WatchAudit",)
"""Methods with a policy for retries that answer with a stream."""

_AUDIT = "loragate.v1.AuditService/Audit"
_UPLOAD = "loragate.v1.AuditService/AuditUpload"
REFUSING_CODE = "RESOURCE_EXHAUSTED"
"""Said by a service that is there; a file or an answer that is too large is among its causes."""


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again: so many attempts in all, with pauses that grow by a factor."""

    max_attempts: int
    initial_backoff_s: float
    max_backoff_s: float
    multiplier: float
    codes: frozenset[str]

    def pause_s(self, attempt: int) -> float:
        """Seconds to wait after attempt `attempt` (1, 2, ...), spread by 20 % either way."""
        pause = self.initial_backoff_s * self.multiplier ** (attempt - 1)
        return min(pause, self.max_backoff_s) * random.uniform(0.8, 1.2)


@cache
def service_config() -> dict[str, Any]:
    """The whole file, parsed."""
    text = files("loragate.v1").joinpath(FILE).read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    return config


@cache
def channel_config() -> str:
    """The config as the channel gets it: without timeouts, and without retries of streams.

    gRPC would apply the shorter of the config's timeout and the call's, so nobody could wait
    longer than the config says. Here the config's timeout is the default of a call instead.

    A stream that gRPC retries can hang for ever when the server dies, whatever its deadline; the
    SDK retries those itself. So it does after `REFUSING_CODE`: where gRPC retries, nobody sees what
    the first attempt was answered when the last one is merely late.
    """
    config = dict(service_config())
    config["methodConfig"] = [_for_channel(method) for method in config["methodConfig"]]
    return json.dumps(config)


@cache
def config_without_retries() -> str:
    """The same where the SDK makes all attempts itself, as the user says."""
    config = json.loads(channel_config())
    for method in config["methodConfig"]:
        method.pop("retryPolicy", None)
    config.pop("retryThrottling", None)
    return json.dumps(config)


def _for_channel(method: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in method.items() if key != "timeout"}
    kept["name"] = [name for name in method["name"] if name["method"] not in STREAMS]
    policy = kept.get("retryPolicy")
    if policy is not None:
        codes = [code for code in policy["retryableStatusCodes"] if code != REFUSING_CODE]
        kept["retryPolicy"] = policy | {"retryableStatusCodes": codes}
    return kept


@cache
def timeout_s(method: str) -> float:
    """Default deadline of a method ("loragate.v1.AuditService/Audit"), in seconds."""
    return _seconds(_method_config(method)["timeout"])


@cache
def retry_policy(method: str) -> RetryPolicy | None:
    """Retry policy of a method, or None where it is not retried."""
    policy = _method_config(method).get("retryPolicy")
    if policy is None:
        return None
    return RetryPolicy(
        max_attempts=policy["maxAttempts"],
        initial_backoff_s=_seconds(policy["initialBackoff"]),
        max_backoff_s=_seconds(policy["maxBackoff"]),
        multiplier=policy["backoffMultiplier"],
        codes=frozenset(policy["retryableStatusCodes"]),
    )


@cache
def resend_policy(method: str) -> RetryPolicy | None:
    """The retries of a question that the SDK makes itself: those that the channel does not."""
    policy = retry_policy(_AUDIT)
    if policy is None or method != _AUDIT:
        return policy  # gRPC keeps too little of an upload to send it again
    return replace(policy, codes=policy.codes & {REFUSING_CODE})


def chosen_policy(method: str, chosen: Chosen) -> RetryPolicy | None:
    """The retries of a method as the user sets them; None where it must not be sent twice.

    After which codes, only the service config says.
    """
    policy = retry_policy(_AUDIT if method == _UPLOAD else method)
    if policy is None:
        return None
    return RetryPolicy(
        max_attempts=chosen.attempts,
        initial_backoff_s=chosen.first_pause,
        max_backoff_s=chosen.longest_pause,
        multiplier=chosen.factor,
        codes=policy.codes,
    )


def _method_config(method: str) -> dict[str, Any]:
    service, _, name = method.rpartition("/")
    for config in service_config()["methodConfig"]:
        if {"service": service, "method": name} in config["name"]:
            found: dict[str, Any] = config
            return found
    raise KeyError(method)


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))
