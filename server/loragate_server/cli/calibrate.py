"""The command `loragate-server calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.adapters import (
    files_in,
    keep_before,
    once_each,
    read_folder,
    read_kept,
    read_labelled,
    read_one,
    require_apart,
    require_keepable_ones,
)
from loragate_server.cli.calibrate_checks import (
    labels_in,
    require_concepts,
    require_drawable,
    require_enough,
    require_training_for_its_options,
    require_what_again_needs,
)
from loragate_server.cli.options import (
    EXIT_FOUND_WRONG,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    fail,
    failures,
    load,
    make_folders,
    warn,
)
from loragate_server.cli.trial import (
    PROMPT,
    BaseModelOption,
    BatchOption,
    Choices,
    DrawStepsOption,
    EstimateOption,
    NounsOption,
    PicturesOption,
    PromptOption,
    RateOption,
    StepsOption,
    SubjectsOption,
    entry_of,
    load_entry,
    say_estimate,
    say_what_is_learned,
    trial_failures,
)

if TYPE_CHECKING:
    from loragate_server.audit.calibrate import Labelled
    from loragate_server.audit.calibration import Calibration
    from loragate_server.concepts.library import ConceptLibrary
    from loragate_server.config.schema import Config
    from loragate_server.models.base import BaseModel
    from loragate_server.trials.school import Class

RATES = (0.10, 0.05, 0.02, 0.01)
MOST_DIGITS = 7
"""Of a number of adapters; what has more is a file."""


def calibrate(
    context: typer.Context,
    harmless: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of adapters that learned no concept: .safetensors and .sft files in it "
            "and below it. Not needed with --train or --again.",
            show_default=False,
        ),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option(
            help="A calibration of before: measure the harmless adapters again that were kept "
            "beside it. No file is fetched.",
            metavar="FILE",
        ),
    ] = None,
    train: Annotated[
        int, typer.Option(min=0, help="Train so many harmless adapters on this base model.")
    ] = 0,
    learned: Annotated[
        str,
        typer.Option(
            help="Adapters that learned a concept: a number to train, or a CSV without header: "
            "file, concept id.",
            metavar="NUMBER|FILE",
        ),
    ] = "",
    base_model: BaseModelOption = "",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: where the server looks for it."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="With --learned: draw false blocks against misses, as .png or .svg."),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            help="Keep what is needed of the harmless adapters for concepts that come later: about "
            "half a byte for each of their numbers."
        ),
    ] = True,
    subjects: SubjectsOption = None,
    pictures: PicturesOption = None,
    nouns: NounsOption = None,
    prompt: PromptOption = PROMPT,
    draw_steps: DrawStepsOption = 30,
    steps: StepsOption = 0,
    learning_rate: RateOption = 0.0,
    batch: BatchOption = 0,
    estimate: EstimateOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Turns harmless adapters into p-values that you can promise.

    Every adapter is audited at full strength on the base model and library in force. From then on
    `block_p_value: 0.01` in the policy means that one harmless adapter in a hundred is blocked,
    provided that those to come are like those in the folder. Take adapters that your service really
    loads: 20 are needed, and 100 let a rate of 1 % rest on counting. Forbidden
    concepts may come and go: what is kept beside the calibration makes it fit. Make a new one when
    the base model, the neutral concepts or loragate change (an old one is refused). After an
    upgrade of loragate, --again measures the same harmless adapters by what was kept of them.

    Who has none trains them: --train lets the base model learn things that nobody forbids, beside
    those of the folder if there is one. Each adapter is kept in the state directory, so that a run
    that was interrupted goes on where it was.

    With --learned, adapters that did learn a concept, clear cases end at the screen, and the table
    says how many learned ones each setting would miss.

    [bold]Examples[/bold]

      loragate-server calibrate /srv/loras/reviewed
      loragate-server calibrate --train 150 --learned 40 --config /etc/loragate.yaml
      loragate-server calibrate reviewed --learned learned.csv --plot rates.png
      loragate-server calibrate --again state/calibrations/NAME.json --learned learned.csv
    """
    counted = learned.isascii() and learned.isdigit() and len(learned) < MOST_DIGITS
    to_learn = int(learned) if counted else 0
    labels = labels_in(Path(learned)) if learned and not counted else {}
    if harmless is None and not train and again is None:
        fail("name a folder of harmless adapters, or a number to --train, or --again", EXIT_USAGE)
    if estimate and not train and not to_learn:
        fail("--estimate is about what is trained; give --train or a number", EXIT_USAGE)
    if not train and not to_learn:
        require_training_for_its_options(context)
    if plot is not None:
        require_drawable(plot, bool(labels or to_learn))
    if harmless is not None and not harmless.is_dir():
        fail(f"{harmless} is no folder; name one that holds harmless adapters", EXIT_FOUND_WRONG)
    files = [] if harmless is None else files_in(harmless)
    if harmless is not None and not files:
        fail(f"{harmless} holds no .safetensors file", EXIT_FOUND_WRONG)
    choices = Choices(subjects, pictures, nouns, prompt, draw_steps, steps, learning_rate, batch)
    choices.require_usable()
    wanted = load(config, {"state_dir": state_dir})
    entry = entry_of(wanted, base_model)
    target = out or entry.calibration or wanted.own_calibration(entry.name)
    target = target.expanduser()
    if target.is_dir():
        fail(
            f"{target} is a folder; name the file to write, such as {target / 'made.json'}",
            EXIT_USAGE,
        )
    if again is not None:
        require_what_again_needs(again, keep, learned)
    else:
        require_enough(len(files), train)
    make_folders(wanted, target.parent, "--out")
    from loragate_server.app.folders import served_library
    from loragate_server.app.startup import audit_settings
    from loragate_server.audit.calibrate import Calibrator
    from loragate_server.audit.calibration import (
        CalibrationError,
        load_calibration,
        save_calibration,
    )
    from loragate_server.audit.kept import kept_file, save_kept
    from loragate_server.audit.materials import build_materials
    from loragate_server.cli.progress import progress_bars

    with trial_failures(), progress_bars() as report:
        library = served_library(wanted)
        base = load_entry(entry)
        quiet = [] if harmless is None else read_folder(harmless, base, wanted.intake)
        before_now: list[Labelled] = []
        if again is not None:
            before_now = read_kept(again, base)
        if keep:
            require_keepable_ones(quiet)
        require_enough(len(once_each([*quiet, *before_now])), train)
        require_concepts(labels, library)
        loud = read_labelled(labels, base, wanted.intake)
        known = {one.adapter.sha256: file for file, one in zip(labels, loud, strict=True)}
        require_apart(quiet, known)
        enrolled = _enrol(wanted, base, library, choices, (train, to_learn))
        if estimate and enrolled is not None:
            say_estimate(enrolled)
            return
        materials = build_materials(
            library, base, wanted.probe_cache, report, settings=wanted.gradients
        )
        for one in enrolled.train(report) if enrolled else ():
            group = loud if one.learned else quiet
            group.append(read_one(one.file, base, one.learned, wanted.intake))
            if one.learned:
                known[group[-1].adapter.sha256] = one.file
        require_apart(quiet, known)
        # what was trained before comes once more; what was kept is rounded, and gives way to it
        quiet = once_each([*quiet, *before_now])
        try:
            calibrator = Calibrator(base, materials, audit_settings(wanted, entry))
            made = calibrator.calibrate(quiet, loud, report)
            kept = calibrator.keep(quiet, report) if keep else {}
        except CalibrationError as error:
            fail(str(error), EXIT_FOUND_WRONG)
        before = keep_before(target)
        save_calibration(made, target)
        made = load_calibration(target)
        save_kept(kept_file(target), made.digest, materials, kept)
    _warn_of_what_stands_out(made)
    typer.echo(_table(made))
    if plot is not None:
        from loragate_server.audit.rates import draw_rates

        with failures():
            draw_rates(made, plot)
        typer.echo(f"drawn in {plot}")
    typer.echo(f"{target}: {len(made.harmless)} harmless adapters, {len(made.learned)} learned")
    if keep:
        size_mb = kept_file(target).stat().st_size / 1e6
        typer.echo(f"{kept_file(target)}: {size_mb:.1f} MB, for concepts that come later")
    if before is not None:
        typer.echo(f"{before}: the one of before, which can go when this one serves")


