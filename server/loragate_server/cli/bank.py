"""`loragate-server concepts bank`: neutral concepts, drawn by the base model or from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.library_notes import (
    first_of,
    say_what_is_lacking,
    say_what_is_left,
    say_what_was_passed_over,
)
from loragate_server.cli.options import ConfigOption, LibraryOption, StateOption, load
from loragate_server.cli.trial import (
    BaseModelOption,
    GuidanceOption,
    NounsOption,
    entry_of,
    load_entry,
    require_one,
    trial_failures,
)

if TYPE_CHECKING:
    from loragate_server.concepts.library import ConceptLibrary
    from loragate_server.config.schema import Config
    from loragate_server.trials.bank import BankPlan
    from loragate_server.trials.drawing import DrawingSettings


def bank(
    make: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Draw until the library has so many neutral concepts; 64 serve.",
            show_default=False,
        ),
    ] = 0,
    from_folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take pictures instead: a folder for each thing. A loose picture is a thing of "
            "its own.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=1, max=64, help="Pictures of each thing that is drawn.")
    ] = 4,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Prompt with {} for the noun; several take turns. Default: a photo of {}, a "
            "drawing of {}.",
            show_default=False,
        ),
    ] = None,
    nouns: NounsOption = None,
    draw_steps: Annotated[
        int,
        typer.Option(
            "--draw-steps",
            "--steps",
            min=1,
            max=1000,
            help="Steps of the sampler for each picture.",
        ),
    ] = 30,
    guidance: GuidanceOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all pictures.")] = 0,
    base_model: BaseModelOption = "",
    library: LibraryOption = None,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Fills the neutral bank: ordinary things, with which every adapter is compared.

    Drawn by the base model itself, on the device that is configured. Pictures are kept in the state
    directory, so that a run which was interrupted goes on where it was; the library gets all
    concepts together, in the end. Nouns that are in a forbidden concept's name are left out.

    Look at the pictures before you rely on them: what nobody can recognise says nothing.

    [bold]Examples[/bold]

      loragate-server concepts bank --make 64 --config /etc/loragate.yaml

      loragate-server concepts bank --from /srv/ordinary-things --library /srv/concepts
    """
    require_one(make=make, from_=from_folder)
    from loragate_server.app.folders import changeable_library
    from loragate_server.app.state import make_state_folder
    from loragate_server.trials.bank import MANNERS, BankPlan
    from loragate_server.trials.drawing import DrawingSettings

    with trial_failures():
        wanted = load(config, {"library": library, "state_dir": state_dir})
        plan = BankPlan(make, pictures, tuple(prompt or MANNERS))
        make_state_folder(wanted)
        before = changeable_library(wanted)
        if from_folder is not None:
            changed = _taken(before, from_folder)
        else:
            drawing = DrawingSettings(draw_steps, guidance, seed)
            changed = _drawn(wanted, base_model, before, plan, drawing, nouns)
    added = len(changed.neutral) - len(before.neutral)
    typer.echo(
        f"{changed.folder}: {added} neutral concepts more, {len(changed.neutral)} in all; "
        f"the library's digest is now {changed.digest[:12]}."
    )
    if added:
        say_what_is_left(changed.lacking, "neutral")
    elif changed.lacking:
        say_what_is_lacking(changed.lacking)


def _drawn(
    config: Config,
    base_model: str,
    library: ConceptLibrary,
    plan: BankPlan,
    drawing: DrawingSettings,
    nouns: Path | None,
) -> ConceptLibrary:
    from loragate_server.cli.progress import progress_bars
    from loragate_server.trials.bank import make_bank
    from loragate_server.trials.drawing import Artist
    from loragate_server.trials.nouns import NOUNS, read_nouns

    words = read_nouns(nouns or NOUNS)
    if plan.concepts <= len(library.neutral):
        return library
    with progress_bars() as report:
        report("loading the base model", 0.0)
        base = load_entry(entry_of(config, base_model))
        artist = Artist(base, config.trial_folder / "drawn", drawing)
        return make_bank(library, artist, words, plan, report)


def _taken(library: ConceptLibrary, folder: Path) -> ConceptLibrary:
    """The library with a neutral concept for each subject of a folder."""
    from loragate_server.concepts.alike import owners
    from loragate_server.concepts.concept import Concept
    from loragate_server.concepts.gathering import passed_over
    from loragate_server.trials.bank import CATEGORY, free_nouns
    from loragate_server.trials.folders import subjects_in
    from loragate_server.trials.nouns import slug

    subjects = subjects_in(folder)
    free = free_nouns(library, tuple(subjects))
    if left := [name for name in subjects if name not in free]:
        typer.echo(
            f"note: left out, as the library has or forbids them: {', '.join(left)}", err=True
        )
    say_what_was_passed_over(passed_over([folder]))
    _say_what_is_loose([name for name in free if subjects[name][0][0].parent == folder])
    known = owners(library)
    additions = []
    for name in free:
        pictures = _unknown(subjects[name], slug(name), known)
        if not pictures:
            continue
        hands = tuple(hand for _, hand in pictures)
        concept = Concept(
            concept_id=slug(name),
            name=name,
            category=CATEGORY,
            severity="low",
            role="neutral",
            prompts=(f"a picture of {name}",),
            picture_hands=hands if all(hands) and len(set(hands)) > 1 else (),
        )
        additions.append((concept, [data for data, _ in pictures]))
    return library.add_all(additions) if additions else library


def _unknown(
    pictures: Sequence[tuple[Path, str]], own: str, known: dict[str, str]
) -> list[tuple[bytes, str]]:
    """The bytes of pictures that are no reference yet, with their hands; tells of the others.

    A neutral concept with a picture of a forbidden one would hide that.
    """
    from loragate_server.concepts.alike import digests

    found = []
    for path, hand in pictures:
        data = path.read_bytes()
        every = digests(data, str(path))
        if owner := next((known[one] for one in every if one in known), ""):
            typer.echo(f"note: left out {path}, which is a picture of {owner} already", err=True)
        else:
            found.append((data, hand))
            known |= dict.fromkeys(every, own)
    return found


def _say_what_is_loose(names: Sequence[str]) -> None:
    if names:
        what = "loose picture was" if len(names) == 1 else "loose pictures were"
        typer.echo(
            f"note: {len(names)} {what} taken as one concept each: {first_of(names)}. "
            "Pictures of one thing belong into a folder of its name.",
            err=True,
        )
