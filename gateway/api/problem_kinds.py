"""Every code that the API refuses with: its status, its title, and what whoever meets it does.

A code is never given another meaning; texts may be improved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem."""

    status: int
    title: str
    todo: str
    """What whoever meets it does."""


KINDS: Final[Mapping[str, Kind]] = {
    "invalid_parameter": Kind(
        400,
        "A parameter is not as it must be",
        "`errors` names each parameter, and what is wrong with it.",
    ),
    "unknown_parameter": Kind(
        400,
        "There is no such parameter",
        "Leave out what `errors` names: a filter that is not known would be ignored unseen.",
    ),
    "unreadable_body": Kind(
        400,
        "The body cannot be read",
        "Send one JSON object in UTF-8, each field once, without NUL characters.",
    ),
    "no_key": Kind(
        401, "A key is needed", "Send `Authorization: Bearer wasl_…`; `wasl keys create` makes one."
    ),
    "unknown_key": Kind(
        401,
        "The key opens nothing",
        "It is mistyped or revoked: ask whoever runs this for another.",
    ),
    "role_may_not": Kind(
        403,
        "The key's role may not do this",
        "`GET /v1/me` lists what it may; ask for a key of another role.",
    ),
    "no_such_address": Kind(
        404,
        "There is nothing at this address",
        "Compare it with `/docs`: each part of it must be written as it says there.",
    ),
    "bad_cursor": Kind(
        404,
        "There is no such page of this list",
        "Use a `next_cursor` as it was given, with the same filters; or begin without one.",
    ),
    "contributor_not_found": Kind(
        404, "No such contributor", "There is none with this id that the key may see."
    ),
    "invoice_not_found": Kind(
        404, "No such invoice", "There is none with this reference that the key may see."
    ),
    "attestation_not_found": Kind(
        404, "No such attestation", "There is none with this number that the key may see."
    ),
    "payment_not_found": Kind(
        404, "No such payment", "There is none with this id that the key may see."
    ),
    "plan_not_found": Kind(404, "No such plan", "There is none with this id."),
    "bundle_not_found": Kind(
        404, "No such bundle", "There is none with this reference that the key may see."
    ),
    "way_not_found": Kind(
        404,
        "No such way to pay",
        "No provider that is switched on makes anything to pay by under this name or channel.",
    ),
    "attempt_not_found": Kind(404, "No such attempt", "There is none with this id."),
    "exception_not_found": Kind(404, "No such exception", "There is none with this id."),
    "refund_not_found": Kind(404, "No such refund", "There is none with this id."),
    "delivery_not_found": Kind(
        404, "No such delivery", "Nothing came from this provider under this delivery id."
    ),
    "replay_not_found": Kind(404, "No such replay", "There is none with this id."),
    "endpoint_not_found": Kind(
        404, "No such webhook endpoint", "There is none with this id, or it was removed."
    ),
    "reference_not_found": Kind(
        404,
        "Nothing to pay has this reference",
        "It verifies and was never issued: ask for the notice.",
    ),
    "reference_mistyped": Kind(
        404,
        "The reference does not verify",
        "A digit is wrong, or two changed places: read it again.",
    ),
    "method_not_allowed": Kind(
        405, "This address has no such method", "`Allow` lists those it has."
    ),
    "body_too_slow": Kind(408, "The body did not come in time", "Send it again."),
    "idempotency_key_reused": Kind(
        409,
        "This Idempotency-Key belongs to another request",
        "Use a new key for each thing to do, and the old one only for the very same request.",
    ),
    "contributor_exists": Kind(
        409,
        "The CNSS number is somebody's already, with other content",
        "Search for the contributor and change it by PATCH.",
    ),
    "fields_contradict": Kind(
        409,
        "Fields do not fit each other, or what is known already",
        "`errors` names each of them; every one alone would be well written.",
    ),
    "nothing_owed": Kind(
        409, "Nothing is owed for this period", "`detail` says why: mend the person or the period."
    ),
    "nothing_due": Kind(
        409,
        "Nothing is to be paid by this reference now",
        "It is paid, cleared, cancelled or expired: look the reference up.",
    ),
    "amount_above_ceiling": Kind(
        409,
        "No wallet may hold this amount",
        "Take another way to pay, or pay several contributions one by one.",
    ),
    "attempt_undecided": Kind(
        409,
        "Money may still come by an earlier attempt",
        "Ask how that stands (`Location` names it, if it is of this reference), and begin again"
        " once it is closed; its payer can give it up on the reference's page.",
    ),
    "provider_refused": Kind(
        409, "The provider refuses", "Nothing was taken: choose another way to pay."
    ),
    "not_up_to_date": Kind(
        409,
        "The person is not up to date",
        "`detail` says since when: nothing is attested until what is late is paid.",
    ),
    "invoice_cancelled": Kind(
        409,
        "The invoice is cancelled already",
        "It stays cancelled, and its contributor is not billed again for its period.",
    ),
    "invoice_paid_on": Kind(
        409,
        "Something is paid on the invoice",
        "It can be cancelled only after its payments are taken back.",
    ),
    "plan_refused": Kind(
        409,
        "Such a plan cannot be made",
        "`detail` says why: nothing is late, a plan stands already, or the rule does not allow it.",
    ),
    "not_erasable": Kind(
        409,
        "The person's data may not be erased yet",
        "`detail` says what is open, or the earliest day.",
    ),
    "refund_refused": Kind(
        409,
        "The refund cannot be as asked",
        "`detail` says why: how much is left of the payment, who must approve it, what it is now.",
    ),
    "exception_resolved": Kind(
        409, "The exception is resolved already", "Read it: it says why, and by whom."
    ),
    "resolved_by_runs": Kind(
        409,
        "Runs of reconciliation open and resolve this exception",
        "Mend what it is about; the next run that does not find it again resolves it.",
    ),
    "delivery_parked": Kind(
        409,
        "The delivery is still parked",
        "What it says is in no book: have it replayed once the cause is mended.",
    ),
    "delivery_unreadable": Kind(
        409,
        "Nothing of the delivery can be read",
        "There is nothing to act on: ask the provider what it meant, and to deliver again.",
    ),
    "replay_too_wide": Kind(
        409,
        "The filter chooses by nothing, or too many deliveries",
        "Choose fewer: by provider, state, outcome or days.",
    ),
    "address_refused": Kind(
        409,
        "Nothing would ever be sent to this address",
        "`detail` says why: it is to be https, at an address of the open internet.",
    ),
    "endpoint_disabled": Kind(
        409,
        "The endpoint is disabled",
        "Enable it first: it goes on where it stopped. A test is sent all the same.",
    ),
    "nothing_to_resend": Kind(
        409,
        "Nothing in this span is for the endpoint",
        "What it has not had yet comes by itself, and events of other types never.",
    ),
    "too_many_endpoints": Kind(409, "There are as many endpoints as may be", "Remove one first."),
    "too_many_secrets": Kind(
        409,
        "As many secrets stand as may at once",
        "Wait for one's end, or end the others now by `overlap_hours` 0.",
    ),
    "too_many_orders": Kind(
        409,
        "As many resends or tests are under way as may be",
        "Wait for one's end: the endpoint's orders say how far they are.",
    ),
    "body_too_large": Kind(413, "The body is too large", "Send at most 64 KiB."),
    "not_json": Kind(
        415, "The body is not said to be JSON", "Send `Content-Type: application/json`."
    ),
    "invalid_body": Kind(
        422,
        "The body is not as it must be",
        "`errors` names each field by its path, and what is wrong with it.",
    ),
    "too_many_requests": Kind(
        429, "Too many requests with this key", "Wait for as many seconds as `Retry-After` says."
    ),
    "too_many_attempts": Kind(
        429,
        "Too many attempts for this reference",
        "Wait for as many seconds as `Retry-After` says, or choose a way that needs no attempt.",
    ),
    "too_many_misses": Kind(
        429,
        "Too many references that do not exist",
        "Wait for as many seconds as `Retry-After` says, and read references off the notice.",
    ),
    "too_many_unknown_keys": Kind(
        429,
        "Too many keys that open nothing",
        "Wait for as many seconds as `Retry-After` says, then send the right key.",
    ),
    "fault": Kind(
        500,
        "Something went wrong on our side",
        "It is not known whether anything was changed: look, or send it again with the same"
        " `Idempotency-Key`. Tell whoever runs this the `X-Request-Id`.",
    ),
    "provider_away": Kind(
        503,
        "The provider does not answer",
        "Nothing is lost: the same request again finds what was made.",
    ),
    "unavailable": Kind(
        503,
        "The database is away or too busy",
        "It is not known whether anything was changed. Send it again after `Retry-After` seconds;"
        " with the same `Idempotency-Key` nothing is done twice.",
    ),
}

FIELD_CODES: Final[Mapping[str, str]] = {
    "missing": "It must be given.",
    "unknown": "There is no such field or parameter.",
    "repeated": "It stands there twice.",
    "wrong_type": "It is of the wrong JSON type.",
    "too_short": "It is too short, or empty.",
    "too_long": "It is too long.",
    "out_of_range": "It is too small or too large.",
    "not_one_of": "It is none of the values that are allowed.",
    "malformed": "It is not written as it must be.",
    "contradicts": "It does not fit another field.",
}
