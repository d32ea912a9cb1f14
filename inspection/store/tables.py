"""Typed tables. What a row means is `inspection.data`'s business; here is only how it is kept.

Invariants: times are UTC; `labels`, `promotions`, `gate_decisions`, `golden_looks` and `failed_retrains` are append-only
(database triggers made by the migrations refuse UPDATE and DELETE); `(device, boot, sequence)` is unique; one task per
picture and purpose.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

APPEND_ONLY = ("labels", "promotions", "gate_decisions", "golden_looks", "failed_retrains")


def utc_now() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on every database; a naive one is a programming error (ValueError)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r}: times in the store are UTC and say so")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """From the database (SQLite drops the zone)."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Declarative base: JSON columns for dicts and lists, UTC for datetimes."""

    type_annotation_map = {
        dict[str, Any]: JSON,
        list[str]: JSON,
        datetime: UtcDateTime,
        float: Float(53),
    }


class ProductRow(Base):
    """A product's current definition (`inspection.data.product.Product`)."""

    __tablename__ = "products"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class StationRow(Base):
    """An inspection point."""

    __tablename__ = "stations"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    product: Mapped[str] = mapped_column(ForeignKey("products.name"))
    mode: Mapped[str] = mapped_column(String(16), default="judge")
    audit_share: Mapped[float] = mapped_column(default=0.02)
    challenger: Mapped[str | None] = mapped_column(String(64))  # digest of a bundle that judges without answering


class DeviceRow(Base):
    """An enrolled agent. The token itself is not kept, only its SHA-256."""

    __tablename__ = "devices"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    station: Mapped[str] = mapped_column(ForeignKey("stations.name"))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    enrolled_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_seen: Mapped[datetime | None]
    report: Mapped[dict[str, Any] | None]


class PictureRow(Base):
    """A picture in the blob store; the bytes are at `pictures/<sha256>`. `phash` is 64 bits in hexadecimal."""

    __tablename__ = "pictures"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    length: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(32))
    width: Mapped[int]
    height: Mapped[int]
    phash: Mapped[str] = mapped_column(String(16), index=True)
    descriptor: Mapped[bytes | None] = mapped_column(LargeBinary)  # see `inspection.data.descriptors`
    product: Mapped[str] = mapped_column(ForeignKey("products.name"), index=True)
    part: Mapped[str] = mapped_column(String(200), index=True)
    group: Mapped[str] = mapped_column("group_key", String(200), index=True)
    station: Mapped[str | None] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(32))  # "agent" | "import"
    fixed_split: Mapped[str | None] = mapped_column(String(16))  # from an importer's labels.csv
    received_at: Mapped[datetime] = mapped_column(default=utc_now)


