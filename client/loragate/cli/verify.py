"""`loragate verify`: whether a signed verdict allows what will be loaded, asking nobody."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from loragate import signed
from loragate._reading import read_once
from loragate.cli.exit_code import ExitCode
from loragate.cli.output import as_json, print_json, took
from loragate.cli.parser import base_digest_of_environment
from loragate.cli.settings import clock_skew
from loragate.cli.signed_options import asked_by_verify, trust_of, use_of
from loragate.cli.table import AUDIT_COLUMNS, audit_row, print_table
from loragate.files import require_plain
from loragate.reference import AdapterReference
from loragate.results import AuditResult, Mode


def verify(options: argparse.Namespace) -> ExitCode:
    """Holds the verdict against the files.

    Raises:
        SignatureRefused: it is not believed, or about another use.
        OSError: a file cannot be read.
        ValueError: an option is missing or wrong.
    """
    began = time.monotonic()
    keys = trust_of(options)
    if keys is None:
        raise ValueError(
            "Whose signature is to be believed? Name the public key of the service, or its key "
            "set, with --key."
        )
    asked = asked_by_verify(options, base_digest_of_environment())
    references = [
        _reference(Path(file), use_of(options, number)) for number, file in enumerate(options.files)
    ]
    result = signed.verify(
        read_once(options.verdict), references, keys, clock_skew=clock_skew(), **asked
    )
    code = _code(result)
    if options.json:
        print_json({"file": " + ".join(options.files), **as_json(result), "exit_code": int(code)})
        return code
    print_table(
        AUDIT_COLUMNS, [audit_row(" + ".join(options.files), result, took(began))], sys.stdout
    )
    for line in _remarks(result, options):
        print(f"loragate: {line}", file=sys.stderr)
    return code


def _reference(file: Path, strengths: tuple[float | None, float | None]) -> AdapterReference:
    """The weights alone, as they will be loaded."""
    require_plain(file)
    return AdapterReference(
        data=read_once(file), strength=strengths[0], text_encoder_strength=strengths[1]
    )


def _code(result: AuditResult) -> ExitCode:
    """As of a decision, but for a pilot: what it lets in, it lets in where it is asked."""
    code = ExitCode.of(result)
    if code is ExitCode.ALLOW and result.mode is not Mode.ENFORCE:
        return ExitCode.NOT_BINDING
    return code


def _remarks(result: AuditResult, options: argparse.Namespace) -> list[str]:
    remarks = [f"signed by the key {result.signed_by}, valid until {result.expires_at}"]
    if result.mode is not Mode.ENFORCE:
        remarks.append("it is of a pilot, so no load may rest on it")
    if not (options.base_digest or options.base_model or base_digest_of_environment()):
        remarks.append(
            f"on which base model was not checked; it was decided on {result.base_model} "
            f"({result.digests.base_model}), which --base-digest would hold it to"
        )
    return remarks
