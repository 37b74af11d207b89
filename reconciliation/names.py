"""Names as they sound: one form for a name in Latin and in Arabic letters, by its consonants. Pure.

Moroccan names have many spellings: `Mohammed`, `M'hamed` and `محمد` are one. What they share is the
consonants, in their order. A word becomes those: vowels go, letters that sound alike become one,
articles go, and what belongs together (`Abd el`, `Ben`) is written together. The forms are
compared, never shown, and weigh little: they are no evidence without a number or an amount.

The steps are one table, which is carried out here and written as SQL for DuckDB and PostgreSQL.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Dialect = Literal["duckdb", "postgresql"]

NAME_MAX: Final = 200
"""Characters. What is longer is no name, and would cost its square to compare."""


@dataclass(frozen=True, slots=True)
class Text:
    """A step: each occurrence of a text becomes another, from the left, once through."""

    what: str
    becomes: str

    def in_python(self, name: str) -> str:
        return name.replace(self.what, self.becomes)

    def in_sql(self, name: str) -> str:
        return f"replace({name}, {_quoted(self.what)}, {_quoted(self.becomes)})"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A step by a regular expression that means the same to Python, DuckDB and PostgreSQL.

    So it has groups, classes and alternatives, and nothing else. No colon, which would mark a
    parameter in SQL.
    """

    what: str
    becomes: str

    def in_python(self, name: str) -> str:
        return re.sub(self.what, self.becomes, name)

    def in_sql(self, name: str) -> str:
        return f"regexp_replace({name}, {_quoted(self.what)}, {_quoted(self.becomes)}, 'g')"


