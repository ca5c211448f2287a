"""`loragate-server events`: what others were to be told and do not know yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.group import Group
from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    fail,
    failures,
    load,
)
from loragate_server.config.schema import Config

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from loragate_server.record.database import Database
    from loragate_server.record.outbox.letters import Choice, Key, Letter

DEFAULT_MOST = 100
PAUSE_S = 0.05
"""Between two batches, so that whoever waits for a lock gets it."""

events = Group(no_args_is_help=True, help="Events that wait for their receivers.")

IdsArgument = Annotated[
    list[str] | None, typer.Argument(help="Ids of events, as `list` shows them.")
]
ReceiverOption = Annotated[str, typer.Option(help="Only those for this receiver.")]
DeadOption = Annotated[bool, typer.Option("--dead", help="Only those that were given up.")]
AllOption = Annotated[bool, typer.Option("--all", help="Without naming ids.")]


@events.command("list")
def list_events(
    receiver: ReceiverOption = "",
    dead: DeadOption = False,
    most: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = DEFAULT_MOST,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Lists events that a receiver does not have, oldest first: those that wait, and dead letters.

    Exits with 1 where one of them is a dead letter.

    [bold]Example[/bold]

      loragate-server events list --dead
    """
    from loragate_server.record.outbox.letters import Choice, letters

    wanted = load(config, {"state_dir": state_dir})
    choice = Choice(receiver=receiver, dead=True if dead else None)
    with failures(), _database(wanted) as database, database.reading() as connection:
        found = letters(connection, choice, most + 1)
    for one in found[:most]:
        typer.echo(_as_json(one) if as_json else _line(one, wanted))
    if len(found) > most:
        typer.echo(f"... and more; --most shows more than {most}", err=True)
    if not found:
        typer.echo("Nothing waits.", err=True)
    if any(one.dead_at for one in found):
        raise typer.Exit(EXIT_FOUND_WRONG)


@events.command("retry")
def retry_events(
    ids: IdsArgument = None,
    every: AllOption = False,
    receiver: ReceiverOption = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Has events sent again as if they had never been tried; dead letters too.

    The servers send them, after a receiver that failed as soon as their pause is over: within five
    minutes, or when it asked to be left alone until (Retry-After, an hour at most). An event
    keeps its id, so that a receiver which has it can tell.

    [bold]Example[/bold]

      loragate-server events retry --all --receiver tickets
    """
    from loragate_server.record.outbox.letters import retry

    wanted = load(config, {"state_dir": state_dir})
    choice = _choice(ids, receiver, "--all" if every else "")
    count = _in_batches(
        wanted, choice, lambda one, keys: retry(one, choice, keys, datetime.now(UTC))
    )
    _told(count, "to be sent again", asked=bool(ids))


@events.command("drop")
def drop_events(
    ids: IdsArgument = None,
    every: Annotated[
        bool, typer.Option("--all-dead", help="All dead letters, without naming ids.")
    ] = False,
    receiver: ReceiverOption = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Takes events away that their receivers shall not have any more. It cannot be undone.

    What they tell of stays on record.

    [bold]Example[/bold]

      loragate-server events drop --all-dead --receiver old-tickets
    """
    from loragate_server.record.outbox.letters import drop

    wanted = load(config, {"state_dir": state_dir})
    choice = _choice(ids, receiver, "--all-dead" if every else "")
    count = _in_batches(wanted, choice, lambda one, keys: drop(one, choice, keys))
    _told(count, "dropped", asked=bool(ids))


@events.command("keys")
def show_keys(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Prints the public keys that receivers check signatures with, of all `whsk_` secrets.

    [bold]Example[/bold]

      loragate-server events keys --config /etc/loragate.yaml
    """
    wanted = load(config, {"state_dir": state_dir})
    try:
        from loragate_server.events.signing import SecretUnusableError, read_signatures
    except ImportError:
        fail("this needs the extra `events`: pip install 'loragate-server[events]'", EXIT_FAILED)
    for one in wanted.events.receivers:
        try:
            signatures = read_signatures(one.secret_file.expanduser())
        except SecretUnusableError as error:
            fail(f"{one.name}: {error}", EXIT_FAILED)
        for signature in signatures:
            typer.echo(
                f"{one.name} {signature.public_key or 'a shared secret, with no public key'}"
            )


def _choice(ids: list[str] | None, receiver: str, every: str) -> Choice:
    """What was asked for; nothing is never everything.

    Args:
        ids: of events.
        receiver: name; "" for any.
        every: the option that means all instead; "" where it was not given.
    """
    from loragate_server.record.outbox.letters import Choice

    if ids and every:
        fail(f"name ids of events or {every}, not both", EXIT_USAGE)
    if not ids and not every:
        fail("name the ids of events, as `list` shows them, or ask for all (--help)", EXIT_USAGE)
    dead = True if every == "--all-dead" else None
    return Choice(tuple(one.lower() for one in ids or ()), receiver, dead)


def _in_batches(
    wanted: Config, choice: Choice, change: Callable[[Connection, Sequence[Key]], int]
) -> int:
    """Changes what was chosen, with pauses: of SQLite there is one lock, and decisions need it."""
    from loragate_server.record.outbox.letters import walk

    count, last = 0, None
    with failures(), _database(wanted) as database:
        while True:
            with database.reading() as connection:
                keys = walk(connection, choice, last)
            if not keys:
                return count
            with database.writing() as connection:
                count += change(connection, keys)
            last = keys[-1]
            sleep(PAUSE_S)


def _told(count: int, what: str, *, asked: bool) -> None:
    typer.echo(f"{count} {what}")
    if asked and not count:
        fail("none of these events waits; `loragate-server events list` shows them", EXIT_FAILED)


def _line(one: Letter, wanted: Config) -> str:
    known = any(one.receiver == receiver.name for receiver in wanted.events.receivers)
    state = (
        f"given up {one.dead_at:%Y-%m-%d %H:%M} UTC"
        if one.dead_at
        else f"due {one.due_at:%Y-%m-%d %H:%M:%S} UTC"
        if known
        else "waits for a receiver that is not configured here"
    )
    error = f": {one.last_error}" if one.last_error else ""
    return (
        f"{one.event_id}  {one.receiver}  {one.kind}  made {one.made_at:%Y-%m-%d %H:%M:%S} UTC  "
        f"{one.attempts} attempts, {state}{error}"
    )


def _as_json(one: Letter) -> str:
    plain = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(one).items()
    }
    return json.dumps(plain)


@contextmanager
def _database(wanted: Config) -> Iterator[Database]:
    from loragate_server.record.database import Database
    from loragate_server.record.migrate import DEFAULT_TIMEOUT_S

    with closing(Database(wanted.database, DEFAULT_TIMEOUT_S)) as database:
        yield database
