"""points of parts of a split, answers, goals and pauses

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NEVER_REUSED = {"sqlite_autoincrement": True}


def _document(name: str) -> sa.Column:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=True)


def _number(name: str) -> sa.Column:
    return sa.Column(name, sa.Float(53), nullable=True)


def upgrade() -> None:
    op.create_table(
        "outcome",
        sa.Column("context", sa.String(length=64), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("criterion", sa.String(length=64), nullable=False),
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("hits", sa.LargeBinary(), nullable=True),
        _document("by_class"),
        _document("sums"),
        sa.Column("state", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("context", "unit", "criterion", "level", name=op.f("pk_outcome")),
    )
    with op.batch_alter_table("analysis", table_kwargs=_NEVER_REUSED) as batch_op:
        for name in ("goals", "extra", "remarks"):
            batch_op.add_column(_document(name))
        batch_op.add_column(sa.Column("known", sa.Integer(), nullable=True))
    with op.batch_alter_table("baseline") as batch_op:
        batch_op.add_column(_document("strata"))
    with op.batch_alter_table("job", table_kwargs=_NEVER_REUSED) as batch_op:
        batch_op.add_column(
            sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
    with op.batch_alter_table("job", table_kwargs=_NEVER_REUSED) as batch_op:
        batch_op.alter_column(
            "paused", existing_type=sa.Boolean(), existing_nullable=False, server_default=None
        )
    with op.batch_alter_table("point") as batch_op:
        batch_op.add_column(sa.Column("of", sa.Integer(), nullable=True))
        for name in ("drop", "drop_low", "drop_high", "kl"):
            batch_op.add_column(_number(name))
        batch_op.add_column(_document("sums"))
        batch_op.add_column(_number("confidence"))
        batch_op.add_column(sa.Column("remark", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("point") as batch_op:
        for name in (
            "updated_at", "remark", "confidence", "sums", "kl", "drop_high", "drop_low",
            "drop", "of",
        ):  # fmt: skip
            batch_op.drop_column(name)
    with op.batch_alter_table("job", table_kwargs=_NEVER_REUSED) as batch_op:
        batch_op.drop_column("paused")
    with op.batch_alter_table("baseline") as batch_op:
        batch_op.drop_column("strata")
    with op.batch_alter_table("analysis", table_kwargs=_NEVER_REUSED) as batch_op:
        for name in ("known", "remarks", "extra", "goals"):
            batch_op.drop_column(name)
    op.drop_table("outcome")
