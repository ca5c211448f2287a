"""`PolicyStore`: the policy in force, kept up to date with its file and never without one."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.policy import Policy
from loragate_server.policy.source import MAX_FILE_BYTES

_LOGGER = logging.getLogger(__name__)
_Signature = tuple[int, int, int, int]


class PolicyStore:
    """Loads a policy file and follows its changes. Thread-safe.

    A file that cannot be read or is not valid never replaces the policy in force. The watch applies
    a change only after the file stayed the same from one poll to the next: a list of entries cut
    short by a torn write can be valid YAML, and a milder policy than its author meant.

    Attributes:
        last_error: why the last load failed; None after a good one.
        last_reload_success: whether the last load was good.
        last_reload_timestamp_s: Unix time of the last good load.
    """

    def __init__(self, path: Path, *, poll_interval_s: float = 1.0) -> None:
        """Loads the policy.

        Raises:
            NoDecisionError: POLICY_INVALID, if there is no valid policy to begin with.
        """
        self._path = path
        self._poll_interval_s = poll_interval_s
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Policy], None]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        data, self._applied = _read(path)
        self._current = parse_policy(data, path.name)
        self._pending: _Signature | None = None
        self.last_error: str | None = None
        self.last_reload_success = True
        self.last_reload_timestamp_s = time.time()

    @property
    def current(self) -> Policy:
        """The policy in force."""
        return self._current

    def on_change(self, callback: Callable[[Policy], None]) -> None:
        """Calls back with every new policy, on the thread that loaded it."""
        self._callbacks.append(callback)

    def reload(self) -> bool:
        """Loads the file now, settled or not.

        Returns:
            Whether the policy in force is what the file says; if not, `last_error` says why.
        """
        with self._lock:
            before = self._current
            try:
                data, signature = _read(self._path)
                policy = parse_policy(data, self._path.name)
            except NoDecisionError as error:
                self.last_error = error.message
                self.last_reload_success = False
                _LOGGER.error("Policy kept, because the new one is refused: %s", error.message)
                return False
            self._applied = signature
            if policy.digest != before.digest:
                self._current = policy
                _LOGGER.info("Policy %s is in force.", policy.digest[:12])
            self.last_error = None
            self.last_reload_success = True
            self.last_reload_timestamp_s = time.time()
        if policy.digest != before.digest:
            self._tell(policy)
        return True

    def start(self) -> None:
        """Begins to watch the file, in a thread."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._watch, name="policy-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the watch; waits for its thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def poll(self) -> None:
        """One look at the file: loads a change that has settled since the last look."""
        signature = _signature(self._path)
        if signature == self._applied:
            self._pending = None
        elif signature is not None and signature == self._pending:
            self._applied = signature  # A refused file is tried once, not every second.
            self._pending = None
            self.reload()
        else:
            self._pending = signature
            if signature is None and self.last_reload_success:
                self._applied = (0, 0, 0, 0)  # So that the same file is loaded when it comes back.
                self.reload()

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_interval_s):
            try:
                self.poll()
            except Exception:
                _LOGGER.exception("The watch over the policy file failed once; it goes on.")

    def _tell(self, policy: Policy) -> None:
        for callback in list(self._callbacks):
            try:
                callback(policy)
            except Exception:
                _LOGGER.exception("A listener failed on the new policy; the policy is in force.")


def _signature(path: Path) -> _Signature | None:
    try:
        return _of(path.stat())
    except OSError:
        return None


def _of(status: os.stat_result) -> _Signature:
    return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)


def _read(path: Path) -> tuple[bytes, _Signature]:
    """The bytes of the file and its signature, refused if it changed while it was read."""
    try:
        with path.open("rb") as file:
            before = _of(os.fstat(file.fileno()))
            data = file.read(MAX_FILE_BYTES + 1)
            after = _of(os.fstat(file.fileno()))
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}") from error
    if before != after:
        raise _unreadable(path, "changed while it was read")
    return data, after


def _unreadable(path: Path, problem: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.POLICY_INVALID,
        f"{path.name}:1:1: (file): {problem}",
        remedy="Put a policy file that the server can read where its settings say.",
        metadata={"file": path.name, "line": "1"},
    )
