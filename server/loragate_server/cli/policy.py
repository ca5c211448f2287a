"""`loragate-server policy`: what a policy file says, before a server follows it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.group import Group
from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    ConfigOption,
    LibraryOption,
    StateOption,
    fail,
    load,
    warn,
)
from loragate_server.errors import NoDecisionError

if TYPE_CHECKING:
    from loragate_server.policy.policy import Policy

policy = Group(no_args_is_help=True, help="The policy file.")


@policy.callback()
def _group() -> None:
    """A group even with one command."""


@policy.command("check")
def policy_check(
    file: Annotated[Path, typer.Argument(help="The policy file.", show_default=False)],
    library: LibraryOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Says whether a policy file is valid, and if not, line by line what to mend.

    Warns of rules about concepts, categories or severities that the library does not have, of
    adapters that are on both lists, and of entries that have lapsed.

    [bold]Example[/bold]

      loragate-server policy check policy.yaml && kubectl apply ...
    """
    from loragate_server.app.preflight import rules_without_concept, unreadable_library
    from loragate_server.policy.parse import parse_policy

    wanted = load(config, {"library": library, "state_dir": state_dir})
    try:
        checked = parse_policy(file.read_bytes(), file.name)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", EXIT_FAILED)
    except NoDecisionError as error:
        fail(error.message, EXIT_FOUND_WRONG)
    if why := unreadable_library(wanted.library_folder):
        if library is not None:
            fail(why, EXIT_FAILED)
        warn([f"{why}; no rule was held against it"])
    warn(rules_without_concept(file, wanted.library_folder))
    warn(f"policy {file}: {line}" for line in idle_entries(checked, datetime.now(UTC)))
    typer.echo(f"{file}: valid, mode {checked.mode.lower()}, revision {checked.digest[:12]}")


def idle_entries(checked: Policy, now: datetime) -> Iterator[str]:
    """Entries of the lists that count for nothing, and what is to be done about each."""
    for name, entries in (("allow_sha256", checked.allow), ("deny_sha256", checked.deny)):
        for entry in entries:
            if not entry.active(now):
                yield (
                    f"{name}: {entry.sha256[:12]} ({entry.note}) lapsed after "
                    f"{entry.expires}; take it out, or give it another day"
                )
    denied = {entry.sha256 for entry in checked.deny if entry.active(now)}
    for sha256 in dict.fromkeys(one.sha256 for one in checked.allow if one.active(now)):
        if sha256 in denied:
            yield f"{sha256[:12]} is on both lists, and is denied; take it out of one of them"