def _enrol(
    config: Config,
    base: BaseModel,
    library: ConceptLibrary,
    choices: Choices,
    numbers: tuple[int, int],
) -> Class | None:
    """What is to be trained; None where nothing is."""
    from loragate_server.trials.nouns import Part
    from loragate_server.trials.school import enrol

    harmless, learned = numbers
    if not harmless and not learned:
        return None
    enrolled = enrol(
        base,
        library,
        config.trial_folder,
        Part.CALIBRATE,
        choices.settings(),
        harmless=harmless,
        learned=learned,
    )
    say_what_is_learned(enrolled)
    return enrolled


def _warn_of_what_stands_out(made: Calibration) -> None:
    from loragate_server.audit.promise import standing_out

    warn(
        f"among the harmless adapters {one.sha256[:12]} (its sha256) stands out by "
        f"{one.concept_id}, p {one.p_value:.1g} among the others: look at its pictures. Where they "
        "show the concept, take it out and calibrate again, for with it no adapter as grave is "
        "blocked"
        for one in standing_out(made.harmless, made.learned)
    )


def _table(made: Calibration) -> str:
    """What each setting of the policy would do to the adapters of the calibration."""
    from loragate_server.audit.rates import miss_rates

    lines = ["block_p_value  harmless blocked at most  learned missed"]
    missed, least = miss_rates(made, RATES), 1 / (len(made.harmless) + 1)
    for rate in RATES:
        share = "unknown" if missed is None else f"{missed[rate]:.1%}"
        promised = f"{rate:.0%}" if rate >= least else f"{rate:.0%} (extrapolated)"
        lines.append(f"{rate:<13g}  {promised:>23}  {share:>14}")
    if min(RATES) < least:
        lines.append(
            f"{len(made.harmless)} harmless adapters promise no less than {least:.1%}; what is "
            "below that is extrapolated"
        )
    return "\n".join(lines)
