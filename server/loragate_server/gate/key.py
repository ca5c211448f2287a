"""The verdict key: everything that an answer depends on, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.intake.adapter import Strength


@dataclass(frozen=True)
class AdapterKey:
    """Identity of one adapter as it will be used.

    `config_sha256` covers the `adapter_config.json` beside the weights, which sets scales and so
    changes what the same weights do; empty where there is none.
    """

    sha256: str
    config_sha256: str
    strength: Strength

    @staticmethod
    def of(sha256: str, config_json: str | None, strength: Strength) -> AdapterKey:
        """The key of bytes with this digest and this configuration."""
        config = "" if config_json is None else hashlib.sha256(config_json.encode()).hexdigest()
        return AdapterKey(sha256, config, strength)


@dataclass(frozen=True)
class VerdictKey:
    """Two requests with equal keys get equal verdicts, up to id, time and caller.

    Attributes:
        adapters: in the order of the request, in which the answer names them.
        concept_ids: sorted, without repetition; empty for the whole library.
    """

    adapters: tuple[AdapterKey, ...]
    base_model: str
    base_digest: str
    library_digest: str
    policy_digest: str
    concept_ids: tuple[str, ...]
    dry_run: bool
    engine_version: str = ENGINE_VERSION