@dataclass(frozen=True, slots=True)
class Letters:
    """A step: letters become other letters, or nothing, all at once."""

    become: Mapping[str, str]
    table: Mapping[int, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", str.maketrans(dict(self.become)))

    def in_python(self, name: str) -> str:
        return name.translate(self.table)

    def in_sql(self, name: str) -> str:
        # What becomes nothing stands last, beyond the letters that the others become.
        last = sorted(self.become.items(), key=lambda pair: pair[1] == "")
        what, becomes = ("".join(letters) for letters in zip(*last, strict=True))
        return f"translate({name}, {_quoted(what)}, {_quoted(becomes)})"


Step = Text | Pattern | Letters


def _quoted(text: str) -> str:
    if text == ":":
        return "chr(58)"
    assert ":" not in text
    return "'" + text.replace("'", "''") + "'"


def _letters(**become: str) -> dict[str, str]:
    """Return which letters become the one that names them."""
    return {letter: one for one, letters in become.items() for letter in letters}


def _accented() -> dict[str, str]:
    """Return the Latin letters with accents and what they are without, small."""
    become = {}
    for code in range(0xC0, 0x180):
        letter = chr(code)
        parts = unicodedata.normalize("NFD", letter)
        if parts != letter and parts[0].isascii():
            become[letter] = parts[0].lower()
    return become


_MARKS: Final = (
    "\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u0670\u0640"  # Arabic: vowels, tatweel
    "\u0300\u0301\u0302\u0303\u0308\u0327"  # Latin: accents that stand apart
    "\u200b\u200c\u200d\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e"
    "\u2066\u2067\u2068\u2069\ufeff"
)

_OTHERS_TO_ASCII: Final[tuple[Step, ...]] = (
    Letters(
        {
            **_accented(),
            **_letters(o="œŒæÆøØ", s="çÇß", k="\u212a"),
            **dict.fromkeys("’‘ʼʿʾ´" + _MARKS, ""),
            **dict.fromkeys("\u00a0\u202f\u2009\u2010\u2011\u2012\u2013\u2014،؛·\t\r\n", " "),
        }
    ),
)
"""Only for names that are not ASCII, and before letters become small: databases do not agree about
other letters than ASCII's."""

_LATIN: Final[tuple[Step, ...]] = (
    Text("'", ""),
    Text(":", " "),
    Pattern(r"[.,;_/()&+*\t\r\n-]+", " "),
    # Titles, and the article alone, also as it is spoken before some letters.
    Pattern(r" (mr|mme|mlle|dr|el|al|ed|en|er|es|et|ez|ech) ", " "),
    Text(" eddine ", "eddine "),
    Text(" dine ", "dine "),
    Pattern(r" (med|mohd) ", " mohamed "),
    # What belongs together, however the article is written; the vowel keeps d and h apart.
    Pattern(r" abd ?(el|al|oul|ul)? ?", " abda"),
    Pattern(r" (ben|bin|ibn) ", " ben"),
    Pattern(r" (abou|abu|bou|bu) ", " bou"),
    Text(" bel ", " bel"),
    # The article as part of the word.
    Text(" elham ", " ilham "),
    Pattern(r" (el([bcdfghjkmnqrstyz])|al([fghjkmq]))", r" \2\3"),
    # Sounds of two letters, and letters that sound alike.
    Text("x", "ks"),
    Pattern(r"tch|sch|ch|sh", "x"),
    Text("kh", "k"),
    Text("gh", "g"),
    Text(" rh", " g"),
    Text("th", "t"),
    Text("dh", "d"),
    Text("ph", "f"),
    Text("dj", "j"),
    Pattern(r"c([eiy])", r"s\1"),
    Pattern(r"[cq]", "k"),
    Text("v", "f"),
    Text("p", "b"),
    *(Text(letter * 2, letter) for letter in "bdfgjklmnrstxz"),
    # At the end an h is often not heard; an initial is one letter and stays.
    Text(" h ", " H "),
    Text("h ", " "),
    Text("H", "h"),
)

_ARABIC: Final[tuple[Step, ...]] = (
    Pattern(r" عبد ?(ال)? ?", " عبد"),
    Pattern(r" (بن|ابن) (ال)?", " بن"),
    Pattern(r" (أبو|ابو|بو) ", " بو"),
    Text(" الدين ", "دين "),
    # The article, but not the first letters of a name.
    Pattern(r" ال(ياس|هام) ", r" ل\1 "),
    Text(" ال", " "),
    Text(" لل", " ل"),
    Text("اة ", "ات "),
    # As the h of Latin letters.
    Pattern("[هحة] ", " "),
    Letters(
        _letters(
            **{"b": "بپ", "t": "تثطة", "j": "جچ", "h": "حهہھ", "k": "خقكک", "d": "دذضظ"},
            **{"r": "ر", "z": "ز", "s": "سص", "x": "ش", "g": "غڭگݣ", "f": "فڤ"},
            **{"l": "ل", "m": "م", "n": "ن"},
        )
    ),
)

_HEARD: Final = "bdfghjklmnrstxz"

_CONSONANTS: Final[tuple[Step, ...]] = (
    # A longer word of one consonant keeps a mark: it is no initial.
    Text(" ", "  "),
    Pattern(rf" [^{_HEARD} ]+([{_HEARD}])[^{_HEARD} ]+ ", r" \1_ "),
    Pattern(rf" [^{_HEARD} ][^{_HEARD} ]+([{_HEARD}]) ", r" \1_ "),
    Pattern(rf" ([{_HEARD}])[^{_HEARD} ][^{_HEARD} ]+ ", r" \1_ "),
    *(Text(letter, "") for letter in "aeiouwy"),
    Pattern(rf"[^{_HEARD}_ ]", ""),
)
"""What is left: hamza and ayn go as the vowels do, and what is no letter that is known here."""


def tokens(name: str) -> tuple[str, ...]:
    """Return the consonants of each word of a name, sorted; words without any are left out.

    A word of one letter may be an initial; a longer one of one consonant ends in `_`. The same word
    twice is there twice.
    """
    if len(name) > NAME_MAX:
        return ()
    is_ascii = name.isascii()
    if not is_ascii:
        for step in _OTHERS_TO_ASCII:
            name = step.in_python(name)
    name = f" {name.lower()} "
    for step in _LATIN:
        name = step.in_python(name)
    if not is_ascii:
        for step in _ARABIC:
            name = step.in_python(name)
    for step in _CONSONANTS:
        name = step.in_python(name)
    return tuple(sorted(name.split()))


def sql_tokens(column: str, dialect: Dialect, *, is_ascii: bool = False) -> str:
    """Return SQL for `tokens` of a column: a list of text, empty where nothing is known.

    Sorted as plain bytes. The column may be NULL. A caller who only has names in ASCII says so, and
    is given a third of the SQL.
    """
    text = f"CASE WHEN length({column}) <= {NAME_MAX} THEN {column} ELSE '' END"
    words = _steps(f"' ' || lower({text}) || ' '", _LATIN, _CONSONANTS)
    if not is_ascii:
        length = {"duckdb": "strlen", "postgresql": "octet_length"}[dialect]
        others = _steps(text, _OTHERS_TO_ASCII)
        others = _steps(f"' ' || lower({others}) || ' '", _LATIN, _ARABIC, _CONSONANTS)
        words = f"CASE WHEN {length}({text}) = length({text}) THEN {words} ELSE {others} END"
    if dialect == "duckdb":
        return f"list_sort(list_filter(string_split({words}, ' '), lambda w: w <> ''))"
    return (
        f"ARRAY(SELECT w FROM unnest(string_to_array({words}, ' ')) AS w"
        " WHERE w <> '' ORDER BY w COLLATE \"C\")"
    )


def _steps(name: str, *tables: tuple[Step, ...]) -> str:
    for table in tables:
        for step in table:
            name = step.in_sql(name)
    return name
