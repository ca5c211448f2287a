"""`loragate-server concepts`: the library of forbidden concepts and of the neutral bank."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from loragate_server.cli.bank import bank
from loragate_server.cli.group import Group
from loragate_server.cli.library_notes import (
    say_what_is_lacking,
    say_what_is_left,
    say_what_was_passed_over,
)
from loragate_server.cli.options import (
    EXIT_FAILED,
    ConfigOption,
    LibraryOption,
    StateOption,
    fail,
    failures,
    load,
    warn,
)
from loragate_server.concepts.concept import Concept, Role
from loragate_server.severity import Severity

if TYPE_CHECKING:
    from loragate_server.app.pictures import Collected
    from loragate_server.concepts.library import ConceptLibrary

concepts = Group(no_args_is_help=True, help="The library of concepts.")
concepts.command("bank")(bank)

ONE_HAND = (
    "warning: {} is shown by one hand alone. Adapters that learned it from other pictures may be "
    "missed; add it with a folder of pictures for each artist, shoot or source."
)


ALIKE = (
    "warning: {} is named like the neutral {}, which would hide it: `loragate-server concepts "
    "remove {}` and take another."
)


@concepts.command("init")
def init_library(
    folder: Annotated[Path, typer.Argument(help="Folder to make; empty or not there yet.")],
    bank: Annotated[
        bool,
        typer.Option("--bank/--no-bank", help="Copy the neutral bank of the library that ships."),
    ] = True,
) -> None:
    """Starts a library of your own, to which forbidden concepts are added.

    The neutral bank that ships is of small emoji. For a base model that draws other things, start
    with --no-bank and make another with `concepts bank`. The file library.yaml says what each of
    its keys means.

    [bold]Example[/bold]

      loragate-server concepts init /srv/concepts

      loragate-server concepts add our-mascot --library /srv/concepts mascot/comic mascot/film
    """
    from loragate_server.concepts.library import ConceptLibrary, start_library
    from loragate_server.config.schema import EMBEDDED_LIBRARY

    with failures():
        shipped = ConceptLibrary.open(EMBEDDED_LIBRARY) if bank else None
        try:
            made = start_library(folder, shipped)
        except OSError as error:
            fail(
                f"{folder} cannot be made: {error.strerror}; name a folder that is empty or not "
                "there yet",
                EXIT_FAILED,
            )
    typer.echo(f"{folder}: a library with {len(made.neutral)} neutral concepts.")
    say_what_is_lacking(made.lacking)


@concepts.command("list")
def list_concepts(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    library: LibraryOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Lists the forbidden concepts, then the neutral bank.

    [bold]Example[/bold]

      loragate-server concepts list --json | jq -r 'select(.role == "forbidden").id'
    """
    from loragate_server.app.folders import read_library

    with failures():
        wanted = load(config, {"library": library, "state_dir": state_dir})
        found = read_library(wanted.library_folder)
    every = (*found.forbidden, *found.neutral)
    if as_json:
        for concept in every:
            typer.echo(json.dumps(_facts(concept), ensure_ascii=False))
        return
    table = Table("id", "name", "category", "severity", "role", "pictures", "hands", box=None)
    for concept in every:
        facts = _facts(concept)
        table.add_row(*(str(value) for value in facts.values()))
    console = Console()
    console.print(table)
    console.print(
        f"{len(found.forbidden)} forbidden, {len(found.neutral)} neutral, "
        f"digest {found.digest[:12]}"
    )
    if found.lacking:
        say_what_is_lacking(found.lacking)


