"""The `wasl` command. Each subcommand opens its services, calls one function, and says what came.

With `--json` one object goes to standard output and nothing else does; progress and logs go to
standard error. Exit 0: done. 1: the answer is no. 2: the call was wrong, in one sentence.
Features are imported when their command runs, so that `--help` answers at once. A new command is
written in the module of its room and listed here.
"""

from __future__ import annotations

import signal
import sys

import click

from gateway.cli import (
    access,
    backups,
    bundles,
    deliveries,
    dues,
    endpoints,
    institution,
    matching,
    messages,
    plans,
    privacy,
    quotes,
    reassessment,
    receipts,
    refunds,
    running,
    sending,
    settlements,
    soak,
    standing,
)
from gateway.cli.shared import Refused
from gateway.errors import Unusable


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def wasl() -> None:
    """Wasl: bill contributions, collect them, book them, reconcile them."""


for command in (
    running.up,
    running.migrate,
    running.check_settings,
    running.demo,
    soak.soak,
    running.verify,
    running.bench,
    dues.contributors,
    dues.invoices,
    dues.notices,
    quotes.quote,
    bundles.bundles,
    plans.plans,
    plans.remissions,
    receipts.receipts,
    refunds.refunds,
    institution.records,
    settlements.settlements,
    institution.reconcile,
    matching.match,
    institution.matches,
    institution.export,
    messages.messages,
    deliveries.deliveries,
    endpoints.endpoints,
    sending.sending,
    backups.backup,
    backups.restore,
    access.keys,
    access.staff,
):
    wasl.add_command(command)
for command in (
    *reassessment.OF_CONTRIBUTORS,
    *standing.OF_CONTRIBUTORS,
    *privacy.OF_CONTRIBUTORS,
):
    dues.contributors.add_command(command)
for command in reassessment.OF_INVOICES:
    dues.invoices.add_command(command)


def main() -> None:
    """Run the command line; end the process with its exit code."""
    # As an exception, so that a command which runs the services for others stops them in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        wasl.main(prog_name="wasl", standalone_mode=False)
        sys.stdout.flush()
    except Refused:
        sys.exit(1)
    except Unusable as error:
        _fail(str(error))
    except click.exceptions.Abort:
        click.echo("wasl: stopped; run it again to go on where it was.", err=True)
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        command = error.ctx.command_path if error.ctx else "wasl"
        _fail(f"Say what to do: {command} --help lists it.")
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "wasl"
        _fail(f"{error.format_message().rstrip('.')}. Try {where} --help.")
    except click.ClickException as error:
        _fail(error.format_message())
    except OSError as error:
        # Standard output is full or closed, for one; what commands open they report themselves.
        _fail(f"{error.strerror or type(error).__name__}.")


def _fail(sentence: str) -> None:
    click.echo(f"wasl: {sentence}", err=True)
    sys.exit(2)
