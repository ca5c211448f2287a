"""What is wrong with a configuration, as far as it shows without loading a model.

A server that loads torch and a base model before it sees a misspelt path wastes its operator's
minutes; everything here takes well under a second, but for a calibration that is configured: what
it says is read with the code that audits.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from loragate_server.app import preflight_places as places
from loragate_server.app.announcing import NEEDS_EXTRA, secret_problems
from loragate_server.app.devices import device_problems, device_warnings
from loragate_server.app.gpu import gpu_present
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.manifest import incomplete, lacking_of, read_manifest
from loragate_server.config.retention import FOREVER
from loragate_server.config.schema import (
    EMBEDDED_LIBRARY,
    EMBEDDED_POLICY,
    Config,
    StartError,
)
from loragate_server.config.sources import ignored_environment
from loragate_server.errors import NoDecisionError
from loragate_server.intake.quarantine import QuarantineError, read_key
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.unmatched import unmatched
from loragate_server.record.signing import keys as signing_keys

MODEL_INDEX = "model_index.json"


def problems(config: Config) -> tuple[str, ...]:
    """One line for each thing that would keep a server from starting."""
    checks: tuple[Callable[[Config], Iterator[str]], ...] = (
        _policy,
        _library,
        _base_models,
        places.roots,
        places.folders,
        _ports,
        places.log,
        places.database,
        _extractors,
        _tls,
        _console,
        _signing,
        _checkpoints,
        _retention,
        _events,
        device_problems,
        _packages,
        _devices,
    )
    return tuple(line for check in checks for line in check(config))


def require(config: Config) -> None:
    """Refuses a configuration with which no server can start.

    Raises:
        StartError: names everything that is wrong.
    """
    if found := problems(config):
        raise StartError("\n".join(found))


def warnings(config: Config) -> tuple[str, ...]:
    """One line for each thing with which a server starts, and that is hardly what was meant."""
    return (
        *_strays(),
        *rules_without_concept(config.policy, config.library_folder),
        *signing_keys.warnings(config.signing, datetime.now(UTC)),
        *_unarchived(config),
        *_readable_events(config),
        *device_warnings(config),
        *_foreign_library(config),
        *places.odd_roots(config),
    )


def rules_without_concept(policy: Path, library: Path) -> tuple[str, ...]:
    """One line for each name in a policy's rules that the library does not have.

    None where one of the two cannot be read, which `problems` tells, and none about the policy that
    ships: its rules are of the library that ships, and nobody wrote them for another one.
    """
    if policy == EMBEDDED_POLICY:
        return ()
    try:
        read = parse_policy(policy.expanduser().read_bytes(), policy.name)
        entries = read_manifest(library).concepts
    except (OSError, NoDecisionError):
        return ()
    forbidden = [
        Concept(entry.id, entry.name, entry.category, entry.severity, entry.role)
        for entry in entries
        if entry.role == "forbidden"
    ]
    return tuple(f"policy {policy}: {line}" for line in unmatched(read, forbidden))


def _strays() -> Iterator[str]:
    for name, meant in ignored_environment().items():
        hint = f"; did you mean {meant}?" if meant else ""
        yield f"{name} is no setting of the server and is ignored{hint}"


def _policy(config: Config) -> Iterator[str]:
    file = config.policy.expanduser()
    try:
        parse_policy(file.read_bytes(), file.name)
    except OSError as error:
        yield f"policy: {file} cannot be read: {error.strerror}"
    except NoDecisionError as error:
        yield f"policy: {error.message}"


def _library(config: Config) -> Iterator[str]:
    folder = config.library_folder
    try:
        entries = read_manifest(folder).concepts
    except NoDecisionError as error:
        yield library_fault(folder, error)
        return
    roles = [entry.role for entry in entries]
    if lacking_of(roles):
        yield str(incomplete(folder, roles))
    names = [name for entry in entries for name, _ in entry.files]
    if missing := [name for name in names if not (folder / name).is_file()]:
        yield (
            f"concept library {folder}: {len(missing)} of {len(names)} pictures are not there, "
            f"{missing[0]} the first of them"
        )


def unreadable_library(folder: Path) -> str:
    """Why the library cannot be read; empty where it can."""
    try:
        read_manifest(folder)
    except NoDecisionError as error:
        return library_fault(folder, error)
    return ""


def library_fault(folder: Path, error: NoDecisionError) -> str:
    """The message, which names the library once."""
    named = str(folder) in error.message or str(folder.resolve()) in error.message
    return str(error) if named else f"concept library {folder}: {error}"


def _retention(config: Config) -> Iterator[str]:
    if (file := config.retention.quarantine_key_file) is None:
        return
    try:
        read_key(file.expanduser())
    except QuarantineError as error:
        yield f"retention.quarantine_key_file: {error}"


def _events(config: Config) -> Iterator[str]:
    if not config.events.receivers:
        return
    if not (_installed("cloudevents.core") and _installed("standardwebhooks")):
        yield NEEDS_EXTRA
        return
    yield from secret_problems(config)


def _readable_events(config: Config) -> Iterator[str]:
    for one in config.events.receivers:
        if one.plain:
            yield (
                f"events.receivers: {one.name}: what it is told can be read on the way to it; name "
                "an https address"
            )


def _foreign_library(config: Config) -> Iterator[str]:
    """The embedded library shows emoji, which say little of what another base model may learn."""
    own = [one.name for one in config.base_models if one.embedded_calibration is None]
    if own and config.library_folder == EMBEDDED_LIBRARY:
        yield (
            f"base model {', '.join(own)} is audited for the emoji of the embedded library; make "
            "one of your own with `loragate-server concepts init FOLDER --no-bank` and name it as "
            "`library`"
        )


def _unarchived(config: Config) -> Iterator[str]:
    """Nothing is to be lost in silence."""
    settings = config.retention
    ends = (settings.decisions, settings.evidence, settings.reviews)
    if not settings.archive and any(one != FOREVER for one in ends):
        yield (
            "retention prunes the record and has no archive: what goes is gone "
            "(retention.archive names a folder or a URL)"
        )


def _base_models(config: Config) -> Iterator[str]:
    for entry in config.base_models:
        index = entry.folder.expanduser() / MODEL_INDEX
        if not index.is_file():
            yield f"base model {entry.name}: {index} is no file; name a folder in diffusers layout"
        calibration = entry.calibration and entry.calibration.expanduser()
        if calibration and not calibration.is_file():
            yield f"base model {entry.name}: the calibration {calibration} is no file"
        elif calibration:
            yield from _calibration(config, entry.name, calibration)


def _calibration(config: Config, name: str, file: Path) -> Iterator[str]:
    """One that cannot fit; what is wrong with the library is told elsewhere."""
    from loragate_server.app.fitting import misfit, refusal
    from loragate_server.concepts.library import ConceptLibrary

    try:
        library = ConceptLibrary.open(config.library_folder)
    except (NoDecisionError, OSError):
        return
    if why := misfit(file, library):
        yield refusal(name, file, why)


def _ports(config: Config) -> Iterator[str]:
    listen = config.listen
    if listen.grpc == listen.http and not listen.grpc.endswith(":0"):
        yield f"listen.grpc and listen.http are both {listen.grpc}; give each a port of its own"


def _extractors(config: Config) -> Iterator[str]:
    from loragate_server.app.extractors import make_extractors

    try:
        made = make_extractors(config.intercept)
    except StartError as error:
        yield from str(error).splitlines()
        return
    for name in config.intercept.relays:
        if not made[name].opens_sockets:
            yield (
                f"intercept.relays.{name}: the extractor knows no WebSocket that may open; take "
                "the relay out, or name one as UPGRADE /path in "
                f"intercept.extractors.{name}.settings.passed_routes"
            )


def _tls(config: Config) -> Iterator[str]:
    if config.tls is None:
        return
    from loragate_server.rpc.credentials import server_credentials

    try:
        server_credentials(config.tls)
    except ValueError as error:
        yield f"tls: {error}"


def _console(config: Config) -> Iterator[str]:
    if not config.console.enabled:
        return
    from loragate_server.access.access import make_access

    try:
        make_access(config.console)
    except (ValueError, OSError, ImportError) as error:
        yield from (f"console: {line}" for line in str(error).splitlines())


def _signing(config: Config) -> Iterator[str]:
    if not config.signing.keys:
        return
    try:
        signing_keys.open_keys(config.signing, datetime.now(UTC))
    except signing_keys.KeyUnusableError as error:
        yield from str(error).splitlines()


def _checkpoints(config: Config) -> Iterator[str]:
    from loragate_server.record.tree.signer import NoteSigner, read_note_key

    section, witness = config.checkpoints, config.witness
    wanted: list[Callable[[], object]] = []
    if section.enabled:
        own = (section.key,) if section.key else config.signing.keys
        where = "checkpoints.key" if section.key else "checkpoints: signing.keys"
        wanted.append(lambda: NoteSigner(where, own))
        wanted += [partial(read_note_key, one.public_key.expanduser()) for one in section.witnesses]
    if witness.key is not None:
        keys = (witness.key,)
        wanted.append(lambda: NoteSigner("witness.key", keys))
        files = (file for one in witness.keys_of_logs for file in one)
        wanted += [partial(read_note_key, file) for file in files]
    for one in wanted:
        try:
            one()
        except signing_keys.KeyUnusableError as error:
            yield from str(error).splitlines()


def _packages(config: Config) -> Iterator[str]:
    if "s3" in config.intake.enabled_schemes and not _installed("s3fs"):
        yield ("intake.enabled_schemes: s3 needs the extra `s3`: pip install 'loragate-server[s3]'")
    if any(url.startswith("s3://") for url in config.checkpoints.copies) and not _installed("s3fs"):
        yield "checkpoints.copies: s3 needs the extra `s3`: pip install 'loragate-server[s3]'"
    if config.tracing.enabled and not _installed("opentelemetry.sdk"):
        yield "tracing.enabled needs the extra `tracing`: pip install 'loragate-server[tracing]'"
    if config.kernel_backend == "triton" and not _installed("triton"):
        yield (
            "kernel_backend: 'triton' needs the package triton, which is not installed; it exists "
            "for Linux on x86-64 and ARM. Ask for 'reference', which needs nothing"
        )


def _devices(config: Config) -> Iterator[str]:
    wanted = [entry.name for entry in config.base_models if entry.device.startswith("cuda")]
    if wanted and not gpu_present():
        yield (
            f"base model {', '.join(wanted)}: there is no CUDA device here; set device: cpu, or "
            "give this machine or container a GPU and its driver"
        )
    on_cpu = [entry.name for entry in config.base_models if entry.name not in wanted]
    interpreted = os.environ.get("TRITON_INTERPRET", "") not in ("", "0")
    if config.kernel_backend == "triton" and on_cpu and not interpreted:
        yield (
            f"kernel_backend: 'triton' needs a GPU, and base model {', '.join(on_cpu)} is on the "
            "CPU; set kernel_backend: reference, or device: cuda there"
        )


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
