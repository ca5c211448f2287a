"""`Config`: every setting of the server. `config.sources.load_config` fills it.

The sections that rooms are given lie in modules of their own, which those rooms may import.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from loragate_server.config.checkpoints import CheckpointsSection, WitnessSection
from loragate_server.config.console import ConsoleSection
from loragate_server.config.devices import AuditDevices, require_distinct
from loragate_server.config.events import EventsSection
from loragate_server.config.findings import FindingsSection
from loragate_server.config.gate import GateSection
from loragate_server.config.gradients import GradientsSection
from loragate_server.config.intake import IntakeSection
from loragate_server.config.intercept import InterceptSection
from loragate_server.config.listen import GrpcPort, is_loopback
from loragate_server.config.rest import RestSection
from loragate_server.config.retention import RetentionSection
from loragate_server.config.section import MIB, Positive, Section
from loragate_server.config.signing import SigningSection
from loragate_server.config.tracing import TracingSection

PACKAGE = Path(__file__).parent.parent
ASSETS = PACKAGE / "assets" / "emoji_tiny"
EMBEDDED_PIPELINE = ASSETS / "pipeline"
EMBEDDED_LIBRARY = ASSETS / "concepts"
EMBEDDED_CALIBRATION = EMBEDDED_PIPELINE.parent / "calibration.json"
EMBEDDED_POLICY = PACKAGE / "policy" / "default_policy.yaml"


class StartError(Exception):
    """The server cannot start as it is configured; the text says why and what can be done."""


class BaseModelEntry(Section):
    """A base model that adapters are audited on.

    Attributes:
        calibration: file made by `loragate-server calibrate`; one that does not fit is an error.
            What was kept for concepts that come later lies beside it.
            Not set: `calibrations/NAME.json` in the state directory, if there is one.
        picture_size: height and width in pixels at which concepts are shown to the model; 0: those
            that it was trained for. Half of them is a quarter of the tokens.
        batch_rows: rows of probes in a block; the base model's and the adapter's make a batch.
        held_bytes: memory of a batch's block outputs that wait to be compared together; larger
            ones are compared one by one.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    folder: Path
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    calibration: Path | None = None
    picture_size: Annotated[int, Field(ge=0, le=4096, multiple_of=8)] = 0
    batch_rows: Annotated[int, Field(ge=1, le=4096)] = 24
    held_bytes: Positive = 64 * MIB

    @property
    def embedded_calibration(self) -> Path | None:
        """The calibration that ships with the embedded base model."""
        return EMBEDDED_CALIBRATION if self.folder == EMBEDDED_PIPELINE else None


