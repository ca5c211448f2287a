"""These tests run Triton kernels in its interpreter, which is chosen when Triton is imported.

So they are left alone unless the whole process was started with TRITON_INTERPRET=1;
`test_interpreter.py`, one folder up, starts such a process.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills what `torch.empty` gives with NaN, so that nothing unwritten can pass."""
    empty = torch.empty

    def poisoned(*args: Any, **options: Any) -> torch.Tensor:
        made = empty(*args, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)
