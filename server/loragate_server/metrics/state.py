"""What is in force on this replica: models, library, calibration, policy, certificate, readiness.

Replicas that should be equal are compared by these in the alerts, so what is in force may change
at run time and is asked for at every scrape.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography.x509 import load_pem_x509_certificates
from prometheus_client import Info, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from loragate_server import __version__
from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.metrics.series import Asked, Compilations, Series
from loragate_server.policy.decision import Mode
from loragate_server.policy.store import PolicyStore

CalibrationState = Literal["in_force", "stale", "missing"]
CALIBRATION_STATES: Final[tuple[CalibrationState, ...]] = ("in_force", "stale", "missing")

FAIL_OPEN_SETTINGS: Final = ("intercept_dry_run", "intercept_on_review_allow", "policy_pilot")
"""Settings that let adapters pass which a decision would have held."""

NO_ANSWER: Final = "NO_ANSWER"
RECORD_FAILURES: Final = (
    ErrorReason.DECISION_LOG_UNAVAILABLE.value,
    ErrorReason.DATABASE_UNAVAILABLE.value,
    ErrorReason.DISK_FULL.value,
    NO_ANSWER,
)
"""Why the next decision could not be written down; NO_ANSWER: log or database hang."""


@dataclass(frozen=True)
class ServedState:
    """What audits on one base model rest on now.

    Attributes:
        calibration: "stale" where there is a file that was made for something else.
        calibration_digest: sha256 of the one in force; empty without.
        calibration_unix_s: when its file was written; None without.
    """

    base_model: str
    library_digest: str
    calibration: CalibrationState
    calibration_digest: str = ""
    calibration_unix_s: float | None = None


class StateMetrics(Series):
    """Metrics that say what is in force, not what happened."""

    def __init__(self) -> None:
        super().__init__()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._make_process_metrics()
        self._make_policy_metrics()
        self._served: Callable[[], Sequence[ServedState]] = tuple
        self._collected(self._served_metrics)
        self._record: Asked[None] | None = None
        self._collected(self._record_metrics)
        self._checkpoints: Callable[[], Mapping[str, float]] = dict
        self._collected(self._checkpoint_metrics)
        self._open_reviews: Asked[float] | None = None
        self._collected(self._review_metrics)

    def base_model(self, name: str, *, family: str, digest: str, device: str, dtype: str) -> None:
        """A base model is served."""
        self._base.labels(name).info(
            {"family": family, "digest": digest[:12], "device": device, "dtype": dtype}
        )

    def kernel_backend(self, backend: str, devices: Iterable[str] = ()) -> None:
        """The kernels run on this backend, for base models on these devices."""
        self._kernel.info({"backend": backend})
        on_gpu = any(device.startswith("cuda") for device in devices)
        self._fallback.set(backend == "reference" and on_gpu)

    def follow_compilations(self, count: Callable[[], int | None]) -> None:
        """Tells how many kernels a launch had to compile, asked anew at every scrape.

        Args:
            count: the number so far; None where it cannot be known.
        """
        self._compilations.count = count

    def follow_served(self, served: Callable[[], Sequence[ServedState]]) -> None:
        """Tells library and calibration of every base model, asked anew at every scrape."""
        self._served = served

    def queue_limit(self, limit: int) -> None:
        """So many audits may wait for the worker."""
        self._queue_limit.set(limit)

    def fail_open(self, setting: str, in_force: bool) -> None:
        """Whether one of `FAIL_OPEN_SETTINGS` is in force."""
        self._fail_open.labels(setting).set(in_force)

    def follow_policy(self, policies: PolicyStore) -> None:
        """Tells which policy is in force, and whether it is the one in the file, from now on."""
        self._policy_in_force(policies.current.digest)
        policies.on_change(lambda policy: self._policy_in_force(policy.digest))
        self._reload_ok.set_function(lambda: float(policies.last_reload_success))
        self._reload_time.set_function(lambda: policies.last_reload_timestamp_s)
        self._fail_open.labels("policy_pilot").set_function(
            lambda: float(policies.current.mode is Mode.PILOT)
        )

    def _policy_in_force(self, digest: str) -> None:
        self._policy.info({"revision": digest[:12]})

    def follow_certificate(self, file: Path) -> None:
        """Tells when the certificate in `file` expires, read anew at every scrape.

        Raises:
            ValueError: there is no certificate in it now.
            OSError: it cannot be read now.
        """
        last = expires_unix_s(file)

        def read() -> float:
            nonlocal last
            # A file that is being replaced may be torn; the server keeps the old certificate too.
            with contextlib.suppress(OSError, ValueError):
                last = expires_unix_s(file)
            return last

        self._certificate.set_function(read)

    def follow_record(self, check: Callable[[], None]) -> None:
        """Tells at every scrape whether the next decision could be written down.

        Refusals alone would not do: a replica that cannot write gets no requests any more.

        Args:
            check: blocking; raises `NoDecisionError` where it could not.
        """
        self._record = Asked(check)

    def follow_checkpoints(self, behind_s: Callable[[], Mapping[str, float]]) -> None:
        """Tells at every scrape for how long lines of the log have been in no checkpoint.

        Args:
            behind_s: by who takes checkpoints; never blocks.
        """
        self._checkpoints = behind_s

    def follow_open_reviews(self, count: Callable[[], float]) -> None:
        """Tells at every scrape how many reviews wait; no value where `count` raises."""
        self._open_reviews = Asked(count)

    def ready(self, ready: bool) -> None:
        """Whether the server takes requests."""
        self._ready.set(ready)

    def _make_process_metrics(self) -> None:
        build = Info("loragate_build", "What runs here.", registry=self.registry)
        build.info(
            {
                "version": __version__,
                "engine_version": ENGINE_VERSION,
                "python_version": platform.python_version(),
            }
        )
        self._certificate = self._gauge(
            "loragate_certificate_expiry_timestamp_seconds",
            "When the certificate of the gRPC port expires; 0 without TLS.",
        )
        self._ready = self._gauge("loragate_ready", "1 while the server takes requests.")
        self._base = Info(
            "loragate_base_model", "Served base models.", ("name",), registry=self.registry
        )
        self._kernel = Info("loragate_kernel", "Backend of the kernels.", registry=self.registry)
        self._fallback = self._gauge(
            "loragate_kernel_fallback",
            "1 while base models on a GPU are audited with the reference kernels.",
        )
        self._compilations = Compilations()
        self.registry.register(self._compilations)
        self._queue_limit = self._gauge(
            "loragate_queue_limit", "Audits that may wait for the worker."
        )

    def _make_policy_metrics(self) -> None:
        self._policy = Info("loragate_policy", "The policy in force.", registry=self.registry)
        self._reload_ok = self._gauge(
            "loragate_policy_last_reload_success", "1 if the policy file in place is in force."
        )
        self._reload_time = self._gauge(
            "loragate_policy_last_reload_timestamp_seconds", "When a policy was last put in force."
        )
        self._fail_open = self._gauge(
            "loragate_fail_open_setting",
            "1 while a setting lets adapters pass that a decision would have held.",
            ("setting",),
        )
        for setting in FAIL_OPEN_SETTINGS:
            self._fail_open.labels(setting)

    def _served_metrics(self) -> Iterator[Metric]:
        library = InfoMetricFamily("loragate_library", "The concept library in force.")
        state = GaugeMetricFamily(
            "loragate_calibration_state",
            "1 for what holds: a calibration is in force, stale, or missing.",
            labels=("base_model", "state"),
        )
        calibration = InfoMetricFamily(
            "loragate_calibration", "The calibration in force.", labels=("base_model",)
        )
        written = GaugeMetricFamily(
            "loragate_calibration_timestamp_seconds",
            "When the file of the calibration in force was written.",
            labels=("base_model",),
        )
        served = self._served()
        for digest in sorted({one.library_digest for one in served}):
            library.add_metric((), {"digest": digest[:12]})
        for one in served:
            for name in CALIBRATION_STATES:
                state.add_metric((one.base_model, name), float(one.calibration == name))
            if one.calibration_digest:
                calibration.add_metric((one.base_model,), {"digest": one.calibration_digest[:12]})
            if one.calibration_unix_s is not None:
                written.add_metric((one.base_model,), one.calibration_unix_s)
        yield from (library, state, calibration, written)

    def _record_metrics(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "loragate_record_failure",
            "1 while the next decision could not be written down, by reason.",
            labels=("reason",),
        )
        failing = "" if self._record is None else _record_failure(self._record)
        for reason in RECORD_FAILURES:
            family.add_metric((reason,), float(reason == failing))
        yield family

    def _checkpoint_metrics(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "loragate_checkpoint_behind_seconds",
            "For how long the decision log has had lines that no checkpoint taken there holds.",
            labels=("taker",),
        )
        for taker, seconds in self._checkpoints().items():
            family.add_metric((taker,), seconds)
        yield family

    def _review_metrics(self) -> Iterator[Metric]:
        count = None if self._open_reviews is None else self._open_reviews.known()
        yield GaugeMetricFamily(
            "loragate_reviews_open", "Reviews that wait for a person.", value=count
        )


def _record_failure(record: Asked[None]) -> str:
    """The value of `reason` that holds now; empty where all is well."""
    try:
        record.answer()
    except TimeoutError:
        return NO_ANSWER
    except NoDecisionError as error:
        return error.reason.value if error.reason.value in RECORD_FAILURES else NO_ANSWER
    except Exception:  # whatever it is, nothing could be written
        return NO_ANSWER
    return ""


def expires_unix_s(file: Path) -> float:
    """When the first certificate of a PEM file expires.

    Raises:
        ValueError: there is no certificate in it.
        OSError: it cannot be read.
    """
    return load_pem_x509_certificates(file.read_bytes())[0].not_valid_after_utc.timestamp()
