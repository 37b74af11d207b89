"""A record's reference is compared as an invoice's is, by bytes.

Two texts of unlike collations are compared by that of the column which names one. The index of
records was in the other, so that no record was found in it by an invoice's reference: among a
million of them each was looked at. Only the index is made anew; the table stays as it is.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

OTHER_TRIGGERS = ()

# As in the migrations before: of what is in force after this one.
CONSTRAINTS_MD5 = "318a7e7bbae7c23583c89b390062a406"
FUNCTIONS_MD5 = "dbc6c9fe690c63f2318586b724a15772"

_TRIGGER: Final = sa.text(
    "SELECT pg_get_triggerdef(oid) FROM pg_trigger"
    " WHERE tgrelid = CAST('institution_record' AS regclass) AND tgname = 'facts_stand'"
)


def upgrade() -> None:
    _collate("C")


def downgrade() -> None:
    _collate("default")


def _collate(collation: str) -> None:
    # A trigger that compares the column must not be there then; it comes back as it was.
    trigger = op.get_bind().execute(_TRIGGER).scalar_one()
    op.execute("DROP TRIGGER facts_stand ON institution_record")
    op.execute(f'ALTER TABLE institution_record ALTER reference TYPE varchar COLLATE "{collation}"')
    op.execute(trigger)
