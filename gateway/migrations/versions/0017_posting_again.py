"""Cheaper posting: what never changes is judged when it comes, and rows leave room for updates.

A CHECK is evaluated whenever its row is written, and an invoice's is written by each payment. Two
checks by patterns were a quarter of that, and their columns never change: they become the columns'
types, which judge a value when it comes. And an invoice that is paid stays on its page, where no
index need be told of it; a delivery's second version finds room in the indexes' pages.
"""

from typing import Final

from alembic import op

revision = "0017"
down_revision = "0016"

OTHER_TRIGGERS = ()

# As in the migrations before: of what is in force after this one.
CONSTRAINTS_MD5 = "318a7e7bbae7c23583c89b390062a406"
FUNCTIONS_MD5 = "dbc6c9fe690c63f2318586b724a15772"

_FACTS: Final = (
    "reference",
    "contributor_id",
    "category_code",
    "period",
    "due_on",
    "amount_minor",
    "tariff",
    "issued_at",
)
_REFERENCE: Final = (
    "{0} ~ '^[1-9][0-9]{{11}}$' AND mod({0}::bigint, 97) = 1"
    " AND mod({0}::bigint, 100) BETWEEN 2 AND 98"
)
_PERIOD: Final = "{0} ~ '^[0-9]{{4}}-(0[1-9]|1[0-2]|Q[1-4])$'"

_INVOICE_PERCENT: Final = 85
_DELIVERY_PERCENT: Final = 50
"""Each is written twice: as it came, and as it was acted on."""
_DELIVERY_INDEXES: Final = (
    "webhook_delivery_pkey",
    "webhook_delivery_provider_delivery_id_key",
)


def upgrade() -> None:
    op.execute(
        'CREATE DOMAIN invoice_reference AS varchar COLLATE "C" CONSTRAINT invoice_reference_check'
        f" CHECK ({_REFERENCE.format('VALUE')})"
    )
    op.execute(
        "CREATE DOMAIN invoice_period AS varchar CONSTRAINT invoice_period_check"
        f" CHECK ({_PERIOD.format('VALUE')})"
    )
    # Before the rows are written anew.
    op.execute(f"ALTER TABLE invoice SET (fillfactor = {_INVOICE_PERCENT})")
    for index in _DELIVERY_INDEXES:
        op.execute(f"ALTER INDEX {index} SET (fillfactor = {_DELIVERY_PERCENT})")
    op.drop_constraint(op.f("invoice_reference_check"), "invoice")
    op.drop_constraint(op.f("invoice_period_check"), "invoice")
    _types("invoice_reference", "invoice_period")


def _types(reference: str, period: str) -> None:
    """Give the two columns other types; a trigger that compares them must not be there then."""
    old, new = (", ".join(f"{row}.{column}" for column in _FACTS) for row in ("OLD", "NEW"))
    op.execute("DROP TRIGGER facts_stand ON invoice")
    op.execute(f"ALTER TABLE invoice ALTER reference TYPE {reference}, ALTER period TYPE {period}")
    op.execute(
        f"CREATE TRIGGER facts_stand BEFORE UPDATE OF {', '.join(_FACTS)} ON invoice FOR EACH ROW"
        f" WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION wasl_refuse_other_facts()"
    )


def downgrade() -> None:
    _types('varchar COLLATE "C"', "varchar")
    for name, condition in (("reference", _REFERENCE), ("period", _PERIOD)):
        check = f"invoice_{name}_check"
        op.execute(f"ALTER TABLE invoice ADD CONSTRAINT {check} CHECK ({condition.format(name)})")
        op.execute(f"DROP DOMAIN invoice_{name}")
    op.execute("ALTER TABLE invoice RESET (fillfactor)")
    for index in _DELIVERY_INDEXES:
        op.execute(f"ALTER INDEX {index} RESET (fillfactor)")
