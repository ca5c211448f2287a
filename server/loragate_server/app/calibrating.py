"""Which calibration an engine gets: the file's own, one that has followed the library, or none."""

from __future__ import annotations

import logging
from pathlib import Path

from loragate_server.audit.calibration import (
    Calibration,
    CalibrationError,
    OtherFormatError,
    load_calibration,
)
from loragate_server.audit.engine import AuditSettings
from loragate_server.audit.growth import Grower
from loragate_server.audit.kept import KeptError, kept_file, open_kept
from loragate_server.audit.materials import Materials
from loragate_server.config.schema import Config, StartError
from loragate_server.gate.bases import BaseRegistry
from loragate_server.models.base import BaseModel
from loragate_server.progress import Report, Turns

_NAMED = 3

_log = logging.getLogger(__name__)


def calibration_file(config: Config, base_model: str) -> Path | None:
    """Where the calibration of a base model is read from.

    Returns:
        The configured file, whether or not it exists; else the state directory's or the embedded
        one, if there is one.
    """
    [entry] = [entry for entry in config.base_models if entry.name == base_model]
    if entry.calibration is not None:
        return entry.calibration.expanduser()
    for file in (config.own_calibration(base_model), entry.embedded_calibration):
        if file is not None and file.exists():
            return file
    return None


def find_calibration(
    config: Config,
    base: BaseModel,
    materials: Materials,
    settings: AuditSettings,
    report: Report,
    turns: Turns,
) -> Calibration | None:
    """The calibration for these materials; None, with a warning, where there is none that fits.

    One that was made with another library is made to fit by what was kept beside it. Where that
    cannot be done, the concepts that it knows stay calibrated.

    Args:
        config: where calibrations lie.
        base: the base model.
        materials: of the library as it is now.
        settings: as the engine's.
        report: told "calibrating" with the share that is done.
        turns: when the base model is free.

    Raises:
        StartError: the file is damaged.
        NoDecisionError: DISK_FULL.
    """
    file = calibration_file(config, base.name)
    if file is None:
        _log.warning("base model %s is uncalibrated: there is no calibration of it", base.name)
        return None
    try:
        made = load_calibration(file)
    except OtherFormatError as error:
        _log.warning("base model %s is uncalibrated: %s", base.name, error)
        return None
    except CalibrationError as error:
        raise StartError(f"base model {base.name}: {error}") from error
    try:
        if not made.binding.fits(materials.binding):
            made = _grown(made, file, config, base, materials, settings, report, turns)
    except CalibrationError as error:
        _log.warning("base model %s is uncalibrated: %s", base.name, error)
        return None
    return made


def uncalibrated(bases: BaseRegistry) -> dict[str, tuple[str, ...]]:
    """By base model the concepts that no calibration speaks for, as the next audit has it."""
    return {one.name: one.engine.materials.uncalibrated for one in bases.served}


def calibration_notes(bases: BaseRegistry) -> dict[str, str]:
    """The same as a sentence, for whoever asks whether the server is ready."""
    notes = {}
    for one in bases.served:
        unknown = one.engine.materials.uncalibrated
        named = ", ".join(unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        every = len(unknown) == len(one.engine.materials.forbidden)
        state = "uncalibrated" if every else f"uncalibrated: {named}{more}" if unknown else "ok"
        notes[f"calibration of {one.name}"] = state
    return notes


def _grown(
    made: Calibration,
    file: Path,
    config: Config,
    base: BaseModel,
    materials: Materials,
    settings: AuditSettings,
    report: Report,
    turns: Turns,
) -> Calibration:
    try:
        kept = open_kept(kept_file(file))
    except KeptError as error:
        made.require(materials.binding)  # says what does not fit, and raises
        raise CalibrationError(str(error)) from error
    grower = Grower(base, materials, made, kept, config.probe_cache, settings, turns)
    try:
        return grower.grow(report)
    except CalibrationError as error:
        left = grower.known()
        _log.warning(
            "base model %s: %s uncalibrated: %s",
            base.name,
            f"{', '.join(grower.missing)} is" if grower.missing else "nothing is",
            error,
        )
        return left
