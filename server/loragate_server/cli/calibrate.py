"""The command `loragate-server calibrate`."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loragate_server.cli.options import (
    EXIT_FAILED,
    EXIT_FOUND_WRONG,
    EXIT_USAGE,
    ConfigOption,
    StateOption,
    fail,
    failures,
    load,
)
from loragate_server.errors import NoDecisionError

if TYPE_CHECKING:
    from loragate_server.audit.calibrate import Labelled
    from loragate_server.audit.calibration import Calibration
    from loragate_server.config.intake import IntakeSection
    from loragate_server.models.base import BaseModel

RATES = (0.10, 0.05, 0.02, 0.01)
_HEAD_BYTES = 512


def calibrate(
    harmless: Annotated[
        Path, typer.Argument(help="Folder of .safetensors files that learned no concept.")
    ],
    learned: Annotated[
        Path | None,
        typer.Option(help="CSV without header: file, concept id. Adapters that learned it."),
    ] = None,
    base_model: Annotated[str, typer.Option(help="Name; the default one when empty.")] = "",
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
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Turns harmless adapters into p-values that you can promise.

    Every adapter is audited at full strength on the base model and library in force. From then on
    `block_p_value: 0.01` in the policy means that one harmless adapter in a hundred is blocked,
    provided that those to come are like those in the folder. Take adapters that your service really
    loads: 20 are needed, and 100 let a rate of 1 % rest on counting. Forbidden
    concepts may come and go: what is kept beside the calibration makes it fit. Make a new one when
    the base model, the neutral concepts or loragate change (an old one is refused).

    With --learned, adapters that did learn a concept, clear cases end at the screen, and the table
    says how many learned ones each setting would miss.

    [bold]Examples[/bold]

      loragate-server calibrate /srv/loras/reviewed
      loragate-server calibrate reviewed --learned learned.csv --plot rates.png
    """
    labels = {} if learned is None else _labels(learned)
    if plot is not None:
        _require_drawable(plot, labels)
    if not harmless.is_dir():
        fail(f"{harmless} is no folder; name one that holds harmless adapters", EXIT_FOUND_WRONG)
    from loragate_server.app.folders import make_state_folder, served_library
    from loragate_server.app.startup import load_base, quiet_libraries
    from loragate_server.audit.calibrate import Calibrator
    from loragate_server.audit.calibration import (
        CalibrationError,
        load_calibration,
        save_calibration,
    )
    from loragate_server.audit.engine import AuditSettings
    from loragate_server.audit.kept import kept_file, save_kept
    from loragate_server.audit.materials import build_materials
    from loragate_server.cli.progress import progress_bars

    wanted = load(config, {"state_dir": state_dir})
    quiet_libraries()
    names = [entry.name for entry in wanted.base_models]
    name = base_model or names[0]
    if name not in names:
        fail(f"no base model {name!r} is configured; there are {', '.join(names)}", EXIT_FAILED)
    [entry] = [entry for entry in wanted.base_models if entry.name == name]
    with failures(), progress_bars() as report:
        make_state_folder(wanted)
        library = served_library(wanted)
        base = load_base(entry)
        quiet = _read_folder(harmless, base, wanted.intake)
        if keep:
            _require_keepable(quiet)
        loud = _read_labelled(labels, base, wanted.intake)
        materials = build_materials(
            library, base, wanted.probe_cache, report, settings=wanted.gradients
        )
        try:
            calibrator = Calibrator(base, materials, AuditSettings(backend=wanted.kernel_backend))
            made = calibrator.calibrate(quiet, loud, report)
            kept = calibrator.keep(quiet, report) if keep else {}
        except CalibrationError as error:
            fail(str(error), EXIT_FOUND_WRONG)
        target = out or wanted.own_calibration(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        save_calibration(made, target)
        made = load_calibration(target)
        save_kept(kept_file(target), made.digest, materials, kept)
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


def _require_drawable(plot: Path, labels: Mapping[Path, Sequence[str]]) -> None:
    """Ends the command where the plot could not be drawn, before the long work and not after it."""
    if not labels:
        fail("--plot draws what is missed, so it needs --learned with some adapters", EXIT_USAGE)
    from loragate_server.audit.calibration import CalibrationError
    from loragate_server.audit.rates import SUFFIXES, require_drawing

    if plot.suffix not in SUFFIXES:
        fail(f"--plot {plot} has to end with {' or '.join(SUFFIXES)}", EXIT_USAGE)
    if not plot.parent.is_dir():
        fail(f"--plot {plot}: there is no folder {plot.parent}", EXIT_USAGE)
    try:
        require_drawing()
    except CalibrationError as error:
        fail(str(error), EXIT_FAILED)


def _labels(file: Path) -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                if len(row) != 2:
                    fail(f"{file}:{number}: write `file.safetensors,concept-id`", EXIT_FOUND_WRONG)
                found.setdefault(file.parent / row[0].strip(), []).append(row[1].strip())
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {error}", EXIT_FAILED)
    return found


def _read_folder(folder: Path, base: BaseModel, settings: IntakeSection) -> list[Labelled]:
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        fail(f"{folder} holds no .safetensors file", EXIT_FOUND_WRONG)
    return [_read(file, base, (), settings) for file in files]


def _require_keepable(harmless: Sequence[Labelled]) -> None:
    """Ends the command before the long work and not after it."""
    from loragate_server.audit.factors import NotKeptError, require_keepable

    for one in harmless:
        try:
            require_keepable(one.adapter)
        except NotKeptError as error:
            fail(
                f"{error}, which cannot be kept; take it out of the folder, or give --no-keep",
                EXIT_FOUND_WRONG,
            )


def _read_labelled(
    labels: Mapping[Path, Sequence[str]], base: BaseModel, settings: IntakeSection
) -> list[Labelled]:
    return [_read(file, base, tuple(concepts), settings) for file, concepts in labels.items()]


def _read(
    file: Path, base: BaseModel, learned: tuple[str, ...], settings: IntakeSection
) -> Labelled:
    """One adapter, understood in whole: a part of a file would give numbers about a part."""
    from loragate_server.adapter.reference import StoredFile
    from loragate_server.audit.calibrate import Labelled
    from loragate_server.intake.content import refuse_by_content
    from loragate_server.intake.header import read_header
    from loragate_server.intake.reader import read_adapter
    from loragate_server.intake.weights import read_weights

    size_bytes = file.stat().st_size
    try:
        with file.open("rb") as handle:
            refuse_by_content(handle.read(_HEAD_BYTES))
            header = read_header(handle, size_bytes, settings)
            read_weights(handle, header)
            handle.seek(0)
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        read = read_adapter(StoredFile(sha256, size_bytes, file), base)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", EXIT_FAILED)
    except NoDecisionError as error:
        fail(f"{file}: {error}", EXIT_FOUND_WRONG)
    adapter = read.adapters[0]
    if not adapter.coverage.complete:
        fail(
            f"{file}: {len(adapter.coverage.unmapped)} tensors match no layer of {base.name}; "
            "take it out of the folder",
            EXIT_FOUND_WRONG,
        )
    return Labelled(adapter, learned)


def _table(made: Calibration) -> str:
    """What each setting of the policy would do to the adapters of the calibration."""
    from loragate_server.audit.rates import miss_rates

    lines = ["block_p_value  harmless blocked at most  learned missed"]
    missed = miss_rates(made, RATES)
    for rate in RATES:
        share = "unknown" if missed is None else f"{missed[rate]:.1%}"
        lines.append(f"{rate:<13g}  {rate:>23.0%}  {share:>14}")
    return "\n".join(lines)
