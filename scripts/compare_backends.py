"""Audits the example adapters with both kernel backends and compares what comes out.

    TRITON_INTERPRET=1 .venv/bin/python scripts/compare_backends.py

On a computer without a GPU the kernels are interpreted, which takes minutes for an audit; the
options make it smaller. Verdicts have to be the same, and so do all numbers that do not come from
the kernels; layer profiles have to agree within `TOLERANCE`. Exits with 1 if they do not.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import loragate_server
from loragate_server.adapter.reference import StoredFile, Strength
from loragate_server.audit import profile
from loragate_server.audit.engine import AuditEngine, AuditSettings
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.uses import Member
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan, build_probes
from loragate_server.intake.reader import read_adapter
from loragate_server.models import load_base_model
from loragate_server.policy.decide import decide
from loragate_server.policy.parse import parse_policy
from loragate_server.progress import Leash

ROOT = Path(__file__).parents[1]
SERVER = Path(loragate_server.__file__).parent
EMBEDDED = SERVER / "assets" / "emoji_tiny"
ADAPTERS = ROOT / "examples" / "adapters"

TOLERANCE = 2e-5
"""Of relative change and contrast: roots and ratios of sums that agree within 5e-6."""

COSINE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Compared:
    """One adapter with both backends: its verdicts, and how far its layer profiles are apart."""

    adapter: str
    verdicts: tuple[str, str]
    same_numbers: bool
    change: float
    cosine: float
    seconds: tuple[float, float]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs by more than rounding."""
        close = self.change <= TOLERANCE and self.cosine <= COSINE_TOLERANCE
        return self.same_numbers and close and len(set(self.verdicts)) == 1

    def __str__(self) -> str:
        return (
            f"{self.adapter}: {' / '.join(self.verdicts)}, profiles apart by {self.change:.1e} "
            f"(cosine {self.cosine:.1e}), {self.seconds[0]:.1f} s / {self.seconds[1]:.1f} s, "
            f"{'agrees' if self.agrees else 'DIFFERS'}"
        )


def _relative(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), 1e-12)


def _compare(name: str, engines: list[AuditEngine], concepts: list[str]) -> Compared:
    path = ADAPTERS / f"{name}.safetensors"
    data = path.read_bytes()
    stored = StoredFile(hashlib.sha256(data).hexdigest(), len(data), path)
    policy = parse_policy((SERVER / "policy" / "default_policy.yaml").read_bytes())
    evidence: list[Evidence] = []
    seconds: list[float] = []
    for engine in engines:
        adapter = read_adapter(stored, engine.base).adapters[0]
        began = time.monotonic()
        evidence.append(engine.audit([Member.of(adapter, Strength())], Leash(), concepts))
        seconds.append(time.monotonic() - began)
    first, second = evidence
    layers = list(zip(first.layers, second.layers, strict=True))
    return Compared(
        adapter=name,
        verdicts=(
            decide(policy, first).would_be_verdict.value,
            decide(policy, second).would_be_verdict.value,
        ),
        same_numbers=bool(layers)
        and (first.concepts, first.inconclusive) == (second.concepts, second.inconclusive),
        change=max(
            (
                _relative(getattr(one, field), getattr(other, field))
                for one, other in layers
                for field in ("relative_change", "concept_contrast")
            ),
            default=0.0,
        ),
        cosine=max(
            (abs(one.cosine_similarity - other.cosine_similarity) for one, other in layers),
            default=0.0,
        ),
        seconds=(seconds[0], seconds[1]),
    )


def _some_layers(count: int | None) -> Any:
    """Profiles about `count` layers; all when it is None."""
    every = profile.profiled_layers

    def some(denoiser: Any) -> Any:
        # spread out, so that residual and transformer blocks are both among them
        found = every(denoiser)
        step = 1 if count is None else max(1, len(found) // count)
        return dict(islice(found.items(), step - 1, None, step))

    return patch.object(profile, "profiled_layers", some)


def main(arguments: list[str] | None = None) -> int:
    """Prints one line per adapter; 0 if all agree."""
    parser = argparse.ArgumentParser(description="Compares audits of both kernel backends.")
    parser.add_argument("--adapter", action="append", help="name of an example; default all")
    parser.add_argument("--concept", action="append", help="forbidden concept; default all")
    parser.add_argument("--small", action="store_true", help="one picture, few neutral concepts")
    parser.add_argument("--layers", type=int, help="about how many layers to profile; default all")
    given = parser.parse_args(arguments)
    base = load_base_model(EMBEDDED / "pipeline", "emoji-tiny")
    library = ConceptLibrary.open(EMBEDDED / "concepts")
    plan = ProbePlan(pictures=1, neutral=8) if given.small else ProbePlan()
    names = given.adapter or sorted(path.stem for path in ADAPTERS.glob("*.safetensors"))
    with tempfile.TemporaryDirectory() as folder, _some_layers(given.layers):
        probes = build_probes(library, base, Path(folder), plan=plan)
        engines = [
            AuditEngine(base, probes, AuditSettings(backend=backend))
            for backend in ("reference", "triton")
        ]
        results = []
        for name in names:
            results.append(_compare(name, engines, given.concept or []))
            print(results[-1], flush=True)
    return 0 if all(result.agrees for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
