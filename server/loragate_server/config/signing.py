"""The section `signing` of the configuration: with which keys verdicts are signed, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, model_validator

from loragate_server.config.section import Section

DEFAULT_VERIFIER = "urn:loragate:verifier"

KeyId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]


class SigningKey(Section):
    """A private key, and from when until when verdicts are signed with it.

    Attributes:
        id: name of the key in signatures and in key sets; never given to another key.
        file: private key, PEM without a password: Ed25519 or ECDSA P-256.
        uri: a key that does not leave its device or service, as securesystemslib names it:
            `hsm:2?label=...`, `awskms:...`, `gcpkms:...`, `azurekms:...`, `hv:...`.
        public_key: its public half (PEM); needed beside `uri`.
        pin_file: a file that holds nothing but the PIN of the device.
        not_before: first moment at which it signs; from the beginning when not set.
        not_after: moment from which it no longer signs; never when not set.
    """

    id: KeyId
    file: Path | None = None
    uri: Annotated[str, Field(pattern=r"^([a-z][a-z0-9+.-]*:.*)?$")] = ""
    public_key: Path | None = None
    pin_file: Path | None = None
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.file is None) != bool(self.uri):
            raise ValueError(f"the key {self.id} needs either file or uri")
        if bool(self.uri) != (self.public_key is not None):
            raise ValueError(f"the key {self.id}: uri and public_key belong together")
        if self.pin_file is not None and not self.uri:
            raise ValueError(f"the key {self.id} has a pin_file, which is for keys with a uri")
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise ValueError(f"the key {self.id} ends (not_after) before it begins (not_before)")
        return self


class SigningSection(Section):
    """Every verdict is signed where there are keys. Needs the extra `signing`.

    Every key within its time signs, so that during a change of keys those who know only the old one
    and those who know only the new one both find a signature that they trust.

    Attributes:
        verifier: name of this service in what it signs, a URI.
    """

    keys: tuple[SigningKey, ...] = ()
    verifier: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$", max_length=512)] = (
        DEFAULT_VERIFIER
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        ids = [key.id for key in self.keys]
        if len(set(ids)) != len(ids):
            raise ValueError(f"keys has an id twice: {', '.join(sorted(ids))}")
        return self
