"""A register of invented contributors, the same for the same seed."""

from __future__ import annotations

import argparse
import csv
import io
import random
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from gateway.simulators.journal import replace_file
from gateway.simulators.notices import dirhams

COLUMNS: Final = (
    "cnss_number",
    "cin",
    "family_name",
    "given_name",
    "family_name_ar",
    "given_name_ar",
    "phone",
    "language",
    "category",
    "category_base",
    "region",
    "province",
    "chamber",
    "registered_on",
    "left_on",
)

CONTRIBUTORS_MAX: Final = 5_000_000
FIRST_DAY: Final = date(2022, 1, 1)
LAST_DAY: Final = date(2025, 12, 31)

_ARTISAN_PERCENT: Final = 70
_ARABIC_PERCENT: Final = 65

# Annual principal duty in centimes, one span for each bracket of the contribution.
_DUTIES: Final = (
    (0, 49_999),
    (50_000, 100_000),
    (100_001, 250_000),
    (250_001, 500_000),
    (500_001, 1_000_000),
    (1_000_001, 2_500_000),
    (2_500_001, 5_000_000),
    (5_000_001, 9_000_000),
)

# fmt: off
_CIN_PREFIXES: Final = (
    "A", "AB", "AD", "AE", "B", "BE", "BH", "BJ", "BK", "C", "CB", "CD", "CN", "D", "DA", "EE",
    "F", "FA", "G", "GK", "H", "HH", "I", "IB", "J", "JA", "JB", "JC", "JE", "JK", "K", "L", "LA",
    "LB", "M", "MC", "N", "P", "PB", "Q", "R", "S", "T", "TA", "U", "V", "W", "X", "Z", "ZG",
)
# fmt: on
_CIN_NUMBERS: Final = 900_000

_FAMILIES: Final = (
    ("Ait Oubrahim", "آيت أبراهيم"),
    ("Alaoui Zerhouni", "العلوي الزرهوني"),
    ("Amrani", "العمراني"),
    ("Azenkoud", "أزنكود"),
    ("Bahnini", "البحنيني"),
    ("Belkhatir", "بلخاطر"),
    ("Benabdeslam", "بنعبد السلام"),
    ("Bennouna", "بنونة"),
    ("Berrahou", "برحو"),
    ("Bouazzaoui", "البوعزاوي"),
    ("Boulmane", "بولمان"),
    ("Chefchaouni", "الشفشاوني"),
    ("Chraibi", "الشرايبي"),
    ("Daoudi", "الداودي"),
    ("El Fassi", "الفاسي"),
    ("El Ghazouani", "الغزواني"),
    ("El Hadrami", "الحضرمي"),
    ("El Idrissi", "الإدريسي"),
    ("El Khattabi", "الخطابي"),
    ("El Mansouri", "المنصوري"),
    ("El Ouazzani", "الوزاني"),
    ("Er-Rachidi", "الراشدي"),
    ("Essaouiri", "الصويري"),
    ("Filali", "الفيلالي"),
    ("Guennoun", "كنون"),
    ("Haddou", "حدو"),
    ("Idbelkacem", "إدبلقاسم"),
    ("Jettou", "جطو"),
    ("Kettani", "الكتاني"),
    ("Lahlou", "لحلو"),
    ("Marrakchi", "المراكشي"),
    ("Meknassi", "المكناسي"),
    ("Nejjar", "النجار"),
    ("Oukacha", "أوكاشة"),
    ("Oulhaj", "أولحاج"),
    ("Rharbaoui", "الغرباوي"),
    ("Sefrioui", "الصفريوي"),
    ("Slaoui", "السلاوي"),
    ("Tahiri", "الطاهري"),
    ("Tazi", "التازي"),
    ("Touzani", "التوزاني"),
    ("Zemmouri", "الزموري"),
)
_GIVEN: Final = (
    ("Abdelkrim", "عبد الكريم"),
    ("Abdellatif", "عبد اللطيف"),
    ("Aicha", "عائشة"),
    ("Amina", "أمينة"),
    ("Anass", "أنس"),
    ("Brahim", "إبراهيم"),
    ("Driss", "إدريس"),
    ("Fatima Zahra", "فاطمة الزهراء"),
    ("Ghita", "غيثة"),
    ("Hamza", "حمزة"),
    ("Hassan", "حسن"),
    ("Hicham", "هشام"),
    ("Ilham", "إلهام"),
    ("Imane", "إيمان"),
    ("Jamila", "جميلة"),
    ("Karim", "كريم"),
    ("Khadija", "خديجة"),
    ("Lahcen", "لحسن"),
    ("Latifa", "لطيفة"),
    ("Malika", "مليكة"),
    ("Meryem", "مريم"),
    ("Mohamed", "محمد"),
    ("Mustapha", "مصطفى"),
    ("Nadia", "نادية"),
    ("Naima", "نعيمة"),
    ("Omar", "عمر"),
    ("Rachid", "رشيد"),
    ("Salma", "سلمى"),
    ("Samira", "سميرة"),
    ("Soufiane", "سفيان"),
    ("Tariq", "طارق"),
    ("Youssef", "يوسف"),
    ("Zineb", "زينب"),
)


