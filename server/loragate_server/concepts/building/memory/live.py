"""Counts the bytes of tensors that are alive at once, on any device, `meta` included.

On `meta` nothing is computed and nothing allocated, so that a pass through a model of any size can
be followed to its peak in a second or two.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside it, every storage that an operation makes is counted until it is freed.

    What an operation takes and gives back before it returns is not seen.

    Attributes:
        now: bytes alive at this moment, of storages made inside.
        peak: the most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs the operation, and counts what it gave that was not there before."""
        before = {_identity(each) for each in tree_leaves((args, kwargs)) if _is_plain(each)}
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if _is_plain(each) and _identity(each) not in before:
                self._count(each.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        if identity in self._known:
            return
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self._known[identity] = weakref.finalize(storage, self._freed, identity, size)

    def _freed(self, identity: int, size: int) -> None:
        self.now -= size
        self._known.pop(identity, None)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Inside it, attention on `meta` is the fused one, as it is on every device that computes.

    There torch would take it apart, and the matrix of all tokens against all would be counted. A
    mode of torch would not reach blocks that the backward pass computes again. Other devices, and
    other threads, keep what they had.
    """
    own = nn.functional.scaled_dot_product_attention

    def attend(query: Tensor, key: Tensor, value: Tensor, *others: Any, **named: Any) -> Tensor:
        if not query.is_meta:
            return own(query, key, value, *others, **named)
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        attended: Tensor = fused(query, key, value, scale=named.get("scale"))[0]
        return attended

    nn.functional.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = own


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _identity(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def bytes_of(*modules: nn.Module) -> int:
    """Bytes of the weights and buffers of modules, shared ones counted once."""
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(storages.values())
