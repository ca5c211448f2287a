"""Says why a service could not be reached or did not let the caller in, and what to do about it.

gRPC reports what a socket or a TLS library told it, and knows neither the setting that led there
nor what else may listen at a port. The texts are those of gRPC 1.72 to 1.85; what none of them fits
keeps its words, with the remedy that always helps.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.request import proxy_bypass

from loragate._names import Names
from loragate._target import DEFAULT_TARGET
from loragate.config import ClientConfig, TlsConfig

_GRPC_PORT = DEFAULT_TARGET.rpartition(":")[2]
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Where gRPC looks for a proxy, in this order."""


@dataclass(frozen=True)
class Diagnosis:
    """What went wrong with a connection.

    Attributes:
        cause: one sentence.
        remedy: what to do, naming the setting.
    """

    cause: str
    remedy: str


def diagnose(code: str, text: str, config: ClientConfig) -> Diagnosis | None:
    """What is behind a status that did not come from the service itself.

    Args:
        code: name of the status code.
        text: what gRPC says.
        config: of the client that asked.

    Returns:
        None for a status that says nothing about the connection.
    """
    http = re.search(r"Received http2 header with status: (\d+)", text)
    if http:
        return _http_answer(http[1], config)
    if code == "DEADLINE_EXCEEDED":
        return Diagnosis(
            f"{config.target} gave no answer in time.",
            f"Give it more time by {config.names.timeout}. If it never answers, see whether "
            f"loragate-server is running there and {config.names.target} names its gRPC port.",
        )
    if code == "UNKNOWN":
        return Diagnosis(
            f"What answers at {config.target} does not answer as gRPC does ({text.rstrip('.')}).",
            f"Check {config.names.target}: it names an HTTP port or a proxy, or the server has "
            "failed, whose log tells more.",
        )
    if code == "UNIMPLEMENTED":
        return Diagnosis(
            f"What answers at {config.target} does not know this call ({text.rstrip('.')}).",
            f"Check {config.names.target}: that is another gRPC service, or a loragate-server of "
            "an older version, to be upgraded.",
        )
    if code == "UNAUTHENTICATED":
        return Diagnosis(text, credentials_remedy(config))
    if code == "PERMISSION_DENIED":
        return Diagnosis(
            text,
            f"Something before the service at {config.target}, such as a service mesh, keeps this "
            "caller out: have it allowed there.",
        )
    if code != "UNAVAILABLE":
        return None
    say = next((say for pattern, say in _TEXTS if re.search(pattern, text)), _Failure.unknown)
    diagnosis = say(_Failure(text, config))
    return Diagnosis(diagnosis.cause, diagnosis.remedy + _proxy_note(config))


def credentials_remedy(config: ClientConfig) -> str:
    """What to do for a service that does not know the caller."""
    names = config.names
    certificate = config.tls is not None and config.tls.cert_file is not None
    if config.token is not None:
        return f"Give a token that the server knows (its setting `tokens`) by {names.token}."
    if certificate:
        return f"Give a token by {names.token}, or a certificate of the server's client_ca."
    return f"Give a token by {names.token}, or a certificate by {names.cert} and {names.key}."


def _http_answer(status: str, config: ClientConfig) -> Diagnosis:
    return Diagnosis(
        f"What stands at {config.target} answered with HTTP status {status} instead of gRPC.",
        f"Check {config.names.target}: it names an HTTP port or a proxy that does not reach "
        f"loragate-server. Its gRPC port is {_GRPC_PORT} by default.",
    )


