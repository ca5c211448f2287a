"""How many rows go into one forward pass, so that equal rows come out equal.

Base and adapted rows share a batch, and an adapter without effect must give a difference of
exactly zero. Matrix products, however, are cut into pieces for the threads and vector units of
the machine, and a row at another place of the batch may be summed in another order. Whether that
happens depends on the number of rows and threads alone, so a size is tried out once and kept.
"""

from __future__ import annotations

import logging

import torch

from loragate_server.concepts.probes import ProbeSet, encode_probe_prompts
from loragate_server.models.base import BaseModel

_TRIES = 6

_log = logging.getLogger(__name__)


def exact_batch_rows(base: BaseModel, probes: ProbeSet, wanted: int) -> int:
    """The first size of at least `wanted` for which both halves of a batch come out equal.

    Runs one forward pass of the base model per size tried: `wanted`, then multiples of the number
    of threads. Where none fits, `wanted` is used and the remaining noise is logged.

    Args:
        base: the base model.
        probes: its probes; their rows fill the batch, and there is no use for more rows than they
            have.
        wanted: base rows per forward pass; the batch is twice as large.
    """
    wanted = min(wanted, len(probes.concepts) * probes.plan.rows)
    threads = torch.get_num_threads() if base.device.type == "cpu" else 8
    multiple = -(-wanted // threads) * threads
    sizes = [wanted, *(multiple + threads * index for index in range(_TRIES))]
    noise = {}
    for rows in dict.fromkeys(sizes):
        noise[rows] = _noise(base, probes, rows)
        if noise[rows] == 0.0:
            return rows
    _log.warning(
        "Base model %s gives equal rows unequal results, up to %.1e, at every batch size tried.",
        base.name,
        noise[wanted],
    )
    return wanted


def _noise(base: BaseModel, probes: ProbeSet, rows: int) -> float:
    """Largest difference between the halves of a batch whose halves are equal."""
    source = probes.noisy.flatten(0, 1)
    index = torch.arange(2 * rows) % rows % len(source)
    conditioning = encode_probe_prompts(base, probes).rows(
        torch.zeros(2 * rows, dtype=torch.long, device=base.device)
    )
    times = probes.times[:1].repeat(2 * rows)
    with torch.inference_mode():
        first, second = base.denoise(source[index], times, conditioning).chunk(2)
    return float((first - second).abs().max())
