"""Makes the parts of the server from its configuration. What blocks is plain blocking Python."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import diffusers.utils.logging
import torch
import transformers.utils.logging

from loragate_kernels.backend import BackendUnavailableError, require_backend
from loragate_kernels.compile_monitor import process_monitor
from loragate_kernels.warm_up import warm_up
from loragate_server.app.calibrating import find_calibration
from loragate_server.app.fitting import misfit, refusal
from loragate_server.audit.engine import AuditEngine, AuditSettings
from loragate_server.audit.materials import build_materials
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import BaseModelEntry, Config, StartError
from loragate_server.errors import NoDecisionError
from loragate_server.gate.bases import ServedBase
from loragate_server.gate.library import BuildEngine, serve_base
from loragate_server.models import load_base_model
from loragate_server.models.base import BaseModel
from loragate_server.models.loading import BaseModelError
from loragate_server.out_of_memory import is_out_of_memory
from loragate_server.progress import Report, Turns, silent

_log = logging.getLogger(__name__)


def quiet_libraries() -> None:
    """Keeps diffusers and transformers from drawing bars and giving hints on standard error."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def load_base(entry: BaseModelEntry) -> BaseModel:
    """Loads one configured base model.

    Raises:
        StartError: no such device, or what the folder holds cannot be served.
    """
    if entry.device.startswith("cuda") and not torch.cuda.is_available():
        raise StartError(f"base model {entry.name}: there is no CUDA device; set device: cpu.")
    try:
        return load_base_model(
            entry.folder.expanduser(),
            entry.name,
            device=entry.device,
            dtype=getattr(torch, entry.dtype),
            picture_size=(entry.picture_size,) * 2 if entry.picture_size else None,
        )
    except BaseModelError as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise StartError(_no_room(f"base model {entry.name}", entry)) from error
        raise StartError(f"base model {entry.name}: {error}") from error


def audit_settings(config: Config, entry: BaseModelEntry) -> AuditSettings:
    """How adapters are measured on one of the configured base models."""
    return AuditSettings(entry.batch_rows, config.kernel_backend, entry.held_bytes)


def engine_builder(config: Config) -> BuildEngine:
    """How to build the engine for a base model and a library, with probes cached on disk.

    A calibration that cannot be made to fit is left out with a warning: the library may have
    changed since, and audits have to go on. p-values are approximate then and nothing ends at the
    screen.
    """
    settings_of = {entry.name: audit_settings(config, entry) for entry in config.base_models}

    def build(
        base: BaseModel, library: ConceptLibrary, report: Report, turns: Turns
    ) -> AuditEngine:
        settings = settings_of[base.name]
        materials = build_materials(
            library, base, config.probe_cache, report, turns=turns, settings=config.gradients
        )
        calibration = find_calibration(config, base, materials, settings, report, turns)
        materials = replace(materials, calibration=calibration)
        return turns(lambda: AuditEngine(base, materials, settings))

    return build


def serve_bases(
    config: Config,
    library: ConceptLibrary,
    report: Callable[[str, float], None] = silent,
) -> tuple[ServedBase, ...]:
    """Loads every base model and builds its probes.

    Args:
        config: base models and kernel backend.
        library: the open concept library.
        report: told "loading NAME", "compiling kernels", "probes of NAME" and "gradients of NAME",
            and "calibrating NAME" where a calibration follows its library, with the share
            that is done. What it raises ends the work.

    Raises:
        StartError: a model, the backend or the library cannot be used.
    """
    quiet_libraries()
    _require_fitting(config, library)
    build = engine_builder(config)
    served = []
    ready: set[torch.device] = set()
    for entry in config.base_models:
        report(f"loading {entry.name}", 0.0)
        base = load_base(entry)
        if base.device not in ready:
            prepare_kernels(config.kernel_backend, base.device, report)
            ready.add(base.device)
        stage = f"materials of {entry.name}"

        def report_probes(inner: str, fraction: float, name: str = entry.name) -> None:
            report(f"{inner} {name}" if inner == "calibrating" else f"{inner} of {name}", fraction)

        try:
            one = serve_base(base, library, build, report_probes)
        except NoDecisionError as error:
            raise StartError(f"{stage}: {error}") from error
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            raise StartError(_no_room(stage, entry)) from error
        if entry.calibration is not None and not one.engine.calibrated:
            why = "it is not of this base model, library or version, as the log says"
            raise StartError(refusal(entry.name, entry.calibration, why))
        served.append(one)
    return tuple(served)


def _require_fitting(config: Config, library: ConceptLibrary) -> None:
    """Before the long work, and not after it."""
    for entry in config.base_models:
        file = entry.calibration and entry.calibration.expanduser()
        if file and (why := misfit(file, library)):
            raise StartError(refusal(entry.name, file, why))


def _no_room(what: str, entry: BaseModelEntry) -> str:
    """What an operator can do where a model, or the work with it, has no room."""
    smaller = "set dtype: bfloat16, which takes half, or " if entry.dtype == "float32" else ""
    return (
        f"{what}: there is no memory left on {entry.device}; {smaller}set a smaller batch_rows "
        f"(it is {entry.batch_rows}) or picture_size, choose a device with more memory, or end "
        "what else uses it. What is built already is kept."
    )


def prepare_kernels(backend: str, device: torch.device, report: Report = silent) -> None:
    """Compiles what audits on `device` will launch, so that no request waits for a compiler.

    From here on `process_monitor` counts what is compiled nevertheless.

    Args:
        backend: "reference" needs nothing.
        device: where a base model lies.
        report: told "compiling kernels" with the share that is done. What it raises ends the work.

    Raises:
        StartError: the backend cannot run on this device, or a kernel cannot be compiled.
    """
    try:
        require_backend(backend, device)
        if backend == "triton":
            stage = "compiling kernels"
            report(stage, 0.0)
            done = warm_up(device, report=lambda fraction: report(stage, fraction))
            process_monitor()
            if not done.interpreted:
                _log.info("%d kernels compiled in %.1f s", len(done.compiled), done.seconds)
    except BackendUnavailableError as error:
        raise StartError(f"kernel_backend: {error}") from error
