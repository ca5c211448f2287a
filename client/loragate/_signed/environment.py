"""Which keys are trusted, as variables of the environment say it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from loragate._signed.keys import TrustedKeys

FILES_VARIABLE = "LORAGATE_REQUIRE_SIGNATURE"
REVOKED_VARIABLE = "LORAGATE_REVOKED_KEYS"
ACCEPT_VARIABLE = "LORAGATE_ACCEPT_SIGNED"


def keys_from_environment(environment: Mapping[str, str] = os.environ) -> TrustedKeys | None:
    """The keys of `LORAGATE_REQUIRE_SIGNATURE`, less those of `LORAGATE_REVOKED_KEYS`.

    Files are parted as in PATH, ids by commas.

    Returns:
        None where the variable is not set, or empty.

    Raises:
        OSError, ValueError, ImportError: as `TrustedKeys`.
    """
    files = files_of(environment)
    return TrustedKeys(*files, revoked=revoked_of(environment)) if files else None


def files_of(environment: Mapping[str, str]) -> list[str]:
    """The files with keys that are trusted."""
    return [one for one in environment.get(FILES_VARIABLE, "").split(os.pathsep) if one]


def revoked_of(environment: Mapping[str, str]) -> list[str]:
    """The ids of the keys that are trusted no longer."""
    return environment.get(REVOKED_VARIABLE, "").replace(",", " ").split()
