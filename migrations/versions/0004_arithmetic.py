"""how far bfloat16 is from float32

Revision: 0004
Follows: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("baseline") as batch_op:
        batch_op.add_column(sa.Column("arithmetic", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("baseline") as batch_op:
        batch_op.drop_column("arithmetic")
