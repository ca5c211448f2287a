"""The options about signed verdicts: whose are believed, where they are kept, and `verify`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from loragate._signed.environment import (
    ACCEPT_VARIABLE,
    FILES_VARIABLE,
    REVOKED_VARIABLE,
    files_of,
    revoked_of,
)
from loragate._signed.keys import TrustedKeys
from loragate.cli import values
from loragate.cli.told import told
from loragate.reference import LOADERS, AuditOptions

VERIFY_EXAMPLES = """\
examples:
  loragate verify verdict.json --file style.safetensors --key loragate.jwks
  loragate verify verdict.json --file style.safetensors --strength 0.8 \\
      --base-digest 4f1c... --loader comfyui --key loragate.pub
  loragate verify both.json --file style.safetensors --strength 0.8 \\
      --file face.safetensors --strength 0.4 --key loragate.jwks

Asks nobody. What is not named is not checked: without --base-digest or --base-model a verdict on
any base model will do, without --loader one for any loader. Of a pilot, ALLOW leaves with 4.

"""


def add_trust(parser: argparse.ArgumentParser, flag: str = "--require-signature") -> None:
    """Whose signatures are believed."""
    group = parser.add_argument_group("signatures")
    group.add_argument(
        flag,
        dest="require_signature",
        action="append",
        default=[],
        type=values.place,
        metavar="FILE",
        help="file with public keys (PEM or a JSON Web Key Set), repeatable: believe only verdicts "
        f"that one of them has signed (default: ${FILES_VARIABLE})",
    )
    group.add_argument(
        "--revoked-key",
        action="append",
        default=[],
        type=values.place,
        metavar="ID",
        help="key that is not believed although a file holds it, by its id or fingerprint; "
        f"repeatable (default: ${REVOKED_VARIABLE})",
    )


def add_save(parser: argparse.ArgumentParser) -> None:
    """Where signed verdicts are kept."""
    parser.add_argument(
        "--save-signed",
        type=values.place,
        metavar="PLACE",
        help="keep the signed verdict in this file; in a folder, as DECISION.json",
    )


def add_accept(parser: argparse.ArgumentParser) -> None:
    """Where signed verdicts from elsewhere lie."""
    parser.add_argument(
        "--accept-signed",
        type=values.place,
        metavar="DIR",
        help="folder with signed verdicts (*.json): what one of them allows as it is asked about "
        f"here is not asked again. Needs keys and --base-digest (default: ${ACCEPT_VARIABLE})",
    )


def accepted_of(
    options: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> Path | None:
    """The folder with signed verdicts from elsewhere, of commands that accept such."""
    if not hasattr(options, "accept_signed"):
        return None
    place = options.accept_signed or environment.get(ACCEPT_VARIABLE)
    return Path(place) if place else None


def add_verify(parser: argparse.ArgumentParser) -> None:
    """The arguments of `loragate verify`."""
    parser.add_argument(
        "verdict", type=values.place, metavar="VERDICT", help="file of --save-signed"
    )
    parser.add_argument(
        "--file",
        dest="files",
        action="append",
        required=True,
        type=values.place,
        metavar="FILE",
        help="adapter that will be loaded; repeat it for all that will be active together",
    )
    for name, of in (("strength", "1"), ("text-encoder-strength", "that of --strength")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            type=values.strength,
            metavar="X",
            help=f"strength that will be used, once or for each --file (default: {of})",
        )
    parser.add_argument(
        "--base-model",
        default=os.environ.get("LORAGATE_BASE_MODEL", ""),
        metavar="NAME",
        help="base model on which it will be used (default: $LORAGATE_BASE_MODEL)",
    )
    parser.add_argument(
        "--base-digest",
        type=values.sha256,
        metavar="SHA256",
        help="digest of this base model (default: $LORAGATE_BASE_DIGEST)",
    )
    parser.add_argument(
        "--loader",
        default="",
        choices=LOADERS,
        metavar="NAME",
        help=f"what will load it ({', '.join(LOADERS)})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_trust(parser, "--key")


def trust_of(
    options: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> TrustedKeys | None:
    """The keys that options, or variables where there are none, say to believe.

    Raises:
        ValueError: they cannot be used; the message names the option or variable.
    """
    files = list(getattr(options, "require_signature", ()))
    revoked = list(getattr(options, "revoked_key", ()))
    flag = "--key" if options.command == "verify" else "--require-signature"
    name = flag if files else FILES_VARIABLE
    files, revoked = files or files_of(environment), revoked or revoked_of(environment)
    if not files:
        return None
    try:
        return TrustedKeys(*files, revoked=revoked)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"{name}: {told(error)}") from None


def use_of(options: argparse.Namespace, number: int) -> tuple[float | None, float | None]:
    """The strengths at which the file of this number will be used.

    Raises:
        ValueError: there are some, and neither one for all nor one for each.
    """
    found: list[float | None] = []
    for name in ("strength", "text_encoder_strength"):
        given = getattr(options, name)
        if len(given) not in (0, 1, len(options.files)):
            raise ValueError(
                f"--{name.replace('_', '-')} is given {len(given)} times for "
                f"{len(options.files)} files. Give it once for all, or once for each --file."
            )
        found.append(given[min(number, len(given) - 1)] if given else None)
    return found[0], found[1]


def asked_by_verify(options: argparse.Namespace, base_digest: str | None) -> AuditOptions:
    """What `verify` was told to hold a verdict against."""
    return {
        "base_model": options.base_model,
        "expected_base_digest": options.base_digest or base_digest,
        "loader": options.loader,
    }
