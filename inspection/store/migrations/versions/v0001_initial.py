"""The first schema: every table of 0.1, and the triggers that keep history from being changed."""

import sqlalchemy as sa
from alembic import op

from inspection.store.migrations.append_only import protect, release

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)
_APPEND_ONLY = {
    "labels": [["id"]],
    "promotions": [["id"], ["product", "serial"]],
    "gate_decisions": [["id"]],
    "golden_looks": [["id"]],
}  # with their unique keys

# fmt: off
_TABLES = (
    "tasks", "labels", "devices", "assignments", "stations", "rollouts",
    "pictures", "watermarks", "verdicts", "targets", "splits", "snapshots",
    "quarantine", "promotions", "products", "leases", "golden_looks", "gate_decisions",
)  # children first
# fmt: on


def upgrade() -> None:
    """Apply."""
    _gate_decisions()
    _golden_looks()
    _leases()
    _products()
    _promotions()
    _quarantine()
    _snapshots()
    _splits()
    _targets()
    _verdicts()
    _watermarks()
    _pictures()
    _rollouts()
    _stations()
    _assignments()
    _devices()
    _labels()
    _tasks()
    for table, keys in _APPEND_ONLY.items():
        protect(table, keys)


def downgrade() -> None:
    """Go back: everything that was kept is lost."""
    for table in _APPEND_ONLY:
        release(table)
    for table in _TABLES:
        op.drop_table(table)


def _gate_decisions() -> None:
    op.create_table(
        "gate_decisions",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("gate", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("snapshot", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.String(length=16), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_gate_decisions_product", "gate_decisions", ["product"], unique=False)


def _golden_looks() -> None:
    op.create_table(
        "golden_looks",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("snapshot", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("why", sa.String(length=200), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_golden_looks_snapshot", "golden_looks", ["snapshot"], unique=False)


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=True),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )


def _products() -> None:
    op.create_table(
        "products",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _promotions() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("teacher_version", sa.String(length=64), nullable=True),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("snapshot", sa.String(length=64), nullable=False),
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("product", "serial"),
    )


def _quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_quarantine_code", "quarantine", ["code"], unique=False)


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("last_label_id", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_snapshots_product", "snapshots", ["product"], unique=False)


def _splits() -> None:
    op.create_table(
        "splits",
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("group_key", sa.String(length=200), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("assigned_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("product", "group_key"),
    )


def _targets() -> None:
    op.create_table(
        "targets",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("ix_targets_product", "targets", ["product"], unique=False)


def _verdicts() -> None:
    op.create_table(
        "verdicts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("part", sa.String(length=200), nullable=False),
        sa.Column("captured_at", _TIME, nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("defect_class", sa.String(length=100), nullable=True),
        sa.Column("defect_score", sa.Float(precision=53), nullable=True),
        sa.Column("bundle_digest", sa.String(length=64), nullable=True),
        sa.Column("recipe_digest", sa.String(length=64), nullable=True),
        sa.Column("picture", sa.String(length=64), nullable=True),
        sa.Column("picture_why", sa.String(length=32), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device", "boot", "sequence"),
    )
    op.create_index("ix_verdicts_part", "verdicts", ["part"], unique=False)
    op.create_index("ix_verdicts_picture", "verdicts", ["picture"], unique=False)
    op.create_index("ix_verdicts_product_time", "verdicts", ["product", "captured_at"], unique=False)
    op.create_index("ix_verdicts_received_at", "verdicts", ["received_at"], unique=False)
    op.create_index("ix_verdicts_station_bundle", "verdicts", ["station", "bundle_digest"], unique=False)
    op.create_index("ix_verdicts_station_time", "verdicts", ["station", "captured_at"], unique=False)


def _watermarks() -> None:
    op.create_table(
        "watermarks",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("value", sa.String(length=100), nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _pictures() -> None:
    op.create_table(
        "pictures",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.String(length=32), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("phash", sa.String(length=16), nullable=False),
        sa.Column("descriptor", sa.LargeBinary(), nullable=True),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("part", sa.String(length=200), nullable=False),
        sa.Column("group_key", sa.String(length=200), nullable=False),
        sa.Column("station", sa.String(length=64), nullable=True),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("fixed_split", sa.String(length=16), nullable=True),
        sa.Column("received_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["product"],
            ["products.name"],
        ),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("ix_pictures_group_key", "pictures", ["group_key"], unique=False)
    op.create_index("ix_pictures_part", "pictures", ["part"], unique=False)
    op.create_index("ix_pictures_phash", "pictures", ["phash"], unique=False)
    op.create_index("ix_pictures_product", "pictures", ["product"], unique=False)


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("group_index", sa.Integer(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("group_started_at", _TIME, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bundle"],
            ["targets.sha256"],
        ),
        sa.ForeignKeyConstraint(
            ["recipe"],
            ["targets.sha256"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_rollouts_product", "rollouts", ["product"], unique=False)


def _stations() -> None:
    op.create_table(
        "stations",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("audit_share", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(
            ["product"],
            ["products.name"],
        ),
        sa.PrimaryKeyConstraint("name"),
    )


def _assignments() -> None:
    op.create_table(
        "assignments",
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("rollout", _BIG_ID, nullable=True),
        sa.Column("bundle", sa.String(length=64), nullable=True),
        sa.Column("recipe", sa.String(length=64), nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout"],
            ["rollouts.id"],
        ),
        sa.ForeignKeyConstraint(
            ["station"],
            ["stations.name"],
        ),
        sa.PrimaryKeyConstraint("station", "serial"),
    )


def _devices() -> None:
    op.create_table(
        "devices",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("enrolled_at", _TIME, nullable=False),
        sa.Column("last_seen", _TIME, nullable=True),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["station"],
            ["stations.name"],
        ),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("token_sha256"),
    )


def _labels() -> None:
    op.create_table(
        "labels",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("picture", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=True),
        sa.Column("boxes", sa.JSON(), nullable=False),
        sa.Column("origin", sa.String(length=32), nullable=False),
        sa.Column("origin_id", sa.String(length=100), nullable=False),
        sa.Column("annotator", sa.String(length=200), nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["picture"],
            ["pictures.sha256"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_labels_origin", "labels", ["origin", "origin_id"], unique=False)
    op.create_index("ix_labels_picture", "labels", ["picture"], unique=False)
    op.create_index("ix_labels_product", "labels", ["product"], unique=False)


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", _BIG_ID, autoincrement=True, nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("picture", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("why", sa.String(length=32), nullable=False),
        sa.Column("verdict", sa.String(length=64), nullable=True),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("label_studio_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("answered_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["picture"],
            ["pictures.sha256"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("label_studio_id"),
        sa.UniqueConstraint("picture", "purpose"),
    )
    op.create_index("ix_tasks_product", "tasks", ["product"], unique=False)
