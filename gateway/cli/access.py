"""Commands about who may: keys of programs, people who can sign in."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.shared import database, json_flag, now, say


def _role(_context: object, _parameter: object, value: str) -> Any:
    from gateway.models import Role

    try:
        return Role(value)
    except ValueError:
        known = ", ".join(role.value for role in Role)
        raise click.BadParameter(f"{value!r} is not a role: choose one of {known}") from None


role_option = click.option("--role", required=True, callback=_role, help="What the holder may do.")


@click.group()
def keys() -> None:
    """Bearer keys of programs."""


@keys.command("create")
@role_option
@json_flag
def keys_create(role: Any, as_json: bool) -> None:
    """Create a bearer key; it is shown once."""
    with database():
        from gateway.db import transaction
        from gateway.staff import create_key

        with transaction() as session:
            key = create_key(session, role, now=now())
    say({"key": key}, as_json, "{key}")


@click.group()
def staff() -> None:
    """People who can sign in."""


@staff.command("add")
@role_option
@click.argument("name")
@json_flag
def staff_add(role: Any, name: str, as_json: bool) -> None:
    """Add a person; the password and the second factor are shown once."""
    with database():
        from gateway.db import transaction
        from gateway.settings import settings
        from gateway.staff import add_staff, sealing_key

        with transaction() as session:
            sealing = sealing_key(settings().keys_dir)
            added = add_staff(session, name, role, sealing=sealing, now=now())
    answer = {"name": added.name, "password": added.password, "totp": added.totp}
    say(answer, as_json, "{name}\npassword: {password}\nsecond factor: {totp}")
