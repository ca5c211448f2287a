"""The section `console` of the configuration: who may see decisions, and who may judge them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from loragate_server.config.section import PositiveSeconds, Section
from loragate_server.severity import Severity

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}$")]
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class OidcSection(Section):
    """A provider of OpenID Connect that people sign in with.

    Attributes:
        issuer: its address, under which `/.well-known/openid-configuration` is found.
        client_secret_file: a file that holds nothing but the secret.
        user_claim: claim of the ID token that names the person.
        groups_claim: claim that lists the person's groups; `roles` gives them meaning.
    """

    issuer: str = Field(min_length=1)
    client_id: str = Field(min_length=1)
    client_secret_file: Path
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    user_claim: str = Field(default="email", min_length=1)
    groups_claim: str = Field(default="groups", min_length=1)

    @field_validator("issuer")
    @classmethod
    def _safe(cls, value: str) -> str:
        return _https_or_local(value, "issuer")

    @field_validator("scopes")
    @classmethod
    def _with_openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in value:
            raise ValueError("scopes must contain openid; without it there is no ID token")
        return value


class ProxySection(Section):
    """A reverse proxy that has signed people in and says in headers who they are.

    Attributes:
        trusted_networks: addresses of the proxy; headers from anywhere else are not believed.
        secret_header: header in which the proxy also sends a secret; empty for none. Demanded where
            anybody has a role that changes something: every program on a trusted address, such as
            this machine, could name itself an administrator.
        secret_file: a file that holds nothing but that secret.
    """

    user_header: HeaderName = "X-Forwarded-User"
    groups_header: HeaderName = "X-Forwarded-Groups"
    trusted_networks: tuple[str, ...] = ("127.0.0.1/32", "::1/128")
    secret_header: Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9-]{0,62})?$")] = ""
    secret_file: Path | None = None

    @field_validator("trusted_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("trusted_networks is empty, so no proxy could be believed")
        for network in value:
            if ipaddress.ip_network(network).prefixlen == 0:
                raise ValueError(f"{network} trusts everybody; name the proxy's own network")
        return value

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.secret_header) != (self.secret_file is not None):
            raise ValueError("secret_header and secret_file belong together")
        return self


class RolesSection(Section):
    """Groups whose members have a role; of several, the highest counts. No group, no access.

    Attributes:
        concept_editor: groups whose members may also change the concept library, where
            `console.edit_concepts` is on. It is no role: they need one beside it, and no role,
            that of admins included, brings it along.
    """

    viewer: frozenset[str] = frozenset()
    reviewer: frozenset[str] = frozenset()
    admin: frozenset[str] = frozenset()
    concept_editor: frozenset[str] = frozenset()

    @property
    def groups(self) -> frozenset[str]:
        """All that membership means anything of."""
        return self.viewer | self.reviewer | self.admin | self.concept_editor


class ConsoleSection(Section):
    """Web pages below `/console/` on the HTTP port.

    Attributes:
        public_url: address of the console's host as browsers see it, without a path.
        auth: how people are known.
        session_secret_file: a file with at least 32 random bytes; replicas share it.
        session_s: after this time people sign in again.
        four_eyes_severities: a suspected concept of these severities needs two approvals, by
            different people.
        max_approval_s: longest life of an approval.
        sensitive_categories: no page ever shows a reference picture of concepts of these.
        edit_concepts: whether concepts may be added, changed and retired in the browser; needs a
            library of your own, `library`, that the server may write.
    """

    enabled: bool = False
    public_url: str = ""
    auth: Literal["oidc", "proxy", "demo"] = "oidc"
    oidc: OidcSection | None = None
    proxy: ProxySection = ProxySection()
    roles: RolesSection = RolesSection()
    session_secret_file: Path | None = None
    session_s: PositiveSeconds = 8 * 3600.0
    four_eyes_severities: frozenset[Severity] = frozenset({"high", "critical"})
    max_approval_s: PositiveSeconds = 90 * 86400.0
    sensitive_categories: frozenset[str] = frozenset()
    edit_concepts: bool = False

    @field_validator("public_url")
    @classmethod
    def _origin(cls, value: str) -> str:
        if not value:
            return value
        _https_or_local(value, "public_url")
        if urlsplit(value).path.strip("/") or urlsplit(value).query or urlsplit(value).fragment:
            raise ValueError(f"public_url {value} has a path; give scheme, host and port only")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.enabled:
            return self
        missing = [
            name
            for name, wanted in (
                ("public_url", not self.public_url),
                (
                    "session_secret_file",
                    self.session_secret_file is None and self.auth != "demo",
                ),
                ("oidc", self.auth == "oidc" and self.oidc is None),
            )
            if wanted
        ]
        if missing:
            raise ValueError(f"the console is enabled and needs {', '.join(missing)}")
        if not (self.roles.viewer | self.roles.reviewer | self.roles.admin):
            raise ValueError("the console is enabled, but roles names no group: nobody could enter")
        if self.edit_concepts and not self.roles.concept_editor:
            raise ValueError(
                "edit_concepts is on, but roles.concept_editor names no group: nobody could edit; "
                "name one, or leave edit_concepts out"
            )
        if self.auth == "demo" and urlsplit(self.public_url).scheme != "http":
            raise ValueError(
                f"auth is demo, and public_url {self.public_url} leads off this machine; give "
                "http://127.0.0.1 with the port of listen.http"
            )
        if self.auth == "proxy" and self.proxy.secret_file is None and self._can_be_changed:
            raise ValueError(
                "roles names reviewers, admins or concept_editors, and whatever reaches the port "
                f"from {', '.join(self.proxy.trusted_networks)} could name itself one: set "
                "proxy.secret_header and proxy.secret_file, and have the proxy send that secret; "
                "or name viewers alone"
            )
        return self

    @property
    def _can_be_changed(self) -> bool:
        """Whether anybody may do more than look."""
        return bool(self.roles.reviewer | self.roles.admin | self.roles.concept_editor)


def _https_or_local(value: str, name: str) -> str:
    """Plain HTTP would show sessions and codes to the network; on this machine there is none."""
    parts = urlsplit(value)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError(f"{name} {value!r} is not an address like https://loragate.example.com")
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise ValueError(f"{name} {value} must be https, except on localhost")
    return value.rstrip("/")
