"""Are the deltas what other loaders apply? `python -m benchmarks.parity` measures and writes it.

For every family and layout, the adapted rows of one forward pass are compared with the output of
a second pipeline that has loaded the same file by itself, or the same change told in another way.
Layouts that are not read stand in the table with what is said of them.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging

from benchmarks.report import write
from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import StoredFile
from loragate_server.intake.reader import read_adapter
from loragate_server.models import BaseModel, Conditioning, from_pipeline
from loragate_server.models.apply import RowPlan, adapted_rows, adapted_text
from testkit.adapter_files import Case, save
from testkit.parity_cases import CASES, every_case
from testkit.parity_refused import REFUSED
from testkit.tiny_models import tiny_base

TOLERANCE = 2e-5
"""Largest difference allowed: this share of the largest change by the adapter, plus 2e-6."""

_DIGEST = re.compile(r"Of adapter [0-9a-f]{12}: | [0-9a-f]{12}\b")


@dataclass(frozen=True)
class Parity:
    """One line of the table.

    Attributes:
        effect: largest absolute change of an output value that the reference shows.
        error: largest absolute difference between our output and the reference's.
        text_effect, text_error: the same for the text encoders' output; 0 where the adapter leaves
            them alone.
        base_error: difference of the base rows to a pass without adapter, in the same batch shape.
        unmapped: tensors that were not understood.
    """

    family: str
    format: str
    recognised_as: str
    layers: int
    effect: float
    error: float
    text_effect: float
    text_error: float
    base_error: float
    unmapped: int

    @property
    def holds(self) -> bool:
        """Whether ours equals theirs, and the comparison could have failed."""
        close = self.error <= 2e-6 + TOLERANCE * self.effect
        text_close = self.text_error <= 2e-6 + TOLERANCE * self.text_effect
        undisturbed = self.base_error == 0.0 and self.unmapped == 0
        return close and text_close and undisturbed and self.effect > 1e-3


@dataclass(frozen=True)
class Refusal:
    """One line of the table about a file that no verdict speaks for.

    Attributes:
        code: of the reason given for it.
        cause: its sentence, without the digest.
        vouched: whether it would be vouched for all the same, which must not be.
        named: whether the cause is the one that it has.
    """

    family: str
    format: str
    code: str
    cause: str
    vouched: bool
    named: bool

    @property
    def holds(self) -> bool:
        """Whether it is refused, and for the right cause."""
        return self.named and not self.vouched


def refuse(family: str, name: str, folder: Path) -> Refusal:
    """Reads the file `name` of `REFUSED` for the loaders that it is about."""
    case = REFUSED[family][name]
    file = save(folder, case.tensors())
    read = read_adapter(_stored(file, None), tiny_base(family), loaders=case.loaders)
    complete = all(one.coverage.complete for one in read.adapters)
    given = [(code, told) for code, told in read.doubts if code == case.code]
    code, told = next(((c, t) for c, t in given if case.says in t), ("", ""))
    return Refusal(
        family=family,
        format=name,
        code=code,
        cause=_DIGEST.sub("", told),
        vouched=complete and not read.doubts,
        named=bool(code),
    )


def measure(family: str, name: str, folder: Path) -> Parity:
    """Makes the case `name` of `family` in `folder` and compares."""
    return compare(family, name, CASES[family][name](folder))


def compare(family: str, name: str, case: Case) -> Parity:
    """Compares our adapted rows with the case's reference."""
    base = tiny_base(family)
    adapter = read(case, base)
    reference = from_pipeline(case.reference, "reference", picture_size=base.picture_size)
    # As diffusers left it: peft's DoRA convolutions cannot be run in our channels-last layout.
    reference.denoiser.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    latents, times, told = _inputs(base)
    with torch.inference_mode():
        with adapted_text(base, adapter.deltas, case.strength):
            told_adapted = base.encode_prompts(PROMPTS)
        told_reference = reference.encode_prompts(PROMPTS)
        both = Conditioning.cat([told, told_adapted])
        twice, times_twice = latents.repeat(2, 1, 1, 1), times.repeat(2)
        rows = slice(len(latents), 2 * len(latents))
        with adapted_rows(base, [RowPlan(rows, adapter.deltas, case.strength)]):
            ours = base.denoise(twice, times_twice, both)
        bare = base.denoise(twice, times_twice, both)
        theirs = reference.denoise(latents, times, told_reference)
        plain = base.denoise(latents, times, told)
    return Parity(
        family=family,
        format=name,
        recognised_as=adapter.format,
        layers=adapter.coverage.matched_modules,
        effect=float((theirs - plain).abs().max()),
        error=float((ours[rows] - theirs).abs().max()),
        text_effect=_difference(told_reference, told),
        text_error=_difference(told_adapted, told_reference),
        base_error=float((ours[: rows.start] - bare[: rows.start]).abs().max()),
        unmapped=len(adapter.coverage.unmapped),
    )


