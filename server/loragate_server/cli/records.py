"""Database and decision log, looked after by hand."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from loragate_server.cli.checkpoints import is_written
from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    ConfigOption,
    StateOption,
    fail,
    failures,
    load,
)

MOST_LISTED = 50


def revision(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Prints the revision of the tables, and the one that this version works with.

    Exits with 1 where they differ.

    [bold]Example[/bold]

      loragate-server db revision --config /etc/loragate.yaml
    """
    from loragate_server.record.migrate import known_revisions, revision_of

    wanted = load(config, {"state_dir": state_dir})
    with failures():
        found = revision_of(wanted.database)
    own = known_revisions()[-1]
    typer.echo(f"tables {found or 'none'}, this version {own}")
    if found != own:
        raise typer.Exit(EXIT_FOUND_WRONG)


def downgrade(
    to: Annotated[str, typer.Argument(help="Revision of the older version.", show_default=False)],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Takes the tables back for an older version. No server may run meanwhile.

    The older version names its revision when it refuses tables that are newer. What stood in
    columns that it does not know may be lost: make a backup before.

    [bold]Example[/bold]

      loragate-server db downgrade 0006
    """
    from loragate_server.record.migrate import downgrade as take_back

    wanted = load(config, {"state_dir": state_dir})
    if is_written(wanted.decision_log_file):
        fail(
            f"a server writes {wanted.decision_log_file}; stop all servers of this database first",
            EXIT_FAILED,
        )
    with failures():
        take_back(wanted.database, to)
    typer.echo(f"The tables are those of revision {to}.")


def reconcile(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="The log of each replica. Default: the configured one."),
    ] = None,
    put_back: Annotated[
        bool, typer.Option("--fill", help="Put into the database what stands in the log only.")
    ] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Compares the decision log with the database, and names what stands in one of them only.

    Servers may run meanwhile, but for --fill, which is for a database from a backup. Where replicas
    share a database, name the logs of all of them; rotated files beside a log are read too. Exits
    with 1 where something differs.

    [bold]Example[/bold]

      loragate-server log reconcile replica-*/decisions.jsonl
    """
    from loragate_server.app.announcing import make_announcer
    from loragate_server.record.database import Database
    from loragate_server.record.fill import fill
    from loragate_server.record.migrate import DEFAULT_TIMEOUT_S
    from loragate_server.record.reconcile import reconcile as compare
    from loragate_server.record.rotation import files_of

    wanted = load(config, {"state_dir": state_dir})
    logs = files or [wanted.decision_log_file]
    chosen = list(dict.fromkeys(one for log in logs for one in files_of(log)))
    with (
        failures(),
        closing(Database(wanted.database, DEFAULT_TIMEOUT_S, make_announcer(wanted))) as database,
    ):
        try:
            found = compare(database, chosen)
            if put_back:
                count = fill(database, chosen, found.differences)
                typer.echo(f"{count} put into the database")
                found = compare(database, chosen)
        except ValueError as error:
            fail(f"{error}; `loragate-server log verify` tells more", EXIT_FAILED)
    for one in found.differences[:MOST_LISTED]:
        where = "differs" if one.where == "both" else f"in the {one.where} only"
        typer.echo(f"{one.kind} {one.id}: {where}", err=True)
    if (more := len(found.differences) - MOST_LISTED) > 0:
        typer.echo(f"... and {more} more", err=True)
    typer.echo(
        f"{found.equal} equal, {found.thinned} with their evidence pruned, "
        f"{found.pruned} pruned on one side, {found.not_answered} noted as not answered, "
        f"{len(found.differences)} different"
    )
    if found.differences:
        raise typer.Exit(EXIT_FOUND_WRONG)
