"""What a scan of a catalogue has recorded already, so that it can go on where it ended."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import ColumnElement, exists, select

from loragate_server.record.database import Database
from loragate_server.record.tables import audited_adapters, audits
from loragate_server.record.verdict import SCAN_SERVICE


def request_id(scan_id: str, config_sha256: str) -> str:
    """By which a scan asks about a file: its own name, and the configuration beside the file."""
    return f"{scan_id}/{config_sha256}"


def scanned(database: Database, scan_id: str, policy_digest: str) -> dict[str, str]:
    """The decisions of a scan that hold, by the key of their file.

    A key is the file's digest, "." and that of the configuration beside it.

    A decision that was made when the policy had just changed is not one of this scan. Neither is
    one that answers another question than a scan asks, whoever has it recorded under its name.

    Args:
        database: of the record.
        scan_id: as `request_id` has it.
        policy_digest: of the scan's policy.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE.
    """
    columns = (audited_adapters.c.sha256, audits.c.decision_id, audits.c.caller_request_id)
    query = (
        select(*columns)
        .join(audits, audits.c.decision_id == audited_adapters.c.decision_id)
        .where(
            audits.c.caller_service == SCAN_SERVICE,
            audits.c.policy_digest == policy_digest,
            audits.c.expires_at > datetime.now(UTC),
            audits.c.caller_request_id.startswith(f"{scan_id}/", autoescape=True),
            *_as_a_scan_asks(),
        )
        .order_by(audits.c.decided_at, audits.c.decision_id)
    )
    found: dict[str, str] = {}
    with database.reading() as connection:
        for sha256, decision_id, asked in connection.execute(query):
            config_sha256 = asked.partition("/")[2]
            found[f"{sha256}.{config_sha256}" if config_sha256 else sha256] = decision_id
    return found


def _as_a_scan_asks() -> list[ColumnElement[bool]]:
    """A whole question about one file at full strength, of nobody who was signed in."""
    another = audited_adapters.alias()
    beside = (another.c.decision_id == audits.c.decision_id) & (another.c.position > 0)
    return [
        audits.c.binding.is_(True),
        audits.c.caller_identity == "",
        audits.c.caller_tenant == "",
        audited_adapters.c.denoiser_strength == 1.0,
        audited_adapters.c.text_encoder_strength == 1.0,
        ~exists().where(beside),
    ]
