"""How the command reaches the service: from its options, else from variables of the environment.

Each setting remembers where it came from, so that whatever fails by it can say what to change.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loragate._certificates import read_certificates
from loragate._names import Names
from loragate._target import DEFAULT_TARGET
from loragate.cli.signed_options import accepted_of, trust_of
from loragate.cli.told import told
from loragate.client import AuditClient
from loragate.config import CLOCK_SKEW_S, TARGET_VARIABLE, ClientConfig, TlsConfig, check_token

VARIABLES = {
    "target": TARGET_VARIABLE,
    "timeout": "LORAGATE_TIMEOUT_S",
    "tls_ca": "LORAGATE_TLS_CA",
    "tls_cert": "LORAGATE_TLS_CERT",
    "tls_key": "LORAGATE_TLS_KEY",
    "tls_server_name": "LORAGATE_TLS_SERVER_NAME",
    "token_file": "LORAGATE_TOKEN_FILE",
}
"""The variable that stands in for each option, by the option's name in the parsed arguments."""

_CLOCK_SKEW = "LORAGATE_CLOCK_SKEW_S"


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        value: None where nobody set it.
        name: the option or variable that set it; where nobody did, those that could.
    """

    value: str | None
    name: str

    @classmethod
    def of(
        cls, options: argparse.Namespace, attribute: str, environment: Mapping[str, str]
    ) -> Setting:
        """Reads an option, else its variable. An empty variable counts as none.

        Raises:
            ValueError: the option was given as nothing, as a shell does with a variable of its own.
        """
        flag, variable = "--" + attribute.replace("_", "-"), VARIABLES[attribute]
        given = getattr(options, attribute)
        if given is not None:
            if given == "":
                raise ValueError(f"{flag} is empty. Give it a value, or leave it out.")
            return cls(str(given), flag)
        if environment.get(variable):
            return cls(environment[variable], variable)
        return cls(None, f"{flag} or {variable}")


def make_client(
    options: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> AuditClient:
    """The client that options and environment describe; all of its files can be read.

    Raises:
        ValueError: a setting cannot be; the message names the option or variable.
    """
    found = {name: Setting.of(options, name, environment) for name in VARIABLES}
    names = _names(found, tls=options.tls)
    config = ClientConfig(
        found["target"].value or DEFAULT_TARGET,
        tls=_tls(found, names, wanted=options.tls),
        token=_token(found["token_file"]),
        timeout_s=_seconds(found["timeout"]),
        # Without a service there is no decision, which is exit code 3 and not a BLOCK.
        on_unavailable="raise",
        service="loragate-cli",
        clock_skew_s=clock_skew(environment),
        names=names,
        require_signature=trust_of(options, environment),
        accept_signed=accepted_of(options, environment),
    )
    return AuditClient._of(config)


def _names(found: Mapping[str, Setting], *, tls: bool) -> Names:
    called = {name: setting.name for name, setting in found.items()}
    secured = [s.name for name, s in found.items() if name.startswith("tls_") and s.value]
    return Names(
        target=called["target"],
        tls=", ".join(["--tls"] * tls + secured) or "--tls",
        ca=called["tls_ca"],
        cert=called["tls_cert"],
        key=called["tls_key"],
        server_name=called["tls_server_name"],
        token=called["token_file"],
        timeout=called["timeout"],
    )


def _tls(found: Mapping[str, Setting], names: Names, *, wanted: bool) -> TlsConfig | None:
    ca, cert, key, server_name = (
        found[f"tls_{name}"] for name in ("ca", "cert", "key", "server_name")
    )
    for one, other in ((cert, key), (key, cert)):
        if one.value and not other.value:
            raise ValueError(f"{one.name} needs {other.name} beside it: a certificate and its key.")
    if not (wanted or ca.value or cert.value or server_name.value):
        return None
    tls = TlsConfig(ca.value, cert.value, key.value, server_name.value)
    try:
        read_certificates(tls, names)  # else the first adapter would be blamed
    except OSError as error:
        raise ValueError(told(error)) from None
    return tls


def _token(setting: Setting) -> str | None:
    if setting.value is None:
        return None
    try:
        token = Path(setting.value).read_bytes().decode("utf-8").strip()
    except OSError as error:
        raise ValueError(
            f"{setting.name} cannot be read: {error.strerror}: {setting.value}."
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{setting.name}: {setting.value} is no text with a token.") from None
    if not token:
        raise ValueError(f"{setting.name}: {setting.value} is empty. Write the token into it.")
    check_token(token, setting.name)
    return token


def _seconds(setting: Setting) -> float | None:
    if setting.value is None:
        return None
    seconds = _number(setting.value)
    if not seconds > 0:
        raise ValueError(f"{setting.name} is a positive number of seconds, not {setting.value!r}.")
    return seconds


def clock_skew(environment: Mapping[str, str] = os.environ) -> float:
    """Seconds by which the clocks here and at the service may be apart.

    Raises:
        ValueError: the variable has a value that it cannot have.
    """
    text = environment.get(_CLOCK_SKEW)
    skew = _number(text) if text else CLOCK_SKEW_S
    if not 0 <= skew <= 3600:
        raise ValueError(f"{_CLOCK_SKEW} is a number of seconds from 0 to 3600, not {text!r}.")
    return skew


def _number(text: str) -> float:
    """A finite number; NaN, with which no comparison holds, for anything else."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
