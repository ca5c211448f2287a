"""The tables of the database. A migration in `migrations/versions` goes with every change."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    true,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, timezone-aware UTC on our side, also in SQLite, which knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; naive for SQLite."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,
    ) -> datetime | None:
        """Back to aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

audits = Table(
    "audits",
    metadata,
    Column("decision_id", String(32), primary_key=True),
    Column("decided_at", UtcDateTime(), nullable=False),
    Column("expires_at", UtcDateTime(), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("would_be_verdict", String(16), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("remedy", String(32), nullable=False),
    Column("dry_run", Boolean(), nullable=False),
    # Whether a load may rest on it: no dry run, and no question about some concepts only.
    Column("binding", Boolean(), nullable=False, server_default=true()),
    Column("base_model", Text(), nullable=False),
    Column("base_digest", Text(), nullable=False),
    Column("library_digest", Text(), nullable=False),
    Column("policy_digest", Text(), nullable=False),
    Column("engine_version", Text(), nullable=False),
    Column("caller_service", Text(), nullable=False),
    Column("caller_tenant", Text(), nullable=False),
    Column("caller_request_id", Text(), nullable=False),
    Column("caller_identity", Text(), nullable=False),
    # The whole verdict as JSON of the codec. Text, because it is what was logged, byte for byte.
    Column("payload", Text(), nullable=False),
    # Of what a person could review about the decision; NULL where there is nothing to review.
    Column("subject_key", String(64), nullable=True),
    # The signed form; NULL where nothing was signed. The payload has its digest.
    Column("envelope", LargeBinary(), nullable=True),
    # When the measured numbers were taken out of the payload; NULL while it is what was logged.
    Column("evidence_pruned_at", UtcDateTime(), nullable=True),
    Index(None, "decided_at", "decision_id"),
    Index(None, "verdict", "decided_at", "decision_id"),
    Index(None, "would_be_verdict", "decided_at", "decision_id"),
    Index(None, "subject_key", "decision_id"),
)


def _row_of_decision() -> tuple[Column[str], Column[int]]:
    """The key of a table with several rows per decision, which go with it."""
    decision = ForeignKey("audits.decision_id", ondelete="CASCADE")
    return (
        Column("decision_id", String(32), decision, primary_key=True),
        Column("position", Integer(), primary_key=True, autoincrement=False),
    )


audited_adapters = Table(
    "audited_adapters",
    metadata,
    *_row_of_decision(),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger(), nullable=False),
    Column("format", Text(), nullable=False),
    Column("denoiser_strength", Float(53), nullable=False),
    Column("text_encoder_strength", Float(53), nullable=False),
    Index(None, "sha256", "decision_id"),
)

findings = Table(
    "findings",
    metadata,
    # The concepts that the policy acted on, for those who search by them.
    *_row_of_decision(),
    Column("concept_id", Text(), nullable=False),
    Column("concept_name", Text(), nullable=False),
    Column("severity", String(16), nullable=False),
    # 0 to 100; NULL where nothing valid was measured.
    Column("degree", Float(53), nullable=True),
    Index(None, "concept_id", "decision_id"),
    Index(None, "severity", "decision_id"),
)

known_uses = Table(
    "known_uses",
    metadata,
    *_row_of_decision(),
    Column("decided_at", UtcDateTime(), nullable=False),
    Column("base_digest", Text(), nullable=False),
    # Equal for uses of the same files, whatever their strengths.
    Column("files", String(64), nullable=False),
    # False where a later decision about exactly this use allowed it.
    Column("blocked", Boolean(), nullable=False),
    # Digest, configuration and strengths of each file as JSON, sorted.
    Column("members", Text(), nullable=False),
    Index(None, "decided_at"),
    Index(None, "files"),
)

sketches = Table(
    "sketches",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("config_sha256", String(64), primary_key=True),
    Column("base_digest", String(64), primary_key=True),
    # Of the way in which sketches are made: those of different versions cannot be compared.
    Column("version", Integer(), primary_key=True, autoincrement=False),
    # Loaders may read one file in several ways, and each has a sketch.
    Column("reading", Integer(), primary_key=True, autoincrement=False),
    Column("sketch", LargeBinary(), nullable=False),
)

file_weights = Table(
    "file_weights",
    metadata,
    Column("sha256", String(64), primary_key=True),
    # Of the tensors alone: files that differ in their metadata only share it.
    Column("weights_sha256", String(64), nullable=False),
    # When the first decision about the file was made.
    Column("learned_at", UtcDateTime(), nullable=False),
    Index(None, "weights_sha256"),
    Index(None, "learned_at"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("review_id", String(32), primary_key=True),
    Column("subject_key", String(64), nullable=False),
    Column("position", Integer(), nullable=False, autoincrement=False),
    Column("reviewed_at", UtcDateTime(), nullable=False),
    # What the events of the subject come to after this one, and when that lapses.
    Column("state", String(16), nullable=False),
    Column("ends_at", UtcDateTime(), nullable=True),
    # Whose act it was; NULL where an older version wrote the row.
    Column("reviewer", Text(), nullable=True),
    # The event, its subject and its standing as JSON, as they were logged.
    Column("payload", Text(), nullable=False),
    # Two people who act on the same state cannot both be right: the second is refused.
    Index(None, "subject_key", "position", unique=True),
    Index(None, "reviewer", "subject_key"),
    Index(None, "reviewed_at"),
)

concept_changes = Table(
    "concept_changes",
    metadata,
    # One row for each step of a change of the concept library.
    Column("change_id", String(32), primary_key=True),
    Column("position", Integer(), primary_key=True, autoincrement=False),
    Column("made_at", UtcDateTime(), nullable=False),
    # What the steps come to after this one.
    Column("state", String(16), nullable=False),
    Column("concept_id", Text(), nullable=False),
    # The step and what it is about as JSON, as they were logged.
    Column("payload", Text(), nullable=False),
    Index(None, "concept_id", "change_id"),
)

change_pictures = Table(
    "change_pictures",
    metadata,
    # Those that came with a change, until it has ended; PNG.
    Column("change_id", String(32), primary_key=True),
    Column("position", Integer(), primary_key=True, autoincrement=False),
    Column("picture", LargeBinary(), nullable=False),
)

holds = Table(
    "holds",
    metadata,
    Column("name", String(64), primary_key=True),
    # "sha256", "concept" or "time", and what it is about: a digest, an id, or since/until.
    Column("kind", String(16), nullable=False),
    Column("about", Text(), nullable=False),
    Column("reason", Text(), nullable=False),
    Column("placed_at", UtcDateTime(), nullable=False),
    # Holds are released, never deleted: somebody may ask who held what, and until when.
    Column("released_at", UtcDateTime(), nullable=True),
    Column("release_reason", Text(), nullable=True),
)

pruned = Table(
    "pruned",
    metadata,
    # Of the decision or the review.
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("made_at", UtcDateTime(), nullable=False),
    Column("pruned_at", UtcDateTime(), nullable=False),
    # Where the row lies since; empty where no archive was configured.
    Column("archive", Text(), nullable=False),
)

events = Table(
    "events",
    metadata,
    # Of the decision or review that it tells of, where there is one.
    Column("event_id", String(32), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("made_at", UtcDateTime(), nullable=False),
    # What is told only once while it lasts; NULL where every event is another.
    Column("topic", String(64), nullable=True),
    # As it is sent: made once, so that every attempt says the same.
    Column("body", Text(), nullable=False),
    Index(None, "topic", unique=True),
)

event_deliveries = Table(
    "event_deliveries",
    metadata,
    Column(
        "event_id",
        String(32),
        ForeignKey("events.event_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("receiver", String(64), primary_key=True),
    Column("made_at", UtcDateTime(), nullable=False),
    # Of the next attempt, or the end of the lease of the one that runs.
    Column("due_at", UtcDateTime(), nullable=False),
    Column("attempts", Integer(), nullable=False),
    # When an attempt first failed, of this event or of one before it; NULL where none has.
    Column("failing_since", UtcDateTime(), nullable=True),
    # When it was given up; NULL while it is still tried.
    Column("dead_at", UtcDateTime(), nullable=True),
    Column("last_error", Text(), nullable=False),
    Index(None, "receiver", "dead_at", "made_at", "event_id"),
)
