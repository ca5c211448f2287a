"""Reviews, what is on record as blocked, and the console, made from the configuration."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.manifest import FILE_NAME
from loragate_server.config.schema import PACKAGE, Config, StartError
from loragate_server.errors import NoDecisionError
from loragate_server.gate.library import LibraryKeeper
from loragate_server.metrics.metrics import Metrics
from loragate_server.record.follow import Follower
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews

if TYPE_CHECKING:
    from aiohttp import web

    from loragate_server.console.editing import Editing

Book = TypeVar("Book", bound=Follower)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """What the console shows of what is served; both change while the server runs.

    Attributes:
        library: the library in force.
        uncalibrated: by base model the concepts that no calibration speaks for.
        editor: changes the library; None for as long as the server cannot decide.
    """

    library: Callable[[], ConceptLibrary]
    uncalibrated: Callable[[], Mapping[str, Sequence[str]]]
    editor: Callable[[], LibraryKeeper | None]


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
        _editing(config, recorder, shown) if section.edit_concepts else None,
    )
    return console_application(sources, access)


def _editing(config: Config, recorder: Recorder, shown: Shown) -> Editing:
    """Makes changes of the library that people agree on in the console.

    Raises:
        StartError: the library is not the operator's own, or cannot be written.
    """
    from loragate_server.console.editing import Editing
    from loragate_server.record.changes.changes import ConceptChanges

    folder = config.library_folder.resolve()
    if config.library is None or folder.is_relative_to(PACKAGE.resolve()):
        raise StartError(
            "console.edit_concepts changes a library of your own, never the one that ships: make "
            "one with `loragate-server concepts init FOLDER`, and set library: FOLDER"
        )
    for needed in (folder, folder / FILE_NAME):
        if not os.access(needed, os.W_OK):
            raise StartError(
                f"console.edit_concepts: {needed} cannot be written by this server; give it to the "
                "server's user, or set console.edit_concepts to false"
            )
    return Editing(ConceptChanges(recorder), shown.library, shown.editor)
