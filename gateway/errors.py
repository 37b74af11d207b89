"""Every error this system raises on purpose.

WaslError
├── Unusable        the call, a file or a setting is wrong: one plain sentence, exit 2
│   └── Unavailable a service we need does not answer: one plain sentence, exit 2, safe to retry
├── ProviderAway    a provider that we asked gives no answer: ask again
│   └── ProviderRefused it answers no: asking the same again is of no use
├── BadSignature    a delivery that we cannot authenticate: 400, nothing kept
└── TransferMismatch  the books hold another transfer under this name: a bug

Anything else that escapes is a bug too.
"""


class WaslError(Exception):
    """Base of the errors above. Its text is one sentence for the person who can mend it."""


class Unusable(WaslError):
    """What was asked cannot be done as asked. Says what, where, and what to do."""


class Unavailable(Unusable):
    """PostgreSQL or Redis cannot be reached or started."""


class ProviderAway(WaslError):
    """A provider that was asked gave no answer that can be used. Safe to ask again."""


class ProviderRefused(ProviderAway):
    """A provider says no to what was asked as it was asked. The text has its word, no secret.

    Attributes:
        status: Of its HTTP answer, where that is how it said so.
    """

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class BadSignature(WaslError):
    """A webhook delivery is not authentic. The text names the check, never the secret."""


class TransferMismatch(WaslError):
    """A transfer was posted before under the same name with other content."""
