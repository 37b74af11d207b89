"""Made-up contributors, and what payers, agents and clerks write of them."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

_GIVEN = """
Mohamed/محمد Ahmed/أحمد Fatima/فاطمة Khadija/خديجة Youssef/يوسف Omar/عمر Aicha/عائشة
Hassan/حسن Rachid/رشيد Said/سعيد Karim/كريم Nadia/نادية Samira/سميرة Hamza/حمزة
Zineb/زينب Salma/سلمى Abdellah/عبدالله Mustapha/مصطفى Driss/إدريس Brahim/إبراهيم
Latifa/لطيفة Naima/نعيمة Hicham/هشام Ayoub/أيوب Meryem/مريم Jamal/جمال Khalid/خالد
Mehdi/المهدي Othmane/عثمان Tarik/طارق Yassine/ياسين Zakaria/زكرياء Houda/هدى Siham/سهام
Abderrahim/عبدالرحيم Noureddine/نورالدين Lahcen/لحسن Fadma/فاضمة Itto/إيطو Moha/موحى
"""
GIVEN: Final = [pair.split("/") for pair in _GIVEN.split()]
_FAMILY = """
Alaoui/العلوي Bennani/بناني Berrada/برادة Tazi/التازي Fassi/الفاسي Idrissi/الإدريسي
Amrani/العمراني Benjelloun/بنجلون Chraibi/الشرايبي Cherkaoui/الشرقاوي Filali/الفيلالي
Guessous/كسوس Hajji/حاجي Lahlou/لحلو Mansouri/المنصوري Naciri/الناصري Ouazzani/الوزاني
Sebti/السبتي Skalli/الصقلي Tahiri/الطاهري Yacoubi/اليعقوبي Bouazza/بوعزة Daoudi/الداودي
Ghazali/الغزالي Haddad/الحداد Jabri/الجابري Radi/الراضي Saidi/السعيدي Touzani/التوزاني
Zeroual/زروال Belhaj/بلحاج Hamdaoui/الحمداوي Oukacha/أوعكاشة Aitbaha/أيتباها
Ouhammou/أوحمو Boutaleb/بوطالب Khattabi/الخطابي Marrakchi/المراكشي Rifi/الريفي
Soussi/السوسي
"""
FAMILY: Final = [pair.split("/") for pair in _FAMILY.split()]
CARD_SERIES: Final = ["A", "AB", "BE", "BK", "C", "D", "EE", "F", "G", "HH", "JB", "K", "L", "M"]

Change = Callable[[Random, str], str]


@dataclass(frozen=True, slots=True)
class Person:
    cnss_number: str
    cin: str
    given: list[str]
    family: list[str]
    dues_minor: int

    @property
    def name(self) -> str:
        return f"{self.given[0]} {self.family[0]}"


def cnss_number(rng: Random) -> str:
    digits = [1, *(rng.randrange(10) for _ in range(7))]
    total = sum(digits[1::2]) * 2 + sum(digits[2::2])
    return "".join(map(str, digits)) + str(-total % 10)


def card(rng: Random) -> str:
    return rng.choice(CARD_SERIES) + str(rng.randint(10_000, 999_999))


def reference(payload: int) -> str:
    """Twelve digits, ISO 7064 mod 97-10."""
    return f"{payload}{98 - payload * 100 % 97:02d}"


def as_heard(rng: Random, person: Person) -> str:
    """The name as another hand wrote it."""
    (given, given_ar), (family, family_ar) = person.given, person.family
    match rng.randrange(11):
        case 0:
            return f"{family.upper()} {given}"
        case 1:
            return f"{given[0]}. {family}"
        case 2:
            return f"{given_ar} {family_ar}"
        case 3:
            return f"{family_ar} {given_ar}"
        case 4:
            return f"{given} El {family}".replace("ou", "u").replace("ch", "sh")
        case 5:
            return f"M. {given} {family[0]}"
        case 6:
            return lost_letter(rng, given) + " " + family
        case 7:
            return f"{rng.choice(['Mme', 'Mr', 'Hajj', 'Sidi'])} {given} {family}"
        case 8:
            return f"{given} {rng.choice(GIVEN)[0]} {family}"
        case 9:
            return f"{given} {family}".replace("ss", "s").replace("i", "y").replace("kh", "5")
        case _:
            return f"{given}  {lost_letter(rng, family)}".upper()


def lost_letter(rng: Random, word: str) -> str:
    place = rng.randrange(1, len(word))
    return word[:place] + word[place + 1 :]


# One slip of the hand: the text differs from the right one, and does not verify (groups: seldom).


def substitution(rng: Random, text: str) -> str:
    place = rng.choice([n for n, c in enumerate(text) if c.isdigit()])
    return text[:place] + rng.choice(string.digits.replace(text[place], "")) + text[place + 1 :]


def adjacent(rng: Random, text: str) -> str:
    places = [n for n in range(len(text) - 1) if text[n] != text[n + 1]]
    n = rng.choice(places)
    return text[:n] + text[n + 1] + text[n] + text[n + 2 :]


def jump(rng: Random, text: str) -> str:
    places = [n for n in range(len(text) - 2) if text[n] != text[n + 2]] or [0]
    n = rng.choice(places)
    return text[:n] + text[n : n + 3][::-1] + text[n + 3 :]


def twin(rng: Random, text: str) -> str:
    places = [n for n in range(len(text) - 1) if text[n] == text[n + 1]]
    if not places:
        return substitution(rng, text)
    n = rng.choice(places)
    other = rng.choice(string.digits[1:].replace(text[n], ""))
    return text[:n] + other * 2 + text[n + 2 :]


def phonetic(rng: Random, text: str) -> str:
    """Thirteen for thirty and the other way round: 1a and a0."""
    places = [
        n
        for n in range(1, len(text) - 1)
        if (text[n] == "1") != (text[n + 1] == "0") and text[n : n + 2] not in {"10", "11", "00"}
    ]
    if not places:
        return adjacent(rng, text)
    n = rng.choice(places)
    pair = text[n + 1] + "0" if text[n] == "1" else "1" + text[n]
    return text[:n] + pair + text[n + 2 :]


def digit_lost(rng: Random, text: str) -> str:
    place = rng.randrange(len(text))
    return text[:place] + text[place + 1 :]


def digit_doubled(rng: Random, text: str) -> str:
    place = rng.randrange(len(text))
    return text[:place] + text[place] + text[place:]


def digit_added(rng: Random, text: str) -> str:
    place = rng.randrange(len(text) + 1)
    return text[:place] + rng.choice(string.digits) + text[place:]


def groups(rng: Random, text: str) -> str:
    a, b, c = text[:4], text[4:8], text[8:]
    return rng.choice([b + a + c, a + c + b, c + a + b, b + c + a, c + b + a])


def jump_twin(rng: Random, text: str) -> str:
    places = [n for n in range(len(text) - 2) if text[n] == text[n + 2]]
    if not places:
        return jump(rng, text)
    n = rng.choice(places)
    other = rng.choice(string.digits[1:].replace(text[n], ""))
    return text[:n] + other + text[n + 1] + other + text[n + 3 :]


def letter_for_digit(rng: Random, text: str) -> str:
    return text.replace("0", "O").replace("1", "l", 1) if set(text) & {"0", "1"} else text[1:]


def two_wrong(rng: Random, text: str) -> str:
    one, two = rng.sample(range(1, 12), 2)
    digits = list(text)
    for place in (one, two):
        digits[place] = rng.choice(string.digits.replace(digits[place], ""))
    return "".join(digits)


# The right reference, written in another way.


def grouped(rng: Random, text: str) -> str:
    between = rng.choice([" ", "-", "\u00a0", "\u202f", " - ", "."])
    return between.join([text[:4], text[4:8], text[8:]])


def bank_form(rng: Random, text: str) -> str:
    whole = f"RF74{text}"
    if rng.random() < 0.5:
        return whole
    return " ".join(whole[n : n + 4] for n in range(0, len(whole), 4))


def other_digits(rng: Random, text: str) -> str:
    zero = rng.choice("٠۰０")
    return text.translate({ord("0") + n: ord(zero) + n for n in range(10)})


def direction_marks(rng: Random, text: str) -> str:
    return rng.choice(
        [f"\u202d{text}\u202c", f"\u2066{text}\u2069", f"\u200f{text}\u200f", f"{text}\u200e"]
    )


def in_text(rng: Random, text: str) -> str:
    shown = rng.choice([text, f"{text[:4]} {text[4:8]} {text[8:]}", f"RF74{text}"])
    return rng.choice(
        [
            f"AMO 2026-10 REF {shown} MERCI",
            f"REF:{shown}/AMO TNS",
            f"Cotisation octobre {shown}",
            f"{shown} versement du 28/10/2026",
            f"AMO TEL 0661234567 REF {shown}",
            f"paiement CNSS n° {shown} 300,00 DH",
            f"أداء {shown} شكرا",
        ]
    )


def glued(rng: Random, text: str) -> str:
    return rng.choice([f"REF{text}", f"{text}ALAOUI", f"VIR/{text}/AMO", f"AMO-{text}-10"])


def broken(rng: Random, text: str) -> str:
    """By the end of a line of the bank's form."""
    place = rng.randrange(1, len(text))
    return f"{text[:place]} {text[place:]}"


