"""Messages to people: what is due, what is late, what was paid, by a small protocol of senders.

`making` puts them in line, from what happened and from the calendar; `sending` words each when its
time has come, from the facts of that moment, and hands it to a `Sender`. A message is never about
anybody but the person it goes to, and names that person by initials only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.errors import ProviderAway, ProviderRefused


class SenderAway(ProviderAway):
    """Whether it was sent is not known; the same message may be handed over again."""


class SenderRefuses(ProviderRefused):
    """It will not be sent, however often it is handed over."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sender says of a message that it took."""

    sender_id: str
    """By which the sender knows it; empty where it says none."""


class Sender(Protocol):
    """Who takes messages to telephones."""

    @property
    def name(self) -> str:
        """What is kept beside the messages that it took."""
        ...

    def send(self, phone: str, text: str, *, message_id: str) -> Sent:
        """Hand a message over. Called inside no transaction, by several threads at once.

        Args:
            phone: In E.164, with its plus.
            text: As it is to be shown.
            message_id: Ours, and the same each time: who was handed it before sends it once.

        Raises:
            SenderAway, SenderRefuses: Nothing else, whatever a network and a server can do.
        """
        ...
