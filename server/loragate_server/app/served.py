"""Tells the metrics what the server was configured with, and what it serves from then on."""

from __future__ import annotations

from loragate_kernels.compile_monitor import process_monitor
from loragate_server.app.calibrating import calibration_file
from loragate_server.config.schema import Config
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.metrics.metrics import Metrics
from loragate_server.metrics.state import CalibrationState, ServedState


def describe(config: Config, served: tuple[ServedBase, ...], metrics: Metrics) -> None:
    """Tells what stays as it is until the server ends."""
    for entry, one in zip(config.base_models, served, strict=True):
        metrics.base_model(
            one.name,
            family=one.base.family,
            digest=one.base.digest,
            device=entry.device,
            dtype=entry.dtype,
        )
    metrics.kernel_backend(config.kernel_backend, [entry.device for entry in config.base_models])
    if config.kernel_backend == "triton":
        metrics.follow_compilations(lambda: process_monitor().count)
    metrics.queue_limit(config.gate.queue_limit)
    doors = bool(config.intercept.extractors)
    metrics.fail_open("intercept_dry_run", doors and config.intercept.dry_run)
    metrics.fail_open("intercept_on_review_allow", doors and config.intercept.on_review == "allow")


def served_states(config: Config, bases: BaseRegistry) -> list[ServedState]:
    """Library and calibration of every base model, as the next audit will use them."""
    return [_state(config, one) for one in bases.served]


def _state(config: Config, one: ServedBase) -> ServedState:
    file = calibration_file(config, one.name)
    calibration = one.engine.materials.calibration
    if calibration is None:
        missing = file is None or not file.exists()
        return ServedState(one.name, one.library_digest, "missing" if missing else "stale")
    written = None
    # The file may have been taken away since: the calibration is in force nevertheless.
    if file is not None and file.exists():
        written = file.stat().st_mtime
    # Where it does not speak for every concept, somebody has to make a new one.
    state: CalibrationState = "stale" if one.engine.materials.uncalibrated else "in_force"
    return ServedState(one.name, one.library_digest, state, calibration.digest, written)
