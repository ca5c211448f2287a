"""`Config`: every setting of the server. `config_sources.load_config` fills it.

The schema is closed: an unknown key is an error, so that a misspelt limit cannot pass for a set
one.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from loragate_server.config.console import ConsoleSection
from loragate_server.config.tracing import TracingSection

PACKAGE = Path(__file__).parent.parent
ASSETS = PACKAGE / "assets" / "emoji_tiny"
EMBEDDED_PIPELINE = ASSETS / "pipeline"
EMBEDDED_LIBRARY = ASSETS / "concepts"
EMBEDDED_CALIBRATION = EMBEDDED_PIPELINE.parent / "calibration.json"
EMBEDDED_POLICY = PACKAGE / "policy" / "default_policy.yaml"

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

Permission = Literal["audit", "read", "concepts", "check", "scores"]
Loader = Literal["diffusers", "peft", "comfyui", "a1111", "sglang", "vllm-omni"]
Positive = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ExtractorName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StartError(Exception):
    """The server cannot start as it is configured; the text says why and what can be done."""


def split_address(address: str) -> tuple[str, int]:
    """Splits `host:port` or `[ipv6]:port`.

    Raises:
        ValueError: no host, no port, or a port beyond 65535.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not an address like 127.0.0.1:50051")
    return host, int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach `address`."""
    if address.startswith("unix:"):
        return True
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Listen(_Section):
    """Where the server listens. Port 0 lets the system choose.

    Attributes:
        max_concurrent_calls: gRPC calls beyond are refused at once.
        connection_age_s: age at which a client connects anew, so that it finds new replicas.
    """

    grpc: str = "127.0.0.1:50051"
    http: str = "127.0.0.1:9464"
    max_concurrent_calls: Positive = 512
    connection_age_s: PositiveSeconds | None = None

    @field_validator("grpc")
    @classmethod
    def _grpc_address(cls, value: str) -> str:
        if value.startswith("unix:"):
            if not value.removeprefix("unix:"):
                raise ValueError("a unix address needs a path: unix:/run/loragate.sock")
            return value
        split_address(value)
        return value

    @field_validator("http")
    @classmethod
    def _http_address(cls, value: str) -> str:
        split_address(value)
        return value


class Tls(_Section):
    """Certificates of the gRPC port; read again when the files change.

    Attributes:
        client_ca: when set, every client has to show a certificate signed by it.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


class Token(_Section):
    """A bearer token, known only by its sha256, and what its holder may do."""

    name: str = Field(min_length=1, max_length=128)
    sha256: Sha256
    permissions: frozenset[Permission] = frozenset({"audit", "read"})


class Peer(_Section):
    """What the holder of a client certificate may do, where that differs from a token's default.

    Attributes:
        identity: SPIFFE id, else subject alternative name, else common name.
    """

    identity: str = Field(min_length=1, max_length=512)
    permissions: frozenset[Permission]


