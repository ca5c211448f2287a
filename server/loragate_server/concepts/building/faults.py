"""What keeps a gradient from being made, as errors that name the cause and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.building.stratum import Rows
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.models.base import BaseModel
from loragate_server.out_of_memory import is_out_of_memory


def require_finite(base: BaseModel, rows: Rows, norms: Mapping[ModuleRef, Tensor]) -> None:
    """Refuses gradients of which no direction could be taken.

    Args:
        base: the base model.
        rows: what the gradients were made of.
        norms: layer to the Frobenius norm of its gradient, a scalar.

    Raises:
        NoDecisionError: AUDIT_FAILED; the message names the first layer and the concept.
    """
    lengths = torch.stack(list(norms.values()))
    broken = (~lengths.isfinite()).nonzero().flatten().tolist()
    if not broken:
        return
    first = list(norms)[broken[0]]
    others = f" (and of {len(broken) - 1} other layers)" if len(broken) > 1 else ""
    dtype = str(next(base.denoiser.parameters()).dtype).removeprefix("torch.")
    remedy = (
        "Set `dtype: bfloat16` or `float32` for this base model: numbers of float16 end at 65504."
        if dtype == "float16"
        else "Look whether the weights of that layer and the pictures of the concept are whole."
    )
    raise NoDecisionError(
        ErrorReason.AUDIT_FAILED,
        f"Base model {base.name} in {dtype}: the gradient of layer "
        f"{first.component}.{first.module}{others} is not finite for concept {rows.concept_id} "
        f"at time {rows.time:g}; nothing of this concept was kept.",
        remedy=remedy,
        metadata={"concept": rows.concept_id, "layer": f"{first.component}.{first.module}"},
    )


@contextmanager
def memory_named(base: BaseModel, what: str, remedy: str) -> Iterator[None]:
    """Turns an end of memory inside the block into a sentence.

    Args:
        base: the base model.
        what: was made, as "the gradients of concept bomb".
        remedy: what to do about it.

    Raises:
        NoDecisionError: OUT_OF_MEMORY; with `remedy`.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).strip().splitlines()
        error.__traceback__ = None  # its frames hold the tensors that there was no room for
        device = base.device
    else:
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise NoDecisionError(
        ErrorReason.OUT_OF_MEMORY,
        f"Base model {base.name}: there was no memory left on {device} for {what} "
        f"({said[0] if said else 'no more is known'}).",
        remedy=f"{remedy} What is built already is kept.",
    )
