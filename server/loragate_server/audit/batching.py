"""How many rows go into one forward pass, so that equal rows come out equal.

Base and adapted rows are compared, and an adapter without effect must give a difference of
exactly zero. Matrix products, however, are cut into pieces for the threads and vector units of
the machine, and a row at another place of the batch may be summed in another order. Whether that
happens depends on the number of rows and threads alone, so a size is tried out once and kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from loragate_server.concepts.probes import ProbeSet, encode_probe_prompts
from loragate_server.models.base import BaseModel
from loragate_server.out_of_memory import is_out_of_memory

_TRIES = 6

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockRows:
    """How many rows stay together in a forward pass, which has two blocks or more.

    Attributes:
        rows: of a block.
        exact: whether a row comes out equal in either of two blocks.
    """

    rows: int
    exact: bool


def exact_batch_rows(base: BaseModel, probes: ProbeSet, wanted: int) -> BlockRows:
    """The first size of at least `wanted` for which both halves of a batch come out equal.

    Runs one forward pass of the base model per size tried: `wanted`, then multiples of the number
    of threads. Where none fits, `wanted` is used and the remaining noise is logged.

    Args:
        base: the base model.
        probes: its probes; their rows fill the batch, and there is no use for more rows than they
            have.
        wanted: rows of a block; the batch is twice as large.
    """
    wanted = min(wanted, len(probes.concepts) * probes.plan.rows)
    threads = torch.get_num_threads() if base.device.type == "cpu" else 8
    multiple = -(-wanted // threads) * threads
    sizes = [wanted, *(multiple + threads * index for index in range(_TRIES))]
    noise = {}
    for rows in dict.fromkeys(sizes):
        noise[rows] = _noise(base, probes, rows)
        if noise[rows] == 0.0:
            return BlockRows(rows, exact=True)
    _log.warning(
        "Base model %s gives equal rows unequal results, up to %.1e, at every batch size tried.",
        base.name,
        noise[wanted],
    )
    return BlockRows(wanted, exact=False)


def exact_copies(base: BaseModel, probes: ProbeSet, rows: int, most: int) -> int:
    """How many uses of adapters may share a forward pass with the base model's rows, at least 1.

    With so many, or fewer, every row comes out as it does in a batch of the base rows and one
    use's. Runs one forward pass of the base model per number tried.

    Args:
        base: the base model.
        probes: its probes; their rows fill the batch.
        rows: of a block, which came out equal (`exact_batch_rows`).
        most: the largest number to try.
    """
    one = _blocks(base, probes, rows, 2)
    if not torch.equal(one[0], one[1]):
        return 1
    for copies in range(2, most + 1):
        if not _all_alike(base, probes, rows, 1 + copies, one[0]):
            return copies - 1
    return most


def _all_alike(base: BaseModel, probes: ProbeSet, rows: int, count: int, one: Tensor) -> bool:
    """Whether so many equal blocks come out like one; they do not where memory is too short."""
    try:
        return all(torch.equal(each, one) for each in _blocks(base, probes, rows, count))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False


def _noise(base: BaseModel, probes: ProbeSet, rows: int) -> float:
    """Largest difference between the halves of a batch whose halves are equal."""
    first, second = _blocks(base, probes, rows, 2)
    return float((first - second).abs().max())


def _blocks(base: BaseModel, probes: ProbeSet, rows: int, count: int) -> tuple[Tensor, ...]:
    """What the base model makes of the same rows, so many times in one batch."""
    source = probes.noisy.flatten(0, 1)
    index = torch.arange(count * rows) % rows % len(source)
    conditioning = encode_probe_prompts(base, probes).rows(
        torch.zeros(count * rows, dtype=torch.long, device=base.device)
    )
    times = probes.times[:1].repeat(count * rows)
    with torch.inference_mode():
        return base.denoise(source[index].to(base.device), times, conditioning).chunk(count)
