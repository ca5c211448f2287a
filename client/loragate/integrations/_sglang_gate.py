"""What the hooks on SGLang's LoRA pipeline do. Knows the pipeline's methods, not its registry."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from loragate.files import read_once, require_plain
from loragate.integrations._bytes import PrivateCopies, locate
from loragate.integrations._together import Gatekeeper
from loragate.reference import AdapterReference


@dataclass
class _State:
    """What one pipeline holds.

    Attributes:
        digests: what each nickname stands for at present.
        active: of each target, nickname and strength of what is applied to it.
        planned: bytes of the adapters that `set_lora` is about to load, by nickname.
    """

    digests: dict[str, str] = field(default_factory=dict)
    active: dict[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    planned: dict[str, bytes] = field(default_factory=dict)


class SglangGate:
    """Hooks around the methods of a `LoRAPipeline`; each gets the original as first argument."""

    def __init__(self, keeper: Gatekeeper) -> None:
        self._keeper = keeper
        self._copies = PrivateCopies()
        self._states: WeakKeyDictionary[Any, _State] = WeakKeyDictionary()
        self._lock = threading.RLock()

    def load_lora_adapter(
        self,
        original: Callable[..., Any],
        pipeline: Any,
        lora_path: str,
        lora_nickname: str,
        rank: int,
        weight_name: str | None = None,
        lora_alpha: int | None = None,
    ) -> Any:
        """Audits the bytes, and lets the original load a private copy of exactly these.

        Raises:
            AdapterBlocked: the service decided against the adapter; nothing was loaded.
            AuditError: no decision exists; nothing was loaded.
            ValueError: something beside the bytes would change what they do.
        """
        _refuse_alpha(lora_alpha)
        with self._lock:
            state = self._state(pipeline)
            data = state.planned.pop(lora_nickname, None)
            if data is None:
                data = _read(pipeline, lora_path, weight_name)
                self._keeper.admit(lora_nickname, [AdapterReference(data=data)])
            copy = self._copies.put(data)
            answer = original(pipeline, str(copy), lora_nickname, rank, copy.name, None)
            state.digests[lora_nickname] = hashlib.sha256(data).hexdigest()
            # SGLang compares this with the next request's path and shows it in list_loras.
            pipeline.loaded_adapter_paths[lora_nickname] = lora_path
            return answer

    def set_lora(
        self,
        original: Callable[..., Any],
        pipeline: Any,
        lora_nickname: str | list[str],
        lora_path: str | list[str | None] | None = None,
        target: str | list[str] = "all",
        strength: float | list[float] = 1.0,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Audits what each target will have active, at its strengths, before anything is loaded."""
        for alpha in _listed(kwargs.get("lora_alpha", args[2] if len(args) > 2 else None)):
            _refuse_alpha(alpha)
        names = _listed(lora_nickname)
        paths, targets, strengths = (
            _broadcast(value, len(names)) for value in (lora_path, target, strength)
        )
        with self._lock:
            state = self._state(pipeline)
            state.planned = {
                name: _read(pipeline, path, None)
                for name, path in zip(names, paths, strict=True)
                if path is not None
            }
            try:
                wanted = _by_target(names, targets, [float(one) for one in strengths])
                for uses in sorted(set(wanted.values())):
                    self._ask(state, uses)
                self._forget_changed(pipeline, state)
                answer = original(
                    pipeline, lora_nickname, lora_path, target, strength, *args, **kwargs
                )
            finally:
                state.planned = {}
            state.active = wanted if "all" in wanted else state.active | wanted
            return answer

    def merge_lora_weights(
        self,
        original: Callable[..., Any],
        pipeline: Any,
        target: str = "all",
        strength: float = 1.0,
    ) -> Any:
        """Audits what is active at the strength at which it is merged."""
        with self._lock:
            state = self._state(pipeline)
            for name, uses in state.active.items():
                if uses and (target in ("all", name) or name == "all"):
                    self._ask(state, tuple((nickname, float(strength)) for nickname, _ in uses))
            return original(pipeline, target, strength)

    def _state(self, pipeline: Any) -> _State:
        return self._states.setdefault(pipeline, _State())

    def _ask(self, state: _State, uses: Sequence[tuple[str, float]]) -> None:
        references = [
            AdapterReference(data=self._bytes_of(state, nickname), strength=strength)
            for nickname, strength in uses
            if strength != 0
        ]
        if references:
            self._keeper.admit(" + ".join(nickname for nickname, _ in uses), references)

    def _bytes_of(self, state: _State, nickname: str) -> bytes:
        """The bytes that a nickname stands for, or is about to.

        Raises:
            ValueError: it was loaded past the gate.
        """
        if nickname in state.planned:
            return state.planned[nickname]
        if nickname not in state.digests:
            raise ValueError(f"The adapter {nickname!r} was never audited; send its lora_path.")
        return self._copies.get(state.digests[nickname])

    def _forget_changed(self, pipeline: Any, state: _State) -> None:
        """Has SGLang load again what has other bytes now: it goes by the path alone."""
        for nickname, data in state.planned.items():
            if state.digests.get(nickname) != hashlib.sha256(data).hexdigest():
                pipeline.loaded_adapter_paths.pop(nickname, None)


def _read(pipeline: Any, lora_path: str, weight_name: str | None) -> bytes:
    """The bytes that SGLang would load, read once.

    Raises:
        ValueError: a configuration beside them would change what they do.
    """
    arguments = pipeline.server_args
    if weight_name is None and lora_path == arguments.lora_path:
        weight_name = arguments.lora_weight_name
    path = locate(lora_path, {"weight_name": weight_name})
    require_plain(path)
    return read_once(path)


def _refuse_alpha(alpha: int | None) -> None:
    if alpha is not None:
        raise ValueError(
            "lora_alpha in a request changes the strength past the audit. "
            "Leave it out and send a strength."
        )


def _by_target(
    names: list[str], targets: list[str], strengths: list[float]
) -> dict[str, tuple[tuple[str, float], ...]]:
    """Nicknames and strengths for each target; "all" stands beside every other one."""
    uses = list(zip(names, targets, strengths, strict=True))
    return {
        target: tuple((name, strength) for name, at, strength in uses if at in (target, "all"))
        for target in set(targets)
    }


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _broadcast(value: Any, count: int) -> list[Any]:
    """One value for each name, as SGLang reads them.

    Raises:
        ValueError: there are not as many as names.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ValueError(f"There are {count} nicknames but {len(values)} values: {values!r}.")
    return values