@dataclass(frozen=True)
class _Failure:
    """A connection that did not come about: what gRPC says, and what it was set up with."""

    text: str
    config: ClientConfig

    @property
    def target(self) -> str:
        return self.config.target

    @property
    def names(self) -> Names:
        return self.config.names

    @property
    def tls(self) -> TlsConfig | None:
        return self.config.tls

    def refused(self) -> Diagnosis:
        proxy = _proxy_variable(self.config)
        before = f", or at the proxy of {proxy} before it" if proxy else ""
        return Diagnosis(
            f"Nothing listens at {self.target}{before}.",
            f"Is loragate-server running there? Start it, or check {self.names.target}.",
        )

    def no_socket(self) -> Diagnosis:
        return Diagnosis(
            f"There is no socket {self.target}.",
            f"Is loragate-server running, with this path in `listen.grpc`? Check "
            f"{self.names.target}.",
        )

    def closed_socket(self) -> Diagnosis:
        return Diagnosis(
            f"This user may not open {self.target}.",
            f"Have the right to write to the socket granted, or check {self.names.target}.",
        )

    def unresolved(self) -> Diagnosis:
        return Diagnosis(
            f"The name in {self.target} cannot be resolved.",
            f"Check the host in {self.names.target}, and that this machine's DNS knows it.",
        )

    def unreachable(self) -> Diagnosis:
        return Diagnosis(
            f"{self.target} cannot be reached over the network.",
            f"Check the host in {self.names.target}, and routes and firewalls on the way to it.",
        )

    def speaks_no_tls(self) -> Diagnosis:
        return Diagnosis(
            f"{self.target} does not speak TLS.",
            f"Leave out {self.names.tls}, if loragate-server has no `tls` there; or check "
            f"{self.names.target}: the HTTP port has no TLS, the gRPC port is {_GRPC_PORT} by "
            "default.",
        )

    def untrusted(self) -> Diagnosis:
        given = self.tls.ca_file if self.tls else None
        if re.search("expired|not yet valid", self.text, re.IGNORECASE):
            return Diagnosis(
                f"The certificate of {self.target} is not valid at this time.",
                "Renew it at the server, or set this machine's clock.",
            )
        trusted = f"the CA in {os.fspath(given)}" if given else "a CA that this machine trusts"
        return Diagnosis(
            f"The certificate of {self.target} does not come from {trusted}.",
            f"Name the file with the server's CA by {self.names.ca}.",
        )

    def other_name(self) -> Diagnosis:
        expected = self.tls.server_name if self.tls else None
        which = f"the name {expected}" if expected else f"the host in {self.target}"
        return Diagnosis(
            f"The server's certificate is not for {which}.",
            f"Write the name that it is for into {self.names.target}, or give it by "
            f"{self.names.server_name}.",
        )

    def unread_certificates(self) -> Diagnosis:
        return Diagnosis(
            "The certificates of this client cannot be used.",
            f"Check the files named by {self.names.ca}, {self.names.cert} and {self.names.key}.",
        )

    def other_protocol(self) -> Diagnosis:
        return Diagnosis(
            f"{self.target} speaks HTTP, and not gRPC.",
            f"Check {self.names.target}: that is the HTTP port of loragate-server, or another "
            f"server. Its gRPC port is {_GRPC_PORT} by default.",
        )

    def hung_up(self) -> Diagnosis:
        if self.tls is None:
            return Diagnosis(
                f"{self.target} closed the connection without an answer.",
                f"It may speak TLS: name the file with its CA by {self.names.ca}. If it does not, "
                "loragate-server has just ended, or something on the way cuts connections.",
            )
        if self.tls.cert_file is None:
            return Diagnosis(
                f"{self.target} closed the connection after the TLS handshake.",
                "It may demand a certificate of the client: give one by "
                f"{self.names.cert} and {self.names.key}.",
            )
        return Diagnosis(
            f"{self.target} closed the connection after the TLS handshake.",
            f"It may not trust the certificate of {self.names.cert}: give one that comes from the "
            "CA in the server's `tls.client_ca`.",
        )

    def proxy_refused(self) -> Diagnosis:
        found = re.search(r"HTTP proxy returned response code (\d+)", self.text)
        status = f" ({found[1]})" if found else ""
        return Diagnosis(
            f"An HTTP proxy refuses to lead to {self.target}{status}.",
            f"Have it opened for {self.names.target}, or go past it.",
        )

    def unknown(self) -> Diagnosis:
        return Diagnosis(
            self.text, f"Is loragate-server running at {self.target}? Check {self.names.target}."
        )


_TEXTS: tuple[tuple[str, Callable[[_Failure], Diagnosis]], ...] = (
    ("HTTP proxy returned", _Failure.proxy_refused),
    ("WRONG_VERSION_NUMBER", _Failure.speaks_no_tls),
    ("CERTIFICATE_VERIFY_FAILED", _Failure.untrusted),
    ("Hostname Verification|is not in peer certificate", _Failure.other_name),
    ("security handshaker|handshaker factory", _Failure.unread_certificates),
    ("ALPN|parsing HTTP/2|SETTINGS frame|http1.x server", _Failure.other_protocol),
    ("unix.*No such file|No such file.*unix", _Failure.no_socket),
    ("unix.*Permission denied", _Failure.closed_socket),
    ("errors? resolving|DNS resolution|lookup failed|Domain name not found", _Failure.unresolved),
    ("Connection refused", _Failure.refused),
    ("No route to host|unreachable|[Tt]imed? ?out|FD [Ss]hutdown", _Failure.unreachable),
    ("Socket closed|Connection reset|Broken pipe|EOF|Connection closed", _Failure.hung_up),
)
"""What gRPC says, and what it means; the first that fits counts."""


def _proxy_variable(config: ClientConfig) -> str:
    """The variable by which gRPC leads to the target through a proxy; empty where none does."""
    set_ = [name for name in _PROXY_VARIABLES if os.environ.get(name)]
    past = not set_ or config.target.startswith("unix") or proxy_bypass(_host(config))
    return "" if past else set_[0]


def _host(config: ClientConfig) -> str:
    address = config.target.removeprefix("dns:").rpartition("/")[2]
    return address.rpartition(":")[0].strip("[]")


def _proxy_note(config: ClientConfig) -> str:
    """Where a proxy that the environment names stands between, that it does."""
    variable = _proxy_variable(config)
    if not variable:
        return ""
    host = _host(config)
    return f" gRPC goes through the proxy that {variable} names; no_proxy={host} goes past it."
