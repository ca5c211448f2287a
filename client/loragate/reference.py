"""What to audit: a place on the server, or bytes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TypedDict

INLINE_LIMIT_BYTES = 3 * 1024 * 1024
"""Bytes that fit into one message beside everything else; more go by upload."""

ASK_FIRST_BYTES = 64 * 1024
"""From this size on the SDK first asks by digest: most loads are of adapters known already."""

LOADERS = ("diffusers", "peft", "comfyui", "a1111", "sglang", "vllm-omni")
"""What a service can judge for. "a1111" stands for Forge and SD.Next, too."""

_SHA256 = re.compile("[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Whether a text is a hexadecimal sha256, in small letters or large ones."""
    return _SHA256.fullmatch(text.lower()) is not None


class AdapterKind(StrEnum):
    """What a file is: a LoRA, or the embedding of a new word (a textual inversion)."""

    LORA = "LORA"
    EMBEDDING = "EMBEDDING"


@dataclass(frozen=True)
class AdapterReference:
    """One adapter, and how strongly it will be used. Exactly one source is set.

    Attributes:
        path: path on the server's file system, inside one of its roots.
        uri: "hf://owner/name", "https://...", "s3://bucket/key"; where the server enables it.
        data: the whole safetensors file.
        weight_name: file inside a repository or folder.
        revision: commit or tag of a hub repository.
        expected_sha256: digest that the bytes must have; None to accept any.
        strength: strength for the denoiser; None for 1.
        text_encoder_strength: strength for the text encoders; None for `strength`.
        kind: what the file is; one of another kind is refused. An embedding has no strength; asked
            about beside LoRAs, it is taken for their trigger.
        declared_name: how your users call it, at most 256 letters, for people who read the
            decision; "" for the name of the file, where there is one.
    """

    path: str | None = None
    uri: str | None = None
    data: bytes | None = field(default=None, repr=False)
    weight_name: str | None = None
    revision: str | None = None
    expected_sha256: str | None = None
    strength: float | None = None
    text_encoder_strength: float | None = None
    kind: AdapterKind = AdapterKind.LORA
    declared_name: str = ""

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.path, self.uri, self.data)) != 1:
            raise ValueError("An AdapterReference has exactly one of path, uri and data.")

    @cached_property
    def sha256(self) -> str:
        """Digest that the answer has to name; empty where any will do."""
        if self.data is not None:
            return hashlib.sha256(self.data).hexdigest()
        return (self.expected_sha256 or "").lower()

    @property
    def strengths(self) -> tuple[float, float]:
        """Strengths for the denoiser and the text encoders, as the service reads what is open."""
        denoiser = 1.0 if self.strength is None else float(self.strength)
        text_encoder = self.text_encoder_strength
        return denoiser, denoiser if text_encoder is None else float(text_encoder)


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | AdapterReference
"""A path or URI on the server, the bytes of a file, or a full reference."""


class AuditOptions(TypedDict, total=False):
    """What `audit`, `audit_file` and `watch` take by keyword, in both clients.

    Attributes:
        base_model: name of a served base model; empty for the server's default.
        expected_base_digest: digest that the base model must have on which the service decides,
            as `Digests.base_model` has it; None to accept any.
        loader: name of the loader that will load the adapters, one of `LOADERS`: the verdict has
            to speak for it. Empty where that is not known.
        strength: strength for the denoiser of every LoRA that names none itself.
        text_encoder_strength: likewise for the text encoders; None for `strength`.
        expected_sha256: digest that the bytes of the one adapter must have.
        dry_run: decide, but do not record a binding decision.
        concept_ids: restrict the audit to these concepts; empty for the whole library.
        request_id: the caller's own id for the decision log; made up where empty.
        timeout: seconds for the whole call with all its attempts.
    """

    base_model: str
    expected_base_digest: str | None
    loader: str
    strength: float | None
    text_encoder_strength: float | None
    expected_sha256: str | None
    dry_run: bool
    concept_ids: Sequence[str]
    request_id: str
    timeout: float | None


_SHA256 = re.compile("[0-9a-f]{64}")
_OPTIONS = AuditOptions.__optional_keys__


def as_reference(source: Source) -> AdapterReference:
    """Reads a source: text with "://" is a URI, other text a path on the server.

    Raises:
        TypeError: not a source.
    """
    if isinstance(source, AdapterReference):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return AdapterReference(data=bytes(source))
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        return AdapterReference(uri=text) if "://" in text else AdapterReference(path=text)
    raise TypeError(
        "An adapter is a path or URI on the server, bytes or an AdapterReference, "
        f"not {type(source).__name__}."
    )


def references_with(
    adapters: Source | Sequence[Source], options: AuditOptions
) -> tuple[AdapterReference, ...]:
    """Reads one source or several; the options fill what a source leaves open.

    Raises:
        TypeError: not a source, or an option that does not exist.
        ValueError: no source at all, or one digest for several sources.
    """
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise TypeError(f"There is no option {unknown[0]!r}; there are {sorted(_OPTIONS)}.")
    if isinstance(adapters, Sequence) and not isinstance(
        adapters, str | bytes | bytearray | memoryview
    ):
        several: Sequence[Source] = adapters
    else:
        several = (adapters,)
    if not several:
        raise ValueError("There is no adapter to audit.")
    if options.get("expected_sha256") is not None and len(several) > 1:
        raise ValueError("expected_sha256 is for one adapter; put digests into AdapterReferences.")
    return tuple(_filled(as_reference(source), options) for source in several)


def _filled(reference: AdapterReference, options: AuditOptions) -> AdapterReference:
    """The reference with the options that it leaves open. What it says itself stands."""
    own = reference
    if not options.keys() & {"strength", "text_encoder_strength", "expected_sha256"}:
        return own  # itself, with the digest that it may have been asked for before
    digest = own.expected_sha256 or options.get("expected_sha256")
    if own.kind is AdapterKind.EMBEDDING:
        return replace(own, expected_sha256=digest)
    return replace(
        own,
        strength=options.get("strength") if own.strength is None else own.strength,
        text_encoder_strength=(
            options.get("text_encoder_strength")
            if own.text_encoder_strength is None
            else own.text_encoder_strength
        ),
        expected_sha256=digest,
    )


def is_large(references: Sequence[AdapterReference]) -> bool:
    """Whether the bytes have to be uploaded.

    Raises:
        ValueError: they do, but there are several adapters, and an upload carries one.
    """
    inline = sum(len(reference.data or b"") for reference in references)
    if inline > INLINE_LIMIT_BYTES and len(references) > 1:
        raise ValueError(
            f"Several adapters in one audit may have at most {INLINE_LIMIT_BYTES} bytes inline, "
            f"not {inline}. Put them where the server can read them and pass paths or URIs."
        )
    return inline > INLINE_LIMIT_BYTES


def checked_digest(digest: str | None) -> str | None:
    """The digest of a base model that a caller insists on, in lower case; None where he does not.

    Raises:
        ValueError: it is no sha256.
    """
    if not digest:
        return None
    if not is_sha256(digest):
        raise ValueError(f"The digest of a base model is a hexadecimal sha256, not {digest!r}.")
    return digest.lower()
