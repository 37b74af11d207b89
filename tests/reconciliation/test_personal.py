"""Whose a record is, and what is left of it."""

from __future__ import annotations

from pathlib import Path

from gateway.db import execute, snapshot, transaction
from gateway.privacy.subject import subject_of
from reconciliation.personal import Records
from reconciliation.records import import_records
from tests.factories import NOON, a_contributor, rows_of

HEADER = "record_id,reference,cnss_number,cin,name,period,amount,posted_on,channel"
REFERENCE = "148275036141"
HERS = (
    ("111111111", "", "nothing"),
    ("111111111", "ZZ999", "111111111"),  # what was given as the reference is a fact
    ("", "AB111111", "nothing"),
    ("", "", REFERENCE),
    ("333333333", "", REFERENCE),  # nobody's here: a slip of a pen
)
NOT_HERS = (
    ("222222222", "", REFERENCE),  # the neighbour's, whatever reference it has
    ("222222222", "AB111111", "nothing"),
    ("", "AB222222", "nothing"),
    ("", "", "nothing"),
)


def test_a_record_is_a_persons_by_number_else_by_reference_or_card(
    database: str, tmp_path: Path
) -> None:
    with transaction() as session:
        person = a_contributor(session, cnss_number="111111111", cin="AB111111").id
        a_contributor(session, cnss_number="222222222", cin="AB222222")
        execute(
            session,
            "INSERT INTO invoice (reference, contributor_id, category_code, period, due_on,"
            " amount_minor, owed_minor, tariff, issued_at) VALUES (:reference, :id,"
            " 'artisan-untaxed', '2026-11', '2026-11-30', 100, 100, 'test', :now)",
            {"id": person, "now": NOON, "reference": REFERENCE},
        )
    assert person is not None
    path = tmp_path / "records.csv"
    lines = [
        f"B-{at},{reference},{number},{cin},A Name,2026-11,1.00,2026-11-19,"
        for at, (number, cin, reference) in enumerate((*HERS, *NOT_HERS))
    ]
    path.write_text("\n".join([HEADER, *lines, ""]))
    import_records(path, now=NOON)
    hers = [f"B-{at}" for at in range(len(HERS))]
    with snapshot() as session:
        subject = subject_of(session, person)
        assert subject is not None
        (records, *_) = Records().held(session, subject)
    assert [row["record_id"] for row in records.rows] == hers
    assert {(row["name"], row["amount"]) for row in records.rows} == {("A Name", "1.00")}

    with transaction() as session:
        hold = Records().hold(session, subject)
        assert (hold.hindrances, hold.erase(NOON)) == (
            (),
            {"institution_record": len(HERS), "left:institution_record.reference_given": 1},
        )
    emptied = rows_of(
        database,
        "SELECT record_id, amount_minor, erased_at FROM institution_record"
        " WHERE num_nonnulls(cnss_number, cin, name) = 0 ORDER BY id",
    )
    assert emptied == [(record_id, 100, NOON) for record_id in hers]
    # The file again says the same as before: a record's content is known by its hash.
    again = import_records(path, now=NOON).as_json()
    assert (again["loaded"], again["unchanged"]) == (0, len(lines))


def test_what_is_open_about_a_record_hinders(database: str, tmp_path: Path) -> None:
    with transaction() as session:
        person = a_contributor(session, cnss_number="111111111").id
    assert person is not None
    path = tmp_path / "records.csv"
    for amount in ("1.00", "2.00"):
        path.write_text(f"{HEADER}\nB-1,x,111111111,,A Name,2026-11,{amount},2026-11-19,\n")
        import_records(path, now=NOON)
    with transaction() as session:
        subject = subject_of(session, person)
        assert subject is not None
        assert Records().hold(session, subject).hindrances == (
            "Open exceptions about the institution's records: 1.",
        )
