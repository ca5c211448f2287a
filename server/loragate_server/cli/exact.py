"""`loragate-server replay --exact`: a recorded decision, made again to the last bit."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from loragate_server.cli.options import EXIT_FAILED, EXIT_FOUND_WRONG, failures

if TYPE_CHECKING:
    from loragate_server.config.schema import Config

MOST_SHOWN = 20


def replay_exactly(
    config: Config, decision_id: str, policy_file: Path | None, as_json: bool
) -> None:
    """Makes a decision again and tells what is different; ends the command where anything is."""
    from loragate_server.app.exact import decide_exactly
    from loragate_server.record.database import Database
    from loragate_server.record.migrate import DEFAULT_TIMEOUT_S
    from loragate_server.record.recorder import stored_verdict

    with failures():
        with closing(Database(config.database, DEFAULT_TIMEOUT_S)) as database:
            verdict = stored_verdict(database, decision_id)
        file = policy_file or config.policy.expanduser()
        found = decide_exactly(config, verdict, file)
    if as_json:
        told = {
            "decision_id": decision_id,
            "same": found.same,
            "prevented": list(found.prevented),
            "differences": [list(one) for one in found.differences],
        }
        typer.echo(json.dumps(told))
    else:
        for line in found.prevented:
            typer.echo(f"loragate-server: {line}", err=True)
        for path, before, now in found.differences[:MOST_SHOWN]:
            typer.echo(f"loragate-server: {path}: recorded {before}, now {now}", err=True)
        if found.same:
            kind = verdict.decision.verdict.value
            typer.echo(f"{decision_id}: {kind}, the same to the last bit")
    if found.prevented:
        raise typer.Exit(EXIT_FAILED)
    if found.differences:
        raise typer.Exit(EXIT_FOUND_WRONG)
