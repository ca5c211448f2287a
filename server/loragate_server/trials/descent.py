"""The loop of every training here: loss, gradient, step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from loragate_server.trials.errors import TrialError


def nothing(step: int) -> None:
    """After a step, where nobody waits for it."""


def descend(
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[int], Tensor],
    steps: Iterable[int],
    *,
    after: Callable[[int], None] = nothing,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Takes steps down a loss.

    Args:
        optimizer: of the parameters.
        loss_of: the loss of a step, with its graph.
        steps: their numbers.
        after: told the number of each step that is done.
        scaler: keeps gradients in half precision from vanishing.

    Raises:
        TrialError: the loss is not finite.
    """
    for step in steps:
        loss = loss_of(step)
        if not math.isfinite(loss.item()):
            raise TrialError(
                f"the loss is not finite at step {step + 1}: train with a lower --learning-rate, "
                "or give the base model dtype bfloat16 or float32"
            )
        optimizer.zero_grad(set_to_none=True)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        after(step)