class VerdictRow(Base):
    """One verdict; `body` is the contract, the columns are what is searched."""

    __tablename__ = "verdicts"
    __table_args__ = (
        UniqueConstraint("device", "boot", "sequence"),
        Index("ix_verdicts_product_time", "product", "captured_at"),
        Index("ix_verdicts_station_bundle", "station", "bundle_digest"),
        Index("ix_verdicts_station_time", "station", "captured_at"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(String(64))
    boot: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    station: Mapped[str] = mapped_column(String(64))
    product: Mapped[str] = mapped_column(String(64))
    part: Mapped[str] = mapped_column(String(200), index=True)
    captured_at: Mapped[datetime]
    received_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    mode: Mapped[str] = mapped_column(String(16))
    purpose: Mapped[str] = mapped_column(String(16), server_default="production")  # "challenge": a known part
    decision: Mapped[str] = mapped_column(String(16))
    defect_class: Mapped[str | None] = mapped_column(String(100))
    defect_score: Mapped[float | None]
    bundle_digest: Mapped[str | None] = mapped_column(String(64))
    recipe_digest: Mapped[str | None] = mapped_column(String(64))
    picture: Mapped[str | None] = mapped_column(String(64), index=True)  # set when the hub holds the bytes
    picture_why: Mapped[str | None] = mapped_column(String(32))  # why the device kept it: "audit" is the random share
    sha256: Mapped[str] = mapped_column(String(64))  # of the canonical bytes, as in the receipt
    body: Mapped[dict[str, Any]]


class QuarantineRow(Base):
    """Something refused: what, from whom, why. The bytes (if kept) are at `quarantine/<sha256>`."""

    __tablename__ = "quarantine"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    code: Mapped[str] = mapped_column(String(40), index=True)
    detail: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str | None] = mapped_column(String(64))
    length: Mapped[int | None] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(default=utc_now)


class TaskRow(Base):
    """A question to the operators. Reserved here first, then created in Label Studio, then confirmed by its id."""

    __tablename__ = "tasks"
    __table_args__ = (UniqueConstraint("picture", "purpose"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    product: Mapped[str] = mapped_column(String(64), index=True)
    picture: Mapped[str] = mapped_column(ForeignKey("pictures.sha256"))
    purpose: Mapped[str] = mapped_column(String(16), default="label")
    why: Mapped[str] = mapped_column(String(32))  # "uncertain" | "disagree" | "audit" | "import"
    verdict: Mapped[str | None] = mapped_column(String(64))
    project_id: Mapped[int | None]
    label_studio_id: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    answered_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]  # skipped, or deleted in Label Studio: no answer is waited for


class LabelRow(Base):
    """Append-only: an answer, or the retraction of one. `origin_id` names the answer at its source (annotation id)."""

    __tablename__ = "labels"
    __table_args__ = (Index("ix_labels_origin", "origin", "origin_id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    product: Mapped[str] = mapped_column(String(64), index=True)
    picture: Mapped[str] = mapped_column(ForeignKey("pictures.sha256"), index=True)
    kind: Mapped[str] = mapped_column(String(12))  # "answer" | "retraction"
    label: Mapped[str | None] = mapped_column(String(100))  # None: cannot tell (answer), or retraction
    boxes: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    origin: Mapped[str] = mapped_column(String(32))  # "label_studio" | "import"
    origin_id: Mapped[str] = mapped_column(String(100))
    annotator: Mapped[str] = mapped_column(String(200))
    made_at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(default=utc_now)
    body: Mapped[dict[str, Any]] = mapped_column(default=dict)  # the answer as the source gave it


class WatermarkRow(Base):
    """How far a pull has come; `value` is the server's own stamp."""

    __tablename__ = "watermarks"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(String(100))
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class SplitRow(Base):
    """The permanent side of a part group; assigned once, never moved."""

    __tablename__ = "splits"

    product: Mapped[str] = mapped_column(String(64), primary_key=True)
    group: Mapped[str] = mapped_column("group_key", String(200), primary_key=True)
    split: Mapped[str] = mapped_column(String(16))
    assigned_at: Mapped[datetime] = mapped_column(default=utc_now)


class SnapshotRow(Base):
    """A snapshot; its canonical bytes are at `snapshots/<id>.json` in the blob store."""

    __tablename__ = "snapshots"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    product: Mapped[str] = mapped_column(String(64), index=True)
    last_label_id: Mapped[int] = mapped_column(BigInteger)  # labels up to here were considered
    counts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class GoldenLookRow(Base):
    """Append-only: one look at the golden set."""

    __tablename__ = "golden_looks"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    snapshot: Mapped[str] = mapped_column(String(64), index=True)
    who: Mapped[str] = mapped_column(String(200))
    why: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(default=utc_now)


class BundleRow(Base):
    """A released target (bundle or recipe): bytes at `targets/<sha256>`, with its DSSE envelope."""

    __tablename__ = "targets"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(12))
    product: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(100))
    version: Mapped[int]
    length: Mapped[int] = mapped_column(BigInteger)
    envelope: Mapped[bytes | None] = mapped_column(LargeBinary)  # None: not signed, cannot be assigned
    body: Mapped[dict[str, Any]] = mapped_column(default=dict)  # manifest or recipe
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class GateDecisionRow(Base):
    """Append-only: what a gate said about a candidate, with the scorecards it read."""

    __tablename__ = "gate_decisions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    product: Mapped[str] = mapped_column(String(64), index=True)
    gate: Mapped[int]  # 1: float model, 2: the bundle itself
    subject: Mapped[str] = mapped_column(String(100))  # MLflow run id, or bundle digest
    snapshot: Mapped[str] = mapped_column(String(64))
    answer: Mapped[str] = mapped_column(String(16))  # PASS | FAIL | INSUFFICIENT
    why: Mapped[str] = mapped_column(Text)
    body: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(default=utc_now)


class FailedRetrainRow(Base):
    """Append-only: a retrain that ended in an exception: on which labels, in which stage, why."""

    __tablename__ = "failed_retrains"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    product: Mapped[str] = mapped_column(String(64), index=True)
    last_label_id: Mapped[int] = mapped_column(BigInteger)  # the newest one when it began
    stage: Mapped[str] = mapped_column(String(100))
    why: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default=utc_now)


class PromotionRow(Base):
    """Append-only ledger of who decides what on the lines; MLflow aliases are a projection of it."""

    __tablename__ = "promotions"
    __table_args__ = (UniqueConstraint("product", "serial"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    product: Mapped[str] = mapped_column(String(64))
    serial: Mapped[int]  # rises by one per product
    role: Mapped[str] = mapped_column(String(16))  # "challenger" | "champion"
    model_version: Mapped[str] = mapped_column(String(64))  # of the edge model in MLflow
    teacher_version: Mapped[str | None] = mapped_column(String(64))
    run_id: Mapped[str] = mapped_column(String(64))
    snapshot: Mapped[str] = mapped_column(String(64))
    bundle: Mapped[str] = mapped_column(String(64))
    recipe: Mapped[str] = mapped_column(String(64))
    fencing_token: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(200))
    why: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default=utc_now)


class RolloutRow(Base):
    """A rollout of one bundle and recipe over groups of stations. `groups` is a list of lists of station names."""

    __tablename__ = "rollouts"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    product: Mapped[str] = mapped_column(String(64), index=True)
    bundle: Mapped[str] = mapped_column(ForeignKey("targets.sha256"))
    recipe: Mapped[str] = mapped_column(ForeignKey("targets.sha256"))
    state: Mapped[str] = mapped_column(String(16))  # running | paused | done | aborted
    group_index: Mapped[int] = mapped_column(default=0)
    groups: Mapped[list[list[str]]] = mapped_column(JSON)
    group_started_at: Mapped[datetime] = mapped_column(default=utc_now)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]
    why: Mapped[str] = mapped_column(Text, default="")


class AssignmentRow(Base):
    """What a station shall run; the newest serial counts."""

    __tablename__ = "assignments"

    station: Mapped[str] = mapped_column(ForeignKey("stations.name"), primary_key=True)
    serial: Mapped[int] = mapped_column(primary_key=True)
    rollout: Mapped[int | None] = mapped_column(ForeignKey("rollouts.id"))
    bundle: Mapped[str | None] = mapped_column(String(64))
    recipe: Mapped[str | None] = mapped_column(String(64))
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    issued_at: Mapped[datetime] = mapped_column(default=utc_now)


class LeaseRow(Base):
    """A lease with expiry; `token` rises with every new holder (fencing)."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    holder: Mapped[str | None] = mapped_column(String(200))
    token: Mapped[int] = mapped_column(BigInteger, default=0)
    expires_at: Mapped[datetime | None]
