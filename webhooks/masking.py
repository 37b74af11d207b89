"""Take what is personal out of a delivery's body, and leave what it says about money. Pure.

Values of fields that name a person are replaced where they stand; every other byte stays as it
came, so that a dialect reads the same money in it afterwards. What cannot be read goes as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import unquote_plus

from gateway.wirejson import UnreadableJson, read_json

MARK: Final = "[masked]"
"""Stands where a personal text stood; where a number did, stands 0: a dialect may judge types."""


class BodyKind(StrEnum):
    """In what a body is written."""

    JSON = "json"
    FORM = "form"
    """Names and values as a browser's form posts them."""
    UNREADABLE = "unreadable"


_PERSONAL: Final = frozenset(
    {
        # names
        *("name", "payername", "customername", "firstname", "middlename", "lastname"),
        *("familyname", "givenname", "fullname", "nativename", "surname", "displayname"),
        *("familynamear", "givennamear", "namear", "cardholder", "cardholdername"),
        *("holder", "holdername", "accountholder", "accountholdername", "payeename", "sendername"),
        *("recipientname", "debtorname", "buyername", "contactname"),
        # numbers
        *("cnssnumber", "cnss", "cin", "nationalid", "nationalidno", "idnumber", "dateofbirth"),
        *("phone", "phonenumber", "telephone", "tel", "gsm", "mobile", "mobilenumber", "msisdn"),
        *("consumerno", "walletid", "username", "customerreference", "partyid"),
        *("iban", "bankaccountno", "accountnumber", "rib", "cardnumber", "passportnumber"),
        *("birthdate",),
        # addresses
        *("email", "emailaddress", "mail", "receiptemail", "customeremail", "address"),
        *("postaladdress", "clientip", "customerip", "ip", "ipaddress"),
        # all of a person, whatever stands inside
        *("payer", "customerdetails", "billingdetails", "shipping", "senderkyc", "recipientkyc"),
        # what somebody wrote
        *("payernote", "payermessage", "payeenote", "note", "comment", "descriptiontext"),
    }
)
"""Fields that say who somebody is, in lower-case letters and digits alone."""

_PREFIXES: Final = ("billto", "shipto")
_LABELS: Final = frozenset({"key", "name", "paymentreferencetype"})
_LABELLED: Final = frozenset({"value", "paymentreferencevalue"})
"""`{"key": "msisdn", "value": "+212…"}`: the one names the other."""
_LABEL: Final = re.compile("[A-Za-z][A-Za-z0-9_.-]*")
"""What names a field is one word; what has a space in it, or is Arabic, may be somebody's name."""

_TOKEN: Final = re.compile(
    r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[\[\]{}:,]', re.DOTALL
)
_FORM: Final = re.compile(rb"[!-~]*=[!-~]*")
_PLAIN: Final = re.compile("[^a-z0-9]")


def kind_of(body: bytes) -> BodyKind:
    """Return in what a body is written, as far as it shows."""
    try:
        read_json(body)
    except UnreadableJson:
        return BodyKind.FORM if _FORM.fullmatch(body) else BodyKind.UNREADABLE
    return BodyKind.JSON


def mask(body: bytes, kind: BodyKind) -> bytes:
    """Return a body without what is personal in it. Again: nothing changes any more.

    Args:
        body: As it came.
        kind: As `kind_of` says.
    """
    match kind:
        case BodyKind.JSON:
            return _mask_json(body.decode("utf-8")).encode()
        case BodyKind.FORM:
            return b"&".join(map(_mask_pair, body.split(b"&")))
        case BodyKind.UNREADABLE:
            return length_mark(body)


def length_mark(body: bytes) -> bytes:
    """Return what stands for a body of which nothing is kept but its length."""
    known = _LENGTH_MARK.fullmatch(body)
    return body if known else b"[masked: %d bytes]" % len(body)


