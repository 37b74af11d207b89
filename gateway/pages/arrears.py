"""`/{reference}/all`: pay other months of the same person too, in one payment.

The form stands on every invoice's page, whether more is owed or not: that it stands there tells a
stranger nothing. What else is owed is shown to who also knows the person's CNSS number, and wrong
numbers are counted as wrong references are (see gateway.billing.arrears for why).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from fastapi import Request, Response

from gateway.billing.arrears import owner_of, reference_of_all
from gateway.billing.presentment import Presentment
from gateway.db import transaction
from gateway.institution import institution
from gateway.pages import site
from gateway.pages.forms import Body, read_form
from gateway.pages.lookup import look_up, now
from gateway.pages.paying import is_ours

_NUMBER: Final = re.compile(r"[0-9]{9}", re.ASCII)
_CHARS_MAX: Final = 40


def pay_all(request: Request, found: Presentment, posted: Body) -> Response:
    """Lead to the reference that pays all that the invoice's person owes, or only what is late."""
    at = site.address_of(request, f"/{found.reference}", ())
    if not is_ours(request):
        return site.page(request, "problem.html", status=403, at=at, what="asked")
    fields = {} if posted.is_multipart else read_form(posted).fields
    typed = fields.get("cnss", "")[:_CHARS_MAX]
    number = _digits(typed)
    if not _NUMBER.fullmatch(number):
        return _again(request, found.reference, typed, "malformed")
    owner = look_up(
        request,
        lambda session: owner_of(session, found.reference, number),
        lambda: _again(request, found.reference, typed, "other"),
    )
    if isinstance(owner, Response):
        return owner
    with transaction() as session:
        reference = reference_of_all(
            session,
            owner,
            found.reference,
            late_only=fields.get("what") == "late",
            now=now(),
            months=institution().validity.months,
        )
    if reference is None:
        return site.page(
            request, "arrears.html", at=at, reference=found.reference, wrong="", text=""
        )
    return site.redirect(request, f"/{reference}")


def _again(request: Request, reference: str, typed: str, wrong: str) -> Response:
    return site.page(
        request,
        "arrears.html",
        status=422,
        at=site.address_of(request, f"/{reference}", ()),
        reference=reference,
        wrong=wrong,
        text=typed,
    )


def _digits(typed: str) -> str:
    """Return the digits of any script, without what stands between them; else what was typed."""
    kept = [c for c in typed if not c.isspace() and unicodedata.category(c) not in {"Cf", "Pd"}]
    return "".join(str(unicodedata.decimal(c, c)) for c in kept)
