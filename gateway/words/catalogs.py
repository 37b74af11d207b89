"""The translations: gettext catalogs beside this file, read as they are written.

Texts stand in the code in English and are shown in French or Arabic, never in English: a text
without its translation is an error here, so that no page can go out half translated. The `.po`
files are the only copy; nothing is compiled ahead, so nothing can be stale.
"""

from __future__ import annotations

import gettext
import io
from functools import cache
from importlib import resources
from typing import Final, Literal

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

Language = Literal["fr", "ar"]
LANGUAGES: Final[tuple[Language, ...]] = ("fr", "ar")


class Untranslated(LookupError):
    """A text has no translation. Only a bug: a test holds the catalogs against the code."""


class _Strict(gettext.NullTranslations):
    """The end of the chain: refuses instead of falling back to the text in the code."""

    def gettext(self, message: str) -> str:
        raise Untranslated(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        raise Untranslated(f"{msgid1} / {msgid2} ({n})")

    def pgettext(self, context: str, message: str) -> str:
        raise Untranslated(f"{context}: {message}")


@cache
def catalog(language: Language) -> gettext.NullTranslations:
    """Return all translations of a language, whichever file they stand in."""
    first: gettext.NullTranslations | None = None
    folder = resources.files(__package__).joinpath(language)
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".po"):
            continue
        with file.open("rb") as po:
            messages = read_po(po, locale=f"{language}_MA")
        compiled = io.BytesIO()
        write_mo(compiled, messages)
        compiled.seek(0)
        translations = gettext.GNUTranslations(compiled)
        if first is None:
            first = translations
        else:
            first.add_fallback(translations)
    assert first is not None
    first.add_fallback(_Strict())
    return first


def mark(text: str) -> str:
    """Return the text unchanged: it is translated where it is shown, and collected here."""
    return text
