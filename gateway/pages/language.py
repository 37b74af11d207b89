"""Which language a page is in, and how its links keep it. Pure.

The address says so (`?lang=ar`), else the browser, else French. There is no cookie: an address that
is sent to somebody else, without `lang`, is read in the reader's own language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from gateway.words.catalogs import LANGUAGES, Language

DEFAULT: Final[Language] = "fr"

_RANGES_MAX: Final = 20
_QUERY_CHARS_MAX: Final = 2_400
"""What a link to the other language may carry along: a receipt's code fits, a flood does not."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a page is, and in which language."""

    path: str
    """As it is to be shown in links: of a page that answers GET."""
    query: tuple[tuple[str, str], ...]
    """What the page was asked with, `lang` left out."""
    language: Language
    chosen: bool
    """Whether the address said so; then links must say it again."""

    def link(self, path: str, **query: str) -> str:
        """Return a link of ours, in the language that was chosen."""
        if self.chosen:
            query["lang"] = self.language
        path = _of_this_site(path)
        return f"{path}?{urlencode(query)}" if query else path

    def in_language(self, language: Language) -> str:
        """Return this page, with what it was asked, in a language."""
        kept = list(self.query)
        if sum(len(name) + len(value) for name, value in kept) > _QUERY_CHARS_MAX:
            kept = []
        query = urlencode([*kept, ("lang", language)], errors="replace")
        return f"{quote(_of_this_site(self.path), errors='replace')}?{query}"


def _of_this_site(path: str) -> str:
    """Return a path, or `/` for one that a browser would take for the name of another site."""
    return path if re.match(r"/(?![/\\])", path) and "\\" not in path else "/"


def named_language(name: str | None) -> Language | None:
    """Return the language of a name that somebody put into an address, if we speak it."""
    return next((language for language in LANGUAGES if language == name), None)


def accepted_language(header: str) -> Language:
    """Return the language of ours that an `Accept-Language` header likes best, else French."""
    liked = sorted(_ranges(header), key=lambda each: -each[1])
    return next((language for language, _ in liked), DEFAULT)


def _ranges(header: str) -> Iterable[tuple[Language, int]]:
    """Yield our languages in a header with how much each is liked, in thousandths."""
    for part in header.split(",")[:_RANGES_MAX]:
        tag, _, rest = part.partition(";")
        language = named_language(tag.strip().lower().partition("-")[0])
        weight = _thousandths(rest)
        if language and weight:
            yield language, weight


def _thousandths(parameter: str) -> int:
    """Return a weight such as `q=0.8`; 1 where there is none, 0 where it means nothing."""
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1_000
    whole, _, part = value.strip().partition(".")
    digits = (whole or "0") + part.ljust(3, "0")[:3]
    if name.strip().lower() != "q" or not (digits.isascii() and digits.isdecimal()):
        return 0
    return min(int(digits), 1_000)
