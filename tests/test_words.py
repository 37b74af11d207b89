"""Every text that people read is in both languages, whole, once, and used."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from babel.messages.extract import extract, extract_python
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract

from gateway.words.catalogs import LANGUAGES

ROOT = Path(__file__).parent.parent
WORDS = ROOT / "gateway" / "words"
PACKAGES = ("gateway", "webhooks", "reconciliation")

KEYWORDS: dict[str, Any] = {
    "say": None,
    "mark": None,
    "_": None,
    "gettext": None,
    "ngettext": (1, 2),
}
PLACEHOLDER = re.compile(r"\{(\w*)\}|%\((\w+)\)s")

Text = str | tuple[str, ...]
"""A text of the code; with its plural, a pair."""


def used_texts() -> dict[Text, str]:
    """Return every text of code and templates, with one place where it stands."""
    found: dict[Text, str] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            method = {".py": extract_python, ".html": babel_extract}.get(path.suffix)
            if method is not None:
                where = str(path.relative_to(ROOT))
                found.update(dict.fromkeys(texts_in(method, path.read_bytes()), where))
    return found


def texts_in(method: Any, source: bytes) -> Iterator[Text]:
    options = {"trimmed": "true", "silent": "false"}
    for _, message, _, _ in extract(method, io.BytesIO(source), KEYWORDS, options=options):
        yield message if isinstance(message, str) else tuple(message)


def catalogs_of(language: str) -> Iterator[tuple[str, Any]]:
    """Yield every message of a language with the name of its file."""
    for path in sorted((WORDS / language).glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale=f"{language}_MA"):
                if message.id:
                    yield path.name, message


def faults(used: Mapping[Text, str], messages: Sequence[tuple[str, Any]]) -> list[str]:
    """Return what is wrong with a language, a sentence each."""
    wrong = []
    known: dict[Text, str | tuple[str, ...]] = {}
    for file, message in messages:
        if message.id in known and known[message.id] != message.string:
            wrong.append(f"{file}: two translations of {message.id!r}")
        known[message.id] = message.string
        if message.fuzzy:
            wrong.append(f"{file}: fuzzy: {message.id!r}")
        if message.id not in used:
            wrong.append(f"{file}: used nowhere: {message.id!r}")
        elif not all(_forms(message.string)):
            wrong.append(f"{file}: empty: {message.id!r}")
        elif not _same_placeholders(message.id, message.string):
            wrong.append(f"{file}: other placeholders: {message.id!r}")
    wrong += [
        f"{where}: not translated: {text!r}" for text, where in used.items() if text not in known
    ]
    return wrong


def _forms(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def _placeholders(text: str) -> set[str]:
    return {a or b for a, b in PLACEHOLDER.findall(text)}


def _same_placeholders(source: Text, translation: Text) -> bool:
    wanted = set().union(*map(_placeholders, _forms(source)))
    given = [_placeholders(form) for form in _forms(translation)]
    if isinstance(source, str):
        return given == [wanted]
    # «One minute» need not hold the number, but no form may hold what it is not given.
    return set().union(*given) == wanted


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_whole_and_used(language: str) -> None:
    assert faults(used_texts(), list(catalogs_of(language))) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_is_forbidden(language: str) -> None:
    """Nobody is told that he is invalid, and nobody is begged."""
    forbidden = re.compile(
        r"\binvalid|s[’']il vous plaît|veuillez|désolé|غير صالح|غير صحيح|عذرا", re.I
    )
    said = [
        form
        for file, message in catalogs_of(language)
        if file == "pages.po"
        for form in _forms(message.string)
    ]
    assert said
    assert [form for form in said if forbidden.search(form)] == []


def test_french_is_set_as_french_is() -> None:
    """No-break spaces before high punctuation, in quotes, before % and DH; curved apostrophes."""
    loose = re.compile(r" [:;?!%»]|« | DH\b|\w'\w|\w[;?!»]")
    said = [f for _, m in catalogs_of("fr") for f in _forms(m.string)]
    assert [form for form in said if loose.search(form)] == []


def test_arabic_has_its_own_punctuation() -> None:
    said = [f for _, m in catalogs_of("ar") for f in _forms(m.string)]
    assert [form for form in said if re.search(r"[\u0600-\u06ff][,;?]|[٠-٩۰-۹]", form)] == []


# -- the check itself -----------------------------------------------------------------------------


PO = """
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Plural-Forms: nplurals=2; plural=(n > 1);\\n"
"""


def messages_of(text: str) -> list[tuple[str, Any]]:
    return [("a.po", m) for m in read_po(io.BytesIO((PO + text).encode()), "fr_MA") if m.id]


@pytest.mark.parametrize(
    ("catalog", "fault"),
    [
        ("", "not translated"),
        ('msgid "Pay {amount}"\nmsgstr ""', "empty"),
        ('#, fuzzy\nmsgid "Pay {amount}"\nmsgstr "Payer {amount}"', "fuzzy"),
        ('msgid "Pay {amount}"\nmsgstr "Payer {montant}"', "other placeholders"),
        ('msgid "Pay {amount}"\nmsgstr "Payer"', "other placeholders"),
        (
            'msgid "Pay {amount}"\nmsgstr "Payer {amount}"\nmsgid "Gone"\nmsgstr "Parti"',
            "used nowhere",
        ),
    ],
)
def test_the_check_bites(catalog: str, fault: str) -> None:
    used: dict[Text, str] = {"Pay {amount}": "x.py"}
    found = faults(used, messages_of(catalog))
    assert len(found) == 1
    assert fault in found[0]


def test_the_check_bites_on_plurals() -> None:
    used: dict[Text, str] = {("%(n)s day", "%(n)s days"): "x.html"}
    good = (
        'msgid "%(n)s day"\nmsgid_plural "%(n)s days"\nmsgstr[0] "un jour"\nmsgstr[1] "%(n)s jours"'
    )
    assert faults(used, messages_of(good)) == []
    assert "empty" in faults(used, messages_of(good.replace("un jour", "")))[0]
    assert "placeholders" in faults(used, messages_of(good.replace("(n)s jours", "(m)s jours")))[0]


def test_the_check_bites_on_two_translations_of_one_text() -> None:
    used: dict[Text, str] = {"Pay": "x.py"}
    first, second = (messages_of(f'msgid "Pay"\nmsgstr "{fr}"') for fr in ("Payer", "Régler"))
    assert faults(used, first + first) == []
    assert "two translations" in faults(used, first + second)[0]


def test_texts_are_found_wherever_they_may_stand() -> None:
    code = (
        b'say("a {x}", x=1)\ns.say("b"\n " c")\nmark("d")\n_("e")\nt.ngettext("f", "g", 2)\nsay(f)'
    )
    assert list(texts_in(extract_python, code)) == ["a {x}", "b c", "d", "e", ("f", "g")]
    page = (
        b'{{ say("a", x=y) }}<p title="{{ say(\'b\') }}">{% set c = {"d": say("c")} %}'
        b"{% trans n=n %}{{ n }} day{% pluralize %}{{ n }} days{% endtrans %}"
    )
    found = list(texts_in(babel_extract, page))
    assert found == ["a", "b", "c", ("%(n)s day", "%(n)s days")]
