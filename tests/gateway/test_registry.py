from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.errors import Unusable
from gateway.providers.registry import SANDBOX_PROVIDERS, load_providers, read_providers
from gateway.settings import Settings
from tests.factories import SECRET

GOOD = f"""
[[provider]]
name = "cashplus"
kind = "standard-webhooks"
secrets = ["{SECRET}"]
"""


def test_the_sandbox_makes_its_own_file_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert sorted(load_providers(settings)) == sorted(SANDBOX_PROVIDERS)
    made = settings.providers_file.read_bytes()
    load_providers(settings)
    assert settings.providers_file.read_bytes() == made
    assert stat.S_IMODE(settings.providers_file.stat().st_mode) == 0o600


def test_production_makes_up_no_secrets(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="WASL_PROVIDERS"):
        load_providers(Settings(home=tmp_path, mode="production"))
    assert not (tmp_path / "providers.toml").exists()


def test_a_sandbox_file_is_not_taken_into_production(tmp_path: Path) -> None:
    load_providers(Settings(home=tmp_path))
    with pytest.raises(Unusable, match="WASL_PROVIDERS"):
        load_providers(Settings(home=tmp_path, mode="production"))


def test_a_secret_may_come_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace(f'secrets = ["{SECRET}"]', 'secrets_env = "A_SECRET"')
    with pytest.raises(Unusable, match="A_SECRET is not set"):
        read_providers(text, "file")
    monkeypatch.setenv("A_SECRET", SECRET)
    assert list(read_providers(text, "file")) == ["cashplus"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[[provider", "not TOML"),
        ('provider = "x"', r"\[\[provider\]\]"),
        (GOOD + GOOD, "two providers are named cashplus"),
        (GOOD.replace("cashplus", "Cash Plus"), "provider 1"),
        (GOOD.replace("standard-webhooks", "carrier-pigeon"), "standard-webhooks"),
        (GOOD.replace(SECRET, "whsec_c2hvcnQ="), "24 to 64 bytes"),
        (GOOD.replace(SECRET, "secret"), "whsec_"),
        (GOOD.replace("secrets", "secret"), "secret"),
        (GOOD.replace('"standard-webhooks"', "[1]"), "its kind is not one of"),
        (GOOD.replace(f'["{SECRET}"]', "5"), "secrets"),
        (GOOD.replace(f'secrets = ["{SECRET}"]', ""), "neither"),
        (GOOD + "\n[providers]\n", "providers is not known"),
        (GOOD + 'public_keys = ["whpk_AAAA"]', "32 bytes"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(text: str, word: str) -> None:
    with pytest.raises(Unusable, match=word) as refused:
        read_providers(text, "providers.toml")
    assert SECRET not in str(refused.value)


def test_one_secret_under_two_names_would_book_twice() -> None:
    stripe = (
        '[[provider]]\nname = "{}"\nkind = "stripe"\nsecrets = ["whsec_{}"]\n'
        'api_key = "sk_test_{}"\n'
    )
    read_providers(
        stripe.format("a", "a" * 12, "12345") + stripe.format("b", "b" * 12, "6789"), "f"
    )
    for secret, key in (("a", "6789"), ("b", "12345")):
        both = stripe.format("a", "a" * 12, "12345") + stripe.format("b", secret * 12, key)
        with pytest.raises(Unusable, match="a and b have the same"):
            read_providers(both, "f")
    both = GOOD + GOOD.replace('name = "', 'name = "other-')
    with pytest.raises(Unusable, match="have the same secrets") as raised:
        read_providers(both, "f", live=True)
    assert SECRET not in str(raised.value)
    # What one private key signs is authentic under both names.
    public = GOOD.replace(f'secrets = ["{SECRET}"]', f'public_keys = ["whpk_{"A" * 43}="]')
    both = public + public.replace('name = "', 'name = "other-')
    with pytest.raises(Unusable, match="have the same public_keys"):
        read_providers(both, "f", live=True)


def test_a_file_may_name_nobody() -> None:
    assert read_providers("", "f", live=True) == read_providers("", "f") == {}
