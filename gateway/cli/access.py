"""Commands about who may: keys of programs, people who can sign in."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.shared import database, json_flag, now, report


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
@click.option("--scope", help="A chamber's region, or a provider's name.")
@click.option("--label", default="", help="Whose it is, for whoever revokes it.")
@json_flag
def keys_create(role: Any, scope: str | None, label: str, as_json: bool) -> None:
    """Create a bearer key; it is shown once."""
    with database():
        from gateway.db import transaction
        from gateway.staff import SCOPED, create_key

        with transaction() as session:
            key = create_key(session, role, now=now(), scope=scope, label=label)
            warning = _warning(session, role, scope) if role in SCOPED else None
    if warning is not None:
        click.echo(f"wasl: {warning}", err=True)
    report({"key": key}, as_json, "{key}")


def _warning(session: Any, role: Any, scope: str | None) -> str | None:
    """Say of a key that sees a part of the whole why it sees nothing, if it does."""
    from gateway.models import Role
    from gateway.process import providers
    from gateway.staff import is_region

    what = {"chamber": "region", "provider": "name"}[role.value]
    if scope is None:
        return (
            f"without --scope this {role.value} sees nobody and nothing: name its {what} to have it"
            " see its own."
        )
    if role is Role.CHAMBER and not is_region(session, scope):
        return "no contributor is of this region: until one is, the key sees nobody and nothing."
    if role is Role.PROVIDER and scope.strip() not in (known := providers()):
        return (
            "the providers file has no provider of this name: until it has, the key sees nothing."
            f" It has {', '.join(sorted(known)) or 'none'}."
        )
    return None


@keys.command("list")
@json_flag
def keys_list(as_json: bool) -> None:
    """List the keys, revoked ones too; no secret is shown."""
    with database():
        from gateway.db import snapshot
        from gateway.staff import list_keys

        with snapshot() as session:
            found = [
                {
                    "id": key.id,
                    "role": key.role.value,
                    "scope": key.scope,
                    "label": key.label,
                    "created_at": key.created_at.isoformat(),
                    "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
                }
                for key in list_keys(session)
            ]
    if as_json:
        report({"keys": found}, as_json, "")
        return
    for each in found:
        shown = {name: value or "-" for name, value in each.items()}
        since = "revoked {revoked_at}" if each["revoked_at"] else "since {created_at}"
        report(shown, as_json, "{id}  {role}  scope {scope}  label {label}  " + since)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@json_flag
def keys_revoke(key_id: str, as_json: bool) -> None:
    """Have a key open nothing from now on."""
    with database():
        from gateway.db import transaction
        from gateway.staff import revoke_key

        with transaction() as session:
            key = revoke_key(session, key_id, now=now())
    assert key.revoked_at is not None
    answer = {"id": key.id, "revoked_at": key.revoked_at.isoformat()}
    report(answer, as_json, "{id} opens nothing since {revoked_at}")


@click.group()
def staff() -> None:
    """People who can sign in."""


@staff.command("add")
@role_option
@click.argument("name")
@json_flag
def staff_add(role: Any, name: str, as_json: bool) -> None:
    """Add a person; the password and the second factor are shown once.

    The pages to sign in to are not there yet.
    """
    with database():
        from gateway.db import transaction
        from gateway.settings import settings
        from gateway.staff import add_staff, sealing_key

        with transaction() as session:
            sealing = sealing_key(settings().keys_dir)
            added = add_staff(session, name, role, sealing=sealing, now=now())
    answer = {"name": added.name, "password": added.password, "totp": added.totp}
    report(answer, as_json, "{name}\npassword: {password}\nsecond factor: {totp}")
