"""Says what to do where a GPU has too little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loragate_server.models.base import BaseModel
from loragate_server.trials.errors import TrialError


@contextmanager
def memory_told(base: BaseModel) -> Iterator[None]:
    """Inside it, memory that is short is no traceback.

    Raises:
        TrialError: it is; names the remedies.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrialError(
            f"the memory of {base.device} is too small for base model {base.name}: give it dtype "
            "float16 or bfloat16, train with --batch 1, or stop what else uses the device"
        ) from error