PROMPTS = ["a red cat", "a picture of blue grass"]


def stored(case: Case) -> StoredFile:
    """The case's file as the store would hold it."""
    return _stored(case.file, case.config_json)


def _stored(file: Path, config_json: str | None) -> StoredFile:
    data = file.read_bytes()
    return StoredFile(hashlib.sha256(data).hexdigest(), len(data), file, config_json)


def read(case: Case, base: BaseModel) -> Adapter:
    """The case's file, read for `base`."""
    loaders = (case.loader,) if case.loader else _best_loaders(case)
    readings = read_adapter(stored(case), base, loaders=loaders)
    own = (one for one in readings.adapters if loaders[0] in one.loaders)
    return next(own, readings.adapters[0])


def _best_loaders(case: Case) -> tuple[str, ...]:
    return ("peft" if case.config_json else "diffusers", "a1111")


def _inputs(base: BaseModel) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        told = base.encode_prompts(PROMPTS)
        shape = base.encode_pictures(torch.zeros(2, 3, *base.picture_size)).shape
    return torch.randn(shape, generator=generator), torch.tensor([0.25, 0.8]), told


def _difference(left: Conditioning, right: Conditioning) -> float:
    return max(
        float((left.tensors[name] - right.tensors[name]).abs().max()) for name in left.tensors
    )


def table(lines: list[Parity], refused: list[Refusal]) -> str:
    """The lines in Markdown."""
    head = (
        "| family | format | read as | layers | effect | error | text effect | text error | "
        "base rows | equal | cause of a refusal |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| {line.family} | {line.format} | {line.recognised_as} | {line.layers} | "
        f"{line.effect:.2e} | {line.error:.1e} | {line.text_effect:.2e} | {line.text_error:.1e} | "
        f"{line.base_error:.0f} | {'yes' if line.holds else 'NO'} | |"
        for line in lines
    ]
    rows += [
        f"| {line.family} | {line.format} | not read | | | | | | | "
        f"{'refused' if line.holds else 'NO'} | `{line.code}`: {line.cause} |"
        for line in refused
    ]
    said = (
        f"{len(lines) + len(refused)} layouts: {len(lines)} are read as another library loads "
        f"them, {len(refused)} are refused with their cause."
    )
    return "\n".join(["# Parity with diffusers and peft", "", said, "", head, *rows])


def main() -> None:
    """Measures every case, prints the table, writes it to `results/`."""
    diffusers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")  # the libraries' own, on files that are odd on purpose
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            measure(family, name, Path(folder) / str(index))
            for index, (family, name) in enumerate(every_case())
        ]
        refused = [
            refuse(family, name, Path(folder) / f"refused-{family}-{index}")
            for family, cases in REFUSED.items()
            for index, name in enumerate(cases)
        ]
    figures = {
        "tolerance": TOLERANCE,
        "cases": [asdict(line) | {"equal": line.holds} for line in lines],
        "refused": [asdict(line) | {"refused": line.holds} for line in refused],
    }
    write("parity", figures, table(lines, refused))
    if not all(line.holds for line in (*lines, *refused)):
        raise SystemExit("some cases are not equal, or not refused for their cause")


if __name__ == "__main__":
    main()
