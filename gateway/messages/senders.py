"""Who takes messages to telephones: an SMS gateway over plain HTTP, or nobody, in a sandbox.

The gateway is posted `{"id","to","from","text"}` under a bearer, and answers 2xx with
`{"id": its own}`. The same `id` again is the same message: an operator whose interface has no such
word needs an adapter of its own.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import ProviderAway, ProviderRefused, Unusable
from gateway.messages import Sender, SenderAway, SenderRefuses, Sent
from gateway.providers.asking import DoneBefore, is_trusted_address, post_json
from gateway.settings import Settings

SENDER_CHARS_MAX: Final = 11
_SENDER = re.compile(rf"[A-Za-z0-9 ]{{1,{SENDER_CHARS_MAX}}}|\+[0-9]{{5,15}}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,250}", re.ASCII)
ID_CHARS_MAX: Final = 200
_UNPRINTED = re.compile(r"[^!-~]")
_ABOUT_THE_MESSAGE: Final = frozenset({400, 413, 422})
"""Answers by which a gateway refuses this message, and would refuse it again."""


class HttpSms:
    """An SMS gateway."""

    name: Final = "http"

    def __init__(self, url: str, key: str, sender: str) -> None:
        """Take the settings.

        Raises:
            Unusable: One of them means nothing, or would show texts and numbers to a network.
        """
        if not is_trusted_address(url):
            raise Unusable("WASL_SMS_URL is not https://… (http only on this machine itself).")
        if not _KEY.fullmatch(key):
            raise Unusable("WASL_SMS_KEY is not 1 to 250 visible ASCII characters.")
        if not _SENDER.fullmatch(sender):
            raise Unusable(
                f"WASL_SMS_SENDER is not 1 to {SENDER_CHARS_MAX} letters and digits, or a number."
            )
        self._url = url
        self._key = key
        self._sender = sender

    def send(self, phone: str, text: str, *, message_id: str) -> Sent:
        """Hand a message over (see Sender)."""
        said = {"id": message_id, "to": phone, "from": self._sender, "text": text}
        try:
            answer = post_json(self._url, said, {"Authorization": f"Bearer {self._key}"})
        except DoneBefore:
            return Sent("")
        except ProviderRefused as error:
            if error.status not in _ABOUT_THE_MESSAGE:
                # No credit, no such address: of all messages, until somebody mends it.
                raise SenderAway(str(error)) from None
            raise SenderRefuses(str(error)) from None
        except ProviderAway as error:
            raise SenderAway(str(error)) from None
        return Sent(_UNPRINTED.sub("", str(answer.get("id", "")))[:ID_CHARS_MAX])


class Sandbox:
    """Takes everything, and sends nothing: what it took is shown on a page."""

    name: Final = "sandbox"

    def send(self, phone: str, text: str, *, message_id: str) -> Sent:  # noqa: ARG002
        """Take a message (see Sender)."""
        return Sent(message_id)


def sender_of(settings: Settings) -> Sender | None:
    """Return who takes this installation's messages; None: nobody does, so none are made.

    Raises:
        Unusable: A setting means nothing.
    """
    if settings.sms_url:
        key = settings.sms_key.get_secret_value() if settings.sms_key else ""
        return HttpSms(settings.sms_url, key, settings.sms_sender)
    return Sandbox() if settings.mode == "sandbox" else None
