"""families of networks and metrics

Revision: 0002
Follows: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("baseline") as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("metrics", sa.JSON(none_as_null=True), nullable=True))
        batch_op.alter_column("correct", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("accuracy", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("low", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("high", existing_type=sa.FLOAT(), nullable=True)

    with op.batch_alter_table("dataset") as batch_op:
        batch_op.add_column(sa.Column("options", sa.JSON(none_as_null=True), nullable=True))

    with op.batch_alter_table("epoch") as batch_op:
        batch_op.add_column(sa.Column("tune_metrics", sa.JSON(none_as_null=True), nullable=True))
        batch_op.alter_column("tune_accuracy", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("low", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("high", existing_type=sa.FLOAT(), nullable=True)

    with op.batch_alter_table(
        "measurement", table_kwargs={"sqlite_autoincrement": True}
    ) as batch_op:
        batch_op.add_column(sa.Column("metrics", sa.JSON(none_as_null=True), nullable=True))
        batch_op.alter_column("correct", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("accuracy", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("low", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("high", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("flips", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("lost", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("gained", existing_type=sa.INTEGER(), nullable=True)

    with op.batch_alter_table("model") as batch_op:
        batch_op.add_column(
            sa.Column("architecture_args", sa.JSON(none_as_null=True), nullable=True)
        )
        batch_op.add_column(sa.Column("derived_sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("details", sa.JSON(none_as_null=True), nullable=True))
        batch_op.create_index(
            batch_op.f("ix_model_derived_sha256"), ["derived_sha256"], unique=False
        )

    with op.batch_alter_table("point") as batch_op:
        batch_op.add_column(sa.Column("metrics", sa.JSON(none_as_null=True), nullable=True))
        batch_op.alter_column("correct", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("accuracy", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("low", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("high", existing_type=sa.FLOAT(), nullable=True)
        batch_op.alter_column("flips", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("lost", existing_type=sa.INTEGER(), nullable=True)
        batch_op.alter_column("gained", existing_type=sa.INTEGER(), nullable=True)

    with op.batch_alter_table("worker") as batch_op:
        batch_op.add_column(sa.Column("isolation", sa.String(length=16), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("worker") as batch_op:
        batch_op.drop_column("isolation")

    with op.batch_alter_table("point") as batch_op:
        batch_op.alter_column("gained", existing_type=sa.INTEGER(), nullable=False)
        batch_op.alter_column("lost", existing_type=sa.INTEGER(), nullable=False)
        batch_op.alter_column("flips", existing_type=sa.INTEGER(), nullable=False)
        batch_op.alter_column("high", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("low", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("accuracy", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("correct", existing_type=sa.INTEGER(), nullable=False)
        batch_op.drop_column("metrics")

    with op.batch_alter_table("model") as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_derived_sha256"))
        batch_op.drop_column("details")
        batch_op.drop_column("derived_sha256")
        batch_op.drop_column("architecture_args")

    with op.batch_alter_table(
        "measurement", table_kwargs={"sqlite_autoincrement": True}
    ) as batch_op:
        batch_op.alter_column("gained", existing_type=sa.INTEGER(), nullable=False)
        batch_op.alter_column("lost", existing_type=sa.INTEGER(), nullable=False)
        batch_op.alter_column("flips", existing_type=sa.INTEGER(), nullable=False)
        batch_op.alter_column("high", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("low", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("accuracy", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("correct", existing_type=sa.INTEGER(), nullable=False)
        batch_op.drop_column("metrics")

    with op.batch_alter_table("epoch") as batch_op:
        batch_op.alter_column("high", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("low", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("tune_accuracy", existing_type=sa.FLOAT(), nullable=False)
        batch_op.drop_column("tune_metrics")

    with op.batch_alter_table("dataset") as batch_op:
        batch_op.drop_column("options")

    with op.batch_alter_table("baseline") as batch_op:
        batch_op.alter_column("high", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("low", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("accuracy", existing_type=sa.FLOAT(), nullable=False)
        batch_op.alter_column("correct", existing_type=sa.INTEGER(), nullable=False)
        batch_op.drop_column("metrics")
        batch_op.drop_column("kind")