class BaseModelEntry(_Section):
    """A base model that adapters are audited on.

    Attributes:
        calibration: file made by `loragate-server calibrate`; one that does not fit is an error.
            Not set: `calibrations/NAME.json` in the state directory, if there is one.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    folder: Path
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    calibration: Path | None = None

    @property
    def embedded_calibration(self) -> Path | None:
        """The calibration that ships with the embedded base model."""
        return EMBEDDED_CALIBRATION if self.folder == EMBEDDED_PIPELINE else None


class IntakeSection(_Section):
    """Which files may come in, how large they may be, and who loads them.

    Attributes:
        loaders: the loaders that verdicts have to speak for. Where they read the same bytes
            otherwise, every reading is audited and the gravest stands.
    """

    loaders: Annotated[tuple[Loader, ...], Field(min_length=1)] = get_args(Loader)
    roots: tuple[Path, ...] = ()
    enabled_schemes: frozenset[Literal["hf", "https", "http", "s3"]] = frozenset()
    fetch_timeout_s: PositiveSeconds = 60.0
    store_limit_bytes: Positive = 20 * GIB
    scrub_interval_s: PositiveSeconds = 86_400.0
    max_file_bytes: Positive = 2 * GIB
    max_header_bytes: Positive = 8 * MIB
    max_tensors: Positive = 20_000
    max_name_length: Positive = 512
    max_metadata_bytes: Positive = MIB


class GateSection(_Section):
    """How much work may wait, and how many verdicts are remembered."""

    queue_limit: Positive = 64
    byte_budget: Positive = 4 * GIB
    verdict_cache_size: Annotated[int, Field(ge=0)] = 10_000
    stuck_after_s: PositiveSeconds = 300.0


class ExtractorEntry(_Section):
    """How the requests of one image server are read.

    Attributes:
        kind: which image server it is.
        settings: what the kind can be told.
    """

    kind: str = Field(min_length=1, max_length=64)
    settings: dict[str, Any] = {}


class InterceptSection(_Section):
    """The doors for proxies that ask before they pass a request on.

    Attributes:
        extractors: by the name that proxies and metrics use.
        default_extractor: for proxies that name none; the only extractor when not set.
        dry_run: everything passes; log and metrics tell what would not have.
        http: answer `/v1/check` on the HTTP port.
        http_timeout_s: time that a check on the HTTP port may take.
        audited_root: the store of audited files as the image server sees it.
        keep_s: how long an audited file that may be loaded is not deleted.
    """

    extractors: dict[ExtractorName, ExtractorEntry] = {}
    default_extractor: str = ""
    dry_run: bool = False
    on_review: Literal["deny", "allow"] = "deny"
    max_body_bytes: Positive = 8 * MIB
    http: bool = False
    http_timeout_s: PositiveSeconds = 30.0
    audited_root: Path | None = None
    keep_s: PositiveSeconds = 3600.0

    @property
    def chosen_extractor(self) -> str:
        """The extractor for proxies that name none; empty where there is no such thing."""
        if self.default_extractor or len(self.extractors) != 1:
            return self.default_extractor
        return next(iter(self.extractors))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = ", ".join(sorted(self.extractors)) or "none"
        if self.default_extractor and self.default_extractor not in self.extractors:
            raise ValueError(
                f"default_extractor {self.default_extractor!r} is not one of extractors: {known}"
            )
        if "none" in self.extractors:
            raise ValueError("no extractor can be named 'none'; metrics use it where there is none")
        if self.http and not self.extractors:
            raise ValueError("http needs extractors, which say how requests are read")
        if self.audited_root is not None and not self.audited_root.is_absolute():
            raise ValueError(f"audited_root {self.audited_root} is no absolute path")
        return self


class LogSection(_Section):
    """The server's own log, on standard error. The decision log is another file."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["human", "json"] = "human"


def _default_state_dir() -> Path:
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "loragate"


class Config(_Section):
    """Every setting of the server. Paths may start with `~`.

    Attributes:
        insecure_off_loopback: listen on other addresses without TLS and authentication.
        library: folder of the concept library; the embedded one, copied into the state
            directory before it is first changed, when not set.
        cache_dir: probes and concept gradients; `probes` in the state directory when not set. Safe
            to share between servers and to delete.
        decision_log: JSON lines, one per decision; `decisions.jsonl` in the state directory.
        database_url: SQLAlchemy URL; SQLite in the state directory when empty.
        threads: of torch; 0 leaves the choice to torch.
        drain_delay_s: how long requests are still taken after a signal to stop, while the server is
            not ready any more: until whoever spreads them has taken it off its list.
        drain_grace_s: how long requests in flight may go on after a signal to stop.
    """

    listen: Listen = Listen()
    tls: Tls | None = None
    tokens: tuple[Token, ...] = ()
    peers: tuple[Peer, ...] = ()
    insecure_off_loopback: bool = False
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
    intercept: InterceptSection = InterceptSection()
    console: ConsoleSection = ConsoleSection()
    tracing: TracingSection = TracingSection()
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
        if len({token.sha256 for token in self.tokens}) != len(self.tokens):
            raise ValueError("tokens holds the same sha256 twice")
        if not (self.insecure_off_loopback or is_loopback(self.listen.grpc)) and not self._guarded:
            raise ValueError(
                f"listen.grpc {self.listen.grpc} is not on loopback and needs tls, and tokens or "
                "tls.client_ca; insecure_off_loopback: true overrides this"
            )
        if self.intercept.http and not (
            self.insecure_off_loopback or self.tokens or is_loopback(self.listen.http)
        ):
            raise ValueError(
                f"intercept.http answers checks on {self.listen.http}, which is not on loopback, "
                "and needs tokens; insecure_off_loopback: true overrides this"
            )
        return self

    @property
    def _guarded(self) -> bool:
        """Whether callers see a certificate and have to show who they are."""
        return self.tls is not None and (bool(self.tokens) or self.tls.client_ca is not None)

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
    def probe_cache(self) -> Path:
        """Where probes and gradients are kept, absolute."""
        return (self.cache_dir or self.state_folder / "probes").expanduser().absolute()

    def own_calibration(self, base_model: str) -> Path:
        """Where `loragate-server calibrate` leaves the calibration of a base model."""
        return self.state_folder / "calibrations" / f"{base_model.replace('/', '--')}.json"

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
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.state_folder / 'loragate.sqlite3'}"
