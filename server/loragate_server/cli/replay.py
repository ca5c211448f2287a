"""`loragate-server replay`: what another policy would have said about recorded decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.exact import replay_exactly
from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    fail,
    failures,
    load,
    moment,
)
from loragate_server.errors import NoDecisionError

if TYPE_CHECKING:
    from loragate_server.policy.policy import Policy

MOST_LISTED = 50
_ROWS_WORTH_A_BAR = 1000


def replay(
    policy_file: Annotated[
        Path | None,
        typer.Option("--policy", help="Policy file to decide with.", show_default=False),
    ] = None,
    exact: Annotated[
        str, typer.Option(help="Make this one decision again, from the stored bytes.")
    ] = "",
    since: Annotated[
        str, typer.Option(help="First day (2026-11-01, UTC) or moment (2026-11-01T09:00+09:00).")
    ] = "",
    until: Annotated[str, typer.Option(help="Last day, or the moment to stop before.")] = "",
    service: Annotated[str, typer.Option(help="Only what this service asked.")] = "",
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also try several settings of block_p_value.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help=f"List all changes, not the newest {MOST_LISTED}.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Decides recorded decisions again under another policy, and shows what would change.

    It uses the evidence in the database: nothing is audited or written, and the server may run.

    Dry runs are left out, and decisions whose evidence was pruned. A pilot ends with this command:
    it tells how much would be blocked.

    Exit code 1: some decisions could not be read and are named; the others were counted.

    With --exact ID one decision is made again under its own policy (--policy, or the configured
    one), audit and all, and compared to the last bit. Exit code 1: it is another one; 3: it cannot
    be the same here, and the reasons are named.

    [bold]Examples[/bold]

      loragate-server replay --policy stricter.yaml
      loragate-server replay --policy pilot.yaml --since 2026-11-01 --until 2026-11-30 --sweep
      loragate-server replay --exact 0192f3c8a1b27c3d8e4f5a6b7c8d9e0f
      loragate-server replay --policy stricter.yaml --service image-api --json | jq .would_block
    """
    from loragate_server.cli.replay_output import as_object, show
    from loragate_server.record.database import Database, Span
    from loragate_server.record.migrate import DEFAULT_TIMEOUT_S
    from loragate_server.replay import replay as decide_again

    wanted = load(config, {"state_dir": state_dir})
    if exact:
        replay_exactly(wanted, exact, policy_file, as_json)
        return
    if policy_file is None:
        fail("name the policy to decide with by --policy, or one decision by --exact", EXIT_USAGE)
    policy, swept = _policies(policy_file, sweep)
    span = Span(moment("--since", since, False), moment("--until", until, True), service)
    if span.since is not None and span.until is not None and span.since >= span.until:
        fail("--until is not later than --since", EXIT_USAGE)
    with (
        failures(),
        closing(Database(wanted.database, DEFAULT_TIMEOUT_S)) as database,
        _progress(database.count(span)) as step,
    ):
        if left_out := database.count_pruned(span):
            typer.echo(f"left out: {left_out} decisions whose evidence was pruned", err=True)
        most = None if every else MOST_LISTED
        tally = decide_again(database, span, policy, swept, most, step)
    settings = tuple(setting for setting, _ in swept)
    if as_json:
        typer.echo(as_object(tally, policy, settings))
    else:
        show(tally, policy, settings)
    if tally.undecodable:
        _name_undecodable(tally.undecodable, every)
        raise typer.Exit(EXIT_FOUND_WRONG)


def _policies(file: Path, sweep: bool) -> tuple[Policy, list[tuple[float, Policy]]]:
    from loragate_server.policy.parse import parse_policy
    from loragate_server.replay import SWEPT_P_VALUES, with_block_p_value

    try:
        data = file.read_bytes()
        policy = parse_policy(data, file.name)
        settings = SWEPT_P_VALUES if sweep else ()
        return policy, [(setting, with_block_p_value(data, setting)) for setting in settings]
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", EXIT_FAILED)
    except NoDecisionError as error:
        fail(error.message, EXIT_USAGE)


@contextmanager
def _progress(rows: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error; none where it would be gone before it is seen."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=rows < _ROWS_WORTH_A_BAR) as progress:
        task = progress.add_task("decisions", total=rows)
        yield lambda: progress.advance(task)


def _name_undecodable(ids: list[str], every: bool) -> None:
    shown = ids if every else ids[:MOST_LISTED]
    typer.echo(f"loragate-server: decisions that cannot be read: {len(ids)}", err=True)
    for decision_id in shown:
        typer.echo(f"  {decision_id}", err=True)
    if len(ids) > len(shown):
        typer.echo(f"  and {len(ids) - len(shown)} more; --all names them", err=True)
