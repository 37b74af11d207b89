"""One name in its spellings: Latin and Arabic, Python and both databases."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import db
from reconciliation.names import NAME_MAX, sql_tokens, tokens

SPELLINGS = """
Mohammed Alaoui = محمد العلوي
Mohamed El Alaoui = محمد العلوي
M'hamed Bennani = محمد بناني
Ahmed Benjelloun = أحمد بنجلون
Fatima-Zahra Tazi = فاطمة الزهراء التازي
Fatima Ezzahra Idrissi = فاطمة الزهراء الإدريسي
Khadija Berrada = خديجة برادة
Youssef Amrani = يوسف العمراني
Omar Chraibi = عمر الشرايبي
Aïcha Cherkaoui = عائشة الشرقاوي
Hassan Filali = حسن الفيلالي
Saïd Hajji = سعيد الحاجي
Karim Kabbaj = كريم القباج
Nadia Lahlou = نادية لحلو
Samira Mansouri = سميرة المنصوري
Hamza Naciri = حمزة الناصري
Zineb Ouazzani = زينب الوزاني
Salma Rhazi = سلمى غازي
Imane Sebti = إيمان السبتي
Abdellah Skalli = عبد الله الصقلي
Abdallah Tahiri = عبدالله الطاهري
Mustapha Yacoubi = مصطفى اليعقوبي
Driss Zniber = ادريس زنيبر
Idriss Benkirane = إدريس بنكيران
Brahim Bouazza = ابراهيم بوعزة
Latifa Chaoui = لطيفة الشاوي
Naïma Daoudi = نعيمة الداودي
Malika Echcherif = مليكة الشريف
Hicham Farouk = هشام فاروق
Anas Ghazali = أنس الغزالي
Amine Haddad = أمين الحداد
Ayoub Jabri = أيوب الجابري
Sara Karimi = سارة الكريمي
Hafsa Mernissi = حفصة المرنيسي
Ilham Najib = إلهام نجيب
Elham Najib = الهام نجيب
Jamal Oukacha = جمال أوكاشة
Khalid Radi = خالد الراضي
Mehdi Saidi = المهدي السعيدي
Noureddine Touzani = نور الدين التوزاني
Othmane Zeroual = عثمان زروال
Redouane Belhaj = رضوان بلحاج
Soufiane Bouchta = سفيان بوشتى
Tarik El Khatib = طارق الخطيب
Yassine Elkhatib = ياسين الخطيب
Zakaria Essaidi = زكرياء السعيدي
Houda Hamdaoui = هدى الحمداوي
Loubna Kettani = لبنى الكتاني
Mounia Moutawakil = منية المتوكل
Rajae Slaoui = رجاء السلاوي
Siham Benhima = سهام بنهيمة
Touria Ben Jelloun = ثريا بن جلون
Wafae Ait Lahcen = وفاء أيت لحسن
Abdelhadi Ouafi = عبد الهادي الوافي
Abderrahim Abdessamad = عبد الرحيم عبد الصمد
Abdel Hak Mouncef = عبد الحق منصف
Salah Fattah = صلاح فتاح
Hayat Hocine = حياة حسين
Cheikh Yahya = الشيخ يحيى
Abdeddaim Elias = عبد الدائم الياس
Mohammed Bennani = M'HAMED BENANI = Med. Bennani
Abdelhadi Ouafi = Abd El Hadi OUAFI = Abdelhadi Wafi
Fatima-Zahra Tazi = Fatma Zahra  TAZI
Youssef El Khatib = Elkhatib Yousef = يوسف الخطيب
"""
LETTERS = "aelbdhkgcxsnm ABDEL'.-éÇœ:اأبدلعهةحمن ـَ\u00a0\u200f7"


@pytest.mark.parametrize("line", SPELLINGS.strip().splitlines())
def test_spellings_of_one_name_agree(line: str) -> None:
    spellings = line.split(" = ")
    assert {tokens(spelling) for spelling in spellings} == {tokens(spellings[0])}
    assert tokens(spellings[0])


def test_words_are_their_consonants() -> None:
    assert tokens("M. Khadija Bennani") == ("bnn", "kdj", "m")
    assert tokens("Aya Ou 77 李") == ()
    assert tokens("Hassan Alaoui") != tokens("Hasna Alami")
    # A text longer than any name is none: names are compared word by word.
    assert tokens("Ali" + " " * (NAME_MAX - 3)) == tokens("Ali")
    assert tokens("Ali" + " " * NAME_MAX) == ()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(st.text(LETTERS, max_size=30), min_size=20, max_size=40))
def test_databases_say_the_same(names: list[str], database: str) -> None:
    names = [*names, "b " * NAME_MAX, "é" * NAME_MAX, "é" * NAME_MAX + " b"]
    names = [*names, *(name for line in SPELLINGS.splitlines() for name in line.split(" = "))]
    expected = [list(tokens(name)) for name in names]
    with duckdb.connect() as con:
        query = f"SELECT {sql_tokens('n', 'duckdb')} FROM (SELECT unnest($1::VARCHAR[]) n)"
        assert [words for (words,) in con.execute(query, [names]).fetchall()] == expected
        ascii_only = [name if name.isascii() else "" for name in names]
        query = query.replace(sql_tokens("n", "duckdb"), sql_tokens("n", "duckdb", is_ascii=True))
        said = [words for (words,) in con.execute(query, [ascii_only]).fetchall()]
        assert said == [list(tokens(name)) for name in ascii_only]
    with db.snapshot() as session:
        rows = db.execute(
            session,
            f"SELECT {sql_tokens('n', 'postgresql')}"
            " FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS t (n, at) ORDER BY at",
            {"names": names},
        ).scalars()
        assert list(rows) == expected
