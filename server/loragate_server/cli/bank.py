"""`loragate-server concepts bank`: neutral concepts, drawn by the base model or from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.options import ConfigOption, LibraryOption, StateOption, load
from loragate_server.cli.trial import (
    BaseModelOption,
    DrawStepsOption,
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
            "--from", help="Take pictures instead: a folder for each thing.", show_default=False
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
    steps: DrawStepsOption = 30,
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
    from loragate_server.app.folders import make_state_folder, own_library_folder, read_library
    from loragate_server.trials.bank import MANNERS, BankPlan
    from loragate_server.trials.drawing import DrawingSettings

    with trial_failures():
        wanted = load(config, {"library": library, "state_dir": state_dir})
        plan = BankPlan(make, pictures, tuple(prompt or MANNERS))
        make_state_folder(wanted)
        before = read_library(own_library_folder(wanted))
        if from_folder is not None:
            changed = _taken(before, from_folder)
        else:
            drawing = DrawingSettings(steps, guidance, seed)
            changed = _drawn(wanted, base_model, before, plan, drawing, nouns)
    added = len(changed.neutral) - len(before.neutral)
    typer.echo(
        f"{changed.folder}: {added} neutral concepts more, {len(changed.neutral)} in all; "
        f"the library's digest is now {changed.digest[:12]}."
    )
    if changed.lacking:
        typer.echo(f"note: the library lacks {changed.lacking} concepts still.", err=True)


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
    from loragate_server.concepts.concept import Concept
    from loragate_server.trials.bank import CATEGORY, free_nouns
    from loragate_server.trials.folders import subjects_in
    from loragate_server.trials.nouns import slug

    subjects = subjects_in(folder)
    free = free_nouns(library, tuple(subjects))
    if left := [name for name in subjects if name not in free]:
        typer.echo(
            f"note: left out, as the library has or forbids them: {', '.join(left)}", err=True
        )
    additions = []
    for name in free:
        hands = tuple(hand for _, hand in subjects[name])
        concept = Concept(
            concept_id=slug(name),
            name=name,
            category=CATEGORY,
            severity="low",
            role="neutral",
            prompts=(f"a picture of {name}",),
            picture_hands=hands if all(hands) and len(set(hands)) > 1 else (),
        )
        additions.append((concept, [path.read_bytes() for path, _ in subjects[name]]))
    return library.add_all(additions) if additions else library