class LogSection(Section):
    """The server's own log, on standard error. The decision log is another file."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["human", "json"] = "human"


def _default_state_dir() -> Path:
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "loragate"


class Config(GrpcPort):
    """Every setting of the server. Paths may start with `~`.

    Attributes:
        library: folder of the concept library; the embedded one, copied into the state
            directory before it is first changed, when not set.
        cache_dir: probes and concept gradients; `probes` in the state directory when not set. Safe
            to share between servers and to delete.
        decision_log: JSON lines, one per decision; `decisions.jsonl` in the state directory.
        audit_devices: get every line of the decision log too.
        database_url: SQLAlchemy URL; SQLite in the state directory when empty.
        threads: of torch; 0 leaves the choice to torch.
        drain_delay_s: how long requests are still taken after a signal to stop, while the server is
            not ready any more: until whoever spreads them has taken it off its list.
        drain_grace_s: how long requests in flight may go on after a signal to stop.
    """

    base_models: tuple[BaseModelEntry, ...] = (
        BaseModelEntry(name="emoji-tiny", folder=EMBEDDED_PIPELINE),
    )
    library: Path | None = None
    policy: Path = EMBEDDED_POLICY
    state_dir: Path = Field(default_factory=_default_state_dir)
    cache_dir: Path | None = None
    database_url: str = ""
    decision_log: Path | None = None
    intake: IntakeSection = IntakeSection()
    gate: GateSection = GateSection()
    findings: FindingsSection = FindingsSection()
    gradients: GradientsSection = GradientsSection()
    intercept: InterceptSection = InterceptSection()
    console: ConsoleSection = ConsoleSection()
    rest: RestSection = RestSection()
    tracing: TracingSection = TracingSection()
    signing: SigningSection = SigningSection()
    checkpoints: CheckpointsSection = CheckpointsSection()
    witness: WitnessSection = WitnessSection()
    retention: RetentionSection = RetentionSection()
    events: EventsSection = EventsSection()
    audit_devices: AuditDevices = ()
    kernel_backend: Literal["reference", "triton"] = "reference"
    reflection: bool = False
    log: LogSection = LogSection()
    threads: Annotated[int, Field(ge=0)] = 0
    drain_delay_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    drain_grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [entry.name for entry in self.base_models]
        if not names:
            raise ValueError("base_models is empty; there is nothing to audit adapters on")
        if len(set(names)) != len(names):
            raise ValueError(f"base_models names a model twice: {', '.join(sorted(names))}")
        require_distinct(self.audit_devices)
        self._require_guarded()
        if self.intercept.http and not (
            self.insecure_off_loopback or self.tokens or is_loopback(self.listen.http)
        ):
            raise ValueError(
                f"intercept.http answers checks on {self.listen.http}, which is not on loopback, "
                "and needs tokens; insecure_off_loopback: true overrides this"
            )
        if self.console.enabled and self.console.edit_concepts and self.library is None:
            raise ValueError(
                "console.edit_concepts changes a library of your own, never the one that ships: "
                "make one with `loragate-server concepts init FOLDER`, and set library: FOLDER"
            )
        if self.console.enabled and self.console.auth == "demo":
            self._require_demo_here()
        for name, relay in self.intercept.relays.items():
            if not (self.insecure_off_loopback or self.tokens or is_loopback(relay.listen)):
                raise ValueError(
                    f"intercept.relays.{name} listens on {relay.listen}, which is not on loopback, "
                    "and needs tokens; insecure_off_loopback: true overrides this"
                )
        return self

    def _require_demo_here(self) -> None:
        """No option lets a console without sign-in be reached from elsewhere."""
        if not is_loopback(self.listen.http):
            raise ValueError(
                f"console.auth is demo, and listen.http is {self.listen.http}; a console that "
                "nobody signs in to listens on loopback alone, such as 127.0.0.1:9464"
            )

    @property
    def library_folder(self) -> Path:
        """The configured library, else the operator's copy, else the embedded one."""
        if self.library is not None:
            return self.library.expanduser()
        return self.own_library if self.own_library.exists() else EMBEDDED_LIBRARY

    @property
    def own_library(self) -> Path:
        """Where the embedded library is copied before it is first changed."""
        return self.state_folder / "library"

    @property
    def store_folder(self) -> Path:
        """Where intake keeps the files that it has taken in."""
        return self.state_folder / "store"

    @property
    def quarantine_folder(self) -> Path:
        """Where blocked files lie encrypted, if `retention.blocked_uploads` says so."""
        return self.state_folder / "quarantine"

    @property
    def probe_cache(self) -> Path:
        """Where probes and gradients are kept, absolute."""
        return (self.cache_dir or self.state_folder / "probes").expanduser().absolute()

    def own_calibration(self, base_model: str) -> Path:
        """Where `loragate-server calibrate` leaves the calibration of a base model."""
        return self.state_folder / "calibrations" / f"{base_model.replace('/', '--')}.json"

    @property
    def trial_folder(self) -> Path:
        """Where pictures and adapters are kept that base models made for calibration and tests."""
        return self.state_folder / "trials"

    @property
    def state_folder(self) -> Path:
        """The state directory, absolute."""
        return self.state_dir.expanduser().absolute()

    @property
    def decision_log_file(self) -> Path:
        """The decision log, absolute."""
        chosen = self.decision_log or self.state_folder / "decisions.jsonl"
        return chosen.expanduser().absolute()

    @property
    def device_folder(self) -> Path:
        """Where it is kept how far audit devices have come."""
        return self.state_folder / "devices"

    @property
    def tree_folder(self) -> Path:
        """The tree of the decision log, beside it."""
        log = self.decision_log_file
        return log.with_name(f"{log.name}.tree")

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.state_folder / 'loragate.sqlite3'}"