_LENGTH_MARK: Final = re.compile(rb"\[masked: [0-9]{1,9} bytes\]")


def is_personal(name: str) -> bool:
    """Say whether a field of this name says who somebody is."""
    plain = _plain(name)
    return plain in _PERSONAL or plain.startswith(_PREFIXES)


def _plain(name: str) -> str:
    return _PLAIN.sub("", name.lower())


def _mask_pair(pair: bytes) -> bytes:
    name, equals, value = pair.partition(b"=")
    if not value or not is_personal(unquote_plus(name.decode("latin-1"))):
        return pair
    return name + equals + _FORM_MARK


_FORM_MARK: Final = b"%5Bmasked%5D"


# -- JSON -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Member:
    """One name in an object, and which texts and numbers its value is made of."""

    name: str
    first: int
    after: int = -1
    label: str = ""
    """The value, where it is a text by itself."""


@dataclass(slots=True)
class _Level:
    """An object or a list that is open."""

    is_object: bool
    members: list[_Member] = field(default_factory=list)


def _mask_json(text: str) -> str:
    """Return a text, known to be JSON, with its personal values replaced.

    Not by reading and writing it anew: numbers as they were written, the order of fields, and a
    name that stands twice are part of what a dialect judges.
    """
    spans, hidden = _looked_through(text)
    pieces, at = [], 0
    for index, (start, end) in enumerate(spans):
        if hidden[index]:
            pieces += [text[at:start], f'"{MARK}"' if text[start] == '"' else "0"]
            at = end
    return "".join([*pieces, text[at:]])


def _looked_through(text: str) -> tuple[list[tuple[int, int]], bytearray]:
    """Return where each text and number stands, and which of them are personal."""
    spans: list[tuple[int, int]] = []
    hidden = bytearray()
    levels: list[_Level] = []
    objects = 0
    for start, end, is_name in _tokens(text):
        piece = text[start:end]
        level = levels[-1] if levels else None
        if is_name:
            assert level is not None
            level.members.append(_Member(_word(piece), len(spans)))
            continue
        if piece in "{[":
            levels.append(_Level(piece == "{"))
            objects += piece == "{"
            continue
        if piece in "}]":
            objects -= piece == "}"
            _hide(levels.pop(), hidden)
        elif piece not in {"true", "false", "null"}:
            spans.append((start, end))
            # Outside of any object nothing has a name, and so nothing is money.
            hidden.append(objects == 0)
            if level is not None and level.members and piece.startswith('"'):
                level.members[-1].label = _word(piece)
        if levels and levels[-1].members:
            levels[-1].members[-1].after = len(spans)
    return spans, hidden


def _hide(level: _Level, hidden: bytearray) -> None:
    """Mark what is personal of an object that was read to its end."""
    if not level.is_object:
        return
    pairs = any(_plain(m.name) in _LABELLED for m in level.members)
    labels = [m.label for m in level.members if _plain(m.name) in _LABELS] if pairs else []
    labelled = any(map(is_personal, labels))
    for member in level.members:
        plain = _plain(member.name)
        if pairs and plain in _LABELS and _LABEL.fullmatch(member.label):
            continue
        if is_personal(member.name) or (labelled and plain in _LABELLED):
            after = max(member.after, member.first)
            hidden[member.first : after] = b"\x01" * (after - member.first)


def _tokens(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of each name and value, bracket and brace, and whether it is a name."""
    waiting: tuple[int, int] | None = None
    for found in _TOKEN.finditer(text):
        piece = found[0]
        if waiting is not None:
            yield *waiting, piece == ":"
            waiting = None
        if piece.startswith('"'):
            # Only what follows tells a name from a value.
            waiting = found.span()
        elif piece not in ",:":
            yield *found.span(), False
    if waiting is not None:
        yield *waiting, False


def _word(piece: str) -> str:
    """Return what a JSON text says."""
    read = read_json(piece.encode("utf-8", "surrogatepass"))
    return str(read)
