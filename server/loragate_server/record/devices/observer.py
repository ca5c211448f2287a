"""What the devices tell whoever counts; they know no metrics library."""

from __future__ import annotations


class DeviceObserver:
    """Told of every attempt, and does nothing about it: subclasses count. Must not block."""

    def device_took(self, device: str, lines: int) -> None:
        """A device has taken so many lines."""

    def device_failed(self, device: str) -> None:
        """A device did not take a line, or could not be reached."""

    def device_missed(self, device: str, lines: int) -> None:
        """So many lines were taken away from the log before a device had them."""
