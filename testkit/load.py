"""What a healthy image service asks: few new adapters, many known ones, now and then a bad file."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loragate import AuditClient, AuditError

ADAPTERS = Path(__file__).parents[1] / "examples" / "adapters"
HARMLESS = sorted(ADAPTERS.glob("harmless-*.safetensors"))


class HealthyLoad:
    """Asks `per_s` questions a second; one in ten is new, one in twenty about a broken file."""

    def __init__(self, target: str, per_s: float) -> None:
        self.answers: Counter[str] = Counter()
        self._target, self._pause_s = target, 1 / per_s
        self._files = [file.read_bytes() for file in HARMLESS]

    def run(self, until: threading.Event) -> None:
        """Asks until told to stop."""
        with AuditClient(self._target, on_unavailable="raise", timeout=30) as client:
            number = 0
            while not until.wait(self._pause_s):
                number += 1
                self.answers[self._ask(client, number)] += 1

    def _ask(self, client: AuditClient, number: int) -> str:
        data = self._files[number % len(self._files)]
        strength = 1 + number / 100_000 if number % 10 == 0 else 1.0
        try:
            if number % 20 == 5:
                client.audit(data[: len(data) // 2])
            result = client.audit(data, strength=strength)
        except AuditError as error:
            return error.reason or type(error).__name__
        return result.verdict.value


@contextmanager
def healthy_load(target: str, per_s: float = 5.0) -> Iterator[HealthyLoad]:
    """Healthy load for as long as the block lasts."""
    load, stop = HealthyLoad(target, per_s), threading.Event()
    thread = threading.Thread(target=load.run, args=(stop,))
    thread.start()
    try:
        yield load
    finally:
        stop.set()
        thread.join()
