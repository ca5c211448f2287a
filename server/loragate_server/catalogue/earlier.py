"""What an earlier scan measured, for a scan whose library is another one.

A new concept changes every verdict's key, so all is decided again. What the response stage measured
of an adapter is on record with its earlier decision, and is true again where the same concepts are
suspected (`audit.recall`). Nothing is kept for that but the names of what was measured with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel as Section
from pydantic import ConfigDict, TypeAdapter, ValidationError

from loragate_server.audit.evidence import ENGINE_VERSION, CoverageEvidence
from loragate_server.audit.recall import Fed, Recalled, recalled_of
from loragate_server.catalogue.entry import key_of
from loragate_server.catalogue.progress import DECIDED
from loragate_server.catalogue.results import read_parts
from loragate_server.errors import NoDecisionError
from loragate_server.files import whole_file
from loragate_server.record.verdict import Verdict

FACTS = "scan.json"
_FORMAT = 1
_recalled = TypeAdapter(Recalled)
_log = logging.getLogger(__name__)


class Facts(Section):
    """What a scan was made of; a file beside its results, which people may read too.

    Attributes:
        calibration_digest: "" without one, and in files of before it was told.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = _FORMAT
    source: str
    base_model: str
    base_digest: str
    library_digest: str
    calibration_digest: str = ""
    policy_digest: str
    engine_version: str
    loaders: tuple[str, ...]
    fed: dict[str, str]
    bank: str

    @property
    def rows(self) -> Fed:
        """What its response stage was fed."""
        return Fed(self.fed, self.bank)


def write_facts(folder: Path, facts: Facts) -> None:
    """Writes them into a folder of results.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(folder / FACTS) as partial:
        partial.write_text(facts.model_dump_json(indent=1) + "\n", encoding="utf-8")


def earlier_scans(out: Path, now: Facts) -> list[tuple[Path, Facts]]:
    """Scans with results in the same folder that measured on the same base model, newest first.

    And for the same loaders: a file's key names its bytes, not what a loader makes of them.

    Args:
        out: folder of the results of all scans.
        now: the scan that asks; those that cannot be of use to it are left out.
    """
    found = []
    for file in out.glob(f"*/{FACTS}"):
        try:
            facts = Facts.model_validate_json(file.read_bytes())
            changed_s = file.stat().st_mtime
        except (OSError, ValidationError):  # of another version, or being removed
            continue
        alike = facts.format == _FORMAT and facts.engine_version == ENGINE_VERSION
        if alike and _measured_alike(facts) == _measured_alike(now) and facts != now:
            found.append((changed_s, file.parent, facts))
    ordered = sorted(found, key=lambda one: (-one[0], one[1].name))
    return [(folder, facts) for _, folder, facts in ordered]


def _measured_alike(facts: Facts) -> tuple[object, ...]:
    """What two scans have to share; to other loaders the same bytes are other weights."""
    return facts.base_digest, facts.bank, facts.loaders


def responses_in(
    scans: Iterable[tuple[Path, Facts]], stored: Callable[[str], Verdict]
) -> Mapping[str, bytes]:
    """What the response stage measured, by key of the file; of several scans the first counts.

    Args:
        scans: see `earlier_scans`.
        stored: `Recorder.get`. A decision that is no longer on record is left out, and so are
            results that cannot be read, with a warning: they only save what can be measured again.
    """
    found: dict[str, bytes] = {}
    for folder, facts in scans:
        try:
            responded = list(_responded(folder))
        except (OSError, pa.ArrowException) as error:
            _log.warning("nothing is taken from the earlier scan %s: %s", folder, error)
            continue
        for key, decision_id in responded:
            if key not in found:
                try:
                    evidence = stored(decision_id).decision.evidence
                except NoDecisionError:
                    continue
                recalled = recalled_of(evidence, facts.rows)
                if recalled is not None and _key(evidence.adapters[0]) == key:
                    found[key] = _recalled.dump_json(recalled)
    return found


def _key(adapter: CoverageEvidence) -> str:
    return key_of(adapter.sha256, adapter.config_sha256)


def recalled_from(data: bytes) -> Recalled | None:
    """What `responses_in` found; None for none.

    Raises:
        ValueError: the bytes are something else.
    """
    return _recalled.validate_json(data) if data else None


def _responded(folder: Path) -> Iterator[tuple[str, str]]:
    """Keys and decisions of files that went to the response stage."""
    columns = ["outcome", "sha256", "config_sha256", "decision_id", "stage_times_s"]
    for batch in read_parts(folder, columns):
        for row in batch.to_pylist():
            if row["outcome"] == DECIDED and "response" in dict(row["stage_times_s"] or ()):
                yield key_of(row["sha256"], row["config_sha256"] or ""), row["decision_id"]
