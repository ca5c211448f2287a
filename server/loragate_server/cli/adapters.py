"""Adapter files that commands are given by name, read in whole."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragate_server.catalogue.listing import WEIGHTS
from loragate_server.cli.options import EXIT_FAILED, EXIT_FOUND_WRONG, fail
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.files import files_below

if TYPE_CHECKING:
    from loragate_server.audit.calibrate import Labelled
    from loragate_server.config.intake import IntakeSection
    from loragate_server.models.base import BaseModel

_UNREADABLE = (ErrorReason.SOURCE_UNREADABLE, ErrorReason.PATH_NOT_ALLOWED)


def read_folder(folder: Path, base: BaseModel, settings: IntakeSection) -> list[Labelled]:
    """Every adapter file in and below a folder."""
    files = files_in(folder)
    if not files:
        fail(f"{folder} holds no .safetensors file", EXIT_FOUND_WRONG)
    return _read_each(dict.fromkeys(files, ()), base, settings)


def files_in(folder: Path) -> list[Path]:
    """Every file in and below a folder that a catalogue would take for an adapter."""
    return [one for one in files_below(folder) if one.name.lower().endswith(WEIGHTS)]


def require_apart(harmless: Sequence[Labelled], learned: Mapping[str, Path]) -> None:
    """Ends the command where the same adapter is said to be harmless and to have learned.

    A single one that shows a concept, taken for harmless, lets others as grave pass.

    Args:
        harmless: the adapters.
        learned: by sha256 the files of those that learned a concept.
    """
    both = [learned[one.adapter.sha256] for one in harmless if one.adapter.sha256 in learned]
    if both:
        fail(
            "\n".join(
                f"{file} learned a concept, and is among the harmless ones too" for file in both
            )
            + "\ntake such files out of the folder of harmless adapters, or out of --learned",
            EXIT_FOUND_WRONG,
        )


def read_kept(calibration: Path, base: BaseModel) -> list[Labelled]:
    """The harmless adapters that were kept beside a calibration, of whatever version that is."""
    from loragate_server.audit.calibrate import Labelled
    from loragate_server.audit.kept import KeptError, kept_file, open_kept

    data, values = _of_any_version(calibration)
    made_for = values["binding"]["base_digest"]
    if made_for != base.digest:
        fail(
            f"{calibration} was made for base model {str(made_for)[:12]}, {base.name} is "
            f"{base.digest[:12]}; what harmless adapters do to the one says nothing of the other",
            EXIT_FOUND_WRONG,
        )
    try:
        kept = open_kept(kept_file(calibration))
        if kept.calibration != hashlib.sha256(data).hexdigest():
            raise KeptError(
                f"{kept.file} was kept beside another calibration; where making this one again was "
                f"cut short, the last {calibration.stem}.before-NUMBER.json is what it was"
            )
        found = [Labelled(adapter, (), factors) for adapter, factors in kept.again(base)]
    except KeptError as error:
        fail(str(error), EXIT_FOUND_WRONG)
    if not found:
        fail(f"{kept.file} keeps no adapter; name a folder of them", EXIT_FOUND_WRONG)
    return found


def learned_before(calibration: Path) -> int:
    """How many adapters that learned a concept a calibration knew, of whatever version it is."""
    learned = _of_any_version(calibration)[1].get("learned", ())
    return len(learned) if isinstance(learned, list) else 0


def keep_before(target: Path) -> Path | None:
    """Copies a calibration and what is kept beside it, before it is written over; None for none.

    Nothing else holds the harmless adapters where the work ends between the two files. No copy is
    written over another, and what was kept beside another calibration is left out.
    """
    from loragate_server.audit.kept import kept_file

    if not target.exists():
        return None
    for number in itertools.count(1):
        before = target.with_name(f"{target.stem}.before-{number}.json")
        if not before.exists() and not kept_file(before).exists():
            break
    if _belongs(kept_file(target), target):
        shutil.copy(kept_file(target), kept_file(before))
    shutil.copy(target, before)
    return before


def _belongs(kept: Path, calibration: Path) -> bool:
    """Whether a file was kept beside just this calibration."""
    from loragate_server.audit.kept import KeptError, open_kept

    try:
        return open_kept(kept).calibration == hashlib.sha256(calibration.read_bytes()).hexdigest()
    except KeptError:
        return False


def _of_any_version(calibration: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a calibration, and what every version of it says."""
    try:
        data = calibration.read_bytes()
        values = json.loads(data)
        _ = values["binding"]["base_digest"]
    except OSError as error:
        fail(f"{calibration} cannot be read: {error.strerror}", EXIT_FAILED)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        fail(f"{calibration} is no calibration ({type(error).__name__})", EXIT_FOUND_WRONG)
    return data, values


