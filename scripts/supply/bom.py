"""Bills of materials: CycloneDX 1.6 as JSON, the same bytes for the same input."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from scripts.supply.assets import MODEL, OURS, AssetFile, PictureSet
from scripts.supply.closure import Package

VERSION = SchemaVersion.V1_6
LEFT_OUT_ON_CPU = "triton"
"""The image for a CPU takes it out again; the one for a GPU needs it."""

_LICENCES = LicenseFactory()
_NO_NUMBER = UUID(int=0)


class InvalidBomError(Exception):
    """What was made is no bill of materials by the schema; the text says where."""


def made(
    subject: Component, parts: Sequence[Component], needs: dict[str, tuple[str, ...]], epoch: int
) -> bytes:
    """The bill of one thing.

    Args:
        subject: what is described.
        parts: all that belongs to it.
        needs: name of a package to the names of those that it demands.
        epoch: seconds since 1970, the only moment that is in it.

    Raises:
        InvalidBomError: the schema has it otherwise.
    """
    bom = Bom(serial_number=_NO_NUMBER)
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.metadata.component = subject
    for part in parts:
        bom.components.add(part)
    by_name = {one.name: one for one in (subject, *parts)}
    for name, component in by_name.items():
        bom.register_dependency(component, [by_name[each] for each in needs.get(name, ())])
    text = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string(indent=1) + "\n"
    # By its content: the same bill has the same number, and another one another.
    number = uuid5(NAMESPACE_URL, hashlib.sha256(text.encode()).hexdigest())
    text = text.replace(str(_NO_NUMBER), str(number), 1)
    if fault := JsonStrictValidator(VERSION).validate_str(text):
        raise InvalidBomError(str(fault))
    return text.encode()


def package(one: Package) -> Component:
    """A package from an index, with the digests of the files that it may be installed from."""
    url = PackageURL("pypi", name=one.name, version=one.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(url.to_string()),
        comment="each file that may be installed",
        hashes=[_sha256(each) for each in one.hashes],
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=one.name,
        version=one.version,
        bom_ref=url.to_string(),
        purl=url,
        scope=ComponentScope.OPTIONAL if one.name == LEFT_OUT_ON_CPU else ComponentScope.REQUIRED,
        licenses=licences(one.licence),
        external_references=[files] if one.hashes else [],
        properties=[] if one.locked else [_property("locked", "false")],
    )


def subject(name: str, version: str, wheel_sha256: str = "") -> Component:
    """What a bill is about: a wheel, or the environment of the image."""
    url = None if name == "image" else PackageURL("pypi", name=name, version=version)
    return Component(
        type=ComponentType.APPLICATION,
        name="loragate-image" if url is None else name,
        version=version,
        bom_ref=url.to_string() if url else f"loragate-image@{version}",
        purl=url,
        licenses=licences(OURS),
        hashes=[_sha256(wheel_sha256)] if wheel_sha256 else [],
    )


def model(version: str, digest: str, files: Iterable[AssetFile]) -> Component:
    """The embedded base model, with each of its files."""
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=MODEL,
        version=version,
        bom_ref=f"{MODEL}@{version}",
        description="The embedded base model, trained on renderings of Noto Color Emoji (NOTICE)",
        licenses=licences(OURS),
        hashes=[_sha256(digest)],
        properties=[_property("digest", "over names, sizes and bytes: base_digest in verdicts")],
        components=[asset(one) for one in files],
    )


def asset(one: AssetFile) -> Component:
    """A file that is no code."""
    return Component(
        type=ComponentType.FILE,
        name=one.path,
        bom_ref=one.path,
        licenses=licences(OURS),
        hashes=[_sha256(one.sha256)],
    )


def pictures(one: PictureSet, version: str) -> Component:
    """The reference pictures of one artist."""
    return Component(
        type=ComponentType.DATA,
        name=f"{MODEL}-pictures-{one.hand}",
        version=version,
        bom_ref=f"{MODEL}-pictures-{one.hand}@{version}",
        description=f"{one.count} renderings of {one.artwork} in the embedded concept library",
        licenses=licences(one.licence),
        hashes=[_sha256(one.sha256)],
        properties=[_property("digest", "over the lines of sha256sum, sorted by path")],
    )


def licences(text: str) -> list:  # type: ignore[type-arg]  # of what the library takes
    """An expression or an id of SPDX where it is one, else a name."""
    if not text:
        return []
    declared = LicenseAcknowledgement.DECLARED
    return [_LICENCES.make_from_string(text, license_acknowledgement=declared)]


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _property(name: str, value: str) -> Property:
    return Property(name=f"loragate:{name}", value=value)
