"""Whether a calibration can fit, as far as it shows without the base model."""

from __future__ import annotations

from pathlib import Path

import torch

from loragate_server.audit.calibration import (
    FORMAT_VERSION,
    Calibration,
    CalibrationError,
    OtherFormatError,
    load_calibration,
)
from loragate_server.audit.evidence import MEASURED_AS
from loragate_server.audit.kept import KeptError, kept_file, open_kept
from loragate_server.audit.materials import GENERIC, Materials
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.gradients import ConceptGradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.plan import GradientPlan
from loragate_server.concepts.probes import ProbePlan, ProbeSet, bank_of


def misfit(file: Path, library: ConceptLibrary) -> str:
    """Why a calibration cannot fit this library; empty where nothing speaks against it yet.

    The base model, and how concepts are shown to it, are looked at when it is loaded.
    """
    try:
        made = load_calibration(file)
    except OtherFormatError:
        return f"it is of another version of loragate, whose format was not {FORMAT_VERSION}"
    except CalibrationError as error:
        return str(error)
    if made.binding.engine_version != MEASURED_AS:
        return "it is of another version of loragate, which measured otherwise"
    if made.binding.library_digest == library.digest:
        return ""
    return _cannot_follow(made, file, library)


def refusal(name: str, file: Path, why: str) -> str:
    """What an operator is told who has configured a calibration that cannot fit."""
    return (
        f"base model {name}: the calibration {file} does not fit: {why}. Make a new one with "
        "`loragate-server calibrate` (--again FILE needs no adapters, where the base model is the "
        "same), or remove the setting `calibration`."
    )


def _cannot_follow(made: Calibration, file: Path, library: ConceptLibrary) -> str:
    """Why it cannot follow a library that has changed since."""
    try:
        kept = open_kept(kept_file(file))
    except KeptError as error:
        return f"the library has changed, and {error}"
    if kept.calibration != made.digest:
        return f"the library has changed, and {kept.file} was kept beside another calibration"
    return "" if kept.bank == _bank_of(library) else "the neutral bank has changed"


def _bank_of(library: ConceptLibrary) -> str:
    """As `Materials.bank`, which asks for the concepts alone, and for no number of them."""
    plan, none = GradientPlan(), torch.empty(0)
    gradients = ConceptGradients(
        "", library.digest, plan, _shown(library, plan.plans[0]), plan.strata, {}, {}
    )
    probes = ProbeSet("", library.digest, GENERIC, _shown(library, GENERIC), none, none, none)
    return Materials(probes, gradients=gradients).bank


def _shown(library: ConceptLibrary, plan: ProbePlan) -> tuple[Concept, ...]:
    return (*library.forbidden, *bank_of(library, plan))
