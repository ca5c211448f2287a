"""The command `loragate-server evaluate`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    fail,
    load,
    make_folders,
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
    from loragate_server.audit.engine import AuditEngine
    from loragate_server.config.schema import Config
    from loragate_server.policy.policy import Policy
    from loragate_server.trials.evaluation import Basis, Evaluation, Rate
    from loragate_server.trials.school import Class

JSON_NAME = "evaluation.json"


def evaluate(
    out: Annotated[
        Path, typer.Option(help=f"Folder to write evaluation.LANGUAGE.html and {JSON_NAME} into.")
    ] = Path("evaluation"),
    learned: Annotated[
        int, typer.Option(min=0, help="Adapters to train for each forbidden concept.")
    ] = 3,
    harmless: Annotated[int, typer.Option(min=0, help="Harmless adapters to train.")] = 60,
    base_model: BaseModelOption = "",
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
    """Measures your own error rates: how many are found, and how many are blocked by mistake.

    Trains adapters on pictures that had no part in the calibration, has them judged by the
    calibration and the policy in force, and writes a page to show to others, with an interval for
    every rate. Each adapter is kept, so that a run which was interrupted goes on where it was.

    Exits with 1 where more harmless adapters are blocked than the policy promises and chance
    explains.

    [bold]Examples[/bold]

      loragate-server evaluate --config /etc/loragate.yaml

      loragate-server evaluate --learned 5 --harmless 100 --pictures more-of-each-concept
    """
    if not learned and not harmless:
        fail("there is nothing to measure; give --learned or --harmless", EXIT_USAGE)
    wanted = load(config, {"state_dir": state_dir})
    entry = entry_of(wanted, base_model)
    choices = Choices(subjects, pictures, nouns, prompt, draw_steps, steps, learning_rate, batch)
    choices.require_usable()
    if out.exists() and not out.is_dir():
        fail(f"--out {out} is a file; name a folder for the pages", EXIT_USAGE)
    make_folders(wanted, None if estimate else out, "--out")
    from loragate_server.app.calibrating import calibration_file
    from loragate_server.app.folders import served_library
    from loragate_server.app.startup import engine_builder
    from loragate_server.cli.progress import progress_bars
    from loragate_server.progress import at_once
    from loragate_server.trials.evaluation import Evaluation
    from loragate_server.trials.judging import judge_all
    from loragate_server.trials.nouns import Part
    from loragate_server.trials.school import enrol

    with trial_failures(), progress_bars() as report:
        policy = _policy(wanted)
        if calibration_file(wanted, entry.name) is None and not estimate:
            _fail_uncalibrated(entry.name)  # before hours, and not after them
        library = served_library(wanted)
        base = load_entry(entry)
        enrolled = enrol(
            base,
            library,
            wanted.trial_folder,
            Part.EVALUATE,
            choices.settings(),
            harmless=harmless,
            learned=learned * len(library.forbidden),
        )
        enrolled = enrolled.each_taught(learned)
        say_what_is_learned(enrolled)
        if estimate:
            say_estimate(enrolled)
            return
        engine = engine_builder(wanted)(base, library, report, at_once)
        _require_calibrated(engine, entry.name)
        trained = enrolled.train(report)
        judged = judge_all(engine, policy, trained, wanted.intake.loaders, report)
        made = Evaluation(_basis(engine, policy, enrolled), judged)
        files = _write(made, out)
    _say(made, files)
    if made.promise_holds is False:
        raise typer.Exit(EXIT_FOUND_WRONG)


def _policy(config: Config) -> Policy:
    from loragate_server.policy.parse import parse_policy

    file = config.policy.expanduser()
    return parse_policy(file.read_bytes(), file.name)


def _fail_uncalibrated(name: str) -> NoReturn:
    fail(
        f"base model {name} has no calibration that fits; make one with `loragate-server "
        "calibrate --train 150 --learned 40`",
        EXIT_FAILED,
    )


def _require_calibrated(engine: AuditEngine, name: str) -> None:
    if not engine.calibrated:
        _fail_uncalibrated(name)
    if unknown := engine.materials.uncalibrated:
        fail(
            f"the calibration of {name} does not know {', '.join(unknown)}; make a new one with "
            "`loragate-server calibrate`",
            EXIT_FAILED,
        )


def _basis(engine: AuditEngine, policy: Policy, enrolled: Class) -> Basis:
    from loragate_server.audit.evidence import ENGINE_VERSION
    from loragate_server.trials.evaluation import Basis

    calibration = engine.materials.calibration
    assert calibration is not None  # noqa: S101 - required before
    kept = enrolled.kept
    every = tuple(one.concept_id for one in enrolled.library.forbidden)
    return Basis(
        base_model=engine.base.name,
        base_digest=engine.base.digest,
        library_digest=enrolled.library.digest,
        calibration_digest=calibration.digest,
        calibration_size=len(calibration.harmless),
        policy_digest=policy.digest,
        engine_version=ENGINE_VERSION,
        promised=policy.defaults.block_p_value,
        missing=every if kept is None else tuple(kept.missing(enrolled.library)),
        steps=enrolled.plan.steps,
        at=datetime.now(UTC),
    )


def _write(made: Evaluation, out: Path) -> list[Path]:
    """The page in every language, and the numbers."""
    from loragate_server.files import whole_file
    from loragate_server.trials.page import EVALUATION, render

    contents = {JSON_NAME: json.dumps(made.facts(), ensure_ascii=False, indent=1) + "\n"}
    for language in EVALUATION.languages:
        contents[f"evaluation.{language}.html"] = render(made, language)
    for name, text in contents.items():
        with whole_file(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return [out / name for name in contents]


def _say(made: Evaluation, files: list[Path]) -> None:
    for row in made.by_concept:
        typer.echo(f"{row.concept_id}: blocked {_shown(row.blocked)}")
    typer.echo(f"learned a concept, blocked: {_shown(made.found.blocked)}")
    typer.echo(f"learned a concept, blocked or left to a person: {_shown(made.found.stopped)}")
    promised = made.basis.promised
    told = "no rate is promised" if promised is None else f"promised {promised:.1%}"
    typer.echo(f"harmless, blocked: {_shown(made.false_blocks)}; {told}")
    typer.echo(f"harmless, blocked or left to a person: {_shown(made.false_stops)}")
    typer.echo(f"written: {', '.join(map(str, files))}")


def _shown(rate: Rate) -> str:
    if not rate.of:
        return "none was tried"
    low, high = rate.bounds
    return f"{rate.value:.1%} ({rate.count} of {rate.of}; {low:.1%} to {high:.1%})"
