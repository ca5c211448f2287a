"""What a decision log holds, read as anybody would: line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Written:
    """One decision in a log.

    Attributes:
        subject: digests and strengths of the adapters.
    """

    decision_id: str
    request_id: str
    verdict: str
    subject: tuple[tuple[str, float], ...]


def decisions(log: Path) -> list[Written]:
    """The decisions of a log, in order."""
    lines = map(json.loads, log.read_text("ascii").splitlines())
    return [_written(line["verdict"]) for line in lines if line["kind"] == "decision"]


def notes(log: Path) -> list[str]:
    """The codes of the notes in a log, in order."""
    lines = map(json.loads, log.read_text("ascii").splitlines())
    return [line["note"]["code"] for line in lines if line["kind"] == "note"]


def tear(log: Path) -> None:
    """Leaves at the end of a log what a crash in the middle of a write leaves."""
    line = log.read_bytes().splitlines()[-1]
    with log.open("ab") as file:
        file.write(line[: len(line) // 2])


def verify(log: Path, *against: str) -> str:
    """What `loragate-server log verify` says of a log.

    Args:
        log: its file.
        against: options that say what it is held against, as `--checkpoint` and `--key`.

    Raises:
        RuntimeError: the log is not intact.
    """
    command = [sys.executable, "-m", "loragate_server", "log", "verify", str(log), *against]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{log} is not intact:\n{done.stderr}{done.stdout}")
    return done.stdout.strip()


def _written(verdict: dict[str, object]) -> Written:
    decision, caller = verdict["decision"], verdict["caller"]
    assert isinstance(decision, dict)
    assert isinstance(caller, dict)
    return Written(
        decision_id=str(verdict["decision_id"]),
        request_id=caller["request_id"],
        verdict=decision["verdict"],
        subject=tuple(
            (adapter["sha256"], adapter["denoiser_strength"])
            for adapter in decision["evidence"]["adapters"]
        ),
    )
