"""What a provider is asked for an attempt, and the form that leads to a bank's page, made again.

Such a form is signed and kept nowhere: of the same attempt the same wish makes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from gateway.collection.attempt_rows import Attempt
from gateway.models import AttemptState, Manner
from gateway.providers import MadePage, PageProvider, Provider, WantedPage

REUSED_WITHIN: Final = timedelta(minutes=2)
"""A page that ends sooner is no good to send a payer to."""


def wanted_page(provider: PageProvider, attempt: Attempt, link: str, phone: str = "") -> WantedPage:
    """Return what a provider is asked to make for an attempt.

    Args:
        provider: Who makes it.
        attempt: What is to be paid.
        link: The reference's page (our address, a slash, the reference).
        phone: Whom to ask, where the provider asks on a phone.
    """
    return WantedPage(
        attempt_id=attempt.id,
        reference=attempt.reference,
        amount_minor=attempt.amount_minor,
        language=attempt.language,
        back=f"{link}?card=back&lang={attempt.language}",
        left=f"{link}?card=left&lang={attempt.language}",
        expires_at=attempt.expires_at,
        notify_url=f"{link.rpartition('/')[0]}/webhooks/{provider.name}",
        phone=phone if attempt.manner is Manner.PUSH else "",
    )


def form_again(
    providers: Mapping[str, Provider], attempt: Attempt, due_minor: int, *, link: str, now: datetime
) -> MadePage | None:
    """Return the form that leads on to the page of an attempt; None: no form leads there now.

    Changes nothing, and asks nobody: of a form nobody is asked.

    Args:
        providers: Who is switched on.
        attempt: The latest of its reference.
        due_minor: What is to be paid now; a form for another amount leads nobody on.
        link: The reference's page.
        now: The business clock.

    Raises:
        ProviderRefused: The provider makes no page for this any more.
    """
    provider = providers.get(attempt.provider)
    by_form = attempt.manner is Manner.PAGE and not attempt.page_url
    if not isinstance(provider, PageProvider) or attempt.state is not AttemptState.SENT:
        return None
    if not by_form or attempt.amount_minor != due_minor or attempt.expires_at - now < REUSED_WITHIN:
        return None
    made = provider.make_page(wanted_page(provider, attempt, link))
    return made if made.fields else None