def from_spreadsheet(rng: Random, text: str) -> str:
    return rng.choice([f"{text}.0", f"'{text}", f'="{text}"', f"{text},00", f"0{text}"])


def written_twice(rng: Random, text: str) -> str:
    return rng.choice([f"{text} {text}", f"{text}/{text}", f"REF {text} (ref {text})"])


def cut(rng: Random, text: str) -> str:
    keep = rng.choice([6, 7, 8, 9, 10])
    return text[:keep] if rng.random() < 0.5 else text[-keep:]


def cut_in_text(rng: Random, text: str) -> str:
    """A bank field of so many characters."""
    whole = f"AMO 2026-10 REF {text}"
    return whole[: -rng.choice([2, 3, 4])]


def spreadsheet(rng: Random, text: str) -> str:
    return f"{text[0]}.{text[1:6]}E+11"


SLIPS: Final[dict[str, Change]] = {
    "substitution": substitution,
    "adjacent": adjacent,
    "jump": jump,
    "twin": twin,
    "phonetic": phonetic,
    "lost": digit_lost,
    "doubled": digit_doubled,
    "added": digit_added,
    "groups": groups,
    "jump_twin": jump_twin,
}
FORMS: Final[dict[str, Change]] = {
    "grouped": grouped,
    "bank_form": bank_form,
    "other_digits": other_digits,
    "direction_marks": direction_marks,
    "text": in_text,
    "glued": glued,
    "broken": broken,
    "from_spreadsheet": from_spreadsheet,
    "written_twice": written_twice,
}
PARTS: Final[dict[str, Change]] = {"cut": cut, "cut_in_text": cut_in_text}
