"""The environment as typed settings, read once by the process that starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.clock import Clock, clock_from
from gateway.errors import Unusable


class Settings(BaseSettings):
    """What `WASL_…` variables say. Each has a default that suits a first trial."""

    model_config = SettingsConfigDict(env_prefix="WASL_", env_ignore_empty=True, frozen=True)

    home: Path = Path(".wasl")
    """Where the embedded services, keys and files live."""

    database_url: SecretStr | None = None
    """PostgreSQL; unset means the embedded one. Secret because it may bear a password."""

    redis_url: SecretStr | None = None
    """Redis or Valkey; unset means the embedded one."""

    mode: Literal["sandbox", "production"] = "sandbox"
    base_url: str = "http://127.0.0.1:8000"
    """Public address, printed on what people hold in their hands."""

    providers: Path | None = None
    """The providers file; unset means the sandbox's own, in the home."""

    institution: Path | None = None
    """The file of who collects, as printed; unset means the one that is shipped."""

    tariff: Path | None = None
    """The file of what the law asks; unset means the one that is shipped."""

    campaigns: Path | None = None
    """The file of remission campaigns and of the rule of plans; unset means the one shipped."""

    retention: Path | None = None
    """The file of how long what names people is kept; unset means the one that is shipped."""

    messages: Path | None = None
    """The file of when people are written to; unset means the one that is shipped."""

    sms_url: str = ""
    """Where messages to telephones are posted; unset: a sandbox shows them on a page of its own,
    and production sends none."""

    sms_key: SecretStr | None = None
    """Our bearer there."""

    sms_sender: str = "CNSS"
    """Whom a telephone shows them from: at most eleven letters and digits."""

    dialects: Path | None = None
    """The file of what agents' settlement files look like; unset means the one that is shipped."""

    trusted_proxies: str = ""
    """Addresses, by commas, whose `X-Forwarded-For` names the client; `none`: nobody's does."""

    metrics_token: SecretStr | None = None
    """The bearer token that `/metrics` asks for; unset means that only this machine may read."""

    reconcile_at: str = "05:00"
    """When the day's run of reconciliation begins, in Casablanca, as 05:00; `never`: on demand."""

    clock: str | None = None
    """Sandbox only: where the business clock starts (see gateway.clock)."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("base_url")
    @classmethod
    def _printable(cls, base_url: str) -> str:
        """It is printed in codes on paper: what no phone would open is refused at the start."""
        try:
            parts = urlsplit(base_url)
            wrong = parts.port == 0
        except ValueError:
            wrong = True
        plain = f"{parts.scheme}://{parts.netloc}{parts.path}" if not wrong else ""
        if (
            plain != base_url
            or parts.scheme not in {"http", "https"}
            or not parts.hostname
            or "@" in parts.netloc
            or not base_url.isascii()
            or any(c.isspace() for c in base_url)
        ):
            raise ValueError("give an address as https://pay.example.ma, without ? or #")
        return base_url.rstrip("/")

    @field_validator("reconcile_at")
    @classmethod
    def _time_of_day(cls, reconcile_at: str) -> str:
        if reconcile_at != "never" and not re.fullmatch(
            r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", reconcile_at, re.ASCII
        ):
            raise ValueError("give a time of day as 05:00, or say never")
        return reconcile_at

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, trusted_proxies: str) -> str:
        if trusted_proxies in {"", "none"}:
            return trusted_proxies
        listed = [each.strip() for each in trusted_proxies.split(",")]
        for each in listed:
            try:
                network = ip_network(each, strict=False)
            except ValueError:
                raise ValueError(
                    f"{each!r} is no address: list them by commas, as 10.0.0.1, or say none"
                ) from None
            if network.prefixlen == 0:
                raise ValueError(
                    f"{each!r} is everybody, who could then choose the address he is counted by:"
                    " name the proxy in front"
                )
        return ",".join(listed)

    def proxies(self) -> str | None:
        """Return whose `X-Forwarded-For` is believed, by commas; None: nobody's.

        Raises:
            Unusable: Production does not say. Behind a proxy that is not named all payers would be
                one client, and five who mistype would shut the door for everybody.
        """
        if not self.trusted_proxies and self.mode == "production":
            raise Unusable(
                "WASL_TRUSTED_PROXIES is not set: name the addresses of the proxy in front, or say"
                " none if there is no proxy."
            )
        return None if self.trusted_proxies in {"", "none"} else self.trusted_proxies

    @property
    def daily_run_at(self) -> time | None:
        """When the day's run of reconciliation begins, in Casablanca; None: never by itself."""
        return None if self.reconcile_at == "never" else time.fromisoformat(self.reconcile_at)

    def payer_link(self, reference: str) -> str:
        """Return the address of an invoice's page: what the code for phones holds."""
        return f"{self.base_url}/{reference}"

    def receipt_link(self, number: str) -> str:
        """Return the address where a receipt can be checked."""
        return f"{self.base_url}/verify/{number}"

    @property
    def keys_dir(self) -> Path:
        """Where private keys live: outside the database, which they vouch for."""
        return self.home / "keys"

    @property
    def heads_file(self) -> Path:
        """Where the signed heads of the books are appended, outside the database."""
        return self.home / "books" / "heads.jsonl"

    @property
    def providers_file(self) -> Path:
        return self.providers or self.home / "providers.toml"

    def business_clock(self) -> Clock:
        """Return the only clock that decisions may read."""
        if self.clock and self.mode == "production":
            raise Unusable("WASL_CLOCK is set in production: a test clock is for the sandbox only.")
        return clock_from(self.clock)


@cache
def settings() -> Settings:
    """Return the settings of this process.

    Raises:
        Unusable: Variables have values that mean nothing; there is a sentence for each.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise Unusable(" ".join(_sentence(wrong) for wrong in error.errors())) from None


def readable_settings() -> tuple[Settings, dict[str, str]]:
    """Return the settings as far as they can be read, and a sentence for each that cannot.

    One that cannot is as if it were not set; its sentence is found by its variable's name.
    """
    try:
        return Settings(), {}
    except ValidationError as error:
        wrong = {str(each["loc"][0]): _sentence(each) for each in error.errors()}
    kept: dict[str, Any] = {name: Settings.model_fields[name].get_default() for name in wrong}
    return Settings(**kept), {_variable(name): said for name, said in wrong.items()}


def in_plain_words(wrong: Mapping[str, Any]) -> str:
    """Return what a validator says of a value, without its own jargon."""
    context = wrong.get("ctx", {})
    match wrong["type"]:
        case "literal_error":
            return f"it must be {context['expected']}"
        case "extra_forbidden":
            return "there is no such setting"
        case "missing":
            return "it is not there"
        case "value_error":
            return str(context["error"])
    return _PLAIN.get(wrong["type"], str(wrong["msg"]).replace("Input should be", "it must be"))


_PLAIN: Final = {
    "list_type": 'it must be a list, as ["…"]',
    "string_type": "it must be a text between quotes",
    "path_type": "it must be the path of a file",
}


def _variable(name: str) -> str:
    return f"WASL_{name.upper()}"


def _sentence(wrong: Mapping[str, Any]) -> str:
    # An address may bear a password, and what is said ends in logs.
    value = " is not usable" if "@" in str(wrong["input"]) else f" is {wrong['input']!r}"
    return f"{_variable(str(wrong['loc'][0]))}{value}: {in_plain_words(wrong)}."