def once_each(adapters: Sequence[Labelled]) -> list[Labelled]:
    """Every adapter once: copies would count as further ones, which they are not."""
    return list({one.adapter.sha256: one for one in reversed(adapters)}.values())[::-1]


def require_keepable_ones(harmless: Sequence[Labelled]) -> None:
    """Ends the command before the long work and not after it."""
    from loragate_server.audit.factors import NotKeptError, require_keepable

    for one in harmless:
        try:
            require_keepable(one.adapter)
        except NotKeptError as error:
            fail(
                f"{error}, which cannot be kept; take it out of the folder, or give --no-keep "
                "(never beside --again)",
                EXIT_FOUND_WRONG,
            )


def read_labelled(
    labels: Mapping[Path, Sequence[str]], base: BaseModel, settings: IntakeSection
) -> list[Labelled]:
    """Files with the concepts that they learned."""
    return _read_each(labels, base, settings)


def read_one(
    file: Path, base: BaseModel, learned: tuple[str, ...], settings: IntakeSection
) -> Labelled:
    """One adapter with the configuration beside it, understood in whole.

    Where loaders read it differently, it is as the first of them does.
    """
    [found] = _read_each({file: learned}, base, settings)
    return found


def _read_each(
    files: Mapping[Path, Sequence[str]], base: BaseModel, settings: IntakeSection
) -> list[Labelled]:
    """Reads them all; where some are of no use, names each of these before it ends."""
    found, faults, code = [], [], EXIT_FOUND_WRONG
    for file, learned in files.items():
        try:
            found.append(_read(file, base, tuple(learned), settings))
        except OSError as error:
            faults.append(f"{file} cannot be read: {error.strerror}")
            code = EXIT_FAILED
        except (NoDecisionError, _NotInWholeError) as error:
            faults.append(f"{file}: {error}")
            if getattr(error, "reason", None) in _UNREADABLE:
                code = EXIT_FAILED
    if faults:
        fail("\n".join(faults), code)
    return found


class _NotInWholeError(Exception):
    """A part of a file would give numbers about a part."""


def _read(
    file: Path, base: BaseModel, learned: tuple[str, ...], settings: IntakeSection
) -> Labelled:
    from loragate_server.adapter.reference import AdapterReference
    from loragate_server.audit.calibrate import Labelled
    from loragate_server.intake.beside import CONFIG_NAME, decode_config
    from loragate_server.intake.reader import read_adapter
    from loragate_server.intake.unstored import read_unstored
    from loragate_server.progress import Leash

    real = file.resolve(strict=True)  # whoever names a file on the command line may read it
    opened = settings.model_copy(update={"roots": (*settings.roots, real.parent)})
    found = read_unstored(AdapterReference(path=str(real)), opened, Leash())
    stored, beside = found.file, file.with_name(CONFIG_NAME)
    if real.parent != file.parent.resolve() and beside.is_file():  # caches link to their files
        config = decode_config(beside.read_bytes(), settings.max_metadata_bytes)
        stored = replace(stored, config_json=config)
    read = read_adapter(stored, base, loaders=settings.loaders, data=found.data)
    adapter = read.adapters[0]
    if not adapter.coverage.complete:
        # what the file itself tells comes before what one loader or another makes of it
        whys = sorted(read.doubts, key=lambda doubt: doubt[0] == "loader_unknown")
        raise _NotInWholeError(
            f"{len(adapter.coverage.unmapped)} tensors match no layer of {base.name}; take it out "
            f"of the folder. {whys[0][1] if whys else ''}".rstrip()
        )
    return Labelled(adapter, learned)
