"""The rules of diffusers and peft against the libraries as installed, on random files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from benchmarks.loader_parity import compare as comparison
from benchmarks.loader_parity.compare import REFUSED, VOUCHED, DisagreementError, compare
from benchmarks.loader_parity.files import AdapterFile, dotted, kohya, layers, peft_folders
from benchmarks.loader_parity.spellings import spellings
from loragate_server.adapter.adapter import ModuleRef
from testkit.lanes import examples

FEW = settings(
    max_examples=examples(10, 25), deadline=None, suppress_health_check=list(HealthCheck)
)
KINDS = {"kohya": kohya, "dotted": dotted, "peft": peft_folders, "spellings": spellings}

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, on files that are odd


@pytest.mark.parametrize(
    ("family", "loader", "kind"),
    [
        ("sd", "diffusers", "kohya"),
        ("sd", "diffusers", "dotted"),
        ("sdxl", "diffusers", "kohya"),
        ("sd3", "diffusers", "dotted"),
        ("flux", "diffusers", "dotted"),
        ("sd", "diffusers", "spellings"),
        ("sdxl", "diffusers", "spellings"),
        ("sd3", "diffusers", "spellings"),
        ("flux", "diffusers", "spellings"),
        ("sd", "peft", "peft"),
        ("flux", "peft", "peft"),
    ],
)
def test_a_rule_says_what_the_library_does_with_a_random_file(
    family: str, loader: str, kind: str
) -> None:
    counted: Counter[str] = Counter()

    @FEW
    @given(KINDS[kind](family))
    def agree(made: AdapterFile) -> None:
        counted[compare(family, loader, made)] += 1

    agree()
    assert counted[REFUSED if kind == "spellings" else VOUCHED] >= 3


def test_the_comparison_notices_a_library_that_scales_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ref, module = next(
        (ref, module) for ref, module in layers("sd").items() if isinstance(module, nn.Linear)
    )
    stem = f"{ref.component}.{ref.module}"
    down, up = torch.ones(2, module.weight.shape[1]), torch.ones(module.weight.shape[0], 2)
    made = AdapterFile({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, {})
    assert compare("sd", "diffusers", made) == VOUCHED
    real = comparison._by_diffusers

    def doubled(family: str, path: Path) -> dict[ModuleRef, torch.Tensor]:
        return {ref: 2 * delta for ref, delta in real(family, path).items()}

    monkeypatch.setattr(comparison, "_by_diffusers", doubled)
    with pytest.raises(DisagreementError, match=r"0\.5 times theirs"):
        compare("sd", "diffusers", made)
