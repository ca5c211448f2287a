"""Changes without effect, over the example adapters and 40 of the zoo: no verdict may change.

`python -m benchmarks.attacks.metamorphic` after `python -m benchmarks.audit.train --fast`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.attacks.bench import EXAMPLES, Bench, Judged, scratch
from benchmarks.attacks.factors import Factors, factors_of, read_file, write_file
from benchmarks.attacks.transforms import REORDERED, TRANSFORMS
from benchmarks.audit.train import FOLDER
from benchmarks.report import write
from loragate_server.audit.uses import Member

LEARNED, HARMLESS = 12, 28
"""Adapters of the zoo, in the order of their names."""
TOLERANCE = 2.0
"""Points of degree."""


@dataclass(frozen=True)
class Outcome:
    """One adapter under one transformation.

    Attributes:
        before, after: verdicts.
        moved: by how many points the degree moved.
    """

    adapter: str
    transform: str
    before: str
    after: str
    moved: float

    @property
    def holds(self) -> bool:
        """Whether the verdict is the same, and the degree within tolerance."""
        return self.before == self.after and self.moved <= TOLERANCE


def transformed(own: Factors, name: str, bench: Bench, folder: Path) -> Path:
    """A file with the adapter under one transformation."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    file = folder / "changed.safetensors"
    if name == REORDERED:
        order = random.Random(1).sample(range(2 * len(own)), 2 * len(own))
        return write_file(own, file, order)
    return write_file(TRANSFORMS[name](own, bench.shapes, generator), file)


def outcomes(
    bench: Bench, files: Sequence[Path], names: Sequence[str] = (*TRANSFORMS, REORDERED)
) -> Iterator[Outcome]:
    """Judges every adapter as it is, then under every transformation."""
    with scratch() as made:
        for file in files:
            adapter = read_file(file, bench.base)
            before = bench.judge([Member.of(adapter)])
            own = factors_of(adapter)
            for name in names:
                changed = read_file(transformed(own, name, bench, Path(made)), bench.base)
                yield _compared(file.stem, name, before, bench.judge([Member.of(changed)]))


def _compared(adapter: str, name: str, before: Judged, after: Judged) -> Outcome:
    moved = abs(after.degree - before.degree)
    return Outcome(adapter, name, before.verdict, after.verdict, moved)


def adapters(zoo: Path = FOLDER) -> list[Path]:
    """The example adapters, and the first of the zoo of either kind."""
    learned = sorted(zoo.glob("concept-*.safetensors"))[:LEARNED]
    harmless = sorted(zoo.glob("harmless-*.safetensors"))[:HARMLESS]
    return [*sorted(EXAMPLES.glob("*.safetensors")), *learned, *harmless]


def table(found: Sequence[Outcome]) -> str:
    """One row per transformation."""
    lines = [
        "| transformation | adapters | verdict unchanged | degree moved at most |",
        "|---|" * 4,
    ]
    lines[1] = "|---|---|---|---|"
    for name in dict.fromkeys(one.transform for one in found):
        rows = [one for one in found if one.transform == name]
        same = sum(one.before == one.after for one in rows)
        moved = max(one.moved for one in rows)
        lines.append(f"| {name} | {len(rows)} | {same} | {moved:.3f} |")
    return "\n".join(lines)


def main(zoo: Annotated[Path, typer.Option(help="Folder of trained adapters.")] = FOLDER) -> None:
    """Writes `benchmarks/results/metamorphic.json` and `.md`; exit code 1 if a verdict changed."""
    torch.set_num_threads(1)
    bench, found = Bench.load(), []
    for one in outcomes(bench, adapters(zoo)):
        found.append(one)
        if not one.holds:
            typer.echo(one)
    verdicts = {one.adapter: one.before for one in found}
    counts = {kind: list(verdicts.values()).count(kind) for kind in sorted(set(verdicts.values()))}
    text = (
        "# Changes without effect\n\n"
        f"{len(verdicts)} adapters ({', '.join(f'{n} {kind}' for kind, n in counts.items())}) "
        "under transformations that change their product by rounding alone, or by a thousandth of "
        f"what a layer does. Points of degree: the highest of all concepts.\n\n{table(found)}"
    )
    rows = [one.__dict__ for one in found]
    write("metamorphic", {"tolerance": TOLERANCE, "outcomes": rows}, text)
    raise typer.Exit(code=int(not all(one.holds for one in found)))


if __name__ == "__main__":
    typer.run(main)
