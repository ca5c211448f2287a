"""Events, made from the configuration. What they need is an extra, and nobody else loads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from loragate_server.config.schema import Config, StartError

if TYPE_CHECKING:  # a look at the configuration asks this module, and needs no database
    from loragate_server.metrics.metrics import Metrics
    from loragate_server.record.database import Database
    from loragate_server.record.outbox.announcer import Announcer

NEEDS_EXTRA = "events.receivers needs the extra `events`: pip install 'loragate-server[events]'"


def make_announcer(config: Config) -> Announcer | None:
    """Who writes events beside what is recorded; None where nobody is told.

    Raises:
        StartError: the extra `events` is not installed.
    """
    if not config.events.receivers:
        return None
    try:
        from loragate_server.events.announcing import EventAnnouncer
    except ImportError as error:
        raise StartError(NEEDS_EXTRA) from error
    return EventAnnouncer(config.events, _console_url(config))


def open_events(
    config: Config,
    database: Database,
    metrics: Metrics,
    uncalibrated: Callable[[], Mapping[str, Sequence[str]]],
    stack: AsyncExitStack,
) -> None:
    """Begins to bring events to their receivers; ends with the stack, before the database.

    Args:
        config: of the server.
        database: of the record.
        metrics: hear of every attempt.
        uncalibrated: by base model the concepts that no calibration speaks for.
        stack: closes what is opened here.

    Raises:
        StartError: a file of secrets cannot be used.
    """
    if not config.events.receivers:
        return
    from loragate_server.events.announcing import EventAnnouncer
    from loragate_server.events.calibration import CalibrationWatch
    from loragate_server.events.dispatcher import Dispatcher

    if found := list(secret_problems(config)):
        raise StartError("\n".join(found))
    announcer = EventAnnouncer(config.events, _console_url(config))
    watch = CalibrationWatch(database, announcer, uncalibrated, lambda: datetime.now(UTC))
    metrics.follow_events(
        {one.name: [kind.value for kind in one.kinds] for one in config.events.receivers},
        lambda: _backlogs(database),
    )
    dispatcher = Dispatcher(config.events, database, metrics, watch)
    dispatcher.start()
    stack.push_async_callback(asyncio.to_thread, dispatcher.close)


def secret_problems(config: Config) -> Iterator[str]:
    """One line for each receiver whose file of secrets cannot be used."""
    from loragate_server.events.signing import SecretUnusableError, read_signatures

    for one in config.events.receivers:
        try:
            read_signatures(one.secret_file.expanduser())
        except SecretUnusableError as error:
            yield f"events.receivers: {one.name}: secret_file: {error}"


def _console_url(config: Config) -> str:
    return config.console.public_url if config.console.enabled else ""


def _backlogs(database: Database) -> dict[str, tuple[float, int, int]]:
    """By receiver: seconds since the oldest undelivered event was made, how many wait, are dead."""
    from loragate_server.record.outbox.letters import backlogs

    now = datetime.now(UTC)
    with database.reading() as connection:
        found = backlogs(connection)
    return {
        name: (
            max(0.0, (now - one.oldest_at).total_seconds()) if one.oldest_at else 0.0,
            one.waiting,
            one.dead,
        )
        for name, one in found.items()
    }