def cnss_number(payload: int) -> str:
    """Return the nine-digit number of a seven-digit payload: 1, the payload, the check digit."""
    assert 0 <= payload < 10**7
    digits = f"1{payload:07d}"
    doubled = sum(int(d) for d in digits[1::2])
    single = sum(int(d) for d in digits[2::2])
    return f"{digits}{(10 - (2 * doubled + single) % 10) % 10}"


def register(*, contributors: int, seed: int, on: date) -> Iterator[dict[str, str]]:
    """Yield invented contributors, all registered by `on`; numbers and CINs are unique.

    Raises:
        ValueError: More are asked for than there are numbers, or the day is before FIRST_DAY.
    """
    if not 1 <= contributors <= CONTRIBUTORS_MAX:
        raise ValueError(f"from 1 to {CONTRIBUTORS_MAX} contributors can be invented")
    if on < FIRST_DAY:
        raise ValueError(f"nobody is registered before {FIRST_DAY.isoformat()}")
    draw = random.Random(seed)
    # From 1, since 100000000 is nobody's number.
    numbers = draw.sample(range(1, 10**7), contributors)
    cins = draw.sample(range(len(_CIN_PREFIXES) * _CIN_NUMBERS), contributors)
    days = (min(LAST_DAY, on) - FIRST_DAY).days
    for number, cin in zip(numbers, cins, strict=True):
        prefix, digits = divmod(cin, _CIN_NUMBERS)
        family, family_ar = draw.choice(_FAMILIES)
        given, given_ar = draw.choice(_GIVEN)
        artisan = draw.randrange(100) < _ARTISAN_PERCENT
        base = draw.randint(*draw.choice(_DUTIES))
        region = f"{draw.randint(1, 12):02d}"
        yield {
            "cnss_number": cnss_number(number),
            "cin": f"{_CIN_PREFIXES[prefix]}{100_000 + digits}",
            "family_name": family,
            "given_name": given,
            "family_name_ar": family_ar,
            "given_name_ar": given_ar,
            # One narrow block of mobile numbers, so that no list of people's phones comes of it.
            "phone": f"+2126000{draw.randrange(100_000):05d}",
            "language": "ar" if draw.randrange(100) < _ARABIC_PERCENT else "fr",
            "category": "artisan-untaxed" if artisan else "cpu",
            "category_base": "" if artisan else dirhams(base),
            "region": region,
            "province": "",
            "chamber": region,
            "registered_on": (FIRST_DAY + timedelta(days=draw.randint(0, days))).isoformat(),
            "left_on": "",
        }


def main(arguments: list[str] | None = None) -> int:
    """Write the register; return 0, or 2 if the call was wrong."""
    parser = argparse.ArgumentParser(description="Write a register of invented contributors.")
    parser.add_argument("--contributors", required=True, type=int)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument(
        "--on", default=LAST_DAY, type=date.fromisoformat, help="register nobody after this day"
    )
    options = parser.parse_args(arguments)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    try:
        people = register(contributors=options.contributors, seed=options.seed, on=options.on)
        writer.writerows(people)
        replace_file(options.out, text.getvalue())
    except (OSError, ValueError) as error:
        sys.stderr.write(f"register: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
