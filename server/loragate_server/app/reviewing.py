"""Reviews, what is on record as blocked, and the console, made from the configuration."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import Config, StartError
from loragate_server.errors import NoDecisionError
from loragate_server.metrics.metrics import Metrics
from loragate_server.record.follow import Follower
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews

if TYPE_CHECKING:
    from aiohttp import web

Book = TypeVar("Book", bound=Follower)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """What the console shows of what is served; both change while the server runs.

    Attributes:
        library: the library in force.
        uncalibrated: by base model the concepts that no calibration speaks for.
    """

    library: Callable[[], ConceptLibrary]
    uncalibrated: Callable[[], Mapping[str, Sequence[str]]]


async def follow(book: Book, stack: AsyncExitStack) -> Book:
    """Keeps up with what other replicas record as well; stops with the stack.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE.
    """
    await asyncio.to_thread(book.start)
    stack.push_async_callback(asyncio.to_thread, book.stop)
    return book


async def open_console(
    config: Config,
    recorder: Recorder,
    books: Sequence[Follower],
    shown: Shown,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> web.Application | None:
    """The console's pages, to be mounted; None where it is switched off.

    Args:
        config: of the server.
        recorder: whose decisions are reviewed.
        books: what has to be read again after an act of a reviewer, in this order.
        shown: what the pages are about.
        metrics: hears of every act.
        stack: closes what is opened here.

    Raises:
        StartError: it cannot be opened as it is configured.
    """
    section = config.console
    if not section.enabled:
        return None
    # What the console needs is optional, and nobody else waits for it to load.
    from loragate_server.access import make_access
    from loragate_server.console.app import console_application
    from loragate_server.console.sources import Sources

    def told(action: ReviewAction) -> None:
        metrics.review(action.value)
        try:
            for book in books:
                book.refresh()
        except NoDecisionError as error:  # the act is on record; the book reads it within seconds
            _log.warning("the review is in force within seconds: %s", error)

    rules = ReviewRules(
        frozenset(section.four_eyes_severities), timedelta(seconds=section.max_approval_s)
    )
    reviews = Reviews(recorder, rules, told=told)
    metrics.follow_open_reviews(reviews.open_count)
    try:
        access = make_access(section)
    except (ValueError, OSError, ImportError) as error:
        raise StartError(f"console: {error}") from error
    if access.first_link:
        # Not into the log, which others may read: on standard output, beside the line of "ready".
        sys.stdout.write(f"loragate-server console: {access.first_link}\n")
        sys.stdout.flush()
    await access.start()
    stack.push_async_callback(access.close)
    sources = Sources(
        recorder,
        reviews,
        shown.library,
        config.policy.expanduser(),
        shown.uncalibrated,
        section.sensitive_categories,
    )
    return console_application(sources, access)
