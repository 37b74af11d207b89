"""Repairs: the reference that was meant is among them, and nothing that does not verify."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.references import is_reference, with_check_digits
from reconciliation.slips import Slip, repairs

references = st.integers(10**9, 10**10 - 1).map(with_check_digits).filter(is_reference)


@st.composite
def slips(draw: st.DrawFn) -> tuple[str, str, Slip]:
    """Return a reference, what became of it, and how."""
    meant = draw(references)
    slip = draw(st.sampled_from(Slip))
    at = draw(st.integers(0, 9))
    digit = draw(st.sampled_from("0123456789"))
    match slip:
        case Slip.WRONG:
            said = meant[:at] + digit + meant[at + 1 :]
        case Slip.SWAPPED:
            said = meant[:at] + meant[at + 1] + meant[at] + meant[at + 2 :]
        case Slip.MISSING:
            said = meant[:at] + meant[at + 1 :]
        case Slip.EXTRA:
            said = meant[:at] + digit + meant[at:]
        case Slip.JUMP:
            said = meant[:at] + meant[at : at + 3][::-1] + meant[at + 3 :]
        case Slip.TWIN:
            at = min(at, 8)
            meant = with_check_digits(int(meant[:at] + meant[at] * 2 + meant[at + 2 : 10]))
            said = meant[:at] + digit * 2 + meant[at + 2 :]
        case Slip.GROUPS:
            groups = draw(st.permutations([meant[:4], meant[4:8], meant[8:]]))
            said = "".join(groups)
    return meant, said, slip


@given(slips())
def test_what_was_meant_is_found(slip: tuple[str, str, Slip]) -> None:
    meant, said, kind = slip
    if said == meant or not is_reference(meant):
        return
    found = repairs(said)
    assert int(meant) in found, kind
    assert all(is_reference(str(reference)) for reference in found)
    assert said not in map(str, found)


@pytest.mark.parametrize(
    ("said", "slip"),
    [
        ("148275036142", Slip.WRONG),
        ("142875036141", Slip.SWAPPED),
        ("14827503614", Slip.MISSING),
        ("1482750366141", Slip.EXTRA),
        ("241875036141", None),
        ("147285036141", Slip.JUMP),
        ("750314826141", Slip.GROUPS),
        ("614175031482", Slip.GROUPS),
        ("1482750361", None),
        ("148275036141", None),
        ("14827503614٢", None),
    ],
)
def test_the_slip_is_named(said: str, slip: Slip | None) -> None:
    assert repairs(said).get(148275036141) == slip


def test_a_twin_is_found() -> None:
    meant = with_check_digits(1334567890)
    assert repairs(meant.replace("33", "77", 1))[int(meant)] == Slip.TWIN


def test_digits_that_verify_have_no_repair_but_other_groups() -> None:
    """The check digits catch every other slip, so no reference is one slip from another."""
    for payload in range(1_000_000_007, 1_000_000_507):
        said = with_check_digits(payload)
        assert set(repairs(said).values()) <= {Slip.GROUPS}