@concepts.command("add")
def add_concept(
    concept_id: Annotated[str, typer.Argument(help="Id, for example our-mascot.")],
    pictures: Annotated[
        list[str],
        typer.Argument(
            help="Pictures of the concept, or folders of them: one for each artist, shoot or "
            "source. Or addresses, of the kinds that intake.enabled_schemes allows.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option(help="Name for people. Default: the id.")] = "",
    category: Annotated[str, typer.Option(help="For example likeness or trademark.")] = "other",
    severity: Annotated[Severity, typer.Option(help="Graver ones get graver remedies.")] = "medium",
    role: Annotated[Role, typer.Option(help="Forbidden, or part of the bank.")] = "forbidden",
    prompt: Annotated[
        list[str] | None, typer.Option(help="What a user would write; may be repeated.")
    ] = None,
    library: LibraryOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Adds a concept. The embedded library is copied into the state directory first.

    A running server does not see it: use the ConceptService, or start the server again.

    [bold]Example[/bold]

      loragate-server concepts add our-mascot --name "Our mascot" --severity high mascot-*.png

      loragate-server concepts add our-mascot mascot/comic mascot/film mascot/toys
    """
    from loragate_server.app.folders import changeable_library
    from loragate_server.app.pictures import collect
    from loragate_server.app.state import make_state_folder
    from loragate_server.concepts.gathering import passed_over

    with failures():
        wanted = load(config, {"library": library, "state_dir": state_dir})
        collected = collect(pictures, wanted.intake)
        make_state_folder(wanted)
        before = changeable_library(wanted)
        collected = _told_once(collected, before)
        hands = tuple(one.hand for one in collected)
        changed = before.add(
            Concept(
                concept_id=concept_id,
                name=name or concept_id,
                category=category,
                severity=severity,
                role=role,
                prompts=tuple(prompt or ()),
                picture_hands=hands if any(hands) else (),
            ),
            [one.data for one in collected],
        )
        say_what_was_passed_over(passed_over([Path(one) for one in pictures if "://" not in one]))
    typer.echo(f"Added {concept_id}; the library's digest is now {changed.digest[:12]}.")
    if len(changed.get(concept_id).hands) < 2:
        typer.echo(ONE_HAND.format(concept_id), err=True)
    _warn_of_likes(changed, concept_id)
    say_what_is_left(changed.lacking, role)


@concepts.command("remove")
def remove_concept(
    concept_id: Annotated[str, typer.Argument(help="Id, as `concepts list` shows it.")],
    library: LibraryOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Removes a concept and its pictures.

    [bold]Example[/bold]

      loragate-server concepts remove our-mascot
    """
    from loragate_server.app.folders import changeable_library
    from loragate_server.app.state import make_state_folder

    with failures():
        wanted = load(config, {"library": library, "state_dir": state_dir})
        make_state_folder(wanted)
        before = changeable_library(wanted)
        role = before.get(concept_id).role
        changed = before.remove(concept_id, usable=False)
    typer.echo(f"Removed {concept_id}; the library's digest is now {changed.digest[:12]}.")
    say_what_is_left(changed.lacking, role, removed=True)


@concepts.command("build")
def build_concepts(
    library: LibraryOption = None, config: ConfigOption = None, state_dir: StateOption = None
) -> None:
    """Builds the probes of the library for every base model, so that `serve` starts at once.

    What is built already is left alone: probes depend on base model and library only.

    [bold]Example[/bold]

      loragate-server concepts build --config /etc/loragate.yaml
    """
    from loragate_server.app.folders import open_library
    from loragate_server.app.startup import serve_bases
    from loragate_server.app.state import make_state_folder
    from loragate_server.cli.progress import progress_bars

    with failures(), progress_bars() as report:
        wanted = load(config, {"library": library, "state_dir": state_dir})
        make_state_folder(wanted)
        served = serve_bases(wanted, open_library(wanted.library_folder), report)
    for one in served:
        typer.echo(f"{one.name}: {len(one.concept_ids)} forbidden concepts are ready.")


def _warn_of_likes(library: ConceptLibrary, concept_id: str) -> None:
    """Of neutral concepts whose names are in that of a forbidden one."""
    from loragate_server.trials.nouns import without_forbidden

    added = library.get(concept_id)
    if added.role == "neutral":
        return
    names = {one.name: one.concept_id for one in library.neutral}
    for name in names.keys() - set(without_forbidden(names, [added])):
        typer.echo(ALIKE.format(concept_id, names[name], names[name]), err=True)


def _told_once(collected: Sequence[Collected], library: ConceptLibrary) -> list[Collected]:
    """The pictures without what came before; tells of those, and of references of others."""
    from loragate_server.concepts.alike import digests, owners

    known, first, kept = owners(library), dict[bytes, str](), []
    for one in collected:
        if before := first.get(one.data):
            typer.echo(f"note: left out {one.name}, the same picture as {before}", err=True)
            continue
        first[one.data] = one.name
        kept.append(one)
        every = digests(one.data, one.name)
        if other := next((known[sha256] for sha256 in every if sha256 in known), ""):
            warn([f"{one.name} is a picture of the concept {other} too, and tells neither apart"])
    return kept


def _facts(concept: Concept) -> dict[str, str | int]:
    return {
        "id": concept.concept_id,
        "name": concept.name,
        "category": concept.category,
        "severity": concept.severity,
        "role": concept.role,
        "pictures": len(concept.picture_files),
        "hands": len(concept.hands),
    }
