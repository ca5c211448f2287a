"""Known bad that comes back: what sketches find of it, and how often they are wrong.

`python -m benchmarks.audit.lineage` after `benchmarks.audit.train` and
`benchmarks.audit.other_hands`. Adapters that learned a forbidden concept stand as blocked; each is
changed as people change files, and merged with harmless ones. Pairs of adapters that were trained
apart say how often a link is false.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.attacks.factors import Factors, factors_of, read_file
from benchmarks.audit import other_hands
from benchmarks.audit.costs import table
from benchmarks.audit.metrics import Share
from benchmarks.audit.train import FOLDER, PIPELINE, file_of, train
from benchmarks.audit.zoo import Entry, entries
from benchmarks.report import write
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.algebra import LowRank
from loragate_server.audit.sketch import sketch_of
from loragate_server.gate.kinship import PART_COSINE, Change, Part, change_of, parts_of
from loragate_server.models import load_base_model
from loragate_server.models.base import BaseModel

MERGES_PER_SIZE = 60
HEAD = ("what became of it", "files", "named", "as a copy", "as a part", "wrongly named", "share")


@dataclass(frozen=True)
class Case:
    """A file that was made from others.

    Attributes:
        parents: names of the blocked adapters that are in it.
        also: further blocked ones, by their names.
    """

    what: str
    change: Change
    parents: frozenset[str]
    also: Mapping[str, Change] = field(default_factory=dict)


def rounded(dtype: torch.dtype) -> Callable[[Factors], Factors]:
    """Factors stored in fewer bits."""
    return lambda own: {k: (a.to(dtype).float(), b.to(dtype).float()) for k, (a, b) in own.items()}


def resized(rank: int) -> Callable[[Factors], Factors]:
    """The largest directions of each layer."""

    def change(own: Factors) -> Factors:
        return {name: _truncated(a, b, rank) for name, (a, b) in own.items()}

    return change


def _truncated(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    u, s, v = torch.linalg.svd(up.flatten(1) @ down.flatten(1), full_matrices=False)
    kept = v[:rank].reshape(rank, *down.shape[1:])
    return kept, (u[:, :rank] * s[:rank]).reshape(len(up), rank, *up.shape[2:])


def reweighted(seed: int) -> Callable[[Factors], Factors]:
    """Another weight for every block, as LoRA block weight has it."""
    rng = random.Random(seed)

    def change(own: Factors) -> Factors:
        weights: dict[str, float] = {}
        for name in own:
            weights.setdefault(name.split(".attentions")[0], rng.uniform(0.5, 1.5))
        return {
            name: (a, b * weights[name.split(".attentions")[0]]) for name, (a, b) in own.items()
        }

    return change


CHANGES: Mapping[str, Callable[[Factors], Factors]] = {
    "rounded to bfloat16": rounded(torch.bfloat16),
    "rounded to float8 (e4m3)": rounded(torch.float8_e4m3fn),
    "resized to rank 4": resized(4),
    "resized to rank 2": resized(2),
    "block weights from 0.5 to 1.5": reweighted(1),
}


def main(workers: int = 2) -> None:
    """Measures, and writes `benchmarks/results/lineage.md`."""
    base = load_base_model(PIPELINE, "emoji-tiny", device="cpu", dtype=torch.float32)
    files = {entry.name: file_of(entry) for entry in entries() if file_of(entry).exists()}
    files |= {
        entry.name: file_of(entry, other_hands.FOLDER)
        for part in ("development", "test")
        for entry in other_hands.entries(part)
        if file_of(entry, other_hands.FOLDER).exists()
    }
    adapters = {name: read_file(file, base) for name, file in sorted(files.items())}
    times_ms, sketches = [], {}
    for name, adapter in adapters.items():
        began = time.perf_counter()
        sketches[name] = _change(sketch_of(base, adapter))
        times_ms.append((time.perf_counter() - began) * 1e3)
    blocked = [name for name in adapters if name.startswith(("concept-", "hand-"))]
    blocked = [name for name in blocked if "harmless" not in name]
    cases = [*_changed(base, adapters, blocked), *_merged(sketches, blocked)]
    cases += _trained_further(base, workers)
    known = {name: sketches[name] for name in blocked}
    rows = [_row(what, known, list(of)) for what, of in _by_kind(cases)]
    unrelated = _unrelated(sketches)
    false = sum(1 for name in adapters if name not in known and _named(sketches[name], known))
    result = {
        "adapters": len(adapters),
        "blocked": len(known),
        "sketch_ms_median": float(np.median(times_ms)),
        "rows": rows,
        **unrelated,
        "harmless_named": false,
    }
    write("lineage", result, _text(result))


def _changed(
    base: BaseModel, adapters: Mapping[str, Adapter], names: Sequence[str]
) -> Iterator[Case]:
    for name in names:
        adapter = adapters[name]
        if not all(isinstance(delta, LowRank) for delta in adapter.deltas.values()):
            continue
        for what, change in CHANGES.items():
            made = change(factors_of(adapter))
            yield Case(what, _sketch(base, made), frozenset({name}))


def _sketch(base: BaseModel, factors: Factors) -> Change:
    deltas = {
        ModuleRef(base.denoiser_component, name): LowRank(down, up, 1.0)
        for name, (down, up) in factors.items()
    }
    return _change(sketch_of(base, Adapter("", 0, "", deltas, None, {})))  # type: ignore[arg-type]


def _merged(sketches: Mapping[str, Change], blocked: Sequence[str]) -> Iterator[Case]:
    """Sketches add up as changes do, which a test shows, so a merge's is the mean of its parts'."""
    rng = random.Random("merges")
    harmless = sorted(sketches.keys() - set(blocked))
    for count in (2, 4, 8):
        for bad in (1, count):
            what = f"merge of {count}, {'all' if bad == count else 'one'} blocked"
            for _ in range(MERGES_PER_SIZE):
                parts = rng.sample(blocked, bad) + rng.sample(harmless, count - bad)
                change = np.mean([sketches[name] for name in parts], axis=0)
                yield Case(what, change, frozenset(parts[:bad]))


def _trained_further(base: BaseModel, workers: int) -> Iterator[Case]:
    """Adapters after 300 steps stand as blocked; what they are after 100 more is asked about."""
    chosen = tuple(entry for entry in entries() if entry.family == "steps")
    train(chosen, FOLDER, workers)
    for entry in chosen:
        sooner, later = (_checkpoint(base, entry, steps) for steps in (300, 400))
        name = f"{entry.name}@300"
        yield Case("100 more steps", later, frozenset({name}), {name: sooner})


def _checkpoint(base: BaseModel, entry: Entry, steps: int) -> Change:
    return _change(sketch_of(base, read_file(file_of(entry, steps=steps), base)))


def _change(sketch: bytes) -> Change:
    return change_of(sketch, 1.0, 1.0)


def _by_kind(cases: Sequence[Case]) -> Iterator[tuple[str, Iterator[Case]]]:
    return itertools.groupby(sorted(cases, key=lambda one: one.what), key=lambda one: one.what)


def _named(change: Change, known: Mapping[str, Change]) -> dict[str, Part]:
    names = list(known)
    found = parts_of(change, np.stack([known[name] for name in names]).astype(np.float32))
    return {names[part.index]: part for part in found}


def _row(what: str, known: Mapping[str, Change], cases: Sequence[Case]) -> dict[str, Any]:
    copies = parts = wrong = named = expected = 0
    shares: list[float] = []
    for case in cases:
        found = _named(case.change, {**known, **case.also})
        right = [found[name] for name in case.parents & found.keys()]
        copies += any(part.copy for part in right)
        parts += any(not part.copy for part in right)
        named += len(right)
        expected += len(case.parents)
        wrong += len(found.keys() - case.parents)
        shares += [part.share for part in right]
    return {
        "what": what,
        "files": len(cases),
        "copies": copies,
        "parts": parts,
        "named": named,
        "expected": expected,
        "wrong": wrong,
        "share_median": float(np.median(shares)) if shares else None,
    }


def _unrelated(sketches: Mapping[str, Change]) -> dict[str, Any]:
    rows = np.stack(list(sketches.values()))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    return {
        "pairs": len(cosines),
        "cosine_mean": float(cosines.mean()),
        "cosine_sd": float(cosines.std()),
        "cosine_most": float(cosines.max()),
        "pairs_over_0_3": int((cosines >= PART_COSINE).sum()),
        "pairs_over_0_2": int((cosines >= 0.2).sum()),
    }


def _text(result: Mapping[str, Any]) -> str:
    rows = [
        (
            row["what"],
            str(row["files"]),
            str(Share(row["named"], row["expected"])),
            str(row["copies"]),
            str(row["parts"]),
            str(row["wrong"]),
            "" if row["share_median"] is None else f"{row['share_median']:.0%}",
        )
        for row in result["rows"]
    ]
    harmless = result["adapters"] - result["blocked"]
    over = result["pairs_over_0_3"]
    per_10_000 = over / result["pairs"] * 1e4
    return f"""# Known bad comes back

`python -m benchmarks.audit.lineage`. {result["blocked"]} adapters that learned a forbidden concept
stand as blocked ({result["adapters"]} adapters in all, of four artists' drawings); files made from
them are asked about, at the strength that was blocked. *Named* counts blocked adapters that are in
a file and were named with it; *wrongly named* others. Both are REVIEW under the default policy.

{table(HEAD, rows)}

- **Missed** are files that are nine tenths one blocked adapter and carry less than 0.75 of what was
  blocked (block weights below 1, one loud half of a merge): they are judged by themselves, as that
  adapter is at that strength. One part in eight is near the limit of 0.3.
- **Unrelated adapters**: {result["pairs"]:,} pairs, cosine {result["cosine_mean"]:.3f} with a
  standard deviation of {result["cosine_sd"]:.3f}, at most {result["cosine_most"]:.2f};
  {over} at 0.3 or more ({per_10_000:.2f} of 10,000), {result["pairs_over_0_2"]} at 0.2 or more.
- **Harmless adapters** held against all that are blocked at once: {result["harmless_named"]} of
  {harmless} named as coming from one.
- **Time**: a sketch takes {result["sketch_ms_median"]:.2f} ms (median)."""


if __name__ == "__main__":
    typer.run(main)
