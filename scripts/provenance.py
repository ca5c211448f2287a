"""Attests from which commit wheels, sdists and the image's lock come, and verifies it offline.

    .venv/bin/python -m scripts.provenance --key release.pem --key-id 2026-01 \
        --builder https://ci.example/loragate --source git+https://loragate.example/source
    .venv/bin/python -m scripts.provenance --verify build/dist/*.whl \
        --provenance build/supply --trust release.pub --builder https://ci.example/loragate

Making it builds the commit once more, apart, and refuses where what lies in build/dist is something
else; a tree with changes is refused as well. Bills of materials are written beside (scripts.sbom).
Each file gets FILE.intoto.json in build/supply: an in-toto statement with SLSA's provenance in a
DSSE envelope. docs/supply-chain.md says more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.lock_image import ROOT
from scripts.supply.statement import COMMIT, URI
from scripts.supply.verifying import SUFFIX, Expected, verify

EXIT_REFUSED = 1
DIST, SUPPLY = ROOT / "build" / "dist", ROOT / "build" / "supply"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 where something is refused. 2 is wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if bool(options.files) != options.verify:
        parser.error("--verify needs the files, and nothing else takes any")
    for name, kind in (("builder", URI), ("source", URI), ("commit", COMMIT)):
        given = getattr(options, name)
        if not kind.fullmatch(given) and (given or not (options.verify or name == "commit")):
            parser.error(f"--{name} {given!r} is none" if given else f"--{name} is missing")
    return (_verify if options.verify else _make)(parser, options)


def _make(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    # Only here: whoever verifies needs neither the server nor what it signs with.
    from pydantic import ValidationError

    from loragate_server.config.signing import SigningKey, SigningSection
    from loragate_server.record.signing.envelope import NotSignedError
    from scripts.supply import attesting
    from scripts.supply.bom import InvalidBomError
    from scripts.supply.building import BuildError
    from scripts.supply.closure import NotLockedError
    from scripts.supply.source import SourceError, clean_source

    try:
        key = SigningKey(
            id=options.key_id,
            file=options.key,
            uri=options.key_uri,
            public_key=options.public_key,
            pin_file=options.pin_file,
        )
    except ValidationError as error:
        said = error.errors(include_url=False)[0]
        name = f"{said['loc'][0]}: " if said["loc"] else ""
        parser.error(f"the key: {name}{said['msg'].removeprefix('Value error, ')}")
    place = options.provenance or SUPPLY
    faults = (SourceError, BuildError, NotLockedError, InvalidBomError, NotSignedError)
    try:
        # The key and the tree first: a build takes a while.
        sign = attesting.signer(SigningSection(keys=(key,)))
        source = clean_source(ROOT)
        files = attesting.built(source)
        attesting.require_built(files, options.dist)
        place.mkdir(parents=True, exist_ok=True)
        files |= attesting.bills_of(source, files, place)
        made = attesting.attested(source, files, options.builder, options.source)
        for name, payload in made.items():
            (place / name).write_bytes(sign(payload))
            print(f"{place / name}: at {source.commit}")
    except (*faults, ValueError, OSError) as error:
        return _refused(error)
    return 0


def _verify(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from loragate._signed.keys import TrustedKeys

    if not options.trust:
        parser.error("whose signature is to be believed? Name their public key with --trust")
    expected = Expected(options.builder, options.source, options.commit)
    try:
        keys = TrustedKeys(*options.trust, revoked=options.revoked_key)
        for file in options.files:
            provenance = (options.provenance or file.parent) / f"{file.name}{SUFFIX}"
            found = verify(file, provenance, keys, expected)
            origin = found.said.origin
            print(
                f"{file}: sha256 {found.said.sha256}, built by {origin.builder} from "
                f"{origin.source} at {origin.commit} ({origin.path}), signed by {found.key_id}"
            )
    except (OSError, ValueError, ImportError) as error:
        return _refused(error)
    if unnamed := [f"--{name}" for name, wanted in vars(expected).items() if not wanted]:
        print(f"provenance: not named, so not checked: {', '.join(unnamed)}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="to verify")
    parser.add_argument("--verify", action="store_true", help="verify files, asking nobody")
    parser.add_argument("--builder", default="", metavar="URI", help="who builds, or has built")
    parser.add_argument("--source", default="", metavar="URI", help="the repository")
    parser.add_argument(
        "--provenance",
        type=Path,
        metavar="DIR",
        help="folder of FILE.intoto.json (default: build/supply; to verify, beside each file)",
    )
    making = parser.add_argument_group("to make it")
    making.add_argument("--dist", type=Path, default=DIST, metavar="DIR", help="what is published")
    making.add_argument("--key-id", default="", metavar="ID", help="name of the key")
    making.add_argument("--key", type=Path, metavar="FILE", help="private key, PEM")
    making.add_argument("--key-uri", default="", metavar="URI", help="a key in a device or service")
    making.add_argument("--public-key", type=Path, metavar="FILE", help="its public half, PEM")
    making.add_argument("--pin-file", type=Path, metavar="FILE", help="PIN of the device")
    verifying = parser.add_argument_group("to verify it")
    verifying.add_argument(
        "--trust", action="append", default=[], metavar="FILE", help="public keys, PEM or a JWKS"
    )
    verifying.add_argument(
        "--revoked-key", action="append", default=[], metavar="ID", help="not to be believed"
    )
    verifying.add_argument("--commit", default="", metavar="SHA", help="that it has to be of")
    return parser


def _refused(error: Exception) -> int:
    print(f"provenance: {error}", file=sys.stderr)
    return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
