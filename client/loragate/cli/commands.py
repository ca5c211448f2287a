"""What each command does."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from loragate._reading import NotAFileError, read_once
from loragate.cli.caches import cache
from loragate.cli.completion import script
from loragate.cli.doctor import doctor
from loragate.cli.exit_code import ExitCode
from loragate.cli.gate_dir import gate_dir
from loragate.cli.near_miss import explain_near_misses
from loragate.cli.output import (
    Explainer,
    as_json,
    error_as_json,
    pilot_note,
    print_json,
    took,
)
from loragate.cli.parser import asked_of
from loragate.cli.saving import SignedPlace
from loragate.cli.scan import scan
from loragate.cli.settings import make_client
from loragate.cli.table import (
    AUDIT_COLUMNS,
    FINDING_COLUMNS,
    audit_row,
    error_row,
    finding_row,
    print_table,
    printable,
    verdict,
)
from loragate.cli.told import short
from loragate.client import AuditClient
from loragate.errors import AuditError
from loragate.reference import AdapterKind, AdapterReference, AuditOptions, as_reference
from loragate.results import AuditResult, LeftOut, Verdict


def run(options: argparse.Namespace) -> ExitCode:
    """Runs the command that was asked for."""
    commands: dict[str, Callable[[AuditClient, argparse.Namespace], ExitCode]] = {
        "audit": _audit,
        "get": _get,
        "list": _list,
        "concepts": _concepts,
        "gate-dir": gate_dir,
    }
    alone = _ALONE.get(options.command)
    if alone is not None:
        return alone(options)
    with make_client(options) as client:
        return commands[options.command](client, options)


def _completion(options: argparse.Namespace) -> ExitCode:
    sys.stdout.write(script(options.shell))
    return ExitCode.ALLOW


def _verify(options: argparse.Namespace) -> ExitCode:
    from loragate.cli.verify import verify

    return verify(options)


_ALONE: dict[str, Callable[[argparse.Namespace], ExitCode]] = {
    "scan": scan,
    "doctor": doctor,
    "cache": cache,
    "completion": _completion,
    "verify": _verify,
}
"""Commands that need no service."""


def _audit(client: AuditClient, options: argparse.Namespace) -> ExitCode:
    rows, codes, results = [], [], []
    explainer, asked = Explainer(), asked_of(options)
    alone = options.files and not options.together
    uses = [[file] for file in options.files] if alone else [options.files]
    place = SignedPlace(options.save_signed, several=len(uses) > 1)
    for files in uses:
        name = " + ".join([*files, *options.embeddings])
        began = time.monotonic()
        try:
            result = _ask(client, files, options.embeddings, asked, remote=options.remote)
            place.keep(result)
        except (AuditError, OSError, ValueError) as error:
            codes.append(ExitCode.ERROR)
            rows.append(error_row(name, short(error), took(began)))
            if options.json:
                print_json({"file": name, "verdict": None, "error": error_as_json(error)})
            else:
                explainer.explain(name, error)
            continue
        results.append((name, result))
        codes.append(ExitCode.of(result))
        rows.append(audit_row(name, result, took(began)))
        if options.json:
            print_json({"file": name, **as_json(result)})
    if not options.json:
        print_table(AUDIT_COLUMNS, rows, sys.stdout)
        pilot_note(result for _, result in results)
        explain_near_misses(results)
    return ExitCode.worst(codes)


def _ask(
    client: AuditClient,
    files: list[str],
    embeddings: list[str],
    asked: AuditOptions,
    *,
    remote: bool,
) -> AuditResult:
    """One verdict over files that are active together, mostly just one."""
    if remote:
        words = [replace(as_reference(name), kind=AdapterKind.EMBEDDING) for name in embeddings]
        return client.audit([*files, *words], **asked)
    try:
        if len(files) == 1 and not embeddings:
            return client.audit_file(files[0], **asked)
        loras = [_read(file) for file in files]
        words = [replace(_read(file), kind=AdapterKind.EMBEDDING) for file in embeddings]
        return client.audit([*loras, *words], **asked)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno,
            "There is no such file on this machine (--remote has the server read one of its own)",
            error.filename,
        ) from None
    except NotAFileError as error:
        raise NotAFileError(
            f"{error} `loragate gate-dir` asks the service about a folder; `loragate scan` needs "
            "no service."
        ) from None


def _read(file: str) -> AdapterReference:
    return AdapterReference(data=read_once(file), declared_name=Path(file).name)


def _get(client: AuditClient, options: argparse.Namespace) -> ExitCode:
    place = SignedPlace(options.save_signed, several=False)
    result = client.get(options.decision_id)
    place.keep(result)
    if options.json:
        print_json(as_json(result))
    else:
        for line in _description(result):
            print(printable(line))
        rows = [finding_row(finding) for finding in result.findings]
        if rows:
            print()
            print_table(FINDING_COLUMNS, rows, sys.stdout)
        if result.left_out is not None:
            print(_left_out(result.left_out))
    return ExitCode.of(result)


def _left_out(left: LeftOut) -> str:
    score = "" if left.highest_score is None else f", the highest score {left.highest_score:.1f}"
    return f"and {left.count} more concepts that were let through{score}"


def _list(client: AuditClient, options: argparse.Namespace) -> ExitCode:
    results = islice(
        client.list(
            adapter_sha256=options.sha256 or "",
            verdict=Verdict(options.verdict) if options.verdict else None,
            service=options.service or "",
            base_model=options.base_model or "",
            since=options.since,
            before=options.before,
            page_size=min(options.limit, 100),
        ),
        options.limit,
    )
    columns = ("decision", "decided", "verdict", "concept", "adapters")
    return _print_all(results, columns, _list_row, in_json=options.json)


def _concepts(client: AuditClient, options: argparse.Namespace) -> ExitCode:
    columns = ("id", "name", "category", "severity", "role", "pictures")
    return _print_all(
        client.concepts.list(),
        columns,
        lambda c: (
            c.concept_id,
            c.name,
            c.category,
            c.severity.lower(),
            c.role.lower(),
            str(c.picture_count),
        ),
        in_json=options.json,
    )


def _print_all(
    items: Iterable[Any],
    columns: tuple[str, ...],
    row: Callable[[Any], tuple[str, ...]],
    *,
    in_json: bool,
) -> ExitCode:
    if in_json:
        for item in items:
            print_json(as_json(item) if isinstance(item, AuditResult) else asdict(item))
    else:
        print_table(columns, [row(item) for item in items], sys.stdout)
    return ExitCode.ALLOW


def _list_row(result: AuditResult) -> tuple[str, ...]:
    top = result.top_finding
    decided = result.decided_at.strftime("%Y-%m-%d %H:%M:%SZ") if result.decided_at else "-"
    return (
        result.decision_id,
        decided,
        verdict(result),
        top.concept_name if top and top.verdict is not Verdict.ALLOW else "-",
        " ".join(adapter.sha256[:12] for adapter in result.adapters),
    )


def _description(result: AuditResult) -> Iterator[str]:
    yield f"decision    {result.decision_id}"
    yield f"verdict     {result.verdict} ({result.mode.lower()})"
    if result.would_be_verdict is not result.verdict:
        yield f"would be    {result.would_be_verdict}"
    yield f"remedy      {result.remedy.lower().replace('_', ' ')}"
    yield f"base model  {result.base_model}"
    yield f"decided     {result.decided_at}, valid until {result.expires_at}"
    yield f"binding     {'yes' if result.binding else 'no, nothing may be loaded on it'}"
    if result.restricted_to:
        yield f"concepts    only {', '.join(result.restricted_to)}"
    if result.loaders:
        yield f"loaders     {', '.join(result.loaders)}"
    for adapter in result.adapters:
        yield f"adapter     {adapter.sha256} ({adapter.format}, {adapter.size_bytes} bytes)"
        if adapter.declared_name:
            yield f"called      {adapter.declared_name} (as the caller says)"
    for reason in result.reasons:
        yield f"because     {reason.message} [{reason.code}]"
