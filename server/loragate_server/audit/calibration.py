"""Calibration: what adapters that were set aside measured, so that an operator sets a rate.

A calibration keeps raw measures; `promise` makes p-values of them, for the miss rate in force.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from loragate_server.audit.promise import Promise, promise_of
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.weights import Scales
from loragate_server.files import whole_file

FORMAT_VERSION = 5
MINIMUM_HARMLESS = 20


class CalibrationError(Exception):
    """A calibration cannot be used; the message says why and what to do."""


class OtherFormatError(CalibrationError):
    """The file is of another version of loragate."""


@dataclass(frozen=True)
class Binding:
    """What a calibration is good for. Everything has to match.

    Attributes:
        plans: names the probes and gradients that scores are made of.
        dtype: what the base model computes in; empty in calibrations of before, which fit any.
        picture_size: pixels of pictures, "512x512"; empty for those that the model was made for.
    """

    engine_version: str
    base_digest: str
    library_digest: str
    plans: str
    dtype: str = ""
    picture_size: str = ""

    def fits(self, other: Binding) -> bool:
        """Whether what was made for the one is good for the other."""
        return replace(self, dtype="") == replace(other, dtype="") and (
            not self.dtype or self.dtype == other.dtype
        )


@dataclass(frozen=True)
class Calibration:
    """The measures of the adapters that were set aside.

    Attributes:
        harmless: at least `MINIMUM_HARMLESS`.
        learned: adapters that hold a concept; may be empty, then the quieter two thirds of harmless
            adapters end at the screen.
        weights: of the screen's votes, by the role of a layer; empty: all roles weigh alike.
        effects: what a harmless adapter typically does in each layer; empty: unknown.
    """

    binding: Binding
    harmless: tuple[AdapterScores, ...]
    learned: tuple[AdapterScores, ...] = ()
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    effects: Mapping[str, float] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    digest: str = field(default="", compare=False)

    def require(self, binding: Binding) -> None:
        """Refuses another engine, base model, library or plan.

        Raises:
            CalibrationError: stale or foreign.
        """
        if self.binding.fits(binding):
            return
        for name, have in asdict(self.binding).items():
            want = getattr(binding, name)
            if have != want and (have or name != "dtype"):
                again = " --again FILE" if name == "engine_version" else ""
                raise CalibrationError(
                    f"the calibration was made for {name.replace('_', ' ')} {_short(have)}, this "
                    f"is {_short(want)}; make a new one with `loragate-server calibrate{again}`"
                )

    @cached_property
    def _promises(self) -> dict[float, Promise]:
        return {}

    def at(self, miss_rate: float) -> Promise:
        """The thresholds and distributions for one miss rate of the screen."""
        if miss_rate not in self._promises:
            self._promises[miss_rate] = promise_of(self.harmless, self.learned, miss_rate)
        return self._promises[miss_rate]

    @property
    def scales(self) -> Scales:
        """What the screen's votes weigh."""
        return Scales(self.weights, self.effects)


def _short(value: str) -> str:
    return value[:12] or "of the model's own"


_adapter = TypeAdapter(Calibration)


def save_calibration(made: Calibration, file: Path) -> None:
    """Writes a calibration, whole or not at all."""
    with whole_file(file) as partial:
        partial.write_bytes(dump_calibration(made))


def dump_calibration(made: Calibration) -> bytes:
    """A calibration as it is written; its digest is the sha256 of that."""
    # what is as ever is not written: the same calibration has the digest that it had before
    as_ever = {name for name in ("dtype", "picture_size") if not getattr(made.binding, name)}
    values = _adapter.dump_python(made, mode="json", exclude={"digest": True, "binding": as_ever})
    return (json.dumps(values, sort_keys=True) + "\n").encode()


def load_calibration(file: Path) -> Calibration:
    """Reads a calibration.

    Raises:
        CalibrationError: unreadable, damaged, or of another format; it is not looked at whom it
            is for, see `Calibration.require`.
    """
    try:
        data = file.read_bytes()
        values = json.loads(data)
        version = values.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise OtherFormatError(
                f"{file} has format {version}, not {FORMAT_VERSION}; make a new one with "
                "`loragate-server calibrate --again FILE`"
            )
        values["digest"] = hashlib.sha256(data).hexdigest()
        made = _adapter.validate_python(values)
    except OSError as error:
        raise CalibrationError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, ValidationError) as error:
        raise CalibrationError(
            f"{file} is no calibration ({type(error).__name__}); make a new one with "
            "`loragate-server calibrate`"
        ) from error
    every = (*made.harmless, *made.learned)
    if any(not one.screen.keys() == one.aim.keys() == one.named.keys() for one in every) or (
        len({len(one.bank) for one in every}) != 1
    ):
        raise CalibrationError(f"{file} does not say everything of every concept; make a new one")
    if len(made.harmless) < MINIMUM_HARMLESS:
        raise CalibrationError(
            f"{file} rests on {len(made.harmless)} harmless adapters; at least "
            f"{MINIMUM_HARMLESS} are needed"
        )
    return made
