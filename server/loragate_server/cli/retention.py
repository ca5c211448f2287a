"""`loragate-server retention`: what goes when its time is over, and what is held back."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
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
    moment,
)
from loragate_server.config.schema import Config
from loragate_server.errors import NoDecisionError

if TYPE_CHECKING:
    from loragate_server.record.database import Database
    from loragate_server.record.retention.pruner import Tally

retention = Group(no_args_is_help=True, help="What is kept for how long, and what goes.")
hold = Group(no_args_is_help=True, help="What nobody may prune, whatever its age.")
retention.add_typer(hold, name="hold")


@retention.command("plan")
def plan(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Prints what `prune` would take away now, and what is held. Takes nothing away.

    [bold]Example[/bold]

      loragate-server retention plan --config /etc/loragate.yaml
    """
    from loragate_server.app import retaining

    wanted = load(config, {"state_dir": state_dir})
    with failures():
        found = retaining.plan(wanted, datetime.now(UTC))
    _show(wanted, found.tallies, "would go")


@retention.command("prune")
def prune(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Takes away what is over, after it was archived and read again. Servers may run meanwhile.

    A running server writes its decision log alone: files of it are left to that server
    (`retention.every_s`). Exits with 1 where something was left that should have gone.

    [bold]Example[/bold]

      loragate-server retention plan && loragate-server retention prune
    """
    from loragate_server.app import retaining
    from loragate_server.intake.quarantine import QuarantineError
    from loragate_server.record.retention.archive import ArchiveError

    wanted = load(config, {"state_dir": state_dir})
    with failures():
        try:
            done = retaining.prune(wanted, datetime.now(UTC))
        except (ArchiveError, QuarantineError) as error:
            fail(f"{error}. It was left where it is.", EXIT_FAILED)
    _show(wanted, done.tallies, "went")
    if done.log_left:
        typer.echo(done.log_left, err=True)
    if done.log_left or any(one.unreadable for one in done.tallies):
        raise typer.Exit(EXIT_FOUND_WRONG)


@hold.command("place")
def hold_place(
    name: Annotated[str, typer.Argument(help="For example the number of a case.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the list.", show_default=False)],
    sha256: Annotated[str, typer.Option(help="Decisions about this file, and the file.")] = "",
    concept: Annotated[str, typer.Option(help="Decisions that suspected or found it.")] = "",
    since: Annotated[str, typer.Option(help="Decisions from this day or moment on.")] = "",
    until: Annotated[str, typer.Option(help="Decisions up to this day or moment.")] = "",
    even_if_unknown: Annotated[
        bool, typer.Option("--even-if-unknown", help="A concept that is still to come.")
    ] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Puts a hold in force, at once and for all replicas, on a file, a concept or a span of time.

    A concept that neither the library nor the record knows is refused, with the names that are
    nearest: a hold under a misspelt name would hold nothing.

    [bold]Example[/bold]

      loragate-server retention hold place case-17 --reason "letter of 3 May" --concept our-mascot
    """
    from loragate_server.record.retention.holds import Hold, HoldError, place

    wanted = load(config, {"state_dir": state_dir})
    begin, end = moment("--since", since, last=False), moment("--until", until, last=True)
    with failures(), _database(wanted) as database:
        try:
            made = Hold(name, reason, sha256.lower(), concept, begin, end)
            if concept and not even_if_unknown:
                _require_known(wanted, database, concept)
            with database.writing() as connection:
                place(connection, made, datetime.now(UTC))
        except HoldError as error:
            fail(str(error), EXIT_USAGE)
    typer.echo(f"The hold {name} on {made.kind} {made.about} is in force.")


@hold.command("release")
def hold_release(
    name: Annotated[str, typer.Argument(help="Name of the hold.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the list.", show_default=False)],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Ends a hold. It stays in the list, with the reason.

    [bold]Example[/bold]

      loragate-server retention hold release case-17 --reason "settled on 9 June"
    """
    from loragate_server.record.retention.holds import HoldError, release

    wanted = load(config, {"state_dir": state_dir})
    with failures(), _database(wanted) as database:
        try:
            with database.writing() as connection:
                release(connection, name, reason, datetime.now(UTC))
        except HoldError as error:
            fail(str(error), EXIT_USAGE)
    typer.echo(f"The hold {name} is released.")


@hold.command("list")
def hold_list(config: ConfigOption = None, state_dir: StateOption = None) -> None:
    """Lists all holds, those that were released too.

    [bold]Example[/bold]

      loragate-server retention hold list
    """
    from loragate_server.record.retention.holds import all_holds

    wanted = load(config, {"state_dir": state_dir})
    with failures(), _database(wanted) as database, database.reading() as connection:
        found = all_holds(connection)
    for one in found:
        released = (
            f"released {one.released_at:%Y-%m-%d}: {one.release_reason}"
            if one.released_at
            else "in force"
        )
        typer.echo(
            f"{one.hold.name}  {one.hold.kind} {one.hold.about}  placed {one.placed_at:%Y-%m-%d}: "
            f"{one.hold.reason}  {released}"
        )


@retention.command("unseal")
def unseal(
    sha256: Annotated[str, typer.Argument(help="Digest of the file.")],
    output: Annotated[Path, typer.Option(help="Where to write it; must not exist.")],
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Opens a file of the quarantine, for whoever has to see it. It stays in the quarantine.

    [bold]Example[/bold]

      loragate-server retention unseal 3b1f... --output evidence.safetensors
    """
    from loragate_server.adapter.reference import is_sha256
    from loragate_server.files import whole_file
    from loragate_server.intake.quarantine import QuarantineError, opened, read_key, sealed_path

    wanted = load(config, {"state_dir": state_dir})
    key_file = wanted.retention.quarantine_key_file
    if key_file is None:
        fail(
            "retention.quarantine_key_file is not set; name the key that the file was sealed with",
            EXIT_USAGE,
        )
    if output.exists():
        fail(f"{output} exists; nothing is written over", EXIT_USAGE)
    sha256 = sha256.lower()
    if not is_sha256(sha256):
        fail(f"{sha256!r} is no sha256: 64 digits 0-9 and a-f", EXIT_USAGE)
    file = sealed_path(wanted.quarantine_folder, sha256)
    if not file.exists():
        fail(f"{file.parent} has no sealed file {sha256}", EXIT_FAILED)
    with failures():
        try:
            key = read_key(key_file.expanduser())
            with whole_file(output) as partial, partial.open("xb") as plain:
                os.fchmod(plain.fileno(), 0o600)
                for chunk in opened(file, sha256, key):
                    plain.write(chunk)
        except QuarantineError as error:
            fail(str(error), EXIT_FOUND_WRONG)
    typer.echo(f"{output}: {sha256}")


def _require_known(wanted: Config, database: Database, concept: str) -> None:
    """Ends the command where nobody knows a concept of this id."""
    from loragate_server.concepts.manifest import read_manifest
    from loragate_server.record.retention.holds import concepts_on_record

    try:
        library = {entry.id for entry in read_manifest(wanted.library_folder).concepts}
        remark = ""
    except NoDecisionError as error:  # what is on record may be held all the same
        library, remark = set(), f" {error.message}"
    if concept in library:
        return
    with database.reading() as connection:
        known = library | concepts_on_record(connection)
    if concept in known:
        return
    near = difflib.get_close_matches(concept, sorted(known), n=3)
    meant = f"; did you mean {' or '.join(near)}?" if near else "."
    fail(
        f"neither the library nor the record knows a concept {concept!r}, so the hold would hold "
        f"nothing{meant} `loragate-server concepts list` shows the library; --even-if-unknown "
        f"holds one that is still to come.{remark}",
        EXIT_USAGE,
    )


@contextmanager
def _database(wanted: Config) -> Iterator[Database]:
    from loragate_server.record.database import Database
    from loragate_server.record.migrate import DEFAULT_TIMEOUT_S

    with closing(Database(wanted.database, DEFAULT_TIMEOUT_S)) as database:
        yield database


def _show(wanted: Config, tallies: Sequence[Tally], went: str) -> None:
    typer.echo(f"archive: {wanted.retention.archive or 'none; what goes is gone'}")
    for one in tallies:
        if one.before is None:
            typer.echo(f"{one.kind}: kept")
            continue
        typer.echo(
            f"{one.kind}: {one.count} {went}, {one.size_bytes} bytes; "
            f"before {one.before:%Y-%m-%d %H:%M} UTC"
        )
        for name, count in sorted(one.held.items()):
            typer.echo(f"  {count} held by {name}")
        for why, count in one.kept.items():
            if count:
                typer.echo(f"  {count} stay: {why}")
        if one.unreadable:
            typer.echo(f"  {one.unreadable} stay: nobody can read them")
